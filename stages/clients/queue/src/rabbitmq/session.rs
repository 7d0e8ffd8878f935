//! One channel with its consumers, and the intake: the task that takes in what the broker sends.
//!
//! When the session is dropped (nobody reads any more), the consumers are cancelled and what was not yet begun is
//! handed back; deliveries that are out keep the channel open until they are settled. When the broker cancels a
//! consumer, what came on its channel is not ours any more, and another session begins.
//!
//! Live messages are sent by the broker, as many as may be unsettled. Backfill is fetched one by one, when there is
//! room and nothing live waits. So while a reader is full of backfill, the broker may have sent it up to as many live
//! messages again, which are the next ones it takes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use futures::{
    FutureExt, Stream, stream,
    stream::{BoxStream, StreamExt},
};
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use model::Lane;
use runtime::task;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::warn;

use super::ownership::Ownership;
use super::settle::{HeldMessage, Suspicion};
use super::suspects::{GRACE, Record, Suspect};
use super::topology::ready;
use super::{ANSWER_TIMEOUT, Inner, RabbitError};

/// How often an idle reader looks for backfill, which nobody announces; replays can wait that long. A reader that
/// begins waits as long before its first look: live messages that another one hands back take a moment.
const BACKFILL_INTERVAL: Duration = Duration::from_millis(500);

/// How soon it looks again when a live message was on its way.
const LIVE_FIRST: Duration = Duration::from_millis(10);

/// How long backfill that made way for live messages is held. A broker waits for an answer half an hour by default,
/// and then ends the channel with all that is in flight on it.
const MADE_WAY: Duration = Duration::from_secs(300);

/// How long messages that were sent here wait while the broker takes none, before they are handed back. A connection
/// that was lost is mostly made again sooner.
pub(super) const SHORT_TROUBLE: Duration = Duration::from_secs(5);

/// The session is over; what was not settled comes again.
pub(super) struct Interrupted(pub(super) String);

impl From<RabbitError> for Interrupted {
    fn from(error: RabbitError) -> Self {
        Self(error.to_string())
    }
}

/// What a look for backfill found.
enum FetchedBackfill {
    Backfill(Box<HeldMessage>),
    Nothing,
    /// A live message has come or is about to.
    LiveFirst,
}

/// One channel with its consumers.
pub(super) struct Session {
    channel: Channel,
    consumers: [ShortString; 2],
    arrived: mpsc::Receiver<Result<HeldMessage, Interrupted>>,
    asking: mpsc::Sender<oneshot::Sender<Result<FetchedBackfill, Interrupted>>>,
    /// Set before the consumers are cancelled from here; an end of one without it is the broker's doing.
    ending: Arc<AtomicBool>,
    /// When to look for backfill.
    look_at: Instant,
}

