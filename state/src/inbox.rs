//! The inbox: webhook events that were promised to their sender and are not yet in the flow.
//!
//! In: opaque bytes, answered only once they survive a power cut. Out: the same bytes in the order of their arrival,
//! until they are removed.
//!
//! # After a crash
//! An event whose [`Inbox::push`] resolved is there. An event that was removed shortly before may come again: whoever
//! reads the inbox must bear repeats.
//!
//! # On disk
//! An event lies in parts of 4 KiB, the first part written last: an event whose first part is there is whole.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::keyspace::{INBOX, MAX_VALUE_BYTES};
use crate::store::Store;
use crate::{InboxError, StateError};

/// The largest event: twice what the webhook accepts.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The bytes of an event in one part; the first part has its length as well.
const PART_BYTES: usize = MAX_VALUE_BYTES - LENGTH_BYTES;
/// The size of the length in front of the first part.
const LENGTH_BYTES: usize = 4;

/// The place of an event in the inbox; later events have greater ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxId(u64);

/// The durable inbox; clones share it.
#[derive(Debug, Clone)]
pub struct Inbox {
    shelf: Arc<Inner>,
    store: Store,
}

/// The events, shared by all handles.
#[derive(Debug)]
struct Inner {
    tree: sled::Tree,
    capacity: usize,
    len: AtomicUsize,
    /// The next id; held while an event is written, so that ids become visible in their order.
    next: Mutex<u64>,
    arrived: Notify,
}

impl Inbox {
    /// Opens the inbox, without what a crash left half written.
    pub(crate) fn open(store: &Store, capacity: usize) -> Result<Self, StateError> {
        let tree = store.own_tree(INBOX)?;
        let (mut whole, mut last, mut orphans) = (HashSet::new(), 0, Vec::new());
        for key in tree.iter().keys() {
            let key = key?;
            let (id, part) = decode_key(&key)?;
            last = last.max(id);
            if part == 0 {
                whole.insert(id);
            } else if !whole.contains(&id) {
                orphans.push(key);
            }
        }
        for orphan in orphans {
            tree.remove(orphan)?;
        }
        let (len, next, arrived) = (whole.len().into(), Mutex::new(last + 1), Notify::new());
        Ok(Self { shelf: Arc::new(Inner { tree, capacity, len, next, arrived }), store: store.clone() })
    }

    /// Takes an event in; it survives a power cut once this resolves.
    pub async fn push(&self, event: &[u8]) -> Result<InboxId, InboxError> {
        if event.len() > MAX_EVENT_BYTES {
            return Err(InboxError::TooLarge { limit: MAX_EVENT_BYTES });
        }
        let shelf = &self.shelf;
        let admitted = shelf
            .len
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |len| (len < shelf.capacity).then_some(len + 1));
        if admitted.is_err() {
            return Err(InboxError::Full { capacity: shelf.capacity });
        }
        let id = shelf.write(event).inspect_err(|_| {
            shelf.len.fetch_sub(1, Ordering::AcqRel);
        })?;
        shelf.arrived.notify_one();
        self.store.commit().await?;
        Ok(id)
    }

    /// Up to `limit` events after `after`, in the order of their arrival; some may not be durable yet.
    pub fn next(&self, after: Option<InboxId>, limit: usize) -> Result<Vec<(InboxId, Vec<u8>)>, StateError> {
        let first = after.map_or(0, |InboxId(id)| id.saturating_add(1));
        let mut events: Vec<(InboxId, Vec<u8>)> = Vec::new();
        let mut missing = 0;
        for entry in self.shelf.tree.range(key(first, 0)..) {
            let (key, value) = entry?;
            match (decode_key(&key)?, events.last_mut()) {
                ((id, 0), _) => {
                    if missing > 0 {
                        events.pop(); // removed while it was read
                    }
                    if events.len() == limit {
                        return Ok(events);
                    }
                    let (length, bytes) = value
                        .split_first_chunk::<LENGTH_BYTES>()
                        .ok_or_else(|| StateError::damaged("an event in the inbox has no length"))?;
                    missing = (u32::from_be_bytes(*length) as usize).saturating_sub(bytes.len());
                    events.push((InboxId(id), bytes.to_vec()));
                }
                ((id, _), Some((InboxId(of), bytes))) if *of == id => {
                    bytes.extend_from_slice(&value);
                    missing = missing.saturating_sub(value.len());
                }
                // Parts without a first one are still being written.
                _ => {}
            }
        }
        if missing > 0 {
            events.pop();
        }
        Ok(events)
    }

    /// Takes an event out; gone for good at the next commit, until then a crash brings it back.
    pub fn remove(&self, id: InboxId) -> Result<(), StateError> {
        // The first part goes first: without it the rest is nothing.
        let first = self.shelf.tree.remove(key(id.0, 0))?;
        if first.is_some() {
            self.shelf.len.fetch_sub(1, Ordering::AcqRel);
        }
        for rest in self.shelf.tree.range(key(id.0, 1)..=key(id.0, u16::MAX)).keys() {
            self.shelf.tree.remove(rest?)?;
        }
        Ok(())
    }

    /// Resolves when an event has arrived since the last call resolved; it may resolve once too often, never too
    /// rarely. For one reader.
    pub async fn wait(&self) {
        self.shelf.arrived.notified().await;
    }

    /// How many events are in the inbox.
    pub fn len(&self) -> usize {
        self.shelf.len.load(Ordering::Acquire)
    }

    /// Whether the inbox is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn write(&self, event: &[u8]) -> Result<InboxId, StateError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next;
        *next += 1;
        let (head, tail) = event.split_at(event.len().min(PART_BYTES));
        for (part, bytes) in (1u16..).zip(tail.chunks(PART_BYTES)) {
            self.tree.insert(key(id, part), bytes)?;
        }
        let mut first = (event.len() as u32).to_be_bytes().to_vec();
        first.extend_from_slice(head);
        self.tree.insert(key(id, 0), first)?;
        Ok(InboxId(id))
    }
}

fn key(id: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

fn decode_key(key: &[u8]) -> Result<(u64, u16), StateError> {
    let parts = key.split_first_chunk::<8>().and_then(|(id, part)| Some((id, part.try_into().ok()?)));
    let (id, part) = parts.ok_or_else(|| StateError::damaged("the inbox has an unreadable key"))?;
    Ok((u64::from_be_bytes(*id), u16::from_be_bytes(part)))
}

#[cfg(test)]
mod tests;
