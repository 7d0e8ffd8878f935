//! Deliveries: live before backfill, one suspect at a time, and on through every loss of the connection.
//!
//! Live messages are sent by the broker, as many as may be unsettled. Backfill is fetched one by one, when there is
//! room and nothing live waits. So while a reader is full of backfill, the broker may have sent it up to as many live
//! messages again, which are the next ones it takes.
//!
//! A reader's session is one channel with its consumers, and a task, the intake, that takes in what the broker sends.
//! When the session is dropped (nobody reads any more, or a consumer was lost), the consumers are cancelled and what
//! was not yet begun is handed back; deliveries that are out keep the channel open until they are settled.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, Stream};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::connection::{intervals, pause};
use super::settle::Held;
use super::topology::{PROBATION, code, ready};
use super::{ANSWER_TIMEOUT, Inner, RabbitError};
use crate::clients::queue::{Lane, QueueDelivery, QueueError};
use crate::flow::task;

/// How often an idle reader looks for backfill, which nobody announces; replays can wait that long. A reader that
/// begins waits as long before its first look: live messages that another one hands back take a moment.
const BACKFILL_INTERVAL: Duration = Duration::from_millis(500);

/// How soon it looks again when a live message was on its way.
const LIVE_FIRST: Duration = Duration::from_millis(10);

/// How long backfill that made way for live messages is held. A broker waits for an answer half an hour by default,
/// and then ends the channel with all that is in flight on it.
const MADE_WAY: Duration = Duration::from_secs(300);

