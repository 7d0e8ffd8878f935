//! The estimate, on a simulated NICE in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::SignedDuration;

use super::*;
use crate::readiness::{chance, hold};

const BOUNDS: Bounds = Bounds { share: 0.99, guess: Duration::from_secs(300), longest: Duration::from_secs(24 * 3600) };

const HOUR: f64 = 3600.0;

/// The steps of `[retry] not_ready_delays`, in seconds.
const STEPS: [f64; 8] = [30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];

/// `[retry] recording_deadline`: then a call that has no recording is given up.
const DEADLINE: f64 = 48.0 * 3600.0;

/// The time from a call's end until the poll finds it, but for its interval.
const FOUND_AFTER: f64 = 60.0;
const POLL_INTERVAL: f64 = 15.0;

/// Calls of one kind that follow each other.
#[derive(Clone, Copy)]
struct Phase {
    calls: usize,
    /// The recording is there between so many seconds after the end of the call.
    delay: (f64, f64),
    /// The share that is never recorded.
    never: f64,
}

impl Phase {
    /// All of them are recorded.
    fn new(calls: usize, delay: (f64, f64)) -> Self {
        Self { calls, delay, never: 0.0 }
    }
}

/// What became of the calls, in the order in which they ended.
struct Seen {
    /// When each ended.
    ended: Vec<f64>,
    /// How long after its end each was found.
    found: Vec<f64>,
    /// Looks until the recording was found.
    looks: Vec<u32>,
    /// Seconds from the recording being there until it was found; infinite where it never was.
    late: Vec<f64>,
}

impl Seen {
    fn looks_per_call(&self, from: usize, to: usize) -> f64 {
        f64::from(self.looks[from..to].iter().sum::<u32>()) / (to - from) as f64
    }

    fn mean_late(&self, from: usize, to: usize) -> f64 {
        self.late[from..to].iter().sum::<f64>() / (to - from) as f64
    }
}

/// Numbers that look random and are the same in each run.
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A call on the queue.
struct Waiting {
    at: f64,
    call: usize,
    ended: f64,
    ready: f64,
    misses: usize,
    missing: Option<f64>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.call.cmp(&other.call))
    }
}

/// Lets calls end at `rate` per second, and looks at each as the consumer does.
fn simulate(phases: &[Phase], rate: f64, bounds: Bounds) -> Seen {
    simulate_with(phases, rate, bounds, &[])
}

/// As [`simulate`], while NICE gives out no recording between the times of each outage.
fn simulate_with(phases: &[Phase], rate: f64, bounds: Bounds, outages: &[(f64, f64)]) -> Seen {
    let mut ends = Vec::new();
    let mut dice = Chance(1);
    let mut queue = BinaryHeap::new();
    let (mut time, mut call) = (0.0, 0);
    for phase in phases {
        for _ in 0..phase.calls {
            time -= dice.next().max(1e-9).ln() / rate;
            let ready = match dice.next() < phase.never {
                true => f64::INFINITY,
                false => phase.delay.0 + dice.next() * (phase.delay.1 - phase.delay.0),
            };
            let outage = outages.iter().find(|outage| (outage.0..outage.1).contains(&(time + ready)));
            let ready = outage.map_or(ready, |outage| outage.1 - time);
            ends.push(time);
            let found_after = FOUND_AFTER + dice.next() * POLL_INTERVAL;
            queue.push(Reverse(Waiting { at: time + found_after, call, ended: time, ready, misses: 0, missing: None }));
            call += 1;
        }
    }
    let mut first_look = FirstLook::new(bounds);
    let mut seen = Seen { ended: ends, found: vec![f64::INFINITY; call], looks: vec![0; call], late: vec![0.0; call] };
    while let Some(Reverse(mut waiting)) = queue.pop() {
        let age = waiting.at - waiting.ended;
        let chance = match waiting.missing {
            Some(_) => 1.0,
            None => chance((waiting.call as u64 + 1).to_string().parse().unwrap()),
        };
        if !bounds.is_off()
            && let Some(delay) = first_look.delay_of(chance)
            && let missed = waiting.missing.map(Duration::from_secs_f64)
            && let Some(asked) = hold(delay, first_look.is_young(), Duration::from_secs_f64(age), missed)
        {
            waiting.at += queue::rounded_up(asked).as_secs_f64();
            queue.push(Reverse(waiting));
            continue;
        }
        seen.looks[waiting.call] += 1;
        if age < waiting.ready && age >= DEADLINE {
            seen.late[waiting.call] = f64::INFINITY;
            continue;
        }
        if age < waiting.ready {
            if waiting.missing.is_none() {
                first_look.missed(age);
            }
            waiting.missing = Some(age);
            waiting.at += STEPS[waiting.misses.min(STEPS.len() - 1)].min(DEADLINE - age);
            waiting.misses += 1;
            queue.push(Reverse(waiting));
            continue;
        }
        seen.late[waiting.call] = age - waiting.ready;
        seen.found[waiting.call] = age;
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(waiting.at);
        first_look.learn(bounds, now, waiting.missing, age);
    }
    seen
}

