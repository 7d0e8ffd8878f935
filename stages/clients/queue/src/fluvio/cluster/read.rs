//! Reading: the records of one partition as they come, on a connection of their own.
//!
//! The broker sends one piece of the log, and the next once it is told up to where the last was taken; so a reader that
//! waits costs it and us one piece. A piece is cut off at a number of bytes, mostly in the middle of a batch: what is
//! not whole is left, and asked for again.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluvio::Isolation;
use fluvio::dataplane::api::Request;
use fluvio::dataplane::core::{Decoder, Version};
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{BATCH_HEADER_SIZE, Batch, RawRecords};
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::super::log::{Partition, Records, TopicRecord};
use super::leaders::Leaders;
use super::peer::{Peer, PeerConnection};
use super::{QUESTION_TIMEOUT, failure, offsets};
use crate::QueueError;

/// What a piece of the log holds at most: two of the batches that are written here, so that each fits into one.
pub(super) const MOST_BYTES: i32 = 1 << 20;

/// As much as is read in one piece where others have written larger batches; more than Fluvio itself takes.
const MOST_BYTES_OF_OTHERS: i32 = 64 << 20;

/// After a silence as long as this the broker is asked whether it is there, and where the partition ends. One that does
/// not answer in the same time again is given up.
const SILENCE: Duration = Duration::from_secs(5);

/// The numbers of the messages on a connection that reads: answers bear the number of their question.
const STREAM: i32 = 1;
const TAKEN: i32 = 2;
const PROBE: i32 = 3;

/// The records of a partition, from an offset on or the first that is kept.
pub(super) async fn open(leaders: &Leaders, partition: &Partition, from: i64) -> Result<Records, QueueError> {
    let opened = async {
        let broker = leaders.of(partition).await?;
        Reader::open(broker, partition.clone(), from, MOST_BYTES).await
    };
    let reader = opened.await.inspect_err(|_| leaders.doubt())?;
    let records = stream::try_unfold(reader, |mut reader| async move {
        let record = reader.next().await?;
        Ok(Some((record, reader)))
    });
    Ok(records.boxed())
}

struct Reader {
    broker: Arc<Peer>,
    partition: Partition,
    connection: PeerConnection,
    /// The version in which the broker answers.
    version: Version,
    most_bytes: i32,
    /// Of the last piece, what was not asked for yet.
    waiting: VecDeque<TopicRecord>,
    /// The offset of the record that comes next, behind those that wait.
    next: i64,
    /// The broker's number for this reading, where it must be told up to where the last piece was taken.
    untold: Option<u32>,
    /// Whether the broker was asked whether it is there.
    is_probed: bool,
    /// Whether it has said that there is more, and has not sent it yet.
    is_behind: bool,
}

impl Reader {
    async fn open(broker: Arc<Peer>, partition: Partition, from: i64, most_bytes: i32) -> Result<Self, QueueError> {
        let bounds = broker.ask(QUESTION_TIMEOUT, |_| Ok(offsets::request(std::slice::from_ref(&partition)))).await?;
        let bounds = offsets::read(&bounds, &partition)?;
        if from > bounds.end {
            return Err(failure(format!(
                "{}-{} ends at {}, before {from}: it has lost what it had, or was made anew",
                partition.topic, partition.number, bounds.end
            )));
        }
        let next = from.max(bounds.start);
        let connection = broker.connect().await?;
        let mut request = DefaultStreamFetchRequest::default();
        (request.topic, request.partition) = (partition.topic.to_string(), partition.number);
        (request.fetch_offset, request.max_bytes, request.isolation) = (next, most_bytes, Isolation::ReadCommitted);
        let message = connection.message(STREAM, |_| Ok(request))?;
        let version = message.header.api_version();
        let mut reader = Self {
            broker,
            partition,
            connection,
            version,
            most_bytes,
            waiting: VecDeque::new(),
            next,
            untold: None,
            is_probed: false,
            is_behind: false,
        };
        reader.send(&message).await?;
        Ok(reader)
    }

