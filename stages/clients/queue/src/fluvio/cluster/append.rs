//! Appending: which partition a key means, and records packed into the batches that Fluvio stores as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fluvio::Isolation;
use fluvio::dataplane::Encoder;
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{Batch, RawRecords, Record as FluvioRecord, RecordSet};
use fluvio_spu_schema::produce::{DefaultPartitionRequest, DefaultProduceRequest, DefaultTopicRequest};
use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::super::log::{NewRecord, Partition};
use super::leaders::Leaders;
use super::peer::Peer;
use super::{failure, offsets};
use crate::QueueError;

/// All of an append, with the connection that it may need.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a broker may take for its acknowledgement; with the wait for its replicas.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(7);

/// How long a broker waits for the other replicas before it says that it has waited in vain.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(5);

/// What a batch holds at most, besides a record that is larger by itself. Reading takes it in one piece, see
/// [`super::read::MOST_BYTES`].
pub(super) const BATCH_BYTES: usize = 512 << 10;

/// What a request holds at most, besides a batch that is larger by itself: one that is lost on the way is not repeated
/// at great cost, and the broker has answered before it looks like one that hangs.
const REQUEST_BYTES: usize = 1 << 20;

/// A batch on its way to a partition, and its size.
type PackedBatch = (u32, Batch<RawRecords>, usize);

/// Appends the records, and returns once every replica that is in step has all of them.
pub(super) async fn append(leaders: &Leaders, topic: &Arc<str>, records: Vec<NewRecord>) -> Result<(), QueueError> {
    let appended = timeout(APPEND_TIMEOUT, append_all(leaders, topic, records)).await;
    let appended = appended.unwrap_or_else(|_| Err(failure(format!("{topic}: not appended in {APPEND_TIMEOUT:?}"))));
    appended.inspect_err(|_| leaders.doubt())
}

async fn append_all(leaders: &Leaders, topic: &Arc<str>, records: Vec<NewRecord>) -> Result<(), QueueError> {
    let of_topic = leaders.of_topic(topic).await?;
    let partitions = u32::try_from(of_topic.len()).unwrap_or(u32::MAX);
    let mut by_partition = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        by_partition.entry(partition_of(&record.key, partitions)).or_default().push(record);
    }
    let mut by_broker = BTreeMap::<_, Vec<_>>::new();
    for (number, records) in by_partition {
        let broker = of_topic.get(number as usize);
        let broker = broker.ok_or_else(|| failure(format!("{topic}: no partition {number} is there")))?;
        let batches = pack(records)?.into_iter().map(|(batch, size)| (number, batch, size));
        by_broker.entry(broker.address()).or_default().extend(batches.map(|packed| (broker, packed)));
    }
    let brokers = by_broker.into_values().map(|packed| async move {
        let Some((broker, _)) = packed.first() else { return Ok(()) };
        let broker: Arc<Peer> = Arc::clone(broker);
        let packed = packed.into_iter().map(|(_, packed)| packed);
        // One after the other: of one partition, what was handed in first must be stored first.
        for request in requests(packed.collect()) {
            produce(&broker, topic, request).await?;
        }
        Ok(())
    });
    try_join_all(brokers).await.map(drop)
}

/// The partition of a key: the same for all processes and versions.
pub(super) fn partition_of(key: &str, partitions: u32) -> u32 {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(key));
    u32::from_be_bytes([a, b, c, d]) % partitions.max(1)
}

/// Packs records of one partition into batches, in their order.
fn pack(records: Vec<NewRecord>) -> Result<Vec<(Batch<RawRecords>, usize)>, QueueError> {
    let (mut batches, mut open, mut size) = (Vec::new(), Vec::new(), 0);
    for NewRecord { key, body } in records {
        let record = FluvioRecord::from((key.into_bytes(), Vec::from(body)));
        let more = record.write_size(0);
        if !open.is_empty() && size + more > BATCH_BYTES {
            batches.push(batch(std::mem::take(&mut open))?);
            size = 0;
        }
        size += more;
        open.push(record);
    }
    if !open.is_empty() {
        batches.push(batch(open)?);
    }
    Ok(batches)
}

fn batch(records: Vec<FluvioRecord>) -> Result<(Batch<RawRecords>, usize), QueueError> {
    let batch = Batch::<RawRecords>::try_from(Batch::from(records)).map_err(failure)?;
    let size = batch.write_size(0);
    Ok((batch, size))
}

/// Divides batches into requests, in their order.
fn requests(packed: Vec<PackedBatch>) -> Vec<Vec<PackedBatch>> {
    let (mut requests, mut open, mut size) = (Vec::new(), Vec::new(), 0);
    for packed in packed {
        let more = packed.2;
        if !open.is_empty() && size + more > REQUEST_BYTES {
            requests.push(std::mem::take(&mut open));
            size = 0;
        }
        size += more;
        open.push(packed);
    }
    requests.push(open);
    requests
}

async fn produce(broker: &Peer, topic: &Arc<str>, packed: Vec<PackedBatch>) -> Result<(), QueueError> {
    let mut partitions = BTreeMap::<u32, RecordSet<RawRecords>>::new();
    for (number, batch, _) in packed {
        partitions.entry(number).or_default().batches.push(batch);
    }
    let numbers: Vec<_> = partitions.keys().copied().collect();
    let partitions = partitions.into_iter().map(|(partition_index, records)| {
        let mut request = DefaultPartitionRequest::default();
        (request.partition_index, request.records) = (partition_index, records);
        request
    });
    let mut of_topic = DefaultTopicRequest::default();
    (of_topic.name, of_topic.partitions) = (topic.to_string(), partitions.collect());
    let mut request = DefaultProduceRequest::default();
    // Committed: all replicas that are in step have it. What is not is lost with its broker.
    (request.isolation, request.timeout, request.topics) = (Isolation::ReadCommitted, REPLICAS_TIMEOUT, vec![of_topic]);
    let answer = broker.ask(ACKNOWLEDGED_WITHIN, |_| Ok(request)).await?;
    for number in numbers {
        let partition = Partition { topic: topic.clone(), number };
        let mut answers = answer.responses.iter().flat_map(|topic| &topic.partitions);
        match answers.find(|answer| answer.partition_index == number).map(|answer| &answer.error_code) {
            Some(ErrorCode::None) => {}
            Some(code) => return Err(offsets::of_partition(&partition, code)),
            None => return Err(failure(format!("{topic}-{number}: no answer"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_the_same_partition_for_ever() {
        let of = |key: &str| partition_of(key, 12);
        assert_eq!([of(""), of("a"), of("contact-1")], [2, 2, 10]);
        let used: std::collections::BTreeSet<_> = (0..1_000).map(|i| of(&i.to_string())).collect();
        assert_eq!(used.len(), 12, "every partition has its share");
    }

    #[test]
    fn batches_keep_the_order_and_their_size() {
        let records = (0..100).map(|i| NewRecord { key: i.to_string(), body: vec![0; 20_000].into() }).collect();
        let packed = pack(records).unwrap();
        assert!(packed.len() > 1 && packed.iter().all(|(_, size)| *size <= BATCH_BYTES + 100));
        let keys = packed.iter().flat_map(|(batch, _)| batch.memory_records().unwrap());
        let keys: Vec<_> = keys.map(|record| record.key().unwrap().as_utf8_lossy_string().into_owned()).collect();
        assert_eq!(keys, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
        let count = packed.len();
        let requests = requests(packed.into_iter().map(|(batch, size)| (0, batch, size)).collect());
        assert!(requests.len() > 1 && requests.iter().map(Vec::len).sum::<usize>() == count);
    }
}