/// The simulator's distribution: 2 to 30 minutes.
const USUAL: (f64, f64) = (120.0, 1800.0);

/// A tenant with few calls, one that uses half its quota, and one that uses all of it: 150 in 5 minutes.
const RATES: [f64; 3] = [0.01, 0.25, 0.5];

#[test]
fn a_conversation_takes_hardly_more_than_one_look_once_the_delay_is_learned() {
    for rate in RATES {
        // At full rate as many calls come in the time that the first answers take.
        let seen = simulate(&[Phase::new(22_000, USUAL)], rate, BOUNDS);
        let looks = seen.looks_per_call(4_000, 22_000);
        println!(
            "{rate} calls per second: {looks:.4} looks per call after {:.2} while learning, found {:.0} s late",
            seen.looks_per_call(0, 4_000),
            seen.mean_late(4_000, 22_000),
        );
        assert!(looks <= 1.03, "{rate} calls per second: {looks}");
        for from in (4_000..22_000).step_by(2_000) {
            let looks = seen.looks_per_call(from, from + 2_000);
            assert!(looks <= 1.04, "{rate} calls per second, from call {from}: {looks}");
        }
    }
}

#[test]
fn few_calls_suffice_where_they_do_not_come_all_at_once() {
    let seen = simulate(&[Phase::new(2_300, USUAL)], 0.01, BOUNDS);
    assert!(seen.looks_per_call(300, 2_300) <= 1.02, "{}", seen.looks_per_call(300, 2_300));
}

#[test]
fn a_longer_delay_is_learned_from_the_calls_that_came_too_early() {
    for rate in RATES {
        let phases = [Phase::new(2_000, (20.0, 300.0)), Phase::new(10_000, USUAL)];
        let seen = simulate(&phases, rate, BOUNDS);
        let looks = seen.looks_per_call(10_000, 12_000);
        println!("{rate}: {:.2} looks per call at once, {looks:.4} then", seen.looks_per_call(2_000, 3_000));
        // Until the longer delay is what is usual, early looks in a row may by chance bring the old one back for a
        // while.
        assert!(looks <= 1.15, "{rate} calls per second: {looks}");
    }
}

#[test]
fn a_shorter_delay_is_learned_from_the_calls_that_were_in_time() {
    for rate in RATES {
        let phases = [Phase::new(2_000, USUAL), Phase::new(22_000, (20.0, 300.0))];
        let seen = simulate(&phases, rate, BOUNDS);
        println!(
            "{rate}: found {:.0} s late at once, {:.0} s then, with {:.4} looks per call",
            seen.mean_late(2_000, 3_000),
            seen.mean_late(20_000, 24_000),
            seen.looks_per_call(2_000, 24_000),
        );
        assert!(seen.looks_per_call(2_000, 24_000) <= 1.02);
        // Between 20 and 300 seconds, a look at 300 is 140 seconds late on average.
        assert!(seen.mean_late(20_000, 24_000) <= 200.0, "{rate}: {}", seen.mean_late(20_000, 24_000));
    }
}

#[test]
fn a_smaller_share_finds_recordings_sooner_at_the_cost_of_looks() {
    let phases = [Phase::new(6_000, USUAL)];
    let most = simulate(&phases, 0.25, BOUNDS);
    let half = simulate(&phases, 0.25, Bounds { share: 0.5, ..BOUNDS });
    let none = simulate(&phases, 0.25, Bounds { share: 0.0, ..BOUNDS });
    let (looks, late) = (|seen: &Seen| seen.looks_per_call(2_000, 6_000), |seen: &Seen| seen.mean_late(2_000, 6_000));
    for (share, seen) in [(0.99, &most), (0.5, &half), (0.0, &none)] {
        println!("{share}: {:.2} looks per call, found {:.0} s late", looks(seen), late(seen));
    }
    assert!(looks(&most) < looks(&half) && looks(&half) < looks(&none) / 1.5);
    assert!(late(&half) < late(&most) / 2.0);
}

