//! The topics: made where they are missing, and compared where they are there.

use std::time::Duration;

use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, ReplicaSpec, SegmentBasedPolicy, TopicSpec, TopicStorageConfig,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::super::FluvioError;
use super::super::log::Topic;
use super::leaders::Leaders;
use super::{controller, offsets};
use crate::QueueError;

/// How long the partitions of a new topic may take. It is a second or two where all brokers are there.
const ONLINE_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether they are there.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// As many topics as are made at once, each on a connection of its own: the controller answers when one is ready.
const MADE_AT_ONCE: usize = 4;

/// What a file of a partition holds. Fluvio deletes whole files, and never the one that is written to: with its own
/// size of 1 GiB a partition would keep all that it ever had. A message of a conversation is at most 64 KiB.
const SEGMENT_BYTES: u32 = 16 << 20;

/// What a partition may hold: more than any disk has. At this bound Fluvio deletes the oldest file without a word, read
/// or not; where the disk is full it refuses the message instead, and the publisher waits.
const PARTITION_BYTES: u64 = 1 << 50;

/// The names of all topics.
pub(super) async fn names(leaders: &Leaders) -> Result<Vec<String>, FluvioError> {
    Ok(existing(leaders).await?.into_iter().map(|(name, _)| name).collect())
}

/// Makes the topics that are missing, and returns once every partition of all of them has a leader that answers.
pub(super) async fn ensure(leaders: &Leaders, needed: &[Topic]) -> Result<(), FluvioError> {
    let there = existing(leaders).await?;
    let missing = needed.iter().filter(|topic| !there.iter().any(|(name, _)| *name == *topic.name));
    let missing: Vec<_> = missing.map(|topic| (topic.name.clone(), spec(topic))).collect();
    let made = stream::iter(missing)
        .map(|(name, spec)| async move { controller::create_topic(&leaders.controller, &name, spec).await })
        .buffer_unordered(MADE_AT_ONCE);
    made.try_collect::<()>().await.map_err(failed)?;
    // Others may have made one at the same time, and differently.
    let there = existing(leaders).await?;
    for topic in needed {
        let found = there.iter().find(|(name, _)| *name == *topic.name);
        let (_, found) = found.ok_or_else(|| FluvioError::Failed(format!("the topic {} was not made", topic.name)))?;
        compare(topic, found)?;
    }
    wait_until_online(leaders, needed).await
}

/// Whether every partition of these topics has a leader that is there, as the controller and the brokers say.
pub(super) async fn check(leaders: &Leaders, topics: &[Topic]) -> Result<(), QueueError> {
    let partitions = controller::list::<PartitionSpec>(&leaders.controller).await?;
    for topic in topics {
        for number in 0..topic.partitions {
            let name = format!("{}-{number}", topic.name);
            match partitions.iter().find(|partition| partition.name == name) {
                Some(partition) if partition.status.is_online() => {}
                Some(partition) => {
                    return Err(QueueError(format!("the partition {name} is {:?}", partition.status.resolution)));
                }
                None => return Err(QueueError(format!("the partition {name} is not there"))),
            }
        }
    }
    offsets::of_all(leaders, topics).await.map(drop)
}

async fn wait_until_online(leaders: &Leaders, topics: &[Topic]) -> Result<(), FluvioError> {
    let deadline = Instant::now() + ONLINE_WITHIN;
    loop {
        leaders.doubt();
        match check(leaders, topics).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(FluvioError::Failed(format!(
                    "not all topics are ready within {ONLINE_WITHIN:?}: {}",
                    error.0
                )));
            }
            Err(_) => sleep(LOOK_INTERVAL).await,
        }
    }
}

async fn existing(leaders: &Leaders) -> Result<Vec<(String, TopicSpec)>, FluvioError> {
    let topics = controller::list::<TopicSpec>(&leaders.controller).await;
    let topics = topics.map_err(|QueueError(reason)| FluvioError::Unreachable {
        address: leaders.controller.address().to_owned(),
        reason,
    })?;
    Ok(topics.into_iter().map(|topic| (topic.name, topic.spec)).collect())
}

fn spec(topic: &Topic) -> TopicSpec {
    let mut spec = TopicSpec::from(ReplicaSpec::new_computed(topic.partitions, topic.replication, None));
    spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds: seconds(topic.retention) }));
    spec.set_storage(TopicStorageConfig {
        segment_size: Some(SEGMENT_BYTES),
        max_partition_size: Some(PARTITION_BYTES),
    });
    // Refuses what others would write compressed, which is not read here.
    spec.set_compression_type(CompressionAlgorithm::None);
    spec
}

fn compare(needed: &Topic, found: &TopicSpec) -> Result<(), FluvioError> {
    let differs = |found: String, needed_is: String, remedy| FluvioError::Differs {
        name: needed.name.to_string(),
        found,
        needed: needed_is,
        remedy,
    };
    if found.partitions() != needed.partitions {
        return Err(differs(
            format!("{} partitions", found.partitions()),
            format!("{}", needed.partitions),
            "set [queue] partitions to what it has, delete the topic once it is empty",
        ));
    }
    if found.retention_secs() != seconds(needed.retention) {
        return Err(differs(
            format!("a retention of {} s", found.retention_secs()),
            format!("{} s", seconds(needed.retention)),
            "delete the topic once it is empty, and it is made anew",
        ));
    }
    if found.replication_factor() != Some(needed.replication) {
        warn!(
            reason = format!("{}: {:?} instead of {}", needed.name, found.replication_factor(), needed.replication),
            "a topic keeps another number of copies than [queue] replication says"
        );
    }
    Ok(())
}

fn seconds(retention: Duration) -> u32 {
    u32::try_from(retention.as_secs()).unwrap_or(u32::MAX)
}

fn failed(error: QueueError) -> FluvioError {
    FluvioError::Failed(error.0)
}