impl Session {
    /// Begins to consume.
    pub(super) async fn open(
        connection: &Connection,
        queue: &Arc<Inner>,
        prefetch: usize,
    ) -> Result<Self, lapin::Error> {
        // What an earlier session lost to the broker was no death.
        if let Err(error) = queue.marks.forgive(connection).await {
            warn!(%error, "marks at suspects not taken away");
        }
        let channel = connection.create_channel().await?;
        let live = consume(&channel, queue.topology.lane(Lane::Live), prefetch).await?;
        // One suspect at a time: it may be what ends the process.
        let dead = consume(&channel, queue.topology.dead(), 1).await?;
        let consumers = [live.tag(), dead.tag()];
        let arrivals = stream::select(tagged(live, false), tagged(dead, true)).boxed();
        // Room for all that the broker sends unasked, a backfill message that made way, and the ends of both consumers.
        let (arriving, arrived) = mpsc::channel(prefetch.max(1).saturating_add(4));
        let (asking, asked) = mpsc::channel(1);
        let ending = Arc::<AtomicBool>::default();
        let intake = Intake {
            ownership: Ownership::new(channel.clone()),
            queue: queue.clone(),
            arrivals,
            arriving,
            asked,
            ending: ending.clone(),
            lost: false,
            spare: None,
            made_way: MADE_WAY,
        };
        // It ends with its consumers: soon after the session, or with the connection.
        drop(task::spawn("intake", intake.run()).detach());
        Ok(Self { channel, consumers, arrived, asking, ending, look_at: Instant::now() + BACKFILL_INTERVAL })
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<HeldMessage, Interrupted> {
        loop {
            if let Ok(arrival) = self.arrived.try_recv() {
                return arrival;
            }
            if Instant::now() >= self.look_at {
                let (answering, answer) = oneshot::channel();
                self.asking.send(answering).await.map_err(|_| over())?;
                let pause = match answer.await.map_err(|_| over())?? {
                    FetchedBackfill::Backfill(held) => return Ok(*held),
                    FetchedBackfill::Nothing => BACKFILL_INTERVAL,
                    FetchedBackfill::LiveFirst => LIVE_FIRST,
                };
                self.look_at = Instant::now() + pause;
                continue;
            }
            tokio::select! {
                biased;
                arrival = self.arrived.recv() => return arrival.unwrap_or_else(|| Err(over())),
                () = tokio::time::sleep_until(self.look_at) => {}
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Before anything is handed back, or it would be sent here again. The first poll puts it on its way.
        for consumer in &self.consumers {
            drop(self.channel.basic_cancel(consumer.clone(), BasicCancelOptions::default()).now_or_never());
        }
    }
}

fn over() -> Interrupted {
    Interrupted("the consumers have ended".to_owned())
}

async fn consume(channel: &Channel, queue: ShortString, prefetch: usize) -> Result<lapin::Consumer, lapin::Error> {
    // The limit holds for the consumers that begin after it. None would be unlimited.
    let prefetch = u16::try_from(prefetch.max(1)).unwrap_or(u16::MAX);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// What a consumer sent.
enum Arrival {
    Message(Box<Delivery>, IsSuspect),
    End(Interrupted),
}

type IsSuspect = bool;

/// A consumer's messages, then its end.
fn tagged(consumer: lapin::Consumer, suspect: IsSuspect) -> impl Stream<Item = Arrival> + Send {
    consumer
        .map(move |arrival| match arrival {
            Ok(delivery) => Arrival::Message(Box::new(delivery), suspect),
            Err(error) => Arrival::End(Interrupted(error.to_string())),
        })
        .chain(stream::once(async { Arrival::End(over()) }))
}

/// Takes in what the broker sends, and fetches backfill when asked.
struct Intake {
    ownership: Ownership,
    queue: Arc<Inner>,
    arrivals: BoxStream<'static, Arrival>,
    arriving: mpsc::Sender<Result<HeldMessage, Interrupted>>,
    asked: mpsc::Receiver<oneshot::Sender<Result<FetchedBackfill, Interrupted>>>,
    /// See [`Session`].
    ending: Arc<AtomicBool>,
    /// Whether a consumer was ended by the broker.
    lost: bool,
    /// Backfill that was fetched when a live message came after all, and when it has made way for long enough.
    spare: Option<(HeldMessage, Instant)>,
    /// [`MADE_WAY`].
    made_way: Duration,
}

impl Intake {
    /// Ends with both consumers.
    async fn run(mut self) {
        let mut is_read = true;
        loop {
            let due = self.spare.as_ref().map(|(_, due)| *due);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    // It comes after the live messages that are here, and before those that are not.
                    if let Some((held, _)) = self.spare.take() {
                        drop(self.arriving.try_send(Ok(held)));
                    }
                }
                arrival = self.arrivals.next() => match arrival {
                    Some(arrival) => {
                        self.pass_on(arrival);
                        if self.lost {
                            self.ownership.lose().await;
                        }
                    }
                    None => return,
                },
                answering = self.asked.recv(), if is_read => match answering {
                    Some(answering) => {
                        let found = self.look().await;
                        // Where nobody waits any more, it is handed back.
                        drop(answering.send(found));
                    }
                    None => is_read = false,
                },
            }
        }
    }

    /// Passes an arrival on to the session; where there is none any more, it is handed back.
    fn pass_on(&mut self, arrival: Arrival) {
        let arrival = match arrival {
            Arrival::Message(delivery, false) => Ok(self.hold(*delivery, Lane::Live)),
            Arrival::Message(delivery, true) => {
                let held = self.hold(*delivery, Lane::Live);
                let looking = look_at_suspect(held, self.queue.clone(), self.arriving.clone());
                // There is one at a time.
                drop(task::spawn("suspect", looking).detach());
                return;
            }
            Arrival::End(interrupted) => {
                self.lost |= !self.ending.load(Ordering::SeqCst);
                Err(interrupted)
            }
        };
        drop(self.arriving.try_send(arrival));
    }

    fn hold(&self, delivery: Delivery, lane: Lane) -> HeldMessage {
        HeldMessage::new(self.ownership.clone(), delivery, lane, self.queue.counters.clone())
    }

    async fn look(&mut self) -> Result<FetchedBackfill, Interrupted> {
        timeout(ANSWER_TIMEOUT, self.fetch())
            .await
            .unwrap_or_else(|_| Err(Interrupted("the broker does not answer".to_owned())))
    }

    /// Fetches a backfill message if nothing live waits. The broker answers in order: what it had sent before it
    /// counted is here when the message is.
    async fn fetch(&mut self) -> Result<FetchedBackfill, Interrupted> {
        if ready(self.ownership.channel(), self.queue.topology.lane(Lane::Live)).await? > 0 {
            return Ok(FetchedBackfill::LiveFirst);
        }
        if self.spare.is_none() {
            let queue = self.queue.topology.lane(Lane::Backfill);
            let message = self.ownership.channel().basic_get(queue, BasicGetOptions::default()).await;
            let message = message.map_err(|error| Interrupted(error.to_string()))?;
            let due = Instant::now() + self.made_way;
            self.spare = message.map(|message| (self.hold(message.delivery, Lane::Backfill), due));
        }
        let mut live_came = false;
        while let Some(Some(arrival)) = self.arrivals.next().now_or_never() {
            self.pass_on(arrival);
            live_came = true;
        }
        Ok(match self.spare.take() {
            Some(spare) if live_came => {
                self.spare = Some(spare);
                FetchedBackfill::LiveFirst
            }
            Some((held, _)) => FetchedBackfill::Backfill(Box::new(held)),
            None => FetchedBackfill::Nothing,
        })
    }
}

/// Looks at what others left at a suspect, and passes it on with that. One that seems over the limit is looked at
/// again after the [`GRACE`]: a living process takes its mark away as soon as it can.
async fn look_at_suspect(
    held: HeldMessage,
    queue: Arc<Inner>,
    arriving: mpsc::Sender<Result<HeldMessage, Interrupted>>,
) {
    let suspect = Suspect::of(held.body());
    let looked = async {
        let record = look_once(&suspect, &queue).await?;
        if !record.is_over_limit() {
            return Ok(record);
        }
        tokio::time::sleep(GRACE).await;
        look_once(&suspect, &queue).await
    };
    let record = tokio::select! {
        biased;
        () = arriving.closed() => return,
        record = looked => record,
    };
    match record {
        Ok(record) => {
            let suspicion = Suspicion { suspect, record, marks: queue.marks.clone() };
            drop(arriving.try_send(Ok(held.suspected(suspicion))));
        }
        Err(error) => {
            warn!(%error, "nothing learned of a suspect, it will come again");
            // Handed back at once, it would come again at once.
            let _ended = timeout(SHORT_TROUBLE, arriving.closed()).await;
        }
    }
}

async fn look_once(suspect: &Suspect, queue: &Inner) -> Result<Record, RabbitError> {
    let looked = async {
        let connection = queue.consuming.connection().await.map_err(|error| RabbitError::Failed(error.0))?;
        queue.marks.look(&connection, suspect).await
    };
    let looked = timeout(ANSWER_TIMEOUT, looked).await;
    looked.map_err(|_| RabbitError::Failed(format!("no answer within {ANSWER_TIMEOUT:?}")))?
}

#[cfg(test)]
mod tests {
    use lapin::message::BasicGetMessage;

    use super::*;
    use crate::rabbitmq::{RabbitOptions, RabbitQueue};
    use crate::{Queue, QueueMetrics};

    #[tokio::test]
    async fn backfill_that_made_way_is_not_held_for_as_long_as_live_messages_come() {
        let options = RabbitOptions {
            url: test_servers::rabbitmq().await.url().into(),
            prefix: format!("test.{:016x}", rand::random::<u64>()),
            delays: Vec::new(),
            ca: None,
            service: "test".to_owned(),
        };
        let queue = RabbitQueue::connect(options, &QueueMetrics::default()).await.unwrap();
        queue.publish(Lane::Backfill, "backfill".into()).await.unwrap();
        queue.publish(Lane::Live, "live".into()).await.unwrap();
        let queue = queue.inner.clone();
        let channel = queue.consuming.connection().await.unwrap().create_channel().await.unwrap();
        let live = channel.basic_get(queue.topology.lane(Lane::Live), BasicGetOptions::default()).await.unwrap();
        let BasicGetMessage { delivery, .. } = live.unwrap();
        let arrivals = stream::iter([Arrival::Message(Box::new(delivery), false)]).chain(stream::pending()).boxed();
        let (arriving, mut arrived) = mpsc::channel(2);
        let (_asking, asked) = mpsc::channel(1);
        let ownership = Ownership::new(channel);
        let mut intake = Intake {
            ownership,
            queue,
            arrivals,
            arriving,
            asked,
            ending: Arc::default(),
            lost: false,
            spare: None,
            made_way: Duration::ZERO,
        };
        assert!(matches!(intake.look().await, Ok(FetchedBackfill::LiveFirst)));
        let intake = task::spawn("intake", intake.run());
        for text in ["live", "backfill"] {
            let held = timeout(ANSWER_TIMEOUT, arrived.recv()).await.expect("it comes").unwrap().ok().unwrap();
            assert_eq!(held.body(), text);
        }
        drop(intake);
    }
}
