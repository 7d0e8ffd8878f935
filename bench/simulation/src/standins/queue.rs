//! The broker that all machines share, in memory, and each machine's way to it: a model of RabbitMQ.
//!
//! What a machine holds unsettled belongs to its session. When that ends the broker takes all of it back, and hands it
//! out again to whoever is there: at once where the process died or the connection broke, after a while where the
//! machine is suspended or cut off. To settle it then fails. Only a death counts against a message; one that many
//! processes have died over is handed out alone and after all others, and is over the limit in the end.
//!
//! An acknowledgement is not answered: whoever gives it does not know whether it has arrived. A deferral is a publish
//! and an acknowledgement, so what is deferred may come twice. Delays are rounded up to the steps of RabbitMQ's queues.
//! A broker whose disk is full takes no messages, and as the program then takes none from it, it gives none out.
//!
//! The embedded queue is one process's: it does not tell a death from a message that is handed back, knows no
//! connection that could break, and goes by the clock of its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    stream,
    stream::{BoxStream, StreamExt},
};
use model::{ContactEvent, Lane, Settle, SettleError};
use queue::{Backlog, DELIVERY_LIMIT, Queue, QueueDelivery, QueueError, rounded_up};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::session::{Connection, Heartbeat, Session};
use super::{Kind, Link, lock};

/// A message that so many processes have died over is a suspect.
const SUSPECT: u32 = 3;

/// A reader that waits looks again after this time at the latest: a session may have ended that nobody has asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How long a reader waits before it tries to connect again, or looks whether the broker takes messages again; with
/// jitter between half and all of it.
const RETRY: Duration = Duration::from_secs(4);

/// The broker; clones share it.
#[derive(Debug, Clone)]
pub struct Broker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    heartbeat: Heartbeat,
    begun: Instant,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<Place, Message>,
    in_flight: BTreeMap<u64, InFlight>,
    sessions: Vec<Arc<Session>>,
}

/// Where a message stands: those that are due earlier come first. The time is the broker's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    lane: Lane,
    /// How many processes have died over it, once it is a suspect.
    suspicion: u32,
    due: Duration,
    number: u64,
}

#[derive(Debug, Clone)]
struct Message {
    body: Bytes,
    deaths: u32,
}

#[derive(Debug)]
struct InFlight {
    place: Place,
    message: Message,
    session: Arc<Session>,
}

/// A message as whoever looks past the door sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessage {
    /// Which calls it is among.
    pub lane: Lane,
    /// The message.
    pub body: Bytes,
    /// How many processes have died over it.
    pub deaths: u32,
    /// Whether a machine has it.
    pub is_in_flight: bool,
}

impl Broker {
    /// An empty one, which holds a machine for gone that gives no sign of life for `dead_after`.
    pub fn new(dead_after: Duration) -> Self {
        let heartbeat = Heartbeat { interval: dead_after / 4, client: dead_after, server: dead_after };
        Self { state: Arc::default(), changed: Arc::default(), heartbeat, begun: Instant::now() }
    }

    /// A machine's way to it.
    pub fn through(&self, link: Link) -> LinkedQueue {
        LinkedQueue { broker: self.clone(), link, connections: Arc::default(), closed: CancellationToken::new() }
    }

    /// Every message, in the order in which they come.
    pub fn messages(&self) -> Vec<QueuedMessage> {
        let state = lock(&self.state);
        let seen = |place: &Place, message: &Message, is_in_flight| QueuedMessage {
            lane: place.lane,
            body: message.body.clone(),
            deaths: message.deaths,
            is_in_flight,
        };
        let held = state.in_flight.values().map(|held| seen(&held.place, &held.message, true));
        held.chain(state.waiting.iter().map(|(place, message)| seen(place, message, false))).collect()
    }

    fn publish(&self, lane: Lane, body: Bytes, delay: Duration) {
        let delay = if delay.is_zero() { delay } else { rounded_up(delay) };
        let mut state = lock(&self.state);
        state.last += 1;
        let place = Place { lane, suspicion: 0, due: self.begun.elapsed() + delay, number: state.last };
        state.waiting.insert(place, Message { body, deaths: 0 });
        drop(state);
        self.changed.notify_waiters();
    }

    fn begin(&self, session: &Arc<Session>) {
        lock(&self.state).sessions.push(session.clone());
    }

