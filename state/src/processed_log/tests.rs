//! The promises of the processed-id log, by example and against a model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::civil::Date;
use proptest::prelude::*;

use super::*;
use crate::State;
use crate::test_support::{Bench, key};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn claimed(log: &ProcessedLog, n: u64) -> Claim {
    match log.claim(key(n)).unwrap() {
        ClaimOutcome::Claimed(claim) => claim,
        other => panic!("{n}: {other:?}"),
    }
}

fn is_processed(log: &ProcessedLog, n: u64) -> bool {
    matches!(log.claim(key(n)).unwrap(), ClaimOutcome::Processed)
}

#[tokio::test]
async fn a_key_is_claimed_once_and_remembered_once_committed() {
    let bench = Bench::new();
    let state = bench.open();
    let log = state.processed();
    let claim = claimed(log, 1);
    assert!(matches!(log.claim(key(1)).unwrap(), ClaimOutcome::InFlight(_)));
    assert!(!log.contains(&key(1)));
    claim.commit().await.unwrap();
    assert!(is_processed(log, 1));
    assert_eq!((log.len(), log.in_flight()), (1, 0));
    drop(state);
    assert!(is_processed(bench.open().processed(), 1));
}

#[tokio::test]
async fn a_dropped_claim_is_given_back_and_wakes_who_waits() {
    let bench = Bench::new();
    let state = bench.open();
    let claim = claimed(state.processed(), 1);
    let ClaimOutcome::InFlight(first) = state.processed().claim(key(1)).unwrap() else { panic!() };
    let ClaimOutcome::InFlight(second) = state.processed().claim(key(1)).unwrap() else { panic!() };
    let waiting = tokio::spawn(first.settled());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(claim);
    waiting.await.unwrap();
    second.settled().await;
    claimed(state.processed(), 1);
}

