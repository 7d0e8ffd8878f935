//! Who goes first, what each class may have, and what a restart keeps.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use jiff::{SignedDuration, Timestamp};
use state::{Clock, RateWindow};

use super::*;
use crate::clients::nice::Quota;
use crate::clients::test_state::TestState;
use crate::flow::{Metrics, task};

mod simulation;

const RATE: Rate = Rate { limit: 2, window: Duration::from_secs(300) };

fn ledger(state: &TestState, rate: Rate, live_reserve: f64) -> LocalLedger {
    let window = |name| {
        let counted_for = SignedDuration::try_from(rate.counted_for()).unwrap();
        (state.state.rate_window(name, rate.limit, counted_for).unwrap(), Shares::new(rate, live_reserve))
    };
    LocalLedger::new(window("acd"), window("media_playback"), Metrics::new())
}

async fn admit(ledger: &LocalLedger, class: QuotaClass, patience: Patience) -> Result<(), NiceError> {
    LocalQuota::new(ledger.clone(), patience).admit(ApiFamily::MediaPlayback, class).await
}

async fn turn_of(ledger: &LocalLedger, class: QuotaClass) -> Duration {
    match admit(ledger, class, Patience::UpTo(Duration::ZERO)).await {
        Err(NiceError::Quota { retry_after: Some(wait), .. }) => wait,
        answer => panic!("there is room: {answer:?}"),
    }
}

