//! The processed-id log: which conversations were brought into the flow already.
//!
//! In: keys. Out: for each key, one [`Claim`] at a time. A claim is committed once its work is done, durably and
//! together with all others that wait at that moment, or it is given back by dropping it.
//!
//! # After a crash
//! Claims live in memory: a crash gives all of them back. A key whose [`Claim::commit`] resolved is remembered until
//! its day expires. The log is a hot window, never the truth: a lost key means a repeat, which the catalog detects.
//!
//! # Bounds
//! Days older than the retention are dropped, and so is the oldest part once there are more than `max_ids` ids.

mod claim;
mod key_set;
mod segments;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::{SignedDuration, Timestamp};
use model::Key;
use runtime::Clock;
use tokio::sync::watch;

pub use self::claim::{Claim, ClaimOutcome, ClaimWaiter};
use self::key_set::KeySet;
use self::segments::{Segments, day_of};
use crate::keyspace::SegmentName;
use crate::store::{CommitHook, Store};

use crate::StateError;

/// Into how many parts the ids are divided at most by count: the cap gives up a quarter of them at a time.
const PARTS: u64 = 4;

/// How many seeded keys share a commit: more of them make sled hold on to more memory than the ids take.
const SEED_BATCH: usize = 8192;

/// The processed-id log; clones share it.
#[derive(Clone)]
pub struct ProcessedLog {
    log: Arc<Log>,
    store: Store,
}

/// The state of the log, apart from the store so that the store can call it.
struct Log {
    clock: Clock,
    retention: SignedDuration,
    max_ids: u64,
    index: Mutex<Index>,
    /// Locked before `index` where both are needed.
    disk: Mutex<LogDisk>,
}

/// What is in memory: every id, and the claims.
#[derive(Default)]
struct Index {
    segments: BTreeMap<SegmentName, KeySet>,
    in_flight: HashMap<Key, Option<watch::Sender<()>>>,
    /// Handed in for the next commit.
    pending: Vec<Key>,
}

/// What is on disk, and the ids of the commit under way.
struct LogDisk {
    segments: Segments,
    committing: Vec<Key>,
    into: Option<SegmentName>,
}

impl ProcessedLog {
    /// Reads all ids into memory and takes part in the commits of the store.
    pub(crate) fn open(
        store: &Store,
        clock: Clock,
        retention: SignedDuration,
        max_ids: u64,
    ) -> Result<Self, StateError> {
        let mut index = Index::default();
        let segments = Segments::load(store.database(), (max_ids / PARTS).max(1), |name, keys| {
            index.segments.entry(name).or_insert_with(KeySet::new).insert_all(keys);
        })?;
        let disk = LogDisk { segments, committing: Vec::new(), into: None };
        let log = Arc::new(Log { clock, retention, max_ids, index: Mutex::new(index), disk: Mutex::new(disk) });
        let hook: Weak<dyn CommitHook> = Arc::downgrade(&log) as Weak<dyn CommitHook>;
        store.add_hook(hook);
        let processed = Self { log, store: store.clone() };
        processed.prune(processed.log.clock.now())?;
        Ok(processed)
    }

    /// Takes a key to work on, unless it was committed or somebody else has it.
    pub fn claim(&self, key: Key) -> Result<ClaimOutcome, StateError> {
        self.take(key, true)
    }

    /// Takes a key even if it was committed: for what the catalog turned out not to have.
    pub fn claim_again(&self, key: Key) -> Result<ClaimOutcome, StateError> {
        self.take(key, false)
    }

    /// Whether the key was committed and not forgotten since.
    pub fn contains(&self, key: &Key) -> bool {
        self.log.index().contains(key)
    }

