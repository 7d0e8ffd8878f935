//! A sliding window of grants: never more than N in any span of length W, whatever crashes in between.
//!
//! In: a wish to send a request. Out: a grant, or the time at which to ask again.
//!
//! # After a crash
//! A grant is on disk before it is used, so the next process counts it too.
//!
//! # The clock
//! A grant counts from the moment its holder could first use it, which is when its commit was through; on disk it
//! carries an allowance for that. If the clock jumps back, grants from the future count as made just now: that
//! withholds grants for one W at most and never allows too many. A clock that jumps forward by D lets grants
//! return D early; the other side answers 429 then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::store::Store;
use crate::{Clock, StateError, keyspace};

/// How long a commit may take until its grant has to be written again with a later time.
const COMMIT_ALLOWANCE: SignedDuration = SignedDuration::from_secs(2);

/// What became of a wish to send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Send one request now.
    Granted,
    /// Ask again then; nothing was taken.
    RetryAt(Timestamp),
}

/// A durable sliding window; clones share it.
#[derive(Debug, Clone)]
pub struct RateWindow {
    ring: Arc<Mutex<Ring>>,
    store: Store,
    clock: Clock,
}

/// The last N grants, each in the slot it has on disk. The oldest is in front.
#[derive(Debug)]
struct Ring {
    name: String,
    tree: sled::Tree,
    limit: usize,
    window: SignedDuration,
    grants: VecDeque<Grant>,
}

/// One grant: where it lies and from when it counts.
#[derive(Debug, Clone, Copy)]
struct Grant {
    slot: u32,
    at: Timestamp,
}

impl RateWindow {
    /// Reads the last grants of this name.
    pub(crate) fn open(
        store: &Store,
        clock: Clock,
        name: &str,
        limit: u32,
        window: SignedDuration,
    ) -> Result<Self, StateError> {
        let tree = store.own_tree(keyspace::RATES)?;
        let ring = Ring::load(tree, name, limit, window)?;
        Ok(Self { ring: Arc::new(Mutex::new(ring)), store: store.clone(), clock })
    }

    /// Takes a grant if the window has one; a grant is durable when this resolves.
    ///
    /// A future that is dropped half way has taken its grant: it counts, used or not.
    pub async fn try_acquire(&self) -> Result<Permission, StateError> {
        let asked = self.clock.now();
        let slot = match self.ring().take(asked)? {
            Ok(slot) => slot,
            Err(retry_at) => return Ok(Permission::RetryAt(retry_at)),
        };
        let mut allowance = COMMIT_ALLOWANCE;
        let mut promised = later(asked, allowance);
        loop {
            self.store.commit().await?;
            let usable = self.clock.now();
            let mut ring = self.ring();
            ring.counts_from(slot, usable);
            if usable <= promised {
                return Ok(Permission::Granted);
            }
            // The disk took so long that a restart would count from too early a time. Twice as long from now on, or a
            // disk that is always slow would never let one through.
            allowance = allowance.saturating_mul(2);
            promised = later(usable, allowance);
            ring.write(Grant { slot, at: promised })?;
        }
    }

    /// How many grants are left at this moment.
    pub fn available(&self) -> usize {
        let now = self.clock.now();
        let mut ring = self.ring();
        ring.clock_is(now);
        ring.limit - ring.grants.iter().filter(|grant| !ring.is_past(grant, now)).count()
    }

    /// The most grants in any window.
    pub fn limit(&self) -> usize {
        self.ring().limit
    }

    /// Changes limit and length; grants made so far count under the new ones.
    pub(crate) fn resize(&self, limit: u32, window: SignedDuration) -> Result<(), StateError> {
        let mut ring = self.ring();
        if (ring.limit, ring.window) != (limit.max(1) as usize, window) {
            let (tree, name) = (ring.tree.clone(), ring.name.clone());
            *ring = Ring::load(tree, &name, limit, window)?;
        }
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn load(tree: sled::Tree, name: &str, limit: u32, window: SignedDuration) -> Result<Self, StateError> {
        let limit = limit.max(1) as usize;
        let mut ring = Self { name: name.to_owned(), tree, limit, window, grants: VecDeque::new() };
        let mut stored = Vec::new();
        for entry in ring.tree.scan_prefix(ring.key(None)) {
            let (key, value) = entry?;
            let at =
                value.as_ref().try_into().ok().and_then(|at| Timestamp::from_microsecond(i64::from_be_bytes(at)).ok());
            stored.push((key, at.ok_or_else(|| StateError::damaged("a grant of a rate window is unreadable"))?));
        }
        // The latest N count; they move to the slots 0..N, and what is beyond goes, all at once.
        stored.sort_unstable_by_key(|(_, at)| *at);
        let surplus = stored.len().saturating_sub(limit);
        let mut batch = sled::Batch::default();
        for (key, _) in &stored {
            batch.remove(key.clone());
        }
        for (slot, (_, at)) in (0u32..).zip(stored.drain(surplus..)) {
            batch.insert(ring.key(Some(slot)), at.as_microsecond().to_be_bytes().as_slice());
            ring.grants.push_back(Grant { slot, at });
        }
        ring.tree.apply_batch(batch)?;
        Ok(ring)
    }

    /// Takes a slot and writes the grant into it, or says when one will be free.
    fn take(&mut self, now: Timestamp) -> Result<Result<u32, Timestamp>, StateError> {
        self.clock_is(now);
        let slot = match self.grants.front() {
            Some(oldest) if self.grants.len() == self.limit => {
                if !self.is_past(oldest, now) {
                    // One microsecond more: both ends of the window count, as they may on the other side.
                    return Ok(Err(later(oldest.at, self.window + SignedDuration::from_micros(1))));
                }
                oldest.slot
            }
            _ => self.grants.len() as u32,
        };
        self.write(Grant { slot, at: later(now, COMMIT_ALLOWANCE) })?;
        if self.grants.len() == self.limit {
            self.grants.pop_front();
        }
        self.grants.push_back(Grant { slot, at: now });
        Ok(Ok(slot))
    }

    fn write(&self, grant: Grant) -> Result<(), StateError> {
        self.tree.insert(self.key(Some(grant.slot)), grant.at.as_microsecond().to_be_bytes().as_slice())?;
        Ok(())
    }

    /// Whether the grant left the window.
    fn is_past(&self, grant: &Grant, now: Timestamp) -> bool {
        now.duration_since(grant.at) > self.window
    }

    /// Lets a grant count from a later time than it was taken at; the order by time is kept.
    fn counts_from(&mut self, slot: u32, at: Timestamp) {
        if let Some(place) = self.grants.iter().position(|grant| grant.slot == slot) {
            self.grants[place].at = self.grants[place].at.max(at);
            self.grants.make_contiguous().sort_by_key(|grant| grant.at);
        }
    }

    /// Counts grants from the future as made now: the clock was set back.
    fn clock_is(&mut self, now: Timestamp) {
        for grant in &mut self.grants {
            grant.at = grant.at.min(now);
        }
    }

    /// The key of a slot, or what the keys of all slots begin with.
    fn key(&self, slot: Option<u32>) -> Vec<u8> {
        let mut key = self.name.clone().into_bytes();
        key.push(0);
        key.extend(slot.iter().flat_map(|slot| slot.to_be_bytes()));
        key
    }
}

/// A later point in time; the end of time if there is none.
fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
