//! Publishes that await their own acknowledgement; what arrives together goes as one batch.
//!
//! Each topic has one batch under way. What comes meanwhile makes the next one, so that the wait for the replicas is
//! shared by all who wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use model::{ContactEvent, Key, Lane};
use runtime::{Clock, task};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::log::{NewRecord, TopicLog, TopicRecord};
use super::topics::Topics;
use crate::QueueError;

/// How long a publish may take, with its wait for the batch before it. The caller repeats it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one batch may take; longer than the log's own limit, which gives up what hangs.
const APPEND_TIMEOUT: Duration = Duration::from_secs(12);

/// Records of one batch: some 150 KB of ordinary messages.
const MOST_IN_BATCH: usize = 512;

/// A record, and who waits for its acknowledgement.
type WaitingPublish = (NewRecord, oneshot::Sender<Result<(), QueueError>>);

/// Publishes to all topics.
pub(super) struct TopicPublisher {
    topics: Arc<Topics>,
    clock: Clock,
    appenders: BTreeMap<Arc<str>, mpsc::Sender<WaitingPublish>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl TopicPublisher {
    /// A publisher to a log.
    pub(super) fn new(log: &Arc<dyn TopicLog>, topics: Arc<Topics>, clock: Clock) -> Self {
        let (mut appenders, mut tasks) = (BTreeMap::new(), Vec::new());
        for topic in topics.needed() {
            let (sender, receiver) = mpsc::channel(MOST_IN_BATCH);
            appenders.insert(topic.name.clone(), sender);
            tasks.push(task::spawn("fluvio publisher", append_all(log.clone(), topic.name, receiver)));
        }
        Self { topics, clock, appenders, _tasks: tasks }
    }

    /// Puts a message on a lane after a delay. An error leaves open whether it is stored.
    pub(super) async fn publish(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        let (topic, key) = match self.topics.step(delay) {
            Some((topic, step)) => (topic, DelayKey { lane, due: self.due(step) }.encode()),
            None => (self.topics.lane(lane), key_of(&body)),
        };
        self.append(topic, NewRecord { key, body }).await
    }

    /// A record whose delay is over goes to its lane.
    pub(super) async fn release(&self, record: &TopicRecord) -> Result<(), QueueError> {
        let lane = DelayKey::decode(&record.key).map_or(Lane::Live, |key| key.lane);
        let (key, body) = (key_of(&record.body), record.body.clone());
        self.append(self.topics.lane(lane), NewRecord { key, body }).await
    }

    /// A record that processes died over goes to the suspects.
    pub(super) async fn suspect(&self, record: &TopicRecord) -> Result<(), QueueError> {
        let (key, body) = (key_of(&record.body), record.body.clone());
        self.append(self.topics.dead(), NewRecord { key, body }).await
    }

    fn due(&self, step: Duration) -> Timestamp {
        self.clock.now().checked_add(step).unwrap_or(Timestamp::MAX)
    }

    async fn append(&self, topic: &Arc<str>, record: NewRecord) -> Result<(), QueueError> {
        let Some(appender) = self.appenders.get(topic) else {
            return Err(QueueError(format!("{topic} is not a topic of this queue")));
        };
        let answered = async {
            let (answer, answered) = oneshot::channel();
            appender.send((record, answer)).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        timeout(PUBLISH_TIMEOUT, answered).await.map_err(|_| {
            QueueError(format!(
                "no acknowledgement within {PUBLISH_TIMEOUT:?}, it is unknown whether the message is stored, and \
                 repeating it is harmless"
            ))
        })?
    }
}

fn closed() -> QueueError {
    QueueError("the queue is closed".to_owned())
}

/// Appends what comes, batch after batch.
async fn append_all(log: Arc<dyn TopicLog>, topic: Arc<str>, mut waiting: mpsc::Receiver<WaitingPublish>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MOST_IN_BATCH).await > 0 {
        let (records, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let appended = match timeout(APPEND_TIMEOUT, log.append(&topic, records)).await {
            Ok(appended) => appended,
            Err(_) => Err(QueueError(format!("{topic}: no acknowledgement within {APPEND_TIMEOUT:?}"))),
        };
        for answer in answers {
            // Who does not wait any more has repeated it, or has died.
            answer.send(appended.clone()).ok();
        }
    }
}

/// The key of a message: its conversation, whose messages so keep their order. One that cannot be read has its digest.
fn key_of(body: &[u8]) -> String {
    match ContactEvent::decode(body) {
        Ok(event) => format!("{}/{}", event.tenant, event.conversation),
        Err(_) => format!("{:?}", Key::of(&[&String::from_utf8_lossy(body)])),
    }
}

/// The key of a record in a delay step: where it goes, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DelayKey {
    /// The lane of the message.
    pub lane: Lane,
    /// When it is due, by the clock of whoever published it.
    pub due: Timestamp,
}

impl DelayKey {
    fn encode(self) -> String {
        format!("{} {}", self.lane.as_str(), self.due.as_millisecond())
    }

    /// None where the record is of somebody else.
    pub(super) fn decode(key: &[u8]) -> Option<Self> {
        let (lane, due) = std::str::from_utf8(key).ok()?.split_once(' ')?;
        let lane = [Lane::Live, Lane::Backfill].into_iter().find(|known| known.as_str() == lane)?;
        // A part of a millisecond was cut off: not before the next one.
        let due = due.parse::<i64>().ok()?.checked_add(1)?;
        Some(Self { lane, due: Timestamp::from_millisecond(due).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_key_says_where_a_record_goes_and_when() {
        let due: Timestamp = "2026-04-01T12:00:00.0005Z".parse().unwrap();
        let key = DelayKey { lane: Lane::Backfill, due };
        assert_eq!(key.encode(), "backfill 1775044800000");
        let read = DelayKey::decode(key.encode().as_bytes()).unwrap();
        assert_eq!((read.lane, read.due), (Lane::Backfill, "2026-04-01T12:00:00.001Z".parse().unwrap()));
        for foreign in ["", "live", "live x", "later 1", "live 99999999999999999999", "live 9223372036854775807"] {
            assert_eq!(DelayKey::decode(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn messages_of_a_conversation_have_one_key() {
        let event = |attempt| {
            let conversation = "698800000001".parse().unwrap();
            let mut event = ContactEvent::new("acme".parse().unwrap(), conversation, model::EventSource::Poll);
            event.attempt = attempt;
            key_of(&event.encode())
        };
        assert_eq!((event(0), event(1)), ("acme/698800000001".to_owned(), "acme/698800000001".to_owned()));
        assert_ne!(key_of(b"a"), key_of(b"b"));
    }
}