/// The deliveries of a queue. `prefetch` is the most that are unsettled at a time.
pub(super) fn deliveries(queue: Arc<Inner>, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
    let reader = Reader { queue, prefetch, room: Arc::new(Semaphore::new(prefetch)), session: None };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let permit = reader.room.clone().acquire_owned().await.ok()?;
        match reader.next().await {
            Ok(held) => Some((Ok(held.deliver(reader.queue.clone(), permit)), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Reader {
    queue: Arc<Inner>,
    prefetch: usize,
    room: Arc<Semaphore>,
    session: Option<Session>,
}

impl Reader {
    /// The next message, through as many sessions as it takes.
    async fn next(&mut self) -> Result<Held, QueueError> {
        let mut intervals = intervals();
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.open().await?,
            };
            match session.next().await {
                Ok(held) => {
                    self.session = Some(session);
                    return Ok(held);
                }
                Err(Interrupted(reason)) => {
                    warn!(reason, "deliveries interrupted, beginning again");
                    drop(session);
                    pause(&mut intervals).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<Session, QueueError> {
        let mut intervals = intervals();
        loop {
            let connection = self.queue.consuming.connection().await?;
            let opening = Session::open(&connection, &self.queue, self.prefetch);
            match timeout(ANSWER_TIMEOUT, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) if code(&error) == Some(404) => {
                    if let Err(error) = self.queue.topology.declare_again(&connection).await {
                        warn!(%error, "nothing declared");
                    }
                }
                Ok(Err(error)) => warn!(%error, "no deliveries, will try again"),
                Err(_) => warn!("no deliveries: the broker does not answer, will try again"),
            }
            pause(&mut intervals).await;
        }
    }
}

/// The session is over; what was not settled comes again.
struct Interrupted(String);

impl From<RabbitError> for Interrupted {
    fn from(error: RabbitError) -> Self {
        Self(error.to_string())
    }
}

/// What a look for backfill found.
enum Found {
    Backfill(Held),
    Nothing,
    /// A live message has come or is about to.
    LiveFirst,
}

/// One channel with its consumers.
struct Session {
    channel: Channel,
    consumers: [ShortString; 2],
    arrived: mpsc::Receiver<Result<Held, Interrupted>>,
    asking: mpsc::Sender<oneshot::Sender<Result<Found, Interrupted>>>,
    /// When to look for backfill.
    look_at: Instant,
}

impl Session {
    async fn open(connection: &Connection, queue: &Arc<Inner>, prefetch: usize) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        let live = consume(&channel, queue.topology.lane(Lane::Live), prefetch).await?;
        // One suspect at a time: it may be what ends the process.
        let dead = consume(&channel, queue.topology.dead(), 1).await?;
        let consumers = [live.tag(), dead.tag()];
        let arrivals = stream::select(tagged(live, false), tagged(dead, true)).boxed();
        // Room for all that the broker sends unasked, a backfill message that made way, and the ends of both consumers.
        let (arriving, arrived) = mpsc::channel(prefetch.max(1).saturating_add(4));
        let (asking, asked) = mpsc::channel(1);
        let (channel_of_intake, queue) = (channel.clone(), queue.clone());
        let intake =
            Intake { channel: channel_of_intake, queue, arrivals, arriving, asked, spare: None, made_way: MADE_WAY };
        // It ends with its consumers: soon after the session, or with the connection.
        drop(task::spawn("intake", intake.run()).detach());
        Ok(Self { channel, consumers, arrived, asking, look_at: Instant::now() + BACKFILL_INTERVAL })
    }

    async fn next(&mut self) -> Result<Held, Interrupted> {
        loop {
            if let Ok(arrival) = self.arrived.try_recv() {
                return arrival;
            }
            if Instant::now() >= self.look_at {
                let (answering, answer) = oneshot::channel();
                self.asking.send(answering).await.map_err(|_| over())?;
                let pause = match answer.await.map_err(|_| over())?? {
                    Found::Backfill(held) => return Ok(held),
                    Found::Nothing => BACKFILL_INTERVAL,
                    Found::LiveFirst => LIVE_FIRST,
                };
                self.look_at = Instant::now() + pause;
                continue;
            }
            tokio::select! {
                arrival = self.arrived.recv() => return arrival.unwrap_or_else(|| Err(over())),
                () = tokio::time::sleep_until(self.look_at) => {}
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
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
    channel: Channel,
    queue: Arc<Inner>,
    arrivals: BoxStream<'static, Arrival>,
    arriving: mpsc::Sender<Result<Held, Interrupted>>,
    asked: mpsc::Receiver<oneshot::Sender<Result<Found, Interrupted>>>,
    /// Backfill that was fetched when a live message came after all, and when it has made way for long enough.
    spare: Option<(Held, Instant)>,
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
                    Some(arrival) => { self.pass_on(arrival); }
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
    fn pass_on(&self, arrival: Arrival) {
        let arrival = match arrival {
            Arrival::Message(delivery, suspect) => {
                let over_limit = suspect && returns(&delivery) >= PROBATION.into();
                Ok(self.hold(*delivery, Lane::Live, over_limit))
            }
            Arrival::End(interrupted) => Err(interrupted),
        };
        drop(self.arriving.try_send(arrival));
    }

    fn hold(&self, delivery: Delivery, lane: Lane, over_limit: bool) -> Held {
        Held::new(self.channel.clone(), delivery, lane, over_limit, self.queue.counters.clone())
    }

    async fn look(&mut self) -> Result<Found, Interrupted> {
        timeout(ANSWER_TIMEOUT, self.fetch())
            .await
            .unwrap_or_else(|_| Err(Interrupted("the broker does not answer".to_owned())))
    }

    /// Fetches a backfill message if nothing live waits. The broker answers in order: what it had sent before it
    /// counted is here when the message is.
    async fn fetch(&mut self) -> Result<Found, Interrupted> {
        if ready(&self.channel, self.queue.topology.lane(Lane::Live)).await? > 0 {
            return Ok(Found::LiveFirst);
        }
        if self.spare.is_none() {
            let queue = self.queue.topology.lane(Lane::Backfill);
            let message = self.channel.basic_get(queue, BasicGetOptions::default()).await;
            let message = message.map_err(|error| Interrupted(error.to_string()))?;
            let due = Instant::now() + self.made_way;
            self.spare = message.map(|message| (self.hold(message.delivery, Lane::Backfill, false), due));
        }
        let mut live_came = false;
        while let Some(Some(arrival)) = self.arrivals.next().now_or_never() {
            self.pass_on(arrival);
            live_came = true;
        }
        Ok(match self.spare.take() {
            Some(spare) if live_came => {
                self.spare = Some(spare);
                Found::LiveFirst
            }
            Some((held, _)) => Found::Backfill(held),
            None => Found::Nothing,
        })
    }
}

/// How often a message came back to its queue.
fn returns(delivery: &Delivery) -> u64 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    match count {
        Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::LongUInt(count)) => (*count).into(),
        Some(AMQPValue::ShortInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::ShortUInt(count)) => (*count).into(),
        Some(AMQPValue::ShortShortInt(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(AMQPValue::ShortShortUInt(count)) => (*count).into(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use lapin::message::BasicGetMessage;

    use super::*;
    use crate::clients::queue::Queue;
    use crate::clients::queue::rabbitmq::{RabbitOptions, RabbitQueue};
    use crate::flow::Metrics;

    #[tokio::test]
    async fn backfill_that_made_way_is_not_held_for_as_long_as_live_messages_come() {
        let options = RabbitOptions {
            url: test_servers::rabbitmq().await.url().into(),
            prefix: format!("test.{:016x}", rand::random::<u64>()),
            delays: Vec::new(),
            ca: None,
            service: "test".to_owned(),
        };
        let queue = RabbitQueue::connect(options, &Metrics::new()).await.unwrap();
        queue.publish(Lane::Backfill, "backfill".into()).await.unwrap();
        queue.publish(Lane::Live, "live".into()).await.unwrap();
        let queue = queue.inner.clone();
        let channel = queue.consuming.connection().await.unwrap().create_channel().await.unwrap();
        let live = channel.basic_get(queue.topology.lane(Lane::Live), BasicGetOptions::default()).await.unwrap();
        let BasicGetMessage { delivery, .. } = live.unwrap();
        let arrivals = stream::iter([Arrival::Message(Box::new(delivery), false)]).chain(stream::pending()).boxed();
        let (arriving, mut arrived) = mpsc::channel(2);
        let (_asking, asked) = mpsc::channel(1);
        let mut intake = Intake { channel, queue, arrivals, arriving, asked, spare: None, made_way: Duration::ZERO };
        assert!(matches!(intake.look().await, Ok(Found::LiveFirst)));
        let intake = task::spawn("intake", intake.run());
        for text in ["live", "backfill"] {
            let held = timeout(ANSWER_TIMEOUT, arrived.recv()).await.expect("it comes").unwrap().ok().unwrap();
            assert_eq!(held.body(), text);
        }
        drop(intake);
    }
}
