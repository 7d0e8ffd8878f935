//! The watermark on the embedded catalog; what both catalogs promise of it is in their suite.

use catalog::{CurrentTurn, EmbeddedCatalog, ProducerTurn, roles::*};
use state::testing::TestState;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).unwrap()
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

async fn opened(state: &TestState) -> Watermark {
    let watermark = Watermark::new(Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap()), acme());
    watermark.load().await.unwrap();
    watermark
}

#[tokio::test]
async fn it_moves_forward_and_stays_there() {
    let state = TestState::new();
    let poll = opened(&state).await;
    assert_eq!(poll.get(), None);
    poll.advance(at(100)).await.unwrap();
    poll.advance(at(50)).await.unwrap();
    assert_eq!((poll.get(), poll.clone().get()), (Some(at(100)), Some(at(100))));
    assert_eq!(opened(&state.crashed()).await.get(), Some(at(100)));
}

#[tokio::test]
async fn it_goes_back_only_when_told_so() {
    let state = TestState::new();
    let poll = opened(&state).await;
    drop(poll.hold_back(at(50)).await.unwrap());
    assert_eq!(poll.get(), None, "what was never moved is not moved by holding it back");
    poll.advance(at(100)).await.unwrap();
    drop(poll.hold_back(at(200)).await.unwrap());
    assert_eq!(poll.get(), Some(at(100)), "holding back never moves forward");
    drop(poll.hold_back(at(-5)).await.unwrap());
    assert_eq!(poll.get(), Some(at(-5)));
    assert_eq!(opened(&state.crashed()).await.get(), Some(at(-5)));
}

#[tokio::test]
async fn work_that_began_before_it_was_released_moves_nothing() {
    let state = TestState::new();
    let poll = opened(&state).await;
    poll.advance(at(100)).await.unwrap();
    let before = poll.position();
    let held = poll.hold_back(at(50)).await.unwrap();
    let during = poll.position();
    assert_eq!(during.at, Some(at(50)));
    drop(held);
    assert!(!poll.advance_from(before, at(200)).await.unwrap());
    assert!(!poll.advance_from(during, at(200)).await.unwrap());
    assert_eq!(poll.get(), Some(at(50)));
    let after = poll.position();
    assert!(poll.advance_from(after, at(200)).await.unwrap());
    assert!(poll.advance_from(after, at(150)).await.unwrap(), "never back");
    assert_eq!(poll.get(), Some(at(200)));
}

#[tokio::test]
async fn what_another_process_holds_back_is_not_moved_by_work_that_began_before() {
    let state = TestState::new();
    let (poll, other) = (opened(&state).await, opened(&state).await);
    poll.advance(at(100)).await.unwrap();
    let begun = poll.position();
    drop(other.hold_back(at(50)).await.unwrap());
    assert!(!poll.advance_from(begun, at(200)).await.unwrap());
    assert_eq!(poll.get(), Some(at(50)), "the next work begins where the other one wants it");
    assert!(poll.advance_from(poll.position(), at(200)).await.unwrap());
}

#[tokio::test]
async fn a_turn_that_is_over_moves_nothing_and_is_told_so() {
    let state = TestState::new();
    let catalog = EmbeddedCatalog::open(state.state.store()).unwrap();
    let turn = ProducerTurn::new(acme(), catalog.begin_turn(&acme()).await.unwrap());
    let poll = Watermark::new(catalog.in_turn(CurrentTurn::only(&turn)), acme());
    poll.advance(at(100)).await.unwrap();
    catalog.begin_turn(&acme()).await.unwrap();
    assert!(poll.advance(at(200)).await.is_err());
    assert!(poll.advance_from(poll.position(), at(200)).await.is_err());
    assert!(poll.hold_back(at(50)).await.is_err());
    assert_eq!(catalog.producer_memory(&acme()).await.unwrap().poll_watermark, Some(at(100)));
    turn.refused().await;
}

#[tokio::test]
async fn one_in_the_future_goes_back_by_the_hot_window_for_good() {
    let state = TestState::new();
    let poll = opened(&state).await;
    let (now, window) = (at(1_000_000), Duration::from_secs(3 * 86_400));
    poll.doubt(now, window).await.unwrap();
    assert_eq!(poll.get(), None);
    // Two clocks are never quite the same.
    poll.advance(at(1_000_030)).await.unwrap();
    poll.doubt(now, window).await.unwrap();
    assert_eq!(poll.get(), Some(at(1_000_030)));
    poll.advance(at(1_432_000)).await.unwrap();
    let begun = poll.position();
    poll.doubt(now, window).await.unwrap();
    assert_eq!(poll.get(), Some(at(1_000_000 - 3 * 86_400)));
    assert_eq!(opened(&state.crashed()).await.get(), poll.get());
    assert!(!poll.advance_from(begun, at(1_000_100)).await.unwrap(), "a listing that began there listed nothing");
}

#[tokio::test]
async fn a_first_turn_in_the_future_goes_back_by_the_hot_window_for_good() {
    let state = TestState::new();
    let catalog = EmbeddedCatalog::open(state.state.store()).unwrap();
    let (now, window) = (at(1_000_000), Duration::from_secs(3 * 86_400));
    let ahead = at(1_432_000);
    assert_eq!(worked_since(&catalog, &acme(), ahead, window).await.unwrap(), ahead, "the clock is five days ahead");
    let back = at(1_000_000 - 3 * 86_400);
    assert_eq!(worked_since(&catalog, &acme(), now, window).await.unwrap(), back);
    assert_eq!(worked_since(&catalog, &acme(), ahead, window).await.unwrap(), back);
    assert_eq!(catalog.producer_memory(&acme()).await.unwrap().worked_since, Some(back));
}
