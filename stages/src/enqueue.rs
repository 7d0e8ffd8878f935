//! Stage 3, enqueue: an event → a message that the queue has confirmed.
//!
//! A call that ended long ago is not urgent, whatever found it: it goes to the lane of replays, and stays there.
//!
//! # After a crash
//! Between the confirm and the commit of the claim the event is published again: a repeat, never a loss.

use std::sync::Arc;
use std::time::Duration;

use flow::{Outcome, Stage, StageError};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, Lane};
use queue::Queue;
use runtime::{Clock, TraceSpan, chance, crash};

/// Publishes events.
pub struct Enqueue {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// What ended longer ago goes behind fresh calls.
    pub fresh: Duration,
    /// The time, for `queuedAt`.
    pub clock: Clock,
}

impl Stage<()> for Enqueue {
    const NAME: &'static str = "enqueue";
    type Out = ();

    async fn process(&self, event: &ContactEvent, (): ()) -> Result<Outcome<()>, StageError> {
        let (mut event, now) = (event.clone(), self.clock.now());
        event.late |= event.ended_at.is_some_and(|ended_at| self.is_late(ended_at, now));
        event.queued_at.get_or_insert(now);
        let (lane, trace) = (Lane::of(&event), TraceSpan::current());
        let send = self.queue.destination(lane).sending(&trace);
        event.traceparent.get_or_insert_with(|| send.traceparent().unwrap_or_else(new_traceparent));
        let published = self.queue.publish(lane, event.encode().into()).await;
        if let Err(error) = &published {
            send.failed("queue", &error.to_string());
        }
        published?;
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

/// A W3C trace context of which nothing is kept: by it the copies of a message are told from other messages.
fn new_traceparent() -> String {
    format!("00-{:032x}-{:016x}-00", chance::random::<u128>().max(1), chance::random::<u64>().max(1))
}

#[cfg(test)]
mod tests {
    use model::{EventSource, QuotaClass};
    use queue::EmbeddedQueue;
    use state::testing::TestState;

    use super::*;

    #[tokio::test]
    async fn what_ended_long_ago_goes_behind_fresh_calls_whatever_found_it() {
        let now: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let state = TestState::new();
        let clock = Clock::fixed(now);
        let queue = Arc::new(EmbeddedQueue::open(state.state.store(), clock.clone()).unwrap());
        let enqueue = Enqueue { queue: queue.clone(), fresh: Duration::from_secs(3600), clock };
        for (id, minutes) in [(1, 59), (2, 60), (3, 61), (4, 3 * 1440)] {
            let id = model::ContactId::from_number(id).unwrap();
            let mut event = ContactEvent::new("acme".parse().unwrap(), id, EventSource::Poll);
            event.ended_at = Some(now - SignedDuration::from_mins(minutes));
            enqueue.process(&event, ()).await.unwrap();
        }
        let backlog = queue.backlog().await.unwrap();
        assert_eq!((backlog.live, backlog.backfill), (2, 2));
    }

    #[test]
    fn a_late_call_stays_one_on_its_way() {
        let id = model::ContactId::from_number(1).unwrap();
        let event = ContactEvent::new("acme".parse().unwrap(), id, EventSource::Webhook);
        let late = ContactEvent::decode(&ContactEvent { late: true, attempt: 1, ..event.clone() }.encode()).unwrap();
        assert_eq!((Lane::of(&late), QuotaClass::of(&late)), (Lane::Backfill, QuotaClass::Backfill));
        let fresh = ContactEvent::decode(&event.encode()).unwrap();
        assert_eq!((Lane::of(&fresh), QuotaClass::of(&fresh)), (Lane::Live, QuotaClass::Live));
    }
}
