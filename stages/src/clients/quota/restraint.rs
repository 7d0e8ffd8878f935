//! What a 429 teaches: to pause, and to go on with less until NICE has been content for a while.
//!
//! In: refusals. Out: until when nothing is sent, and the limit that holds for now. The shared budget does the same in
//! the function `note_rate_refusal` (V0004); the constants here and there belong together.
//!
//! # How much less
//! The limit becomes what was really granted in the window before, and 5 % less than it was at least: some limiters
//! count in windows of their own and refuse only towards their end. A refusal soon after another takes 2 %. Requests
//! under way at the first refusal change nothing; the next ones to be refused are those sent after the pause.
//!
//! # How it grows back
//! By 2 % of the settings' limit in the first quiet window, and each further one twice as much as the one before: a
//! stranger that stays costs a refusal now and then, one that has left is forgotten after six windows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Rate;

/// The part that is left of a limit at a refusal, at most.
const LEFT: f64 = 0.95;

/// The same at a refusal that follows another: it may be the same want of room.
const LEFT_AGAIN: f64 = 0.98;

/// A refusal within so many requests' time after a pause follows the one before.
const FOLLOWS: u32 = 8;

/// What a first quiet window gives back, as a part of the settings' limit.
const STEP: f64 = 0.02;

/// After so many quiet windows every limit has grown back.
const MOST_STEPS: i32 = 16;

/// A quiet window has at least this length.
const SHORTEST_QUIET: Duration = Duration::from_secs(60);

/// A pause has at least this length, so that those under way come back within it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The present restraint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Restraint {
    lowered_to: f64,
    closed_at: Timestamp,
    closed_until: Timestamp,
    /// Pauses that followed each other.
    again: u32,
}

/// A refusal, and how the budget stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) now: Timestamp,
    pub(super) retry_after: Option<Duration>,
    /// Grants of the window before it.
    pub(super) granted: usize,
    /// When the latest of them was made.
    pub(super) latest: Option<Timestamp>,
    /// From 1 to 1.5.
    pub(super) jitter: f64,
}

