//! What the queue needs of a log: topics of partitions, in which records keep the place that they were given.
//!
//! Everything above knows this trait alone, so that leases, offsets and delays are tested without a cluster.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::FluvioError;
use crate::QueueError;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Partition {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// Its number in the topic, from 0.
    pub number: u32,
}

/// How a topic must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many brokers keep each record.
    pub replication: u32,
    /// How long a record is kept, whether it was read or not.
    pub retention: Duration,
}

/// A record before it has a place.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    /// Records of one key lie in one partition, in the order in which they were appended.
    pub key: String,
    /// The message.
    pub body: Bytes,
}

/// A record in its place.
#[derive(Debug, Clone)]
pub(super) struct TopicRecord {
    /// Its place in the partition. Later records have greater ones; there may be gaps.
    pub offset: i64,
    /// What it was appended with.
    pub key: Bytes,
    /// The message.
    pub body: Bytes,
}

/// Records as they come.
pub(super) type Records = BoxStream<'static, Result<TopicRecord, QueueError>>;

/// A log of topics.
#[async_trait]
pub(super) trait TopicLog: Send + Sync + 'static {
    /// The names of all topics that there are, those of others too.
    async fn names(&self) -> Result<Vec<String>, FluvioError>;

    /// Makes the topics that are missing. One that exists and differs in partitions or retention is an error that
    /// names it.
    async fn ensure(&self, topics: &[Topic]) -> Result<(), FluvioError>;

    /// Appends records to a topic, and returns once every replica that is in step has all of them. An error leaves
    /// open which of them are stored.
    async fn append(&self, topic: &Arc<str>, records: Vec<NewRecord>) -> Result<(), QueueError>;

    /// The records of a partition from an offset on, those to come too. Ends, mostly with an error, when the broker is
    /// lost; the caller opens it again. Dropping it ends the reading. Only what all replicas in step have is read.
    async fn read(&self, partition: &Partition, from: i64) -> Result<Records, QueueError>;

    /// The offset of the first record that is kept, and the one that the next record will have; as of now.
    async fn bounds(&self, partition: &Partition) -> Result<Range<i64>, QueueError>;

    /// The same of all partitions of these topics, at little cost, and up to a second old.
    async fn all_bounds(&self, topics: &[Topic]) -> Result<BTreeMap<Partition, Range<i64>>, QueueError>;

    /// Whether the cluster answers, and a leader is there for every partition of these topics.
    async fn check(&self, topics: &[Topic]) -> Result<(), QueueError>;

    /// Ends every connection.
    async fn close(&self);
}
