//! What every part of the queue on Fluvio works with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::Clock;

use super::ledger::Ledger;
use super::log::{Partition, TopicLog};
use super::partition::OwnedPartition;
use super::pool::Pool;
use super::publisher::TopicPublisher;
use super::topics::Topics;

/// What every part works with.
pub(super) struct QueueContext {
    /// The topics.
    pub topics: Arc<Topics>,
    /// Where they lie.
    pub log: Arc<dyn TopicLog>,
    /// Who reads which partition.
    pub ledger: Arc<dyn Ledger>,
    /// How long a member may say nothing before others take its partitions.
    pub lease: Duration,
    /// The way to the topics.
    pub publisher: TopicPublisher,
    /// What waits to be handed out here.
    pub pool: Pool,
    /// The time.
    pub clock: Clock,
    owned: Mutex<BTreeMap<Partition, Arc<OwnedPartition>>>,
}

impl QueueContext {
    /// Nothing is owned yet.
    pub(super) fn new(
        topics: Arc<Topics>,
        log: Arc<dyn TopicLog>,
        ledger: Arc<dyn Ledger>,
        lease: Duration,
        clock: Clock,
    ) -> Self {
        let publisher = TopicPublisher::new(&log, topics.clone(), clock.clone());
        let (pool, owned) = (Pool::default(), Mutex::default());
        Self { topics, log, ledger, lease, publisher, pool, clock, owned }
    }

    /// The partitions that this member has.
    pub(super) fn owned(&self) -> MutexGuard<'_, BTreeMap<Partition, Arc<OwnedPartition>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
