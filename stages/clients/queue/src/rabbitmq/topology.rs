//! The exchanges and queues: what they are called, how they are declared, and how many messages wait in them.
//!
//! ```text
//! {prefix}            direct    live → {prefix}.live   backfill → {prefix}.backfill   dead → {prefix}.dead
//! {prefix}.retry.30s  fanout    → {prefix}.retry.30s, which lets a message go back to {prefix} when its time is over
//! {prefix}.begun.…    direct    a mark at a suspect, of which there are few and mostly none; nothing is published
//! there
//! ```
//!
//! Everything is durable, and every queue is a quorum queue. A message that leaves a queue by itself (its time in a
//! delay step is over, or it came back too often) is removed only after the next queue has confirmed it. Declaring
//! changes nothing that exists; a delay step of former settings goes on and drains by itself.

use std::time::Duration;

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use model::Lane;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::warn;

use super::RabbitError;
use super::amqp::{close, failed, refused};
use crate::steps::{DelaySteps, step_name};
use crate::{Backlog, DELIVERY_LIMIT};

/// The processes that may die over a suspect before it is over the limit.
pub(super) const PROBATION: u32 = 3;

/// Returns after which a lane gives a message up to the suspects: it has been delivered once more than it came back.
const LANE_RETURNS: u32 = DELIVERY_LIMIT - PROBATION - 1;

/// The queue of suspects gives nothing up: it keeps a message until its dead letter is written. A newer broker would
/// set a limit of its own where none is named.
const SUSPECT_RETURNS: u32 = i32::MAX as u32;

/// How long the declaration of everything may take; new quorum queues each elect a leader.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a queue that was deleted behind our back stays away. One that is declared again before the broker has
/// ended the consumers of the old one may keep such a consumer, and hand out messages that never arrive.
const ABSENCE: Duration = Duration::from_secs(1);

/// Where a message is published to.
pub(super) struct PublishRoute {
    /// The exchange.
    pub exchange: ShortString,
    /// The routing key: the name of the lane.
    pub key: ShortString,
}

/// The names of everything.
pub(super) struct Topology {
    prefix: String,
    steps: DelaySteps,
    /// When something that was missing was declared again; one at a time does it for all who miss it.
    declared_again: Mutex<Option<Instant>>,
}

impl Topology {
    /// The topology below a prefix.
    pub(super) fn new(prefix: &str, delays: &[Duration]) -> Result<Self, RabbitError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if prefix.is_empty() || prefix.len() > 100 || !prefix.bytes().all(is_allowed) || prefix.starts_with("amq.") {
            return Err(RabbitError::Prefix);
        }
        Ok(Self { prefix: prefix.to_owned(), steps: DelaySteps::with(delays), declared_again: Mutex::default() })
    }

    /// The queue of a lane.
    pub(super) fn lane(&self, lane: Lane) -> ShortString {
        format!("{}.{}", self.prefix, lane.as_str()).into()
    }

    /// The queue of messages that came back too often.
    pub(super) fn dead(&self) -> ShortString {
        format!("{}.dead", self.prefix).into()
    }

    /// A mark at a suspect, by the digest of its message; there are some places for one.
    pub(super) fn mark(&self, digest: &str, slot: u32) -> ShortString {
        format!("{}.begun.{digest}.{slot}", self.prefix).into()
    }

    /// The way to a lane: at once, or through the shortest delay step that is not shorter than the delay. A delay
    /// beyond the longest step waits as long as that.
    pub(super) fn route(&self, lane: Lane, delay: Duration) -> PublishRoute {
        let exchange = self.steps.of(delay).map_or_else(|| self.prefix.as_str().into(), |step| self.step(step));
        PublishRoute { exchange, key: lane.as_str().into() }
    }

    /// The name of a delay step: of its exchange and its queue.
    fn step(&self, millis: u64) -> ShortString {
        format!("{}.retry.{}", self.prefix, step_name(millis)).into()
    }

    /// Declares everything; what exists already stays as it is.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<(), RabbitError> {
        timeout(DECLARE_TIMEOUT, self.declare_all(connection))
            .await
            .map_err(|_| RabbitError::Failed(format!("nothing was declared within {DECLARE_TIMEOUT:?}")))?
    }

    /// Declares everything after something was found missing.
    pub(super) async fn declare_again(&self, connection: &Connection) -> Result<(), RabbitError> {
        let missed_at = Instant::now();
        let mut declared_again = self.declared_again.lock().await;
        if declared_again.is_some_and(|declared_at| declared_at > missed_at) {
            return Ok(());
        }
        warn!("an exchange or a queue is missing at the broker, declaring it again");
        tokio::time::sleep(ABSENCE).await;
        self.declare(connection).await?;
        *declared_again = Some(Instant::now());
        Ok(())
    }

    async fn declare_all(&self, connection: &Connection) -> Result<(), RabbitError> {
        let channel = connection.create_channel().await.map_err(failed)?;
        let exchange: ShortString = self.prefix.as_str().into();
        declare_exchange(&channel, &exchange, ExchangeKind::Direct).await?;
        for lane in [Lane::Live, Lane::Backfill] {
            let mut arguments = arguments(LANE_RETURNS);
            dead_letter_to(&mut arguments, &exchange);
            arguments.insert("x-dead-letter-routing-key".into(), text("dead"));
            declare_queue(&channel, &self.lane(lane), arguments, &exchange, lane.as_str()).await?;
        }
        declare_queue(&channel, &self.dead(), arguments(SUSPECT_RETURNS), &exchange, "dead").await?;
        for millis in self.steps.iter() {
            let step = self.step(millis);
            let mut arguments = arguments(SUSPECT_RETURNS);
            dead_letter_to(&mut arguments, &exchange);
            arguments.insert("x-message-ttl".into(), number(millis));
            declare_exchange(&channel, &step, ExchangeKind::Fanout).await?;
            declare_queue(&channel, &step, arguments, &step, "").await?;
        }
        close(&channel).await;
        Ok(())
    }

    /// How many messages are ready in each queue.
    pub(super) async fn count(&self, connection: &Connection) -> Result<Backlog, RabbitError> {
        let channel = connection.create_channel().await.map_err(failed)?;
        let mut backlog = Backlog {
            live: ready(&channel, self.lane(Lane::Live)).await? + ready(&channel, self.dead()).await?,
            backfill: ready(&channel, self.lane(Lane::Backfill)).await?,
            ..Backlog::default()
        };
        for step in self.steps.iter() {
            backlog.delayed += ready(&channel, self.step(step)).await?;
        }
        close(&channel).await;
        Ok(backlog)
    }

    /// Whether the lanes answer.
    pub(super) async fn check(&self, connection: &Connection) -> Result<(), RabbitError> {
        let channel = connection.create_channel().await.map_err(failed)?;
        for lane in [Lane::Live, Lane::Backfill] {
            ready(&channel, self.lane(lane)).await?;
        }
        close(&channel).await;
        Ok(())
    }
}