#[test]
fn calls_that_are_never_recorded_do_not_make_the_others_wait_longer() {
    let seen = simulate(&[Phase { calls: 12_000, delay: USUAL, never: 0.05 }], 0.25, BOUNDS);
    let calls = || (4_000..12_000).map(|call| (seen.looks[call], seen.late[call]));
    let looks = |recorded: bool| calls().filter(move |(_, late)| late.is_finite() == recorded).map(|(looks, _)| looks);
    let mean = |recorded| f64::from(looks(recorded).sum::<u32>()) / looks(recorded).count() as f64;
    let late = calls().filter(|(_, late)| late.is_finite()).map(|(_, late)| late).sum::<f64>();
    let late = late / looks(true).count() as f64;
    println!(
        "{:.4} looks per recorded call, found {late:.0} s late; {:.1} per call without; {:.2} per call",
        mean(true),
        mean(false),
        seen.looks_per_call(4_000, 12_000),
    );
    assert!(mean(true) <= 1.04, "{}", mean(true));
    assert!(late <= 1_000.0, "{late}");
}

#[test]
fn where_recordings_are_there_at_once_calls_soon_wait_no_longer() {
    let seen = simulate(&[Phase::new(6_000, (0.0, 30.0))], 0.25, BOUNDS);
    assert_eq!(seen.looks_per_call(0, 6_000), 1.0);
    // The guess was five minutes; a message takes one to come.
    let median = |from, to| median(seen.found[from..to].to_vec());
    println!("found after {:.0} s, {:.0} s, {:.0} s", median(0, 100), median(900, 1_000), median(5_900, 6_000));
    assert!(median(900, 1_000) <= 120.0, "{}", median(900, 1_000));
    assert!(median(5_900, 6_000) <= 1.3 * FOUND_AFTER, "{}", median(5_900, 6_000));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One call an hour, one in ten minutes, one in 100 s, half the quota.
const INCIDENT_RATES: [f64; 4] = [1.0 / HOUR, 1.0 / 600.0, 0.01, 0.25];

/// What of the calls that ended within these hours is to hold: looks for each, and the median of the time until it was
/// found.
fn between(seen: &Seen, from: f64, to: f64) -> (f64, f64) {
    let calls = || (0..seen.ended.len()).filter(|call| (from..to).contains(&(seen.ended[*call] / HOUR)));
    let looks = calls().map(|call| f64::from(seen.looks[call])).sum::<f64>() / calls().count() as f64;
    (looks, median(calls().map(|call| seen.found[call]).collect()))
}

/// Lets NICE give out nothing for some hours, after days that are as usual, and compares the days before with those
/// from an hour after it healed. `first` is the hour of the first day that is compared.
fn survives_an_incident(rate: f64, delay: (f64, f64), hours: f64, first: f64) {
    // A thousand calls, or a day.
    let span = (1000.0 / rate / HOUR).max(24.0);
    let healed = first + span + 1.0 + hours;
    let last = healed + 1.0 + span;
    let calls = (last * HOUR * rate) as usize;
    let outage = ((healed - hours) * HOUR, healed * HOUR);
    let seen = simulate_with(&[Phase::new(calls, delay)], rate, BOUNDS, &[outage]);
    let (before, after) = (between(&seen, first, first + span), between(&seen, healed + 1.0, last));
    println!("{rate:.4}/s, {delay:?}, {hours} h: {before:.3?} (looks, seconds) before, {after:.3?} after");
    for (looks, found) in [before, after] {
        assert!(looks <= 1.05, "{rate} {hours}: {looks} looks");
        // So late the last one in a hundred is there. A queue keeps a message for up to a tenth longer.
        let there = delay.0 + 0.99 * (delay.1 - delay.0);
        assert!(found <= 1.3 * there + 0.1 * there, "{rate} {hours}: found after {found} s");
    }
    let soon = between(&seen, healed + 1.0, healed + 1.0 + 20.0 / rate / HOUR);
    for (_, found) in [soon, after] {
        assert!(found <= 1.3 * before.1, "{rate} {hours}: {} s before, {found} s after", before.1);
    }
}

#[test]
fn after_hours_without_recordings_the_delay_is_as_before_within_an_hour_at_any_rate() {
    for rate in INCIDENT_RATES {
        for hours in [1.0, 3.0, 8.0, 24.0] {
            // Where calls are few, it takes weeks until much is known.
            let first = 36.0_f64.max(1_000.0 / rate / HOUR);
            for delay in [USUAL, (240.0, 300.0)] {
                survives_an_incident(rate, delay, hours, first);
            }
        }
    }
}

#[test]
fn an_incident_is_no_evidence_where_fifty_calls_end_in_a_second() {
    let first = 0.6;
    let calls = ((first + 2.7) * HOUR * 50.0) as usize;
    let outage = ((first + 0.4) * HOUR, (first + 1.4) * HOUR);
    let seen = simulate_with(&[Phase::new(calls, (240.0, 300.0))], 50.0, BOUNDS, &[outage]);
    let (before, after) = (between(&seen, first, first + 0.3), between(&seen, first + 2.4, first + 2.7));
    println!("{before:.3?} before, {after:.3?} after");
    assert!(before.0 <= 1.05 && after.0 <= 1.05, "{before:?} {after:?}");
    assert!(after.1 <= 1.3 * before.1, "{before:?} {after:?}");
}

#[test]
fn a_cold_start_costs_a_few_looks_for_each_recording() {
    // 80 calls in 8 minutes, and nothing known; without a guess each took 6.
    let seen = simulate(&[Phase::new(80, USUAL)], 80.0 / 480.0, BOUNDS);
    let none = simulate(&[Phase::new(80, USUAL)], 80.0 / 480.0, Bounds { guess: Duration::ZERO, ..BOUNDS });
    let (looks, without) = (seen.looks_per_call(0, 80), none.looks_per_call(0, 80));
    println!("{looks:.2} looks per call, {without:.2} without a guess");
    assert!(looks <= 4.0 && looks < 0.8 * without, "{looks} {without}");
}

#[test]
fn recordings_that_were_slow_for_hours_are_waited_for_as_before_soon_after() {
    // Not silent, slow: 30 to 60 minutes in place of 4 to 5, for eight hours.
    for rate in [0.01, 0.25] {
        let calls = |hours: f64| (hours * HOUR * rate) as usize;
        let slow = Phase::new(calls(8.0), (1800.0, 3600.0));
        let usual = |hours| Phase::new(calls(hours), (240.0, 300.0));
        let seen = simulate(&[usual(96.0), slow, usual(24.0)], rate, BOUNDS);
        let phases = [(72.0, 96.0), (100.0, 104.0), (104.0, 106.0), (106.0, 108.0), (108.0, 128.0)];
        for (from, to) in phases {
            let (looks, found) = between(&seen, from, to);
            println!("{rate}/s: hour {from} to {to}: {looks:.2} looks, found after {found:.0} s");
        }
        let (before, after) = (between(&seen, 72.0, 96.0), between(&seen, 106.0, 108.0));
        assert!(after.1 <= 1.3 * before.1, "{rate}: {before:?} {after:?}");
    }
}

/// A delay that was learned to be 1,000 s, and is usual.
fn learned() -> FirstLook {
    let mut first_look = FirstLook::new(BOUNDS);
    first_look.replace(BOUNDS, LearnedDelay::of_before(Duration::from_secs(1000)), 1.0);
    first_look
}

#[test]
fn only_a_look_near_the_delay_says_something_of_it() {
    let now = Timestamp::UNIX_EPOCH;
    for (missing, found, change) in [
        (None, 1000.0, -0.001),
        (None, 1050.0, -0.001),
        // The queue kept it for longer.
        (None, 1051.0, 0.0),
        (None, 200.0, -0.001),
        (Some(300.0), 600.0, -0.001),
        (Some(1000.0), 1030.0, 0.099),
        (Some(901.0), 1030.0, 0.099),
        (Some(9000.0), 9030.0, 0.099),
        // Looked at so late, or so early and so late, that it says nothing of the time between.
        (None, 86_400.0 * 30.0, 0.0),
        (Some(800.0), 2000.0, 0.0),
        // A clock is wrong.
        (None, -1.0, 0.0),
        (None, f64::NAN, 0.0),
    ] {
        let Lesson::Factor(factor) = learned().learn(BOUNDS, now, missing, found) else { panic!("{found}") };
        assert!((factor.ln() - change).abs() < 1e-9, "{missing:?} {found}: {factor}");
    }
}

#[test]
fn the_delay_stays_within_its_bounds() {
    let now = Timestamp::UNIX_EPOCH;
    let longest = Duration::from_secs(30);
    let bounds = Bounds { longest, ..BOUNDS };
    assert_eq!(FirstLook::new(bounds).delay(), Some(longest), "the guess is longer");
    let mut first_look = FirstLook::new(Bounds { guess: Duration::ZERO, ..bounds });
    assert_eq!(first_look.delay(), None);
    for call in 0..1_000 {
        first_look.learn(bounds, now + SignedDuration::from_secs(call), Some(1e9), 1e9);
    }
    assert!(first_look.delay().is_some_and(|delay| delay <= longest), "{first_look:?}");
    first_look.replace(bounds, LearnedDelay::of_before(Duration::MAX), 1.0);
    assert_eq!(first_look.delay(), Some(longest));
    first_look.replace(bounds, LearnedDelay::of_before(Duration::ZERO), 1.0);
    assert_eq!(first_look.delay(), None);
    assert_eq!(first_look.learn(bounds, now, None, 1.0), Lesson::Factor(1.0));
}
