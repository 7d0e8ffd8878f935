//! The door to the queue between Nice Producer and Conversation Consumer.
//!
//! A publish returns once the queue has confirmed the message: it survives a crash of everything from then on.
//! A delivery that is not settled comes again. A message that was delivered too often without being settled (it
//! may be what crashes us) goes to the queue's shelf, with the reason.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Asks, ConversationKey, DoorError, Lane, Settle, System};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod destination;
mod embedded;
#[cfg(feature = "fluvio")]
mod fluvio;
mod metrics;
mod rabbitmq;
mod retry;
mod steps;

pub use destination::Destination;
pub use embedded::EmbeddedQueue;
#[cfg(feature = "fluvio")]
pub use fluvio::{FluvioError, FluvioLedger, FluvioOptions, FluvioQueue};
pub use metrics::QueueMetrics;
pub use rabbitmq::{RabbitError, RabbitOptions, RabbitQueue};

/// Deliveries of one message that may fail without a word (a crash, an abort) before it is put on the shelf. What
/// comes back for another reason does not condemn it, however often.
pub const DELIVERY_LIMIT: u32 = 20;

/// Delay steps in seconds that every queue has, up to the longest delay that is ever asked for. In RabbitMQ each is a
/// queue, so there are few; a delay between two steps is rounded up, at most to somewhat more than its double.
const DELAY_STEPS: [u64; 12] = [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600];

/// A delay as a queue with steps keeps it: up to the next step, or the longest one.
pub fn rounded_up(delay: Duration) -> Duration {
    let mut steps = DELAY_STEPS.map(Duration::from_secs).into_iter();
    steps.find(|step| *step >= delay).unwrap_or(Duration::from_secs(3600))
}

/// The delay to ask for so that a message is back after `wait`, at most `slack` later: it may have to wait again for
/// the rest, since between two steps a queue rounds up.
pub fn hop(wait: Duration, slack: Duration) -> Duration {
    let mut steps = DELAY_STEPS.map(Duration::from_secs).into_iter();
    let over = steps.find(|step| *step >= wait);
    if over.is_some_and(|step| step <= wait.saturating_add(slack)) {
        return wait;
    }
    DELAY_STEPS.map(Duration::from_secs).into_iter().rfind(|step| *step <= wait).unwrap_or(wait)
}

/// The queue could not do what was asked; a publish may have had its effect, and repeating is harmless.
#[derive(Debug, Clone, thiserror::Error)]
#[error("queue: {0}")]
pub struct QueueError(pub String);

impl DoorError for QueueError {
    fn asks(&self) -> Asks {
        Asks::Again { system: System::Queue, retry_after: None }
    }
}

/// A message and the duty to settle it.
pub struct QueueDelivery {
    /// The message.
    pub body: Bytes,
    /// Set when the message was delivered more than [`DELIVERY_LIMIT`] times, and the last of those who worked on it
    /// died: it is to be dead-lettered unread.
    pub over_limit: bool,
    /// Ends when the queue has taken the message back while it is worked on, as far as that is noticed: to settle it
    /// will fail, and another works on it.
    pub lost: CancellationToken,
    /// How the queue learns what became of it.
    pub settle: Box<dyn Settle>,
}

/// How many messages wait where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backlog {
    /// Due now, live.
    pub live: u64,
    /// Due now, backfill.
    pub backfill: u64,
    /// Waiting in a delay step.
    pub delayed: u64,
    /// Delivered and not settled.
    pub in_flight: u64,
}

/// The queue.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Puts a message on a lane, and waits for the confirm.
    async fn publish(&self, lane: Lane, body: Bytes) -> Result<(), QueueError> {
        self.publish_delayed(lane, body, Duration::ZERO).await
    }

    /// Puts a message on a lane, to be delivered after `delay`.
    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError>;

    /// How a lane is called in a trace.
    fn destination(&self, lane: Lane) -> Destination {
        Destination { system: "nice_knovvu", name: lane.as_str().to_owned() }
    }

    /// Messages as they become due, live before backfill, at most `prefetch` unsettled at a time. Ends only
    /// with an error that the service cannot survive.
    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>>;

    /// How many messages of a conversation wait or are in hand. None where the queue gives no single message out.
    async fn messages_of(&self, _conversation: &ConversationKey) -> Result<Option<u64>, QueueError> {
        Ok(None)
    }

    /// Removes the messages of a conversation, and counts them. None where the queue gives no single message out: there
    /// they come up in their time, and the consumer drops those of an erased conversation.
    async fn forget(&self, _conversation: &ConversationKey) -> Result<Option<u64>, QueueError> {
        Ok(None)
    }

    /// How many messages wait where.
    async fn backlog(&self) -> Result<Backlog, QueueError>;

    /// Whether the queue answers.
    async fn check(&self) -> Result<(), QueueError>;

    /// The last word of a process that ends: what it still holds is handed back, alive. The queue is of no use then.
    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a message is away, and in how many hops, where a queue rounds up to its steps.
    fn away(wait: u64, slack: u64) -> (u64, usize) {
        let (wait, slack) = (Duration::from_secs(wait), Duration::from_secs(slack));
        let (mut away, mut hops) = (Duration::ZERO, 0);
        while away < wait {
            let asked = hop(wait.checked_sub(away).unwrap(), slack);
            away += rounded_up(asked);
            hops += 1;
        }
        (away.as_secs(), hops)
    }

    #[test]
    fn a_wait_between_two_steps_takes_few_hops_and_is_over_in_time() {
        assert_eq!(away(1020, 100), (1020, 2));
        assert_eq!(away(1740, 180), (1800, 1));
        assert_eq!(away(7300, 700), (7320, 3));
        for wait in 1..7200 {
            let (back, hops) = away(wait, wait / 10);
            assert!(back >= wait && back <= wait + (wait / 10).max(1) && hops <= 5, "{wait}: {back} in {hops}");
        }
    }
}
