//! The ledger in the local state, for a process that has the queue to itself: everything is its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use state::{StateError, Store};

use super::{Ledger, PartitionLease, Progress, RollCall};
use crate::QueueError;
use crate::fluvio::log::Partition;

const TREE: &str = "queue_partitions";

/// The only member.
const ME: &str = "this process";

/// What is known of a partition, as JSON under `topic/number`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct LocalPartition {
    next: i64,
    begun: i64,
    deaths: u32,
    epoch: i64,
    /// Whether it was taken and not given: after a start, the former process died with it.
    is_taken: bool,
}

/// The ledger in the local state.
pub(in crate::fluvio) struct LocalLedger {
    store: Store,
    tree: sled::Tree,
    partitions: Vec<Partition>,
    /// Owners with this number, or a greater one, are of this process.
    epoch: i64,
    /// Whoever reads a row and writes it.
    writing: Mutex<()>,
}

impl LocalLedger {
    /// Opens the ledger of these partitions.
    pub(in crate::fluvio) fn open(store: Store, partitions: Vec<Partition>) -> Result<Self, StateError> {
        let tree = store.tree(TREE)?;
        let ledger = Self { store, tree, partitions, epoch: 0, writing: Mutex::default() };
        let greatest = ledger.partitions.iter().map(|partition| ledger.read(partition).map(|row| row.epoch));
        let greatest = greatest.collect::<Result<Vec<_>, _>>()?.into_iter().max();
        Ok(Self { epoch: greatest.unwrap_or_default() + 1, ..ledger })
    }

    /// One that cannot be read begins anew: its records come again.
    fn read(&self, partition: &Partition) -> Result<LocalPartition, StateError> {
        let value = self.tree.get(name(partition))?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default())
    }

    fn write(&self, partition: &Partition, row: &LocalPartition) -> Result<(), QueueError> {
        let value = serde_json::to_vec(row).map_err(|error| QueueError(error.to_string()))?;
        self.tree.insert(name(partition), value).map(drop).map_err(|error| self.broken(error.into()))
    }

    /// Writes how far the owner has come; false if it is not the owner any more.
    fn advance(&self, progress: &Progress, is_taken: bool) -> Result<bool, QueueError> {
        let _writing = self.writing();
        let row = self.read(&progress.partition).map_err(|error| self.broken(error))?;
        if row.epoch != progress.epoch || !row.is_taken {
            return Ok(false);
        }
        let deaths = if progress.next > row.next { 0 } else { row.deaths };
        let next = row.next.max(progress.next);
        let begun = if is_taken { row.begun.max(progress.begun) } else { next };
        let row = LocalPartition { next, begun, deaths, is_taken, ..row };
        self.write(&progress.partition, &row).map(|()| true)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, error: StateError) -> QueueError {
        self.store.report(&error);
        QueueError(error.to_string())
    }
}

fn name(partition: &Partition) -> String {
    format!("{}/{}", partition.topic, partition.number)
}

#[async_trait]
impl Ledger for LocalLedger {
    fn me(&self) -> &str {
        ME
    }

    async fn enter(&self, _partitions: &[Partition]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn roll_call(&self, _sweep: bool) -> Result<RollCall, QueueError> {
        let mut owners = BTreeMap::new();
        for partition in &self.partitions {
            let row = self.read(partition).map_err(|error| self.broken(error))?;
            if row.is_taken && row.epoch >= self.epoch {
                owners.insert(partition.clone(), (ME.to_owned(), row.epoch));
            }
        }
        Ok(RollCall { members: vec![ME.to_owned()], owners })
    }

    async fn take(&self, partition: &Partition) -> Result<Option<PartitionLease>, QueueError> {
        let (next, begun, deaths, epoch) = {
            let _writing = self.writing();
            let row = self.read(partition).map_err(|error| self.broken(error))?;
            let has_died = row.is_taken && row.epoch < self.epoch && row.begun > row.next;
            let epoch = self.epoch.max(row.epoch + 1);
            let (next, begun, deaths) = (row.next, row.begun, row.deaths + u32::from(has_died));
            self.write(partition, &LocalPartition { begun: next, deaths, epoch, is_taken: true, ..row })?;
            (next, begun, deaths, epoch)
        };
        self.store.commit().await.map_err(|error| QueueError(error.to_string()))?;
        Ok(Some(PartitionLease { partition: partition.clone(), epoch, next, begun, deaths }))
    }

    async fn commit(&self, progress: &[Progress]) -> Result<Vec<Partition>, QueueError> {
        let mut lost = Vec::new();
        for progress in progress {
            if !self.advance(progress, true)? {
                lost.push(progress.partition.clone());
            }
        }
        // Not awaited: what a power cut undoes is delivered again.
        self.store.commit_soon();
        Ok(lost)
    }

    async fn begin_anew(&self, topics: &[Arc<str>]) -> Result<(), QueueError> {
        for partition in self.partitions.iter().filter(|partition| topics.contains(&partition.topic)) {
            let _writing = self.writing();
            let epoch = self.read(partition).map_err(|error| self.broken(error))?.epoch + 1;
            self.write(partition, &LocalPartition { epoch, ..LocalPartition::default() })?;
        }
        self.leave().await
    }

    async fn restart(&self, progress: &Progress) -> Result<(), QueueError> {
        {
            let _writing = self.writing();
            let row = self.read(&progress.partition).map_err(|error| self.broken(error))?;
            if row.epoch == progress.epoch {
                // With another number, so that no write that is under way brings the former offset back.
                let (next, begun, deaths, epoch) = (progress.next, progress.next, 0, row.epoch + 1);
                self.write(&progress.partition, &LocalPartition { next, begun, deaths, epoch, ..row })?;
            }
        }
        self.leave().await
    }

    async fn give(&self, progress: &Progress) -> Result<(), QueueError> {
        self.advance(progress, false)?;
        self.store.commit_soon();
        Ok(())
    }

    async fn leave(&self) -> Result<(), QueueError> {
        self.store.commit().await.map_err(|error| QueueError(error.to_string()))
    }

    async fn settled(&self) -> Result<BTreeMap<Partition, i64>, QueueError> {
        // What was said before is on disk.
        self.store.commit().await.map_err(|error| QueueError(error.to_string()))?;
        let settled = self.partitions.iter().map(|partition| {
            let row = self.read(partition).map_err(|error| self.broken(error))?;
            Ok((partition.clone(), row.next))
        });
        settled.collect()
    }
}
