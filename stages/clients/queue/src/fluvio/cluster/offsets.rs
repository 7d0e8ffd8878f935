//! Where partitions begin and end, as their leaders say.

use std::collections::BTreeMap;
use std::ops::Range;

use fluvio::dataplane::link::ErrorCode;
use fluvio_spu_schema::server::fetch_offset::{
    FetchOffsetPartition, FetchOffsetPartitionResponse, FetchOffsetTopic, FetchOffsetsRequest, FetchOffsetsResponse,
};
use futures::future::try_join_all;

use super::super::log::{Partition, Topic};
use super::leaders::Leaders;
use super::peer::Peer;
use super::{QUESTION_TIMEOUT, failure};
use crate::QueueError;

/// The offsets of one partition.
pub(super) async fn of(leaders: &Leaders, partition: &Partition) -> Result<Range<i64>, QueueError> {
    let broker = leaders.of(partition).await?;
    let asked = ask(&broker, std::slice::from_ref(partition)).await;
    let asked = asked.inspect_err(|_| leaders.doubt())?;
    asked.into_values().next().ok_or_else(|| failure(format!("{}: no answer for the partition", broker.address())))
}

/// The offsets of all partitions of these topics. Each broker is asked once.
pub(super) async fn of_all(leaders: &Leaders, topics: &[Topic]) -> Result<BTreeMap<Partition, Range<i64>>, QueueError> {
    let mut by_broker = BTreeMap::new();
    for topic in topics {
        for (number, broker) in (0..).zip(leaders.of_topic(&topic.name).await?) {
            let (_, partitions) = by_broker.entry(broker.address().to_owned()).or_insert_with(|| (broker, Vec::new()));
            partitions.push(Partition { topic: topic.name.clone(), number });
        }
    }
    let asked = try_join_all(by_broker.values().map(|(broker, partitions)| ask(broker, partitions))).await;
    Ok(asked.inspect_err(|_| leaders.doubt())?.into_iter().flatten().collect())
}

async fn ask(broker: &Peer, partitions: &[Partition]) -> Result<BTreeMap<Partition, Range<i64>>, QueueError> {
    let answer = broker.ask(QUESTION_TIMEOUT, |_| Ok(request(partitions))).await?;
    partitions.iter().map(|partition| Ok((partition.clone(), read(&answer, partition)?))).collect()
}

/// Asks for the offsets of these partitions.
pub(super) fn request(partitions: &[Partition]) -> FetchOffsetsRequest {
    let topics = partitions.iter().map(|partition| FetchOffsetTopic {
        name: partition.topic.to_string(),
        partitions: vec![FetchOffsetPartition { partition_index: partition.number }],
    });
    FetchOffsetsRequest { topics: topics.collect(), ..FetchOffsetsRequest::default() }
}

/// What the answer says of a partition.
pub(super) fn read(answer: &FetchOffsetsResponse, partition: &Partition) -> Result<Range<i64>, QueueError> {
    let topics = answer.topics.iter().filter(|topic| *topic.name == *partition.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partitions);
    match partitions.find(|found| found.partition_index == partition.number) {
        Some(FetchOffsetPartitionResponse {
            error_code: ErrorCode::None, start_offset, last_stable_offset, ..
        }) => Ok(*start_offset..*last_stable_offset),
        Some(failed) => Err(of_partition(partition, &failed.error_code)),
        None => Err(failure(format!("no answer for {}-{}", partition.topic, partition.number))),
    }
}

/// What a broker said against a partition.
pub(super) fn of_partition(partition: &Partition, code: &ErrorCode) -> QueueError {
    failure(format!("{}-{}: {code}", partition.topic, partition.number))
}