    /// The next message for a session, or how long to wait for one.
    fn take(&self, session: &Arc<Session>) -> Result<(u64, Message), Duration> {
        let mut state = lock(&self.state);
        state.expire();
        if session.is_over() {
            // Its machine has yet to learn it.
            return Err(LONGEST_WAIT);
        }
        let now = self.begun.elapsed();
        let Some(place) = state.next(now) else { return Err(state.next_due(now).saturating_sub(now)) };
        let message = state.waiting.remove(&place).expect("it was just found");
        state.last += 1;
        let tag = state.last;
        state.in_flight.insert(tag, InFlight { place, message: message.clone(), session: session.clone() });
        Ok((tag, message))
    }

    /// Settles a delivery, unless it was taken back.
    fn ack(&self, tag: u64) {
        let mut state = lock(&self.state);
        state.expire();
        state.in_flight.remove(&tag);
        drop(state);
        // A suspect may have waited for another one to be settled.
        self.changed.notify_waiters();
    }

    fn give_back(&self, tag: u64, has_died: bool) {
        let mut state = lock(&self.state);
        if let Some(held) = state.in_flight.remove(&tag) {
            state.put_back(held, has_died);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn backlog(&self) -> Backlog {
        let mut state = lock(&self.state);
        state.expire();
        let now = self.begun.elapsed();
        let mut backlog = Backlog { in_flight: state.in_flight.len() as u64, ..Backlog::default() };
        for place in state.waiting.keys() {
            match place.lane {
                _ if place.due > now => backlog.delayed += 1,
                Lane::Live => backlog.live += 1,
                Lane::Backfill => backlog.backfill += 1,
            }
        }
        backlog
    }
}

impl State {
    /// Takes back what belongs to sessions that have ended.
    fn expire(&mut self) {
        let Self { sessions, in_flight, .. } = self;
        if !sessions.iter().any(|session| session.is_over()) {
            return;
        }
        sessions.retain(|session| !session.is_over());
        let back: Vec<_> = in_flight.extract_if(.., |_, held| held.session.is_over()).map(|(_, held)| held).collect();
        for held in back {
            let has_died = held.session.has_died();
            self.put_back(held, has_died);
        }
    }

    fn put_back(&mut self, held: InFlight, has_died: bool) {
        let InFlight { mut place, mut message, .. } = held;
        message.deaths += u32::from(has_died);
        place.suspicion = if message.deaths >= SUSPECT { message.deaths } else { 0 };
        self.waiting.insert(place, message);
    }

    /// The first that is due: live before backfill, and suspects one at a time after the others of their lane.
    fn next(&self, now: Duration) -> Option<Place> {
        let is_suspected = self.in_flight.values().any(|held| held.place.suspicion > 0);
        LANES.into_iter().find_map(|lane| {
            let suspect = || self.first(lane, 1).filter(|_| !is_suspected);
            self.first(lane, 0).filter(|place| place.suspicion == 0 && place.due <= now).or_else(suspect)
        })
    }

    /// The first message of a lane that is suspected so much or more.
    fn first(&self, lane: Lane, suspicion: u32) -> Option<Place> {
        let from = Place { lane, suspicion, due: Duration::ZERO, number: 0 };
        self.waiting.range(from..).next().map(|(place, _)| *place).filter(|place| place.lane == lane)
    }

    /// When a message is due, where none is now.
    fn next_due(&self, now: Duration) -> Duration {
        let first = LANES.into_iter().filter_map(|lane| self.first(lane, 0)).filter(|place| place.suspicion == 0);
        first.map(|place| place.due).min().unwrap_or(Duration::MAX).min(now + LONGEST_WAIT)
    }
}

const LANES: [Lane; 2] = [Lane::Live, Lane::Backfill];

/// A machine's way to the broker.
#[derive(Debug, Clone)]
pub struct LinkedQueue {
    broker: Broker,
    link: Link,
    /// Those that this process has opened.
    connections: Arc<Mutex<Vec<Weak<Connection>>>>,
    closed: CancellationToken,
}

impl LinkedQueue {
    async fn ask<T>(&self, kind: Kind, effect: impl Future<Output = T> + Send) -> Result<T, QueueError> {
        self.link.call(kind, effect).await.map_err(|unanswered| QueueError(unanswered.to_string()))
    }

    /// A connection that the broker knows of.
    async fn connect(&self) -> Arc<Connection> {
        loop {
            let connection = Connection::open(&self.link, self.broker.heartbeat, self.broker.changed.clone());
            if self.ask(Kind::Change, async { self.broker.begin(connection.session()) }).await.is_ok() {
                let connection = Arc::new(connection);
                let mut connections = lock(&self.connections);
                connections.retain(|known| known.strong_count() > 0);
                connections.push(Arc::downgrade(&connection));
                return connection;
            }
            tokio::time::sleep(self.link.jittered(RETRY)).await;
        }
    }
}

/// Who takes messages.
struct Reader {
    queue: LinkedQueue,
    room: Arc<Semaphore>,
    connection: Option<Arc<Connection>>,
}

impl Reader {
    async fn delivery(&mut self) -> Option<QueueDelivery> {
        let permit = self.room.clone().acquire_owned().await.ok()?;
        loop {
            let queue = self.queue.clone();
            if queue.closed.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let connection = match self.connection.take().filter(|connection| connection.stands()) {
                Some(connection) => connection,
                None => queue.connect().await,
            };
            self.connection = Some(connection.clone());
            // Before the look, so that a change during it is not missed.
            let mut changed = std::pin::pin!(queue.broker.changed.notified());
            changed.as_mut().enable();
            let sky = queue.link.sky();
            let taken = match sky.carries() && !sky.is_full {
                true => queue.broker.take(connection.session()),
                false => Err(queue.link.jittered(RETRY)),
            };
            match taken {
                Ok((tag, message)) => {
                    let settle =
                        LinkedSettle { queue: queue.clone(), tag, connection, is_settled: false, permit: Some(permit) };
                    return Some(settle.deliver(message).await);
                }
                Err(wait) => {
                    let lost = connection.lost();
                    tokio::select! {
                        biased;
                        () = lost.cancelled() => {}
                        () = changed => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Queue for LinkedQueue {
    async fn publish(&self, lane: Lane, body: Bytes) -> Result<(), QueueError> {
        self.publish_delayed(lane, body, Duration::ZERO).await
    }

    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        self.ask(Kind::Write, async { self.broker.publish(lane, body, delay) }).await
    }

    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        let reader = Reader { queue: self.clone(), room: Arc::new(Semaphore::new(prefetch)), connection: None };
        stream::unfold(reader, |mut reader| async move {
            let delivery = reader.delivery().await?;
            Some((Ok(delivery), reader))
        })
        .boxed()
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        self.ask(Kind::Read, async { self.broker.backlog() }).await
    }

    async fn check(&self) -> Result<(), QueueError> {
        self.ask(Kind::Probe, async {}).await
    }

    async fn close(&self) {
        self.closed.cancel();
        for connection in lock(&self.connections).drain(..).filter_map(|connection| connection.upgrade()) {
            connection.close();
        }
    }
}

/// Answers for one delivery; dropping it puts the message back.
struct LinkedSettle {
    queue: LinkedQueue,
    tag: u64,
    connection: Arc<Connection>,
    is_settled: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl LinkedSettle {
    /// The message is on its way here.
    async fn deliver(self, message: Message) -> QueueDelivery {
        self.queue.link.travel_once().await;
        let over_limit = message.deaths >= DELIVERY_LIMIT;
        QueueDelivery { body: message.body, over_limit, lost: self.connection.lost(), settle: Box::new(self) }
    }

    fn check(&self) -> Result<(), SettleError> {
        match self.connection.stands() {
            true => Ok(()),
            false => Err(SettleError("the broker has taken the message back".to_owned())),
        }
    }
}

#[async_trait]
impl Settle for LinkedSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.check()?;
        self.queue.link.travel_once().await;
        self.check()?;
        self.is_settled = true;
        // It is sent, and nobody knows whether it arrives.
        match self.queue.link.sky().carries() {
            true => self.queue.broker.ack(self.tag),
            false => self.connection.tear(),
        }
        Ok(())
    }

    async fn defer(self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        self.check()?;
        let (lane, body) = (Lane::of(event), Bytes::from(event.encode()));
        let published = self.queue.publish_delayed(lane, body, delay).await;
        published.map_err(|error| SettleError(error.to_string()))?;
        self.ack().await
    }
}

impl Drop for LinkedSettle {
    fn drop(&mut self) {
        drop(self.permit.take());
        if self.is_settled {
            return;
        }
        match self.queue.link.sky().carries() {
            true => self.queue.broker.give_back(self.tag, self.queue.link.is_killed()),
            false => self.connection.tear(),
        }
    }
}

#[cfg(test)]
mod tests;