    async fn next(&mut self) -> Result<TopicRecord, QueueError> {
        loop {
            if let Some(record) = self.waiting.pop_front() {
                return Ok(record);
            }
            if let Some(session_id) = self.untold.take() {
                let offsets = vec![OffsetUpdate { offset: self.next, session_id }];
                let message = self.connection.message(TAKEN, |_| Ok(UpdateOffsetsRequest { offsets }))?;
                self.send(&message).await?;
            }
            let frames = self.connection.socket.get_mut_stream().get_mut_tcp_stream();
            match timeout(SILENCE, frames.next()).await {
                Ok(Some(Ok(frame))) => self.take(frame.freeze()).await?,
                Ok(Some(Err(error))) => return Err(self.broker.lose(&error.to_string())),
                Ok(None) => return Err(self.broker.lose("it has ended the connection")),
                Err(_) if self.is_probed => return Err(self.broker.lose("it is silent")),
                Err(_) => {
                    let request = offsets::request(std::slice::from_ref(&self.partition));
                    let message = self.connection.message(PROBE, |_| Ok(request))?;
                    self.send(&message).await?;
                    self.is_probed = true;
                }
            }
        }
    }

    async fn send<R: Request>(
        &mut self,
        message: &fluvio::dataplane::api::RequestMessage<R>,
    ) -> Result<(), QueueError> {
        match timeout(QUESTION_TIMEOUT, self.connection.socket.get_mut_sink().send_request(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broker.lose(&error.to_string())),
            Err(_) => Err(self.broker.lose("it takes nothing")),
        }
    }

    /// Takes a message of the broker.
    async fn take(&mut self, frame: Bytes) -> Result<(), QueueError> {
        let mut frame = Cursor::new(frame);
        match i32::decode_from(&mut frame, 0).map_err(failure)? {
            STREAM => {
                let answer = <DefaultStreamFetchRequest as Request>::Response::decode_from(&mut frame, self.version);
                let answer = answer.map_err(failure)?;
                let was = self.next;
                if self.take_batches(answer.partition.records.batches).await? {
                    return Ok(());
                }
                match answer.partition.error_code {
                    ErrorCode::None => {}
                    code => return Err(offsets::of_partition(&self.partition, &code)),
                }
                (self.untold, self.is_probed) = (Some(answer.stream_id), false);
                self.is_behind &= self.next == was;
            }
            PROBE => {
                let answer = <FetchOffsetsRequest as Request>::Response::decode_from(&mut frame, self.version);
                let end = offsets::read(&answer.map_err(failure)?, &self.partition)?.end;
                self.is_probed = false;
                if end > self.next && std::mem::replace(&mut self.is_behind, true) {
                    return Err(self.broker.lose("it has more records and does not send them"));
                }
            }
            // What it says to having been told up to where the last piece was taken.
            _ => {}
        }
        Ok(())
    }

    /// True where it was opened anew for that, and the answer is of the former connection.
    async fn take_batches(&mut self, batches: Vec<Batch<RawRecords>>) -> Result<bool, QueueError> {
        let Some(first) = batches.first() else { return Ok(false) };
        let needed = first.batch_len();
        if !is_whole(first) {
            return self.open_wider(needed).await.map(|()| true);
        }
        for batch in batches.into_iter().take_while(is_whole) {
            let count = batch.records_len();
            let (base, end) = (batch.get_base_offset(), batch.computed_last_offset());
            let records = batch.memory_records().map_err(failure)?;
            if records.len() != count {
                return Err(failure(format!(
                    "{}-{}: the batch at {base} has {count} records, and {} can be read",
                    self.partition.topic,
                    self.partition.number,
                    records.len()
                )));
            }
            for (offset, record) in (base..).zip(records) {
                // A piece begins with the whole batch that the first record is in.
                if offset >= self.next {
                    let key = record.key.map(|key| Bytes::copy_from_slice(key.as_ref())).unwrap_or_default();
                    let body = Bytes::copy_from_slice(record.value.as_ref());
                    self.waiting.push_back(TopicRecord { offset, key, body });
                }
            }
            self.next = self.next.max(end);
        }
        Ok(false)
    }

    /// Reads on in larger pieces: a batch does not fit into one.
    async fn open_wider(&mut self, needed: i32) -> Result<(), QueueError> {
        let most_bytes = needed.saturating_add(MOST_BYTES);
        if needed <= 0 || most_bytes > MOST_BYTES_OF_OTHERS || most_bytes <= self.most_bytes {
            return Err(failure(format!(
                "{}-{}: the batch at {} has {needed} bytes, and cannot be read",
                self.partition.topic, self.partition.number, self.next
            )));
        }
        *self = Box::pin(Self::open(self.broker.clone(), self.partition.clone(), self.next, most_bytes)).await?;
        Ok(())
    }
}

/// Whether all of a batch has come.
fn is_whole(batch: &Batch<RawRecords>) -> bool {
    let header = i32::try_from(BATCH_HEADER_SIZE).unwrap_or(i32::MAX);
    i32::try_from(batch.records().0.len()).is_ok_and(|records| records >= batch.batch_len().saturating_sub(header))
}
