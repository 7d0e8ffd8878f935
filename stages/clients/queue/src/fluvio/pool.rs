//! The records that wait to be handed out, of all partitions that this member has: live before backfill.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Lane;
use tokio::sync::{Notify, futures::Notified};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::{Partition, TopicRecord};
use super::partition::OwnedPartition;
use super::topics::TopicRole;

/// A record that waits to be handed out.
pub(super) struct WaitingRecord {
    /// Where it lies.
    pub owned: Arc<OwnedPartition>,
    /// The record.
    pub record: TopicRecord,
    /// So many processes died over it that it is not to be read any more.
    pub over_limit: bool,
}

/// The records that wait. Each partition puts a bounded number of them here.
#[derive(Default)]
pub(super) struct Pool {
    queues: Mutex<Queues>,
    changed: Notify,
}

#[derive(Default)]
struct Queues {
    live: VecDeque<WaitingRecord>,
    suspects: VecDeque<WaitingRecord>,
    backfill: VecDeque<WaitingRecord>,
    /// Partitions that backfill waits for.
    behind: BTreeSet<Partition>,
    /// Until when the partitions are ours for certain.
    ours_until: Option<Instant>,
}

impl Queues {
    fn of(&mut self, role: TopicRole) -> &mut VecDeque<WaitingRecord> {
        match role {
            TopicRole::Lane(Lane::Live) => &mut self.live,
            TopicRole::Lane(Lane::Backfill) => &mut self.backfill,
            TopicRole::Suspects | TopicRole::Delay(_) => &mut self.suspects,
        }
    }

    fn first(&mut self) -> Option<WaitingRecord> {
        // There is one suspect at a time, so it holds nobody up; behind live ones it might wait for ever.
        if let Some(first) = self.suspects.pop_front().or_else(|| self.live.pop_front()) {
            return Some(first);
        }
        // Live ones may be on their way here.
        if self.behind.is_empty() { self.backfill.pop_front() } else { None }
    }
}

impl Pool {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record waits, behind the others of its kind.
    pub(super) fn push(&self, waiting: WaitingRecord) {
        let role = waiting.owned.role;
        self.queues().of(role).push_back(waiting);
        self.changed.notify_waiters();
    }

    /// A record that was handed out waits again, before the others of its kind.
    pub(super) fn push_back_first(&self, waiting: WaitingRecord) {
        let role = waiting.owned.role;
        self.queues().of(role).push_front(waiting);
        self.changed.notify_waiters();
    }

    /// The next record, handed out, and the token that ends when it is taken back. None where nothing waits, or where
    /// it is not certain that the partitions are still ours.
    pub(super) fn take(&self) -> Option<(WaitingRecord, CancellationToken)> {
        let mut queues = self.queues();
        if queues.ours_until.is_none_or(|until| until <= Instant::now()) {
            return None;
        }
        while let Some(waiting) = queues.first() {
            // One that was settled or lost meanwhile is passed over.
            if let Some(lost) = waiting.owned.hand_out(&waiting.record) {
                return Some((waiting, lost));
            }
        }
        None
    }

    /// Ends when something has changed since it was made.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The partitions are ours until then.
    pub(super) fn ours_until(&self, until: Instant) {
        self.queues().ours_until = Some(until);
        self.changed.notify_waiters();
    }

    /// Looks whether backfill has to wait for a partition: where not all is read that is to be read before. To be asked
    /// whenever that may have changed.
    pub(super) fn look_behind(&self, owned: &OwnedPartition) {
        let mut queues = self.queues();
        // With the lock held: of two that look, the later one is right.
        let is_new = match owned.is_behind() {
            true => queues.behind.insert(owned.partition.clone()),
            false => queues.behind.remove(&owned.partition),
        };
        drop(queues);
        if is_new {
            self.changed.notify_waiters();
        }
    }

    /// Takes out what waits of a partition that is for another, or lost.
    pub(super) fn forget(&self, owned: &OwnedPartition) {
        self.queues().of(owned.role).retain(|waiting| !std::ptr::eq(&*waiting.owned, owned));
        self.look_behind(owned);
    }
}
