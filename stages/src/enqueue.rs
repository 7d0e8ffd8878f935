//! Stage 3, enqueue: an event → a message that the queue has confirmed.
//!
//! # After a crash
//! Between the confirm and the commit of the claim the event is published again: a repeat, never a loss.

use std::sync::Arc;

use crate::clients::queue::{Lane, Queue};
use crate::flow::{Clock, Outcome, Stage, StageError, crash};
use crate::model::ContactEvent;

/// Publishes events.
pub struct Enqueue {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The time, for `queuedAt`.
    pub clock: Clock,
}

impl Stage<ContactEvent> for Enqueue {
    const NAME: &'static str = "enqueue";
    type Out = ();

    async fn process(&self, mut event: ContactEvent) -> Result<Outcome<()>, StageError> {
        event.queued_at.get_or_insert(self.clock.now());
        event.traceparent.get_or_insert_with(new_traceparent);
        self.queue.publish(Lane::of(event.source), event.encode().into()).await?;
        crash::point("message_published");
        Ok(Outcome::Next(()))
    }
}

/// A W3C trace context that begins here.
fn new_traceparent() -> String {
    format!("00-{:032x}-{:016x}-01", rand::random::<u128>().max(1), rand::random::<u64>().max(1))
}