#[tokio::test]
async fn a_worker_is_not_kept_and_is_told_a_turn_of_its_own() {
    let state = TestState::new();
    let ledger = ledger(&state, RATE, 0.5);
    for _ in 0..RATE.limit {
        admit(&ledger, QuotaClass::Live, Patience::WORKER).await.unwrap();
    }
    let mut waits = Vec::new();
    for _ in 0..3 {
        let Err(NiceError::Quota { retry_after: Some(wait), .. }) =
            admit(&ledger, QuotaClass::Live, Patience::WORKER).await
        else {
            panic!("there is no room")
        };
        waits.push(wait);
    }
    assert!(waits[0] > Duration::from_secs(290) && waits[0] <= RATE.counted_for() + RATE.window, "{waits:?}");
    assert!(waits[1] >= waits[0] + Duration::from_secs(149), "{waits:?}");
    assert!(waits[2] >= waits[1] + Duration::from_secs(149), "{waits:?}");
    let quota = LocalQuota::new(ledger, Patience::WORKER);
    quota.admit(ApiFamily::Acd, QuotaClass::Live).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_line_ends_within_the_hour_and_moves_on() {
    let lines = Lines::default();
    let spacing = Duration::from_secs(2);
    let waits: Vec<_> = (0..5000).map(|_| lines.join(QuotaClass::Live, Duration::from_secs(10), spacing)).collect();
    assert_eq!(waits[..2], [Duration::from_secs(10), Duration::from_secs(12)]);
    assert!(waits.iter().all(|wait| *wait <= LONGEST_ABSENCE));
    assert!(waits[2000..].iter().all(|wait| *wait >= LONGEST_ABSENCE / 2));
    tokio::time::advance(LONGEST_ABSENCE * 2).await;
    let wait = lines.join(QuotaClass::Live, Duration::from_secs(1), spacing);
    assert_eq!(wait, Duration::from_secs(1), "the line was empty again");
}

#[tokio::test(start_paused = true)]
async fn a_line_of_a_slower_time_moves_up_once_the_pace_is_back() {
    let lines = Lines::default();
    let join = |secs| lines.join(QuotaClass::Live, Duration::ZERO, Duration::from_secs(secs)).as_secs_f64().round();
    let slow: Vec<_> = (0..31).map(|_| join(100)).collect();
    assert_eq!((slow[0], slow[30]), (0.0, 3000.0));
    assert_eq!([join(2), join(2)], [62.0, 64.0], "thirty are before them, at two seconds each");
    assert_eq!([join(100), join(100)], [164.0, 264.0], "a slower pace moves nobody back");
    tokio::time::advance(LONGEST_ABSENCE).await;
    assert_eq!([join(2), join(2)], [0.0, 2.0]);
}

#[tokio::test(start_paused = true)]
async fn what_has_time_comes_again_soon_so_that_no_place_of_it_passes() {
    for (spacing, longest) in [(4_000, 30_000), (1_000, 20_000), (200, 4_000), (1, 1_000)] {
        let (lines, longest) = (Lines::default(), Duration::from_millis(longest));
        let join = || lines.join(QuotaClass::Backfill, Duration::ZERO, Duration::from_millis(spacing));
        let waits: Vec<_> = (0..5_000).map(|_| join()).collect();
        assert!(waits.iter().all(|wait| *wait <= longest), "{spacing}");
        assert!(waits[2_000..].iter().all(|wait| *wait >= longest / 11), "{spacing}");
    }
}

#[test]
fn a_request_counts_for_its_span_and_a_little_more() {
    let rate = Rate { limit: 150, ..RATE };
    assert_eq!(rate.counted_for(), Duration::from_millis(300_250));
    assert_eq!(Rate { limit: 2, window: Duration::from_millis(400) }.counted_for(), Duration::from_millis(500));
}

#[test]
fn the_reserve_is_what_backfill_never_takes() {
    let most = |limit, reserve, class| Shares::new(Rate { limit, ..RATE }, reserve).most(class, limit);
    for class in [QuotaClass::Live, QuotaClass::Retry, QuotaClass::Agents] {
        assert_eq!(most(150, 0.5, class), 150);
    }
    for (limit, reserve, expected) in
        [(150, 0.5, 75), (150, 0.0, 150), (10, 0.9, 1), (7, 0.5, 3), (1, 0.5, 1), (150, 0.999, 1)]
    {
        for class in [QuotaClass::Reconciliation, QuotaClass::Backfill] {
            assert_eq!(most(limit, reserve, class), expected, "{limit} with a reserve of {reserve}");
        }
    }
    assert_eq!((most(150, 1.0, QuotaClass::Reconciliation), most(150, 1.0, QuotaClass::Backfill)), (1, 0));
}

#[test]
fn the_pace_is_what_a_class_can_count_on() {
    let shares = Shares::new(Rate { limit: 150, window: Duration::from_secs(300) }, 0.5);
    assert!((shares.pace(QuotaClass::Backfill) - 75.0 / 300.25).abs() < 1e-12);
    assert!((shares.pace(QuotaClass::Live) - 150.0 / 300.25).abs() < 1e-12);
    assert_eq!(Shares::new(shares.rate(), 1.0).pace(QuotaClass::Backfill), 0.0);
    assert_eq!(shares.spacing(QuotaClass::Backfill, 150), Duration::from_millis(300_250) / 75);
}

#[tokio::test]
async fn a_long_backfill_line_makes_no_live_call_wait() {
    let state = TestState::new();
    let ledger = ledger(&state, Rate { limit: 10, ..RATE }, 0.5);
    admit(&ledger, QuotaClass::Backfill, Patience::WORKER).await.unwrap();
    let mut turns = Vec::new();
    for _ in 0..20 {
        turns.push(turn_of(&ledger, QuotaClass::Backfill).await);
    }
    assert!(turns.iter().all(|turn| *turn <= LONGEST_BULK_ABSENCE), "{turns:?}");
    for _ in 0..9 {
        admit(&ledger, QuotaClass::Live, Patience::WORKER).await.unwrap();
    }
    assert!(turn_of(&ledger, QuotaClass::Live).await < RATE.counted_for() + RATE.window);
}

#[tokio::test]
async fn whoever_goes_first_and_was_sent_away_holds_bulk_back() {
    for class in QuotaClass::ALL.into_iter().filter(|class| !class.is_bulk()) {
        let rate = Rate { limit: 2, ..RATE };
        let (window, ahead) = window_with_clock(rate);
        let ledger = ledger_over(&window, rate);
        for _ in 0..rate.limit {
            admit(&ledger, class, Patience::UpTo(Duration::ZERO)).await.unwrap();
        }
        turn_of(&ledger, class).await;
        ahead.fetch_add(1000, Ordering::SeqCst);
        turn_of(&ledger, QuotaClass::Backfill).await;
        admit(&ledger, class, Patience::UpTo(Duration::ZERO)).await.unwrap();
    }
}

#[tokio::test]
async fn a_reserve_of_everything_tells_backfill_what_to_change() {
    let state = TestState::new();
    let ledger = ledger(&state, RATE, 1.0);
    let refused = admit(&ledger, QuotaClass::Backfill, Patience::Endless).await.unwrap_err();
    assert!(refused.to_string().contains("live_reserve = 1"), "{refused}");
    admit(&ledger, QuotaClass::Reconciliation, Patience::WORKER).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_classes_and_restraint() {
    let state = TestState::new();
    let rate = Rate { limit: 20, ..RATE };
    let before = ledger(&state, rate, 0.5);
    admit(&before, QuotaClass::Live, Patience::WORKER).await.unwrap();
    admit(&before, QuotaClass::Backfill, Patience::WORKER).await.unwrap();
    let quota = LocalQuota::new(before.clone(), Patience::WORKER);
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(200))).await;

    let state = state.crashed();
    let after = ledger(&state, rate, 0.5);
    let usage = after.usage(ApiFamily::MediaPlayback);
    assert_eq!(usage.by_class, [(QuotaClass::Live, 1), (QuotaClass::Backfill, 1)]);
    assert_eq!((usage.limit, usage.limit_now, usage.used(), usage.available()), (20, 1, 2, 0));
    assert!(turn_of(&after, QuotaClass::Live).await > Duration::from_secs(100), "it is still closed");
    assert_eq!(after.usage(ApiFamily::Acd).closed_for, None, "the other family is not");
}

