//! The embedded queue: one sled tree, in the order in which messages become due.
//!
//! A message stays in the tree until it is acknowledged; what is in flight is known in memory only. So a crash
//! delivers every unsettled message again, and nothing has to be written when one is taken but its count.
//!
//! Memory is bounded by the prefetch, not by the backlog.

use std::collections::BTreeSet;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use model::{ContactEvent, ConversationKey, Lane};
use runtime::{Clock, task};
use state::{StateError, Store};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::{
    entry::{QueueKey, body_of, count_of, due_of, entry_value, lane_byte},
    settle::EmbeddedSettle,
};
use super::{Backlog, DELIVERY_LIMIT, Queue, QueueDelivery, QueueError};

mod entry;
mod settle;

/// The tree in the local state.
const TREE: &str = "queue";

/// The longest sleep between two looks at the tree, in case the wall clock jumps.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// A message that was delivered so often without being settled may be what ends the process. Such suspects are
/// delivered one at a time and after all others, so that the innocent are settled and the guilty one alone is counted.
const SUSPECT: u32 = 3;

/// Entries of a lane that one look passes over: those in flight and the suspects.
const MOST_LOOKED_AT: usize = 4_096;

/// The messages of a lane are counted up to here; a longer count would make the metrics slow.
const MOST_COUNTED: usize = 100_000;

/// A durable queue with delays in the local state.
#[derive(Clone)]
pub struct EmbeddedQueue {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    tree: sled::Tree,
    clock: Clock,
    sequence: AtomicU64,
    in_flight: Mutex<BTreeSet<QueueKey>>,
    suspect_in_flight: AtomicBool,
    changed: Notify,
}