impl Restraint {
    /// What the refusal makes of the restraint so far; none where it tells nothing new.
    pub(super) fn after(before: Option<&Self>, refusal: &Refusal, rate: Rate) -> Option<Self> {
        let Refusal { now, retry_after, granted, latest, jitter } = *refusal;
        let asked = retry_after.map(|asked| asked.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        if let Some(before) = before {
            let is_new = now >= before.closed_until && latest.is_some_and(|at| at >= before.closed_until);
            if !is_new {
                let until = later(now, asked?);
                return (until > before.closed_until).then_some(Self { closed_until: until, ..*before });
            }
        }
        let soon =
            |before: &&Self| now < later(before.closed_until, (before.pause() * 2).max(rate.spacing() * FOLLOWS));
        let follows = before.filter(soon);
        let again = follows.map_or(0, |before| before.again.saturating_add(1));
        let doubled = rate.spacing().max(SHORTEST_PAUSE).mul_f64(f64::from(2_u32.pow(again.min(16))) * jitter);
        let pause = asked.unwrap_or(doubled.min(LONGEST_PAUSE));
        let limit = before.map_or(f64::from(rate.limit), |before| before.grown(rate, now));
        let left = if follows.is_some() { LEFT_AGAIN } else { LEFT };
        // One of those that were granted was not allowed.
        let lowered_to = (granted.saturating_sub(1) as f64).min(limit * left).max(1.0);
        Some(Self { lowered_to, closed_at: now, closed_until: later(now, pause), again })
    }

    /// The most requests in a window for now.
    pub(super) fn most(&self, rate: Rate, now: Timestamp) -> u32 {
        (self.grown(rate, now) as u32).clamp(1, rate.limit.max(1))
    }

    fn grown(&self, rate: Rate, now: Timestamp) -> f64 {
        let quiet = now.duration_since(self.closed_until).as_secs_f64();
        let windows = (quiet / rate.counted_for().max(SHORTEST_QUIET).as_secs_f64()).floor();
        let steps = (windows.max(0.0) as i32).min(MOST_STEPS);
        let limit = f64::from(rate.limit);
        (self.lowered_to + limit * STEP * (2_f64.powi(steps) - 1.0)).min(limit)
    }

    /// The same as if it were made now, if the clock was set back since. Whoever asks keeps it, or it would move on
    /// with the clock and never end.
    pub(super) fn in_time(&self, now: Timestamp) -> Option<Self> {
        let is_ahead = self.closed_at > now || self.closed_until > later(now, LONGEST_PAUSE);
        let closed_until = later(now, self.pause().min(LONGEST_PAUSE));
        is_ahead.then(|| Self { closed_at: self.closed_at.min(now), closed_until, ..*self })
    }

    /// Until when nothing is sent, if that is still to come.
    pub(super) fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.closed_until).filter(|until| *until > now)
    }

    /// Whether the pause was over a moment ago: requests go one by one until NICE has shown that it takes them.
    pub(super) fn is_settling(&self, rate: Rate, now: Timestamp) -> bool {
        now < later(self.closed_until, self.pause().max(rate.spacing() * 2))
    }

    fn pause(&self) -> Duration {
        Duration::try_from(self.closed_until.duration_since(self.closed_at)).unwrap_or_default()
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { limit: 150, window: Duration::from_secs(300) };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_795_348_800 + secs).unwrap()
    }

    fn refusal(secs: i64, granted: usize, latest: i64) -> Refusal {
        Refusal { now: at(secs), retry_after: None, granted, latest: Some(at(latest)), jitter: 1.0 }
    }

    #[test]
    fn a_refusal_lowers_to_what_was_granted_and_by_a_twentieth_at_least() {
        let much = Restraint::after(None, &refusal(0, 116, 0), RATE).unwrap();
        assert_eq!((much.most(RATE, at(0)), much.closed_until(at(0))), (115, Some(at(2))));
        let little = Restraint::after(None, &refusal(0, 150, 0), RATE).unwrap();
        assert_eq!(little.most(RATE, at(0)), 142);
        assert_eq!(Restraint::after(None, &refusal(0, 0, 0), RATE).unwrap().most(RATE, at(0)), 1);
    }

    #[test]
    fn requests_under_way_lower_nothing_further() {
        let first = Restraint::after(None, &refusal(0, 120, 0), RATE).unwrap();
        assert_eq!(Restraint::after(Some(&first), &refusal(1, 120, 0), RATE), None, "within the pause");
        assert_eq!(Restraint::after(Some(&first), &refusal(9, 120, 1), RATE), None, "sent before it was over");
        let asked = Refusal { retry_after: Some(Duration::from_secs(60)), ..refusal(1, 120, 0) };
        let longer = Restraint::after(Some(&first), &asked, RATE).unwrap();
        assert_eq!((longer.lowered_to, longer.closed_until(at(1))), (first.lowered_to, Some(at(61))));
    }

    #[test]
    fn pauses_that_follow_each_other_double_and_a_wait_that_is_asked_for_is_honoured() {
        let mut restraint = Restraint::after(None, &refusal(0, 120, 0), RATE).unwrap();
        let mut now = 0;
        for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(restraint.closed_until(at(now)), Some(at(now + pause)));
            now += pause;
            restraint = Restraint::after(Some(&restraint), &refusal(now, 10, now), RATE).unwrap();
        }
        let asked = Refusal { retry_after: Some(Duration::from_secs(70)), ..refusal(0, 120, 0) };
        assert_eq!(Restraint::after(None, &asked, RATE).unwrap().closed_until(at(0)), Some(at(70)));
    }

    #[test]
    fn quiet_windows_give_the_limit_back() {
        let restraint = Restraint::after(None, &refusal(-2, 101, -2), RATE).unwrap();
        let after = |windows: i64| restraint.most(RATE, at(windows * 301));
        assert_eq!([0, 1, 2, 3, 4, 5].map(after), [100, 103, 109, 121, 145, 150]);
        assert_eq!(restraint.most(RATE, at(-1000)), 100, "the clock was set back");
    }

    #[test]
    fn a_clock_that_was_set_back_closes_for_a_pause_at_most() {
        let asked = Refusal { retry_after: Some(Duration::from_secs(20)), ..refusal(100_000, 100, 0) };
        let restraint = Restraint::after(None, &asked, RATE).unwrap();
        assert_eq!(restraint.in_time(at(100_000)), None, "nothing was set back");
        let shifted = restraint.in_time(at(0)).unwrap();
        assert_eq!((shifted.closed_until(at(0)), shifted.closed_until(at(20))), (Some(at(20)), None));
        assert_eq!((shifted.is_settling(RATE, at(39)), shifted.is_settling(RATE, at(40))), (true, false));
        assert_eq!(shifted.in_time(at(1)), None, "it moves once");
    }

    #[test]
    fn a_pause_that_was_made_longer_is_no_longer_than_one_once_the_clock_is_set_back() {
        let first = Restraint::after(None, &refusal(0, 120, 0), RATE).unwrap();
        let asked = Refusal { retry_after: Some(Duration::from_secs(300)), ..refusal(1, 120, 0) };
        let longer = Restraint::after(Some(&first), &asked, RATE).unwrap();
        let shifted = longer.in_time(at(0)).unwrap();
        assert_eq!((shifted.closed_until(at(0)), shifted.in_time(at(0))), (Some(at(300)), None));
    }
}
