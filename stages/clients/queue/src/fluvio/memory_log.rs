//! A log in memory, in place of a cluster: partitions that keep their records, streams that can be broken.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::{collections::BTreeSet, ops::Range};

use futures::stream;
use tokio::sync::watch;

use super::log::{NewRecord, Partition, Records, Topic, TopicRecord};
use super::*;

#[derive(Default)]
struct KeptRecords {
    start: i64,
    records: Vec<TopicRecord>,
}

impl KeptRecords {
    fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    fn from(&self, offset: i64) -> Vec<TopicRecord> {
        self.records.iter().filter(|record| record.offset >= offset).cloned().collect()
    }
}

/// The log.
#[derive(Default)]
pub(super) struct MemoryLog {
    partitions: Mutex<BTreeMap<Partition, KeptRecords>>,
    /// Changes with everything that is appended.
    appended: watch::Sender<u64>,
    is_away: AtomicBool,
    /// How often every stream was ended.
    breaks: AtomicU64,
    appends: Mutex<Vec<usize>>,
    /// The partitions whose bounds were asked for since the last cut.
    looked_at: Mutex<BTreeSet<Partition>>,
}

impl MemoryLog {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<Partition, KeptRecords>> {
        self.partitions.lock().unwrap()
    }

    /// Every stream ends with an error, and nothing is appended, until it is back.
    pub(super) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
        self.appended.send_modify(|count| *count += 1);
    }

    /// The records of a topic are forgotten, as by their age.
    pub(super) fn expire(&self, topic: &str) {
        for (_, kept) in self.partitions().iter_mut().filter(|(partition, _)| &*partition.topic == topic) {
            *kept = KeptRecords { start: kept.end(), records: Vec::new() };
        }
    }

    /// The topic is deleted.
    pub(super) fn delete(&self, topic: &str) {
        self.partitions().retain(|partition, _| &*partition.topic != topic);
    }

    /// Each partition of the topic loses all that it has, as where the disk of a broker is replaced.
    pub(super) fn empty(&self, topic: &str) {
        for (_, kept) in self.partitions().iter_mut().filter(|(partition, _)| &*partition.topic == topic) {
            *kept = KeptRecords::default();
        }
        self.breaks.fetch_add(1, Ordering::SeqCst);
        self.appended.send_modify(|count| *count += 1);
    }

    /// Each partition of the topic loses its last record, as where a machine loses its power.
    pub(super) fn cut(&self, topic: &str) {
        for (_, kept) in self.partitions().iter_mut().filter(|(partition, _)| &*partition.topic == topic) {
            kept.records.pop();
        }
        self.looked_at.lock().unwrap().clear();
        self.breaks.fetch_add(1, Ordering::SeqCst);
        self.appended.send_modify(|count| *count += 1);
    }

    /// Of how many partitions of a topic the bounds were asked for since the last cut.
    pub(super) fn looked_at(&self, topic: &str) -> usize {
        self.looked_at.lock().unwrap().iter().filter(|partition| &*partition.topic == topic).count()
    }

    /// How many records each append brought.
    pub(super) fn appends(&self) -> Vec<usize> {
        self.appends.lock().unwrap().clone()
    }

    fn here(&self) -> Result<(), QueueError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(QueueError("away".to_owned())),
            false => Ok(()),
        }
    }
}

/// The log, as any number of processes have it.
pub(super) struct SharedLog(pub(super) Arc<MemoryLog>);

#[async_trait]
impl TopicLog for SharedLog {
    async fn names(&self) -> Result<Vec<String>, FluvioError> {
        let partitions = self.0.partitions();
        let names: std::collections::BTreeSet<_> =
            partitions.keys().map(|partition| partition.topic.to_string()).collect();
        Ok(names.into_iter().collect())
    }

    async fn ensure(&self, topics: &[Topic]) -> Result<(), FluvioError> {
        for topic in topics {
            for number in 0..topic.partitions {
                self.0.partitions().entry(Partition { topic: topic.name.clone(), number }).or_default();
            }
        }
        Ok(())
    }

    async fn append(&self, topic: &Arc<str>, records: Vec<NewRecord>) -> Result<(), QueueError> {
        // As long as a cluster takes for a batch.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.here()?;
        self.0.appends.lock().unwrap().push(records.len());
        {
            let mut partitions = self.0.partitions();
            let count = partitions.keys().filter(|partition| partition.topic == *topic).count() as u64;
            for NewRecord { key, body } in records {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                let number = (hasher.finish() % count) as u32;
                let kept = partitions.get_mut(&Partition { topic: topic.clone(), number }).unwrap();
                let offset = kept.end();
                kept.records.push(TopicRecord { offset, key: key.into(), body });
            }
        }
        self.0.appended.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn read(&self, partition: &Partition, from: i64) -> Result<Records, QueueError> {
        self.0.here()?;
        let (log, partition, appended) = (self.0.clone(), partition.clone(), self.0.appended.subscribe());
        let breaks = self.0.breaks.load(Ordering::SeqCst);
        let records = stream::unfold((from, appended), move |(from, mut appended)| {
            let (log, partition) = (log.clone(), partition.clone());
            async move {
                loop {
                    appended.borrow_and_update();
                    let is_whole = log.breaks.load(Ordering::SeqCst) == breaks;
                    let whole = is_whole.then_some(()).ok_or_else(|| QueueError("broken off".to_owned()));
                    if let Err(error) = log.here().and(whole) {
                        return Some((vec![Err(error)], (from, appended)));
                    }
                    let found = log.partitions().get(&partition).map(|kept| kept.from(from)).unwrap_or_default();
                    if let Some(last) = found.last() {
                        let next = last.offset + 1;
                        return Some((found.into_iter().map(Ok).collect(), (next, appended)));
                    }
                    appended.changed().await.ok()?;
                }
            }
        });
        Ok(Box::pin(futures::StreamExt::flat_map(records, stream::iter)))
    }

    async fn bounds(&self, partition: &Partition) -> Result<Range<i64>, QueueError> {
        self.0.here()?;
        let partitions = self.0.partitions();
        let kept = partitions.get(partition).ok_or_else(|| QueueError("no such partition".to_owned()))?;
        self.0.looked_at.lock().unwrap().insert(partition.clone());
        Ok(kept.start..kept.end())
    }

    async fn all_bounds(&self, _topics: &[Topic]) -> Result<BTreeMap<Partition, Range<i64>>, QueueError> {
        self.0.here()?;
        Ok(self.0.partitions().iter().map(|(partition, kept)| (partition.clone(), kept.start..kept.end())).collect())
    }

    async fn check(&self, _topics: &[Topic]) -> Result<(), QueueError> {
        self.0.here()
    }

    async fn close(&self) {}
}
