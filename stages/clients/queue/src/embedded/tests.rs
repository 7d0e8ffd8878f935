//! The embedded queue passes the door's suite, and keeps its own promises.

use state::testing::TestState;

use super::*;
use crate::conformance::{Subject, queue_checks};

struct Embedded {
    state: TestState,
    queue: EmbeddedQueue,
}

impl Embedded {
    fn open(state: TestState) -> Self {
        let queue = EmbeddedQueue::open(state.state.store(), Clock::system()).unwrap();
        Self { state, queue }
    }
}

impl Subject for Embedded {
    async fn fresh() -> Self {
        Self::open(TestState::new())
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        Self::open(self.state.crashed())
    }
}

queue_checks!(Embedded);

#[tokio::test]
async fn a_clock_that_was_set_back_replaces_no_message() {
    let state = TestState::new();
    let begin: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
    for run in 0..3 {
        // Every process begins at the same instant, and so gives out the same sequences.
        let queue = EmbeddedQueue::open(state.state.store(), Clock::fixed(begin)).unwrap();
        for number in 0..5 {
            queue.publish(Lane::Live, Bytes::from(format!("{run}.{number}"))).await.unwrap();
        }
    }
    let queue = EmbeddedQueue::open(state.state.store(), Clock::fixed(begin)).unwrap();
    assert_eq!(queue.backlog().await.unwrap().live, 15);
}

#[tokio::test]
async fn a_delay_ends_when_the_clock_says_so() {
    let state = TestState::new();
    let clock = Clock::fixed("2026-04-01T12:00:00Z".parse().unwrap());
    let queue = EmbeddedQueue::open(state.state.store(), clock.clone()).unwrap();
    queue.publish_delayed(Lane::Live, Bytes::from("later"), Duration::from_secs(60)).await.unwrap();
    assert!(queue.inner.take().unwrap().is_err());
    clock.advance(jiff::SignedDuration::from_millis(59_999));
    assert_eq!(queue.inner.take().unwrap().unwrap_err(), Duration::from_millis(1));
    clock.advance(jiff::SignedDuration::from_millis(1));
    assert_eq!(queue.inner.take().unwrap().unwrap().body(), b"later");
}

#[tokio::test]
async fn handing_back_on_purpose_does_not_count_towards_the_limit() {
    let state = TestState::new();
    let queue = EmbeddedQueue::open(state.state.store(), Clock::system()).unwrap();
    queue.publish(Lane::Live, Bytes::from("one")).await.unwrap();
    let mut deliveries = queue.deliveries(1);
    for _ in 0..3 * DELIVERY_LIMIT {
        assert!(!deliveries.next().await.unwrap().unwrap().over_limit);
    }
}

#[tokio::test]
async fn what_was_forgotten_while_it_was_worked_on_is_not_brought_back_by_its_hand_back() {
    let state = TestState::new();
    let queue = EmbeddedQueue::open(state.state.store(), Clock::system()).unwrap();
    let event = ContactEvent::new("acme".parse().unwrap(), "698800000001".parse().unwrap(), model::EventSource::Poll);
    queue.publish(Lane::Live, event.encode().into()).await.unwrap();
    let delivery = queue.deliveries(1).next().await.unwrap().unwrap();
    assert_eq!(queue.forget(&event.key()).await.unwrap(), Some(1));
    drop(delivery);
    assert_eq!(queue.backlog().await.unwrap(), Backlog::default());
}

#[tokio::test]
async fn a_publish_that_cannot_be_made_durable_is_not_confirmed() {
    let state = TestState::new();
    let queue = EmbeddedQueue::open(state.state.store(), Clock::system()).unwrap();
    let held = queue.clone();
    state.state.store().close().await.unwrap();
    assert!(held.publish(Lane::Live, Bytes::from("one")).await.is_err(), "not confirmed");
    assert!(queue.check().await.is_err());
}