/// A window in memory, and how far its clock is ahead of a fixed time, in seconds.
fn window_with_clock(rate: Rate) -> (RateWindow, Arc<AtomicI64>) {
    let wall = Timestamp::from_second(1_795_348_800).unwrap();
    let ahead = Arc::new(AtomicI64::new(0));
    let secs = ahead.clone();
    let clock = Clock::new(move || wall + SignedDuration::from_secs(secs.load(Ordering::SeqCst)));
    (RateWindow::in_memory(clock, rate.limit, SignedDuration::try_from(rate.counted_for()).unwrap()), ahead)
}

/// A ledger over this window.
fn ledger_over(window: &RateWindow, rate: Rate) -> LocalLedger {
    let shares = Shares::new(rate, 0.5);
    LocalLedger::new((window.clone(), shares), (window.clone(), shares), Metrics::new())
}

#[tokio::test]
async fn after_the_clock_is_set_back_a_pause_ends_when_it_is_over() {
    let rate = Rate { limit: 20, ..RATE };
    let (window, ahead) = window_with_clock(rate);
    let ledger = ledger_over(&window, rate);
    for _ in 0..3 {
        admit(&ledger, QuotaClass::Live, Patience::WORKER).await.unwrap();
    }
    let quota = LocalQuota::new(ledger.clone(), Patience::WORKER);
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(30))).await;
    let closed_for = || ledger.usage(ApiFamily::MediaPlayback).closed_for;

    ahead.fetch_sub(86_400, Ordering::SeqCst);
    assert_eq!(closed_for(), Some(Duration::from_secs(30)));
    ahead.fetch_add(10, Ordering::SeqCst);
    assert_eq!(closed_for(), Some(Duration::from_secs(20)), "it does not move on with the clock");
    ahead.fetch_add(20, Ordering::SeqCst);
    assert_eq!(closed_for(), None);
    ahead.fetch_add(301, Ordering::SeqCst);
    admit(&ledger, QuotaClass::Live, Patience::UpTo(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_what_the_clock_made_of_a_restraint() {
    let (window, ahead) = window_with_clock(RATE);
    let before = ledger_over(&window, RATE);
    let quota = LocalQuota::new(before.clone(), Patience::WORKER);
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(30))).await;
    ahead.fetch_sub(86_400, Ordering::SeqCst);
    assert_eq!(before.usage(ApiFamily::MediaPlayback).closed_for, Some(Duration::from_secs(30)));
    ahead.fetch_add(10, Ordering::SeqCst);
    let after = ledger_over(&window, RATE);
    assert_eq!(after.usage(ApiFamily::MediaPlayback).closed_for, Some(Duration::from_secs(20)));
}

#[tokio::test]
async fn after_the_clock_is_set_back_a_backfill_goes_on_a_place_later() {
    let rate = Rate { limit: 20, ..RATE };
    let (window, ahead) = window_with_clock(rate);
    let ledger = ledger_over(&window, rate);
    admit(&ledger, QuotaClass::Backfill, Patience::UpTo(Duration::ZERO)).await.unwrap();
    ahead.fetch_sub(86_400, Ordering::SeqCst);
    turn_of(&ledger, QuotaClass::Backfill).await;
    ahead.fetch_add(31, Ordering::SeqCst);
    admit(&ledger, QuotaClass::Backfill, Patience::UpTo(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn of_those_that_wait_the_first_class_goes_first() {
    let state = TestState::new();
    let ledger = ledger(&state, Rate { limit: 1, window: Duration::from_millis(200) }, 0.0);
    admit(&ledger, QuotaClass::Live, Patience::Endless).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for class in QuotaClass::ALL.into_iter().rev() {
        let (ledger, order) = (ledger.clone(), order.clone());
        waiting.push(task::spawn("wait", async move {
            admit(&ledger, class, Patience::Endless).await.unwrap();
            order.lock().unwrap().push(class);
        }));
    }
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), QuotaClass::ALL);
}