impl EmbeddedQueue {
    /// Opens the queue in the local state.
    pub fn open(store: &Store, clock: Clock) -> Result<Self, StateError> {
        let tree = store.tree(TREE)?;
        // Later than every sequence of an earlier run, so that equal due times keep their order.
        let sequence = AtomicU64::new(u64::try_from(clock.now().as_microsecond()).unwrap_or_default());
        let inner = Inner {
            store: store.clone(),
            tree,
            clock,
            sequence,
            in_flight: Mutex::new(BTreeSet::new()),
            suspect_in_flight: AtomicBool::new(false),
            changed: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl EmbeddedQueue {
    /// Reads every message; counts those of a conversation for which `act` is true.
    async fn of(
        &self,
        conversation: &ConversationKey,
        act: fn(&sled::Tree, &[u8]) -> Result<bool, sled::Error>,
    ) -> Result<u64, QueueError> {
        let (inner, conversation) = (self.inner.clone(), conversation.clone());
        let counted = task::blocking(move || {
            let mut counted = 0;
            for entry in inner.tree.iter() {
                let (key, value) = entry?;
                let event = ContactEvent::decode(body_of(&value));
                if event.is_ok_and(|event| event.key() == conversation) && act(&inner.tree, &key)? {
                    counted += 1;
                }
            }
            Ok(counted)
        });
        let counted = counted.await.map_err(|error| QueueError(error.to_string()))?;
        counted.map_err(|error| QueueError(self.inner.broken(error)))
    }
}

impl Inner {
    /// A key that no message has. Within a process no sequence is given twice; one of an earlier process may come
    /// again when the clock was set back between them.
    fn new_key(&self, lane: Lane, due: Timestamp) -> Result<QueueKey, sled::Error> {
        let mut key = [0; 17];
        key[0] = lane_byte(lane);
        key[1..9].copy_from_slice(&u64::try_from(due.as_millisecond()).unwrap_or_default().to_be_bytes());
        loop {
            key[9..].copy_from_slice(&self.sequence.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            if !self.tree.contains_key(key)? {
                return Ok(key);
            }
        }
    }

    /// An error of the tree ends the store: the next start sets it aside if it is damaged.
    fn broken(&self, error: sled::Error) -> String {
        let error = StateError::from(error);
        self.store.report(&error);
        error.to_string()
    }

    fn due(&self, delay: Duration) -> Timestamp {
        self.clock.now().checked_add(delay).unwrap_or(Timestamp::MAX)
    }

    fn in_flight(&self) -> std::sync::MutexGuard<'_, BTreeSet<QueueKey>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what [`Inner::take`] began for a message that was delivered for the `count`th time.
    fn give_back(&self, key: &QueueKey, count: u32) {
        if count > SUSPECT {
            self.suspect_in_flight.store(false, Ordering::SeqCst);
        }
        self.in_flight().remove(key);
    }

    /// The first due message that is not in flight, marked as in flight; or else how long to sleep. Suspects come
    /// after all others, the least suspected first.
    fn take(&self) -> Result<Result<TakenEntry, Duration>, sled::Error> {
        let now = self.clock.now();
        let mut sleep = LONGEST_SLEEP;
        for lane in [Lane::Live, Lane::Backfill] {
            let mut suspect: Option<TakenEntry> = None;
            for entry in self.tree.scan_prefix([lane_byte(lane)]).take(MOST_LOOKED_AT) {
                let (key, value) = entry?;
                let Ok(key) = QueueKey::try_from(key.as_ref()) else { continue };
                let due = due_of(&key);
                if due > now {
                    sleep = sleep.min(Duration::try_from(due.duration_since(now)).unwrap_or_default());
                    break;
                }
                let found = TakenEntry { key, count: count_of(&value).saturating_add(1), value };
                if found.count > SUSPECT {
                    if suspect.as_ref().is_none_or(|least| found.count < least.count) && !self.is_in_flight(&key) {
                        suspect = Some(found);
                    }
                } else if let Some(taken) = self.mark(found, &mut sleep)? {
                    return Ok(Ok(taken));
                }
            }
            if let Some(suspect) = suspect
                && !self.suspect_in_flight.swap(true, Ordering::SeqCst)
            {
                match self.mark(suspect, &mut sleep)? {
                    Some(taken) => return Ok(Ok(taken)),
                    None => self.suspect_in_flight.store(false, Ordering::SeqCst),
                }
            }
        }
        // At least a millisecond, the resolution of the due time.
        Ok(Err(sleep.max(Duration::from_millis(1))))
    }

    fn is_in_flight(&self, key: &QueueKey) -> bool {
        self.in_flight().contains(key)
    }

    /// Marks a message as in flight and counts the delivery; none where another has it or it was settled meanwhile.
    fn mark(&self, found: TakenEntry, sleep: &mut Duration) -> Result<Option<TakenEntry>, sled::Error> {
        if !self.in_flight().insert(found.key) {
            return Ok(None);
        }
        // The entry may have been settled since it was read: only one that still stands is delivered.
        let counted = entry_value(found.count, found.body());
        match self.tree.compare_and_swap(found.key, Some(&found.value), Some(counted)) {
            Ok(Ok(())) => {
                self.store.commit_soon();
                Ok(Some(found))
            }
            other => {
                self.in_flight().remove(&found.key);
                // Handed back with another count since it was read: another look finds it.
                *sleep = Duration::ZERO;
                other?.ok();
                Ok(None)
            }
        }
    }
}

/// A message on its way to a reader.
#[derive(Debug)]
struct TakenEntry {
    key: QueueKey,
    count: u32,
    value: sled::IVec,
}

impl TakenEntry {
    fn body(&self) -> &[u8] {
        body_of(&self.value)
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        let key =
            self.inner.new_key(lane, self.inner.due(delay)).map_err(|error| QueueError(self.inner.broken(error)))?;
        self.inner.tree.insert(key, entry_value(0, &body)).map_err(|error| QueueError(self.inner.broken(error)))?;
        self.inner.store.commit().await.map_err(|error| QueueError(error.to_string()))?;
        self.inner.changed.notify_waiters();
        Ok(())
    }

    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        let room = Arc::new(Semaphore::new(prefetch));
        stream::unfold(Some((self.inner.clone(), room)), |reader| async move {
            let (inner, room) = reader?;
            let permit = room.clone().acquire_owned().await.ok()?;
            let delivery = next_delivery(&inner, permit).await;
            // An error is the last word: the store does not recover from one.
            let reader = delivery.is_ok().then_some((inner, room));
            Some((delivery, reader))
        })
        .boxed()
    }

    async fn messages_of(&self, conversation: &ConversationKey) -> Result<Option<u64>, QueueError> {
        self.of(conversation, |_, _| Ok(true)).await.map(Some)
    }

    async fn forget(&self, conversation: &ConversationKey) -> Result<Option<u64>, QueueError> {
        // One in flight goes too: when it is settled there is nothing left to settle.
        let removed = self.of(conversation, |tree, key| Ok(tree.remove(key)?.is_some())).await?;
        self.inner.store.commit().await.map_err(|error| QueueError(error.to_string()))?;
        Ok(Some(removed))
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        let inner = self.inner.clone();
        let count = move || {
            let now = inner.clock.now();
            let in_flight = inner.in_flight().clone();
            let mut backlog = Backlog { in_flight: in_flight.len() as u64, ..Backlog::default() };
            for lane in [Lane::Live, Lane::Backfill] {
                let mut due = 0;
                for key in inner.tree.scan_prefix([lane_byte(lane)]).keys().take(MOST_COUNTED) {
                    let key = key?;
                    match QueueKey::try_from(key.as_ref()) {
                        Ok(key) if in_flight.contains(&key) => {}
                        Ok(key) if due_of(&key) > now => backlog.delayed += 1,
                        _ => due += 1,
                    }
                }
                match lane {
                    Lane::Live => backlog.live = due,
                    Lane::Backfill => backlog.backfill = due,
                }
            }
            Ok(backlog)
        };
        task::blocking(count)
            .await
            .map_err(|error| QueueError(error.to_string()))?
            .map_err(|error| QueueError(self.inner.broken(error)))
    }

    async fn check(&self) -> Result<(), QueueError> {
        self.inner.store.commit().await.map_err(|error| QueueError(error.to_string()))
    }
}

/// Waits for the next message that is due.
async fn next_delivery(inner: &Arc<Inner>, permit: OwnedSemaphorePermit) -> Result<QueueDelivery, QueueError> {
    loop {
        // Before the look, so that a change during it is not missed.
        let mut changed = std::pin::pin!(inner.changed.notified());
        changed.as_mut().enable();
        inner.store.check().map_err(|error| QueueError(error.to_string()))?;
        match inner.take().map_err(|error| QueueError(inner.broken(error)))? {
            Ok(taken) => {
                let body = Bytes::copy_from_slice(taken.body());
                let TakenEntry { key, count, .. } = taken;
                let settle = EmbeddedSettle { inner: inner.clone(), key, count, settled: false, _permit: permit };
                let (over_limit, lost) = (count > DELIVERY_LIMIT, CancellationToken::new());
                return Ok(QueueDelivery { body, over_limit, lost, settle: Box::new(settle) });
            }
            Err(sleep) => {
                // Either is reason enough to look again.
                let _woken = tokio::time::timeout(sleep, changed).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
