//! Never more than N in any W, whatever crashes and however the clock moves back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::test_support::Bench;

const WINDOW: SignedDuration = SignedDuration::from_secs(300);

const ANY: Terms = Terms::ANY;

/// A grant, or when to ask again.
async fn ask(window: &RateWindow, terms: &Terms) -> Result<(), Timestamp> {
    match window.take(terms).unwrap() {
        Permission::Granted(grant) => {
            grant.commit().await.unwrap();
            Ok(())
        }
        Permission::RetryAt(at) => Err(at),
    }
}

async fn granted(window: &RateWindow) -> bool {
    ask(window, &ANY).await.is_ok()
}

fn available(window: &RateWindow) -> usize {
    let limit = window.ring().limit;
    limit.saturating_sub(window.used().iter().sum())
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
    assert_eq!(available(&window), 0);
    let at = ask(&window, &ANY).await.unwrap_err();
    assert!(at > start + WINDOW && at <= start + WINDOW + SignedDuration::from_millis(1), "{at}");
    bench.clock.advance(at.duration_since(bench.clock.now()));
    assert_eq!(available(&window), 1);
    assert!(granted(&window).await);
    assert!(!granted(&window).await);
}

#[tokio::test]
async fn a_restart_forgets_no_grant() {
    let bench = Bench::new();
    for n in 0..3 {
        let state = bench.open();
        let window = state.rate_window("api", 3, WINDOW).unwrap();
        assert_eq!(available(&window), 3 - n);
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
    assert_eq!(available(&state.rate_window("api", 5, WINDOW).unwrap()), 2);
    assert_eq!(available(&window), 2, "every handle has the new limit");
    assert!(granted(&window).await);
    drop((window, state));
    let state = bench.open();
    assert_eq!(available(&state.rate_window("api", 2, WINDOW).unwrap()), 0);
    drop(state);
    let state = bench.open();
    assert_eq!(available(&state.rate_window("api", 10, WINDOW).unwrap()), 6, "all four still count");
}

#[tokio::test]
async fn a_limit_that_was_lowered_holds_once_the_grants_of_before_have_left() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 6, WINDOW).unwrap();
    for _ in 0..6 {
        assert!(granted(&window).await);
        bench.clock.advance(SignedDuration::from_secs(10));
    }
    state.rate_window("api", 2, WINDOW).unwrap();
    let at = ask(&window, &ANY).await.unwrap_err();
    assert_eq!(at.duration_since(bench.clock.now()).as_secs(), 282, "the last but one leaves");
    bench.clock.advance(WINDOW);
    assert!(granted(&window).await && granted(&window).await && !granted(&window).await);
    drop((window, state));
    let state = bench.open();
    let window = state.rate_window("api", 2, WINDOW).unwrap();
    assert_eq!(window.ring().grants.len(), 2, "what has left is forgotten");
    assert!(!granted(&window).await);
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
    let at = ask(&window, &ANY).await.unwrap_err();
    assert!(at > usable + WINDOW, "the disk knew too early a time");
}

#[tokio::test]
async fn a_store_that_fails_grants_nothing() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 2, WINDOW).unwrap();
    state.store().fail_next_sync();
    for _ in 0..2 {
        let Ok(Permission::Granted(grant)) = window.take(&ANY) else { panic!("it fails at the commit") };
        assert!(grant.commit().await.is_err());
    }
}

/// Classes 3 and 4 together may have so many, evenly.
fn shared(class: u8, most: usize) -> Terms {
    let spacing = SignedDuration::from_secs(WINDOW.as_secs() / most as i64);
    let share = Share { classes: 0b1_1000, most, spacing, slack: SignedDuration::from_secs(1) };
    Terms { class, share: Some(share), ..ANY }
}

#[tokio::test]
async fn some_classes_share_a_part_of_the_window_and_the_rest_is_the_others() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 10, WINDOW).unwrap();
    for (class, then) in [(3, 100), (4, 100), (4, 97)] {
        ask(&window, &shared(class, 3)).await.unwrap();
        bench.clock.advance(SignedDuration::from_secs(then));
    }
    let at = ask(&window, &shared(3, 3)).await.unwrap_err();
    assert_eq!(at.duration_since(bench.clock.now()).as_secs(), 3, "when the first of them leaves");
    for _ in 0..7 {
        ask(&window, &ANY).await.unwrap();
    }
    assert!(!granted(&window).await);
    assert_eq!(window.used(), [7, 0, 0, 1, 2, 0, 0, 0]);
}

