//! Who reads which partition, and up to where all is settled. Fluvio knows no groups of consumers.
//!
//! Both stand in one row, under a number that grows with every owner: who has lost a partition cannot move its offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::log::Partition;
use crate::QueueError;

mod database;
mod local;

pub(super) use database::DatabaseLedger;
pub(super) use local::LocalLedger;

/// The right to read a partition.
#[derive(Debug, Clone)]
pub(super) struct PartitionLease {
    /// The partition.
    pub partition: Partition,
    /// The number of this owner.
    pub epoch: i64,
    /// All records before this offset are settled.
    pub next: i64,
    /// No record from this offset on was handed out by the owner before.
    pub begun: i64,
    /// The consumers that died since `next` moved last, while they worked on records of the partition.
    pub deaths: u32,
}

/// How far an owner has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The partition.
    pub partition: Partition,
    /// The number of the owner.
    pub epoch: i64,
    /// All records before this offset are settled.
    pub next: i64,
    /// No record from this offset on was handed out.
    pub begun: i64,
}

/// Who lives, and who has what.
#[derive(Debug, Clone, Default)]
pub(super) struct RollCall {
    /// The members in the order in which they came, the same for everybody.
    pub members: Vec<String>,
    /// Owner and its number, of each partition that has one.
    pub owners: BTreeMap<Partition, (String, i64)>,
}

/// The ledger as one member sees it.
#[async_trait]
pub(super) trait Ledger: Send + Sync + 'static {
    /// What the others call this member.
    fn me(&self) -> &str;

    /// Makes the rows of partitions that are not known yet.
    async fn enter(&self, partitions: &[Partition]) -> Result<(), QueueError>;

    /// Says that this member lives. With `sweep`, members that said nothing for too long are struck off.
    async fn roll_call(&self, sweep: bool) -> Result<RollCall, QueueError>;

    /// Nothing of these topics is settled, and nobody has a partition of them: they are made now.
    async fn begin_anew(&self, topics: &[Arc<str>]) -> Result<(), QueueError>;

    /// The owner begins its partition anew at an offset: what was settled is of a log that is gone.
    async fn restart(&self, progress: &Progress) -> Result<(), QueueError>;

    /// Takes a partition that nobody has, or nobody who lives. None where somebody was faster.
    async fn take(&self, partition: &Partition) -> Result<Option<PartitionLease>, QueueError>;

    /// Writes down how far each has come. Gives those back that this member does not own any more.
    async fn commit(&self, progress: &[Progress]) -> Result<Vec<Partition>, QueueError>;

    /// Lets go of a partition: nothing of it is in hand.
    async fn give(&self, progress: &Progress) -> Result<(), QueueError>;

    /// This member goes; its partitions were given before.
    async fn leave(&self) -> Result<(), QueueError>;

    /// The first unsettled offset of every partition that is known.
    async fn settled(&self) -> Result<BTreeMap<Partition, i64>, QueueError>;
}
