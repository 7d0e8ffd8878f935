//! Seeds: a world each, that misbehaves for a while and is well again. Every promise is kept in all of them.

use std::time::Duration;

use simulation::plan::{Fault, Manner, Plan, Scale, Server, Trouble};
use simulation::run::{Outcome, Wishes, run};

fn lives(plan: &Plan) -> Outcome {
    run(plan, Wishes::default()).expect("the world is built")
}

/// A failing seed says what went wrong, and how to look closer.
fn keeps_its_promises(seed: u64) {
    let plan = Plan::of(seed, Scale::short());
    let outcome = lives(&plan);
    assert!(
        outcome.broken.is_empty(),
        "seed {seed} broke {} promises; make it small with\n  cargo run --release -p bench -- simulate --short --from {seed} \
         --seeds 1 --shrink\n{}\n{}",
        outcome.broken.len(),
        plan.faults.iter().map(|fault| format!("{fault:?}\n")).collect::<String>(),
        outcome.broken.join("\n"),
    );
    assert!(outcome.legs.1 > 0, "seed {seed} has no call to import: it proves nothing");
}

/// Runs the seeds on two threads, as each needs one for itself.
fn each(seeds: std::ops::Range<u64>) {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    keeps_its_promises(seed);
                }
            });
        }
    });
}

/// As many as take a minute or two in a test build; `bench -- simulate` runs any number of them.
#[test]
fn short_seeds_keep_every_promise() {
    each(1..101);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let plan = Plan::of(1, Scale::short());
    assert_eq!(lives(&plan).hash, lives(&plan).hash);
}

/// Found by seed 17: those that waited for the recording store were woken in an order that was drawn anew each time.
#[test]
fn a_store_that_comes_back_wakes_who_waits_in_the_same_order() {
    let plan = Plan::calm(17, Scale::short());
    let hour = Duration::from_secs(3600);
    let away = Fault { at: hour, lasts: hour, what: Trouble::Server(Server::Store, Manner::Away, None) };
    let plan = Plan { faults: vec![away], ..plan };
    let (one, other) = (lives(&plan), lives(&plan));
    assert_eq!(one.hash, other.hash);
    assert_eq!(one.broken, [""; 0]);
}

/// Found by seed 9: each deferral whose confirm was lost left two messages of a call, and each of them two more.
#[test]
fn a_broker_that_loses_confirms_for_hours_does_not_multiply_who_waits() {
    let hour = Duration::from_secs(3600);
    let begins = |what| Fault { at: hour / 2, lasts: 3 * hour / 2, what };
    let faults = vec![
        begins(Trouble::LateRecordings(0, hour / 2)),
        begins(Trouble::Server(Server::Queue, Manner::Refuses(0.6), None)),
    ];
    let outcome = lives(&Plan { faults, ..Plan::calm(9, Scale::short()) });
    assert_eq!(outcome.broken, [""; 0]);
}

/// Found by seed 85: the night that was due by that clock counted as compared, up to a time that was to come.
#[test]
fn a_producer_that_begins_with_a_clock_of_tomorrow_compares_no_night_that_is_to_come() {
    let ahead = Fault { at: Duration::ZERO, lasts: Duration::from_secs(1800), what: Trouble::Clock(0, 72_248) };
    let outcome = lives(&Plan { faults: vec![ahead], ..Plan::calm(85, Scale::short()) });
    assert_eq!(outcome.broken, [""; 0]);
}

#[test]
fn a_quiet_day_raises_no_alert_and_an_outage_does() {
    let calm = Plan::calm(5, Scale::short());
    let hour = Duration::from_secs(3600);
    let away = Fault { at: hour, lasts: hour, what: Trouble::Server(Server::Queue, Manner::Away, None) };
    for faults in [vec![], vec![away]] {
        let plan = Plan { faults, ..calm.clone() };
        let outcome = run(&plan, Wishes { alarms: true, ..Wishes::default() }).expect("Prometheus runs");
        assert_eq!(outcome.broken, [""; 0], "{:?}", plan.faults);
    }
}
