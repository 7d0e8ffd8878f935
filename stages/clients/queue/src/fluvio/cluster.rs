//! The log on a cluster of Fluvio.
//!
//! Fluvio's client library serves for its configuration, its TLS and the form of its messages. Its connections,
//! producers and consumers are not used: those wait for ever or stay broken in places when a machine of the cluster is
//! lost, and a consumer skips records where a piece of the log ends within a batch. What is used here instead is small:
//! a connection has one user at a time, is thrown away at the first error, and is made anew by whoever needs it next.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::log::{NewRecord, Partition, Records, Topic, TopicLog};
use super::{FluvioError, FluvioOptions};
use crate::{QueueError, QueueMetrics};

use leaders::Leaders;
use target::ClusterTarget;

mod append;
mod controller;
mod leaders;
mod offsets;
mod peer;
mod read;
mod target;
#[cfg(test)]
mod tests;
mod topics;

/// How long a machine of the cluster may take for an answer; shorter than whoever asks the queue waits, so that a
/// connection that hangs is given up.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// A cluster of Fluvio. Connections are made when they are needed, and again when they are lost.
pub(super) struct Cluster {
    leaders: Leaders,
    closed: CancellationToken,
}

impl Cluster {
    /// A cluster that the options describe. Connects to nothing yet.
    pub(super) fn new(options: &FluvioOptions, metrics: QueueMetrics) -> Result<Self, FluvioError> {
        Self::at(ClusterTarget::of(options)?, metrics)
    }

    fn at(target: ClusterTarget, metrics: QueueMetrics) -> Result<Self, FluvioError> {
        if target.is_anonymous() {
            warn!(
                remedy = "take a profile of Fluvio with tls_policy \"verified\"",
                "the cluster's certificate is not checked: whoever is between could read and change what is queued"
            );
        }
        let leaders = Leaders::new(target, metrics).map_err(|error| FluvioError::Failed(error.0))?;
        Ok(Self { leaders, closed: CancellationToken::new() })
    }
}

#[async_trait]
impl TopicLog for Cluster {
    async fn names(&self) -> Result<Vec<String>, FluvioError> {
        topics::names(&self.leaders).await
    }

    async fn ensure(&self, topics: &[Topic]) -> Result<(), FluvioError> {
        topics::ensure(&self.leaders, topics).await
    }

    async fn append(&self, topic: &Arc<str>, records: Vec<NewRecord>) -> Result<(), QueueError> {
        append::append(&self.leaders, topic, records).await
    }

    async fn read(&self, partition: &Partition, from: i64) -> Result<Records, QueueError> {
        let records = read::open(&self.leaders, partition, from).await?;
        Ok(records.take_until(self.closed.clone().cancelled_owned()).boxed())
    }

    async fn bounds(&self, partition: &Partition) -> Result<Range<i64>, QueueError> {
        offsets::of(&self.leaders, partition).await
    }

    async fn all_bounds(&self, topics: &[Topic]) -> Result<BTreeMap<Partition, Range<i64>>, QueueError> {
        offsets::of_all(&self.leaders, topics).await
    }

    async fn check(&self, topics: &[Topic]) -> Result<(), QueueError> {
        topics::check(&self.leaders, topics).await
    }

    async fn close(&self) {
        self.closed.cancel();
        self.leaders.close();
    }
}

/// Whether the options say where a cluster is, and may be used. Connects to nothing.
pub(super) fn validate(options: &FluvioOptions) -> Result<(), FluvioError> {
    ClusterTarget::of(options).map(drop)
}

fn failure(reason: impl Display) -> QueueError {
    QueueError(reason.to_string())
}
