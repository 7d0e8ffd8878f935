//! Stage 3, enqueue: an event → a message that the queue has confirmed.
//!
//! A call that ended long ago is not urgent, whatever found it: it goes to the lane of replays, and stays there.
//!
//! # After a crash
//! Between the confirm and the commit of the claim the event is published again: a repeat, never a loss.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clients::queue::{Lane, Queue};
use crate::flow::{Clock, Outcome, Stage, StageError, crash};
use crate::model::ContactEvent;

/// Publishes events.
pub struct Enqueue {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// What ended longer ago goes behind fresh calls.
    pub fresh: Duration,
    /// The time, for `queuedAt`.
    pub clock: Clock,
}

impl Stage<ContactEvent> for Enqueue {
    const NAME: &'static str = "enqueue";
    type Out = ();

    async fn process(&self, mut event: ContactEvent) -> Result<Outcome<()>, StageError> {
        let now = self.clock.now();
        event.late |= event.ended_at.is_some_and(|ended_at| self.is_late(ended_at, now));
        event.queued_at.get_or_insert(now);
        event.traceparent.get_or_insert_with(new_traceparent);
        self.queue.publish(Lane::of(&event), event.encode().into()).await?;
        crash::point("message_published");
        Ok(Outcome::Next(()))
    }
}

impl Enqueue {
    fn is_late(&self, ended_at: Timestamp, now: Timestamp) -> bool {
        let fresh = SignedDuration::try_from(self.fresh).unwrap_or(SignedDuration::MAX);
        now.duration_since(ended_at) > fresh
    }
}

/// A W3C trace context that begins here.
fn new_traceparent() -> String {
    format!("00-{:032x}-{:016x}-01", rand::random::<u128>().max(1), rand::random::<u64>().max(1))
}