#[tokio::test]
async fn a_share_comes_evenly_and_who_is_a_little_late_loses_nothing() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 100, WINDOW).unwrap();
    let terms = shared(4, 75);
    let start = bench.clock.now();
    for place in 0..20 {
        ask(&window, &terms).await.unwrap();
        let at = ask(&window, &terms).await.unwrap_err();
        assert_eq!(at.duration_since(start).as_secs(), 4 * (place + 1) - 1, "its place, less the slack");
        bench.clock.advance(at.duration_since(bench.clock.now()) + SignedDuration::from_millis(900));
    }
    bench.clock.advance(SignedDuration::from_secs(60));
    ask(&window, &terms).await.unwrap();
    let at = ask(&window, &terms).await.unwrap_err();
    assert_eq!(at.duration_since(bench.clock.now()).as_secs(), 3, "what was not taken for long is not saved up");
    assert!(granted(&window).await, "the others do not wait for it");
}

#[tokio::test]
async fn a_share_goes_on_a_spacing_after_the_clock_was_set_back() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 100, WINDOW).unwrap();
    let terms = shared(4, 75);
    for back in [3600, 10, 86_400] {
        ask(&window, &terms).await.unwrap();
        bench.clock.advance(-SignedDuration::from_secs(back));
        for left in [3, 2, 1] {
            let at = ask(&window, &terms).await.unwrap_err();
            assert_eq!(at.duration_since(bench.clock.now()).as_secs(), left, "the place stays where it is");
            bench.clock.advance(SignedDuration::from_secs(1));
        }
    }
    ask(&window, &terms).await.unwrap();
}

#[tokio::test]
async fn a_restart_knows_what_each_grant_was_for_and_goes_on_evenly() {
    let bench = Bench::new();
    {
        let state = bench.open();
        let window = state.rate_window("api", 10, WINDOW).unwrap();
        ask(&window, &shared(3, 2)).await.unwrap();
        assert!(granted(&window).await);
        window.keep_note(b"lowered").await.unwrap();
    }
    let state = bench.open();
    let window = state.rate_window("api", 10, WINDOW).unwrap();
    assert_eq!(window.used(), [1, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(window.note().unwrap(), b"lowered");
    assert_eq!(state.rate_window("ap", 10, WINDOW).unwrap().note(), None);
    let at = ask(&window, &shared(4, 2)).await.unwrap_err();
    assert!(at.duration_since(bench.clock.now()) > SignedDuration::from_secs(140), "{at}");
}

#[tokio::test]
async fn grants_of_before_there_were_classes_are_read() {
    let bench = Bench::new();
    let state = bench.open();
    let tree = state.store().own_tree(keyspace::RATES).unwrap();
    for slot in 0..2u32 {
        let key = [b"api\0".as_slice(), &slot.to_be_bytes()].concat();
        tree.insert(key, bench.clock.now().as_microsecond().to_be_bytes().as_slice()).unwrap();
    }
    let window = state.rate_window("api", 3, WINDOW).unwrap();
    assert_eq!(window.used(), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert!(granted(&window).await && !granted(&window).await);
}

#[tokio::test]
async fn a_limit_that_is_lowered_for_now_waits_until_enough_have_left() {
    let bench = Bench::new();
    let state = bench.open();
    let window = state.rate_window("api", 4, WINDOW).unwrap();
    for _ in 0..4 {
        assert!(granted(&window).await);
        bench.clock.advance(SignedDuration::from_secs(10));
    }
    let at = ask(&window, &Terms { most: 2, ..ANY }).await.unwrap_err();
    assert_eq!(at.duration_since(bench.clock.now()).as_secs(), 280, "two must stay, the third of them leaves");
    let apart = Terms { apart: SignedDuration::from_secs(400), ..ANY };
    assert_eq!(ask(&window, &apart).await.unwrap_err().duration_since(bench.clock.now()).as_secs(), 390);
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
                    match runtime.block_on(ask(&window, &ANY)) {
                        Ok(()) => {
                            prop_assert!(recent < limit as usize, "{recent} within {WINDOW:?} and one more");
                            grants.push(passed);
                        }
                        Err(at) => {
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