/// How many messages of a queue are ready.
pub(super) async fn ready(channel: &Channel, queue: ShortString) -> Result<u64, RabbitError> {
    let options = QueueDeclareOptions::durable().passive();
    let queue = channel.queue_declare(queue, options, FieldTable::default()).await.map_err(failed)?;
    Ok(queue.message_count().into())
}

async fn declare_exchange(channel: &Channel, name: &ShortString, kind: ExchangeKind) -> Result<(), RabbitError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.clone(), kind, options, FieldTable::default()).await;
    declared.map_err(|error| refused("the exchange", name, error))
}

async fn declare_queue(
    channel: &Channel,
    name: &ShortString,
    arguments: FieldTable,
    exchange: &ShortString,
    key: &str,
) -> Result<(), RabbitError> {
    let declared = channel.queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments).await;
    declared.map_err(|error| refused("the queue", name, error))?;
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(name.clone(), exchange.clone(), key.into(), options, FieldTable::default()).await;
    bound.map_err(|error| refused("the queue", name, error))
}

/// What every queue is: replicated, and given up only after `returns` deliveries that came back.
fn arguments(returns: u32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), number(returns.into()));
    arguments
}

/// A message that leaves the queue by itself is kept until `exchange` has it for certain. The broker offers that
/// only to queues that refuse a message when they are full, instead of dropping another.
fn dead_letter_to(arguments: &mut FieldTable, exchange: &ShortString) {
    arguments.insert("x-dead-letter-exchange".into(), text(exchange.as_str()));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn number(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(delay: Duration) -> String {
        let topology = Topology::new("knovvu.nice", &[Duration::from_millis(150)]).unwrap();
        topology.route(Lane::Backfill, delay).exchange.to_string()
    }

    #[test]
    fn a_delay_leads_through_its_step() {
        assert_eq!(way(Duration::ZERO), "knovvu.nice");
        assert_eq!(way(Duration::from_nanos(1)), "knovvu.nice.retry.150ms");
        assert_eq!(way(Duration::MAX), "knovvu.nice.retry.3600s");
    }

    #[test]
    fn a_prefix_is_a_plain_name() {
        for prefix in ["", "amq.mine", "a b", "ü", "a/b", "a#", &"a".repeat(101)] {
            assert!(matches!(Topology::new(prefix, &[]), Err(RabbitError::Prefix)), "{prefix}");
        }
    }
}
