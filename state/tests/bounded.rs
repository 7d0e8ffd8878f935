//! Day after day, disk and memory stay where they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use model::Key;
use runtime::Clock;
use state::{ClaimOutcome, State, StateOptions};

const DAYS: usize = 20;
const IDS_A_DAY: usize = 2_000;
const AT_A_TIME: usize = 20;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Commits a day's ids in small groups, with an event through the inbox for each group.
async fn live_a_day(state: &State, clock: &AtomicI64, day: usize) {
    for group in 0..IDS_A_DAY / AT_A_TIME {
        let mut commits = tokio::task::JoinSet::new();
        for n in 0..AT_A_TIME {
            let key = Key::of(&["bounded", &format!("{day} {group} {n}")]);
            let ClaimOutcome::Claimed(claim) = state.processed().claim(key).unwrap() else { panic!() };
            commits.spawn(claim.commit());
        }
        let event = state.inbox().push(&[day as u8; 6000]).await.unwrap();
        while let Some(committed) = commits.join_next().await {
            committed.unwrap().unwrap();
        }
        state.inbox().remove(event).unwrap();
        state.store().tree("callers").unwrap().insert(b"budget", vec![day as u8; 4000]).unwrap();
        clock.fetch_add(24 * HOUR_MICROS / (IDS_A_DAY / AT_A_TIME) as i64, Ordering::SeqCst);
    }
    state.processed().prune(Timestamp::from_microsecond(clock.load(Ordering::SeqCst)).unwrap()).unwrap();
}

#[tokio::test]
async fn the_disk_levels_off_once_days_expire() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(1_795_348_800_000_000));
    let asked = Arc::clone(&clock);
    let options = StateOptions {
        clock: Clock::asking(move || Timestamp::from_microsecond(asked.load(Ordering::SeqCst)).unwrap()),
        ..StateOptions::default()
    };
    let mut sizes = Vec::new();
    let mut state = State::open(dir.path(), options.clone()).unwrap().state;
    for day in 0..DAYS {
        live_a_day(&state, &clock, day).await;
        assert!(state.processed().len() <= 5 * IDS_A_DAY, "three days, and what they begin and end in");
        sizes.push(state.store().size_on_disk().unwrap());
        if day % 5 == 4 {
            drop(state);
            state = State::open(dir.path(), options.clone()).unwrap().state;
        }
    }
    println!("{sizes:?}");
    let early = sizes[..DAYS / 2].iter().max().unwrap();
    let late = sizes[DAYS / 2..].iter().max().unwrap();
    assert!(*late <= early * 3 / 2, "the disk grows: {sizes:?}");
    assert_eq!(state.inbox().len(), 0);
}
