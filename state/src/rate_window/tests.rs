//! Never more than N in any W, whatever crashes and however the clock moves back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::test_support::Bench;

const WINDOW: SignedDuration = SignedDuration::from_secs(300);

async fn granted(window: &RateWindow) -> bool {
    window.try_acquire().await.unwrap() == Permission::Granted
}

#[tokio::test]
async fn the_window_slides() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 3, WINDOW).unwrap();
    let start = bench.clock.now();
    for _ in 0..3 {
        assert!(granted(&window).await);
        bench.clock.advance(SignedDuration::from_secs(100));
    }
    assert_eq!(window.available(), 0);
    let Permission::RetryAt(at) = window.try_acquire().await.unwrap() else { panic!() };
    assert!(at > start + WINDOW && at <= start + WINDOW + SignedDuration::from_millis(1), "{at}");
    bench.clock.advance(at.duration_since(bench.clock.now()));
    assert_eq!(window.available(), 1);
    assert!(granted(&window).await);
    assert!(!granted(&window).await);
}

#[tokio::test]
async fn a_restart_forgets_no_grant() {
    let bench = Bench::new();
    for n in 0..3 {
        let state = bench.open();
        let window = state.rate_window("api", 3, WINDOW).unwrap();
        assert_eq!(window.available(), 3 - n);
        assert!(granted(&window).await);
    }
    let state = bench.open();
    assert!(!granted(&state.rate_window("api", 3, WINDOW).unwrap()).await);
    assert!(granted(&state.rate_window("ap", 1, WINDOW).unwrap()).await, "names do not run together");
}

#[tokio::test]
async fn a_limit_that_changes_keeps_the_grants() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 3, WINDOW).unwrap();
    for _ in 0..3 {
        assert!(granted(&window).await);
    }
    assert_eq!(state.rate_window("api", 5, WINDOW).unwrap().available(), 2);
    assert_eq!(window.available(), 2, "every handle has the new limit");
    assert!(granted(&window).await);
    drop((window, state));
    let state = bench.open();
    assert_eq!(state.rate_window("api", 2, WINDOW).unwrap().available(), 0);
    assert_eq!(state.rate_window("api", 10, WINDOW).unwrap().available(), 8, "two were kept");
}

#[tokio::test]
async fn a_clock_set_back_withholds_for_one_window_at_most() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 2, WINDOW).unwrap();
    assert!(granted(&window).await && granted(&window).await);
    bench.clock.advance(-SignedDuration::from_hours(24));
    for _ in 0..2 {
        assert!(!granted(&window).await, "what was granted just now still counts");
    }
    bench.clock.advance(WINDOW + SignedDuration::from_secs(1));
    assert!(granted(&window).await && granted(&window).await && !granted(&window).await);
}

#[tokio::test]
async fn a_grant_counts_from_when_it_could_be_used_however_slow_the_disk() {
    let mut bench = Bench::new();
    let ticking = bench.clock.clone();
    bench.options.clock = Clock::new(move || {
        ticking.advance(SignedDuration::from_secs(7));
        ticking.now()
    });
    let state = bench.open();
    let window = state.rate_window("api", 1, WINDOW).unwrap();
    assert!(granted(&window).await);
    let usable = bench.clock.now();
    drop((window, state));
    let state = bench.open();
    let window = state.rate_window("api", 1, WINDOW).unwrap();
    let Permission::RetryAt(at) = window.try_acquire().await.unwrap() else { panic!() };
    assert!(at > usable + WINDOW, "the disk knew too early a time");
}

#[tokio::test]
async fn a_store_that_fails_grants_nothing() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 2, WINDOW).unwrap();
    state.store().fail_next_sync();
    assert!(window.try_acquire().await.is_err());
    assert!(window.try_acquire().await.is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Advance(i64),
    Back(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => Just(Step::Ask),
        5 => (0..120i64).prop_map(Step::Advance),
        1 => (1..2000i64).prop_map(Step::Back),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Judged by a clock that nobody sets back: the time that really passed.
    #[test]
    fn no_window_ever_holds_too_many(steps in steps(), limit in 1..6u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bench = Bench::new();
        let mut state = Some(bench.open());
        let mut passed = 0;
        let mut grants: Vec<i64> = Vec::new();
        for step in steps {
            match step {
                Step::Ask => {
                    let window = state.as_ref().unwrap().rate_window("api", limit, WINDOW).unwrap();
                    let recent = grants.iter().filter(|at| passed - **at <= WINDOW.as_secs()).count();
                    let asked: Timestamp = bench.clock.now();
                    match runtime.block_on(window.try_acquire()).unwrap() {
                        Permission::Granted => {
                            prop_assert!(recent < limit as usize, "{recent} within {WINDOW:?} and one more");
                            grants.push(passed);
                        }
                        Permission::RetryAt(at) => {
                            let wait = at.duration_since(asked);
                            prop_assert!(wait > SignedDuration::ZERO && wait <= WINDOW + SignedDuration::from_secs(1));
                        }
                    }
                }
                Step::Advance(by) => {
                    passed += by;
                    bench.clock.advance(SignedDuration::from_secs(by));
                }
                Step::Back(by) => bench.clock.advance(-SignedDuration::from_secs(by)),
                Step::Reopen => {
                    state = None;
                    state.replace(bench.open());
                }
            }
        }
    }
}
