//! Bad days of one kind each: a world in which nothing else goes wrong keeps every promise.

use std::time::Duration;

use simulation::plan::{Fault, Plan, Reading, Scale, Setting, Telling, Trouble};
use simulation::run::{Wishes, run};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Lives through two hours of each of these troubles, in a world of its own.
fn each(troubles: &[Trouble]) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(what) = troubles.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    one(what.clone());
                }
            });
        }
    });
}

fn one(what: Trouble) {
    let calm = Plan::calm(23, Scale { calls: 200, ..Scale::short() });
    let tenants = calm.tenants.iter().map(|tenant| simulation::plan::Tenant { webhook: true, ..tenant.clone() });
    let fault = Fault { at: HOUR / 2, lasts: 2 * HOUR, what };
    let plan = Plan { tenants: tenants.collect(), faults: vec![fault], ..calm };
    let outcome = run(&plan, Wishes::default()).expect("the world is built");
    assert_eq!(outcome.broken, [""; 0], "{:?}", plan.faults);
    assert!(outcome.legs.1 > 20, "too few calls prove nothing");
}

#[test]
fn recordings_that_never_come_change_or_are_gone_are_told_as_what_they_are() {
    each(&[
        Trouble::NeverRecorded(0, 0.5),
        Trouble::ChangedRecordings(0, 0.9, HOUR),
        Trouble::GoneRecordings(0, 0.9, 3 * HOUR),
        Trouble::SlowMedia(0, 0.5, Duration::from_millis(64)),
    ]);
}

#[test]
fn what_nice_says_late_too_seldom_or_too_often_costs_no_call() {
    each(&[
        Trouble::Webhook(0, Telling::Lost(0.9)),
        Trouble::Webhook(0, Telling::Doubled(0.9)),
        Trouble::Webhook(0, Telling::Late(2 * HOUR)),
        Trouble::Group(0, Reading::Late(HOUR)),
        Trouble::TokenClock(0, -3500),
        Trouble::TokenClock(0, 3500),
        Trouble::AcdLimit(0, 30, 0.5),
        // What a webhook tells counts from when it was told, by the producer's clock.
        Trouble::Clock(0, 4 * 3600),
    ]);
}

#[test]
fn machines_that_are_changed_on_the_way_lose_nothing() {
    each(&[
        Trouble::Upgrade,
        Trouble::Settings(Setting::PollInterval(0, 10 * MINUTE)),
        Trouble::Settings(Setting::AgentSessions(0)),
        Trouble::Settings(Setting::Nightly(0, 8)),
        Trouble::Settings(Setting::PlaybackLimit(0, 5)),
        Trouble::Settings(Setting::PlaybackLimit(0, 40)),
        Trouble::Settings(Setting::Concurrency(1)),
    ]);
}