    /// How many ids are remembered; one that was claimed again may count twice.
    pub fn len(&self) -> usize {
        self.log.index().segments.values().map(KeySet::len).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many claims are open.
    pub fn in_flight(&self) -> usize {
        self.log.index().in_flight.len()
    }

    /// Forgets the days that ended longer than the retention before `now`; returns how many ids went. May block.
    pub fn prune(&self, now: Timestamp) -> Result<u64, StateError> {
        let mut forgotten = 0;
        let mut disk = self.log.disk();
        for (name, ids) in disk.segments.list() {
            if name.ended_before(now, self.log.retention) {
                self.log.forget(&mut disk, name)?;
                forgotten += ids;
            }
        }
        // Also what a commit put into a day that was dropped meanwhile, as it may happen when the clock was set.
        self.log.index().segments.retain(|name, _| !name.ended_before(now, self.log.retention));
        Ok(forgotten)
    }

    /// Marks keys as processed without claims, to fill an empty log from the catalog; durable when it returns.
    ///
    /// Blocks: call it from a thread that may. Returns how many were new.
    pub fn seed(&self, keys: impl IntoIterator<Item = Key>) -> Result<u64, StateError> {
        let mut new = 0;
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let batch: Vec<Key> = {
                let index = self.log.index();
                keys.by_ref().take(SEED_BATCH).filter(|key| !index.contains(key)).collect()
            };
            let name = {
                let mut disk = self.log.disk();
                let name = disk.segments.append(day_of(self.log.clock.now()), &batch)?;
                self.log.make_room(&mut disk, name)?;
                name
            };
            self.store.commit_blocking()?;
            let mut index = self.log.index();
            let segment = index.segments.entry(name).or_insert_with(KeySet::new);
            new += batch.into_iter().filter(|key| segment.insert(*key)).count() as u64;
        }
        Ok(new)
    }

    /// Forgets every committed id, to fill the log anew; open claims are not touched. May block.
    pub fn clear(&self) -> Result<(), StateError> {
        let mut disk = self.log.disk();
        for (name, _) in disk.segments.list() {
            self.log.forget(&mut disk, name)?;
        }
        self.log.index().segments.clear();
        drop(disk); // a commit in place takes it, too
        self.store.commit_soon();
        Ok(())
    }

    fn take(&self, key: Key, only_new: bool) -> Result<ClaimOutcome, StateError> {
        self.store.check()?;
        let mut index = self.log.index();
        if let Some(waiters) = index.in_flight.get_mut(&key) {
            let settled = waiters.get_or_insert_with(|| watch::Sender::new(()));
            return Ok(ClaimOutcome::InFlight(ClaimWaiter::new(settled.subscribe())));
        }
        if only_new && index.contains(&key) {
            return Ok(ClaimOutcome::Processed);
        }
        index.in_flight.insert(key, None);
        drop(index);
        Ok(ClaimOutcome::Claimed(Claim::new(self.clone(), key)))
    }
}

impl Log {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, LogDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, disk: &mut LogDisk, name: SegmentName) -> Result<(), StateError> {
        disk.segments.drop_segment(name)?;
        let forgotten = self.index().segments.remove(&name);
        drop(forgotten); // after the index is unlocked: freeing millions of keys takes a while
        Ok(())
    }

    /// Drops the oldest segments while there are too many ids, but never the one that is being written.
    fn make_room(&self, disk: &mut LogDisk, current: SegmentName) -> Result<(), StateError> {
        let segments = disk.segments.list();
        let mut ids: u64 = segments.iter().map(|(_, ids)| ids).sum();
        for (name, of_segment) in segments {
            if ids <= self.max_ids {
                break;
            }
            if name != current {
                tracing::warn!(from = %name.day, count = of_segment, "too many processed ids, the oldest are forgotten");
                self.forget(disk, name)?;
                ids -= of_segment;
            }
        }
        Ok(())
    }
}

impl CommitHook for Log {
    fn before_flush(&self) -> Result<(), StateError> {
        let mut disk = self.disk();
        disk.committing = std::mem::take(&mut self.index().pending);
        if disk.committing.is_empty() {
            return Ok(());
        }
        let keys = std::mem::take(&mut disk.committing);
        let appended = disk.segments.append(day_of(self.clock.now()), &keys);
        disk.committing = keys;
        let name = appended?;
        disk.into = Some(name);
        self.make_room(&mut disk, name)
    }

    fn settled(&self, durable: bool) {
        let (keys, into) = {
            let mut disk = self.disk();
            (std::mem::take(&mut disk.committing), disk.into.take())
        };
        let mut index = self.index();
        // After a failure also those that came too late for it: the store is poisoned, nobody will commit them.
        let late = if durable { Vec::new() } else { std::mem::take(&mut index.pending) };
        if durable && let Some(name) = into {
            let segment = index.segments.entry(name).or_insert_with(KeySet::new);
            for key in &keys {
                segment.insert(*key);
            }
        }
        for key in keys.iter().chain(&late) {
            index.in_flight.remove(key);
        }
    }
}

impl Index {
    fn contains(&self, key: &Key) -> bool {
        self.segments.values().rev().any(|segment| segment.contains(key))
    }
}

impl std::fmt::Debug for ProcessedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessedLog").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