#[tokio::test]
async fn a_commit_wakes_who_waits_after_it_is_durable() {
    let bench = Bench::new();
    let state = bench.open();
    let claim = claimed(state.processed(), 1);
    let ClaimOutcome::InFlight(waiter) = state.processed().claim(key(1)).unwrap() else { panic!() };
    let (committed, ()) = tokio::join!(claim.commit(), waiter.settled());
    committed.unwrap();
    assert!(is_processed(state.processed(), 1));
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_any_more_still_settles() {
    let bench = Bench::new();
    let state = bench.open();
    let claim = claimed(state.processed(), 1);
    let ClaimOutcome::InFlight(waiter) = state.processed().claim(key(1)).unwrap() else { panic!() };
    {
        let mut commit = Box::pin(claim.commit());
        assert!(futures_poll_once(commit.as_mut()).await.is_none());
    }
    waiter.settled().await;
    assert!(is_processed(state.processed(), 1));
}

#[tokio::test]
async fn what_the_catalog_lacks_can_be_claimed_again() {
    let bench = Bench::new();
    let state = bench.open();
    claimed(state.processed(), 1).commit().await.unwrap();
    let ClaimOutcome::Claimed(again) = state.processed().claim_again(key(1)).unwrap() else { panic!() };
    assert!(matches!(state.processed().claim_again(key(1)).unwrap(), ClaimOutcome::InFlight(_)));
    again.commit().await.unwrap();
    assert!(is_processed(state.processed(), 1));
}

#[tokio::test]
async fn a_day_goes_when_its_end_is_older_than_the_retention() {
    let bench = Bench::new(); // noon; the retention is three days
    let state = bench.open();
    let log = state.processed();
    claimed(log, 1).commit().await.unwrap();
    bench.clock.advance(SignedDuration::from_hours(12 + 72));
    assert_eq!(log.prune(bench.clock.now()).unwrap(), 0);
    assert!(is_processed(log, 1));
    claimed(log, 2).commit().await.unwrap();
    bench.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(log.prune(bench.clock.now()).unwrap(), 1);
    assert!(!log.contains(&key(1)) && log.contains(&key(2)));
    drop(state);
    let state = bench.open();
    assert!(!state.processed().contains(&key(1)) && state.processed().contains(&key(2)));
    drop(state);
    bench.clock.advance(DAY * 10);
    assert!(bench.open().processed().is_empty(), "opening prunes");
}

#[tokio::test]
async fn above_the_cap_the_oldest_part_goes_first() {
    let mut bench = Bench::new();
    bench.options.max_ids = 1000;
    let state = bench.open();
    let log = state.processed();
    for n in 0..2000 {
        // One hundred at a time, so that a commit is no larger than a part.
        let claims: Vec<_> = (n * 100..(n + 1) * 100).map(|n| claimed(log, n)).collect();
        if n == 20 {
            break;
        }
        let commits = claims.into_iter().map(Claim::commit).map(tokio::spawn).collect::<Vec<_>>();
        for commit in commits {
            commit.await.unwrap().unwrap();
        }
        assert!(log.len() <= 1000);
    }
    assert!(log.len() >= 650, "{}", log.len());
    assert!(log.contains(&key(1999)) && !log.contains(&key(0)));
    let len = log.len();
    drop(state);
    assert_eq!(bench.open().processed().len(), len);
}

#[tokio::test]
async fn a_quiet_day_takes_no_more_room_than_a_busy_one() {
    let bench = Bench::new();
    let state = bench.open();
    for n in 0..500 {
        claimed(state.processed(), n).commit().await.unwrap();
    }
    let blocks = state.store().own_tree("processed/2026-11-22/0000").unwrap().len();
    assert!(blocks <= 500usize.div_ceil(64), "{blocks} blocks for 500 single ids");
    drop(state);
    let state = bench.open();
    assert!((0..500).all(|n| state.processed().contains(&key(n))));
    claimed(state.processed(), 500).commit().await.unwrap();
    drop(state);
    assert_eq!(bench.open().processed().len(), 501);
}

#[test]
fn a_log_is_seeded_and_cleared() {
    let bench = Bench::new();
    let state = bench.open();
    assert_eq!(state.processed().seed((0..70_000).map(key)).unwrap(), 70_000);
    assert_eq!(state.processed().seed((69_000..70_001).map(key)).unwrap(), 1);
    drop(state);
    let state = bench.open();
    assert_eq!(state.processed().len(), 70_001);
    let claim = claimed(state.processed(), 80_000);
    state.processed().clear().unwrap();
    assert_eq!((state.processed().len(), state.processed().in_flight()), (0, 1));
    drop(claim);
    drop(state);
    assert!(bench.open().processed().is_empty());
}

#[tokio::test]
async fn a_failed_commit_acknowledges_nothing_and_holds_nobody() {
    let bench = Bench::new();
    let state = bench.open();
    claimed(state.processed(), 1).commit().await.unwrap();
    let claim = claimed(state.processed(), 2);
    let ClaimOutcome::InFlight(waiter) = state.processed().claim(key(2)).unwrap() else { panic!() };
    state.store().fail_next_sync();
    let (committed, ()) = tokio::join!(claim.commit(), waiter.settled());
    assert!(matches!(committed, Err(StateError::Storage { .. })));
    assert!(!state.processed().contains(&key(2)));
    assert!(matches!(state.processed().claim(key(3)), Err(StateError::Storage { .. })), "no false start either");
    assert!(matches!(state.store().commit().await, Err(StateError::Storage { .. })), "it stays so");
    drop(state);
    assert!(bench.open().processed().contains(&key(1)));
}

#[tokio::test]
async fn a_commit_after_the_close_fails_and_holds_nobody() {
    let bench = Bench::new();
    let state = bench.open();
    let claim = claimed(state.processed(), 1);
    let ClaimOutcome::InFlight(waiter) = state.processed().claim(key(1)).unwrap() else { panic!() };
    state.store().close().await.unwrap();
    assert!(matches!(claim.commit().await, Err(StateError::Closed)));
    waiter.settled().await;
    drop(state);
    assert!(!bench.open().processed().contains(&key(1)));
}

#[test]
fn the_clock_may_go_back_a_day() {
    let bench = Bench::new();
    let state = bench.open();
    state.processed().seed([key(1)]).unwrap();
    bench.clock.advance(-DAY);
    state.processed().seed([key(2)]).unwrap();
    bench.clock.advance(DAY);
    state.processed().seed([key(3)]).unwrap();
    assert_eq!(state.processed().len(), 3);
    drop(state);
    assert_eq!(bench.open().processed().len(), 3);
}

/// Polls once; `None` if it is not ready.
async fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    std::future::poll_fn(move |context| {
        let future = future.take().expect("it is polled once");
        std::task::Poll::Ready(match future.poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// What a caller may do, with keys from a small set so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Claim(u64),
    Again(u64),
    Commit(u64),
    GiveBack(u64),
    CommitAll,
    Advance(i64),
    Prune,
    Seed(u64, u64),
    Clear,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..40u64;
    let step = prop_oneof![
        8 => n.clone().prop_map(Step::Claim),
        2 => n.clone().prop_map(Step::Again),
        5 => n.clone().prop_map(Step::Commit),
        3 => n.clone().prop_map(Step::GiveBack),
        2 => Just(Step::CommitAll),
        2 => (1..40i64).prop_map(Step::Advance),
        1 => Just(Step::Prune),
        1 => (n, 0..90u64).prop_map(|(from, count)| Step::Seed(from, count)),
        1 => Just(Step::Clear),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// What the log should know: the days of each key's commits, and the claims held.
struct Model {
    bench: Bench,
    state: Option<State>,
    days: BTreeMap<u64, Vec<Date>>,
    held: BTreeMap<u64, Claim>,
}

impl Model {
    fn log(&self) -> ProcessedLog {
        self.state.as_ref().expect("it is open").processed().clone()
    }

    fn commit(&mut self, runtime: &tokio::runtime::Runtime, keys: &[u64]) {
        let claims: Vec<_> = keys.iter().filter_map(|n| Some((*n, self.held.remove(n)?))).collect();
        runtime.block_on(async {
            let commits: Vec<_> = claims.into_iter().map(|(n, claim)| (n, tokio::spawn(claim.commit()))).collect();
            for (n, commit) in commits {
                commit.await.unwrap().unwrap();
                self.days.entry(n).or_default().push(day_of(self.bench.clock.now()));
            }
        });
    }

    fn prune(&mut self) {
        let now = self.bench.clock.now();
        for days in self.days.values_mut() {
            days.retain(|day| !SegmentName { day: *day, part: 0 }.ended_before(now, self.bench.options.retention));
        }
        self.days.retain(|_, days| !days.is_empty());
    }

    fn apply(&mut self, runtime: &tokio::runtime::Runtime, step: &Step) {
        let log = self.log();
        match *step {
            Step::Claim(n) | Step::Again(n) => {
                let again = matches!(step, Step::Again(_));
                match if again { log.claim_again(key(n)) } else { log.claim(key(n)) }.unwrap() {
                    ClaimOutcome::InFlight(_) => assert!(self.held.contains_key(&n)),
                    ClaimOutcome::Processed => assert!(self.days.contains_key(&n) && !again),
                    ClaimOutcome::Claimed(claim) => {
                        assert!(again || !self.days.contains_key(&n));
                        assert!(self.held.insert(n, claim).is_none());
                    }
                }
            }
            Step::Commit(n) => self.commit(runtime, &[n]),
            Step::CommitAll => self.commit(runtime, &self.held.keys().copied().collect::<Vec<_>>()),
            Step::GiveBack(n) => drop(self.held.remove(&n)),
            Step::Advance(hours) => self.bench.clock.advance(SignedDuration::from_hours(hours)),
            Step::Prune => {
                log.prune(self.bench.clock.now()).unwrap();
                self.prune();
            }
            Step::Seed(from, count) => {
                log.seed((from..from + count).map(key)).unwrap();
                let today = day_of(self.bench.clock.now());
                for n in from..from + count {
                    self.days.entry(n).or_insert_with(|| vec![today]);
                }
            }
            Step::Clear => {
                log.clear().unwrap();
                self.days.clear();
            }
            Step::Reopen => {
                drop(log);
                self.held.clear();
                self.state = None;
                self.state = Some(self.bench.open());
                self.prune();
            }
        }
        let log = self.log();
        assert_eq!(log.in_flight(), self.held.len());
        for n in 0..130 {
            assert_eq!(log.contains(&key(n)), self.days.contains_key(&n), "key {n} after {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_its_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bench = Bench::new();
        let state = Some(bench.open());
        let mut model = Model { bench, state, days: BTreeMap::new(), held: BTreeMap::new() };
        for step in &steps {
            model.apply(&runtime, step);
        }
    }
}
