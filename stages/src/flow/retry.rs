//! When to try again, and when to give up.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use jiff::{SignedDuration, Timestamp};

use super::blame::Verdict;
use crate::model::{ContactEvent, Trouble};

/// The longest delay that another side may ask of us.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Fewer failures never make a dead letter.
const MIN_ATTEMPTS: u32 = 5;

/// A call that meets the same trouble for so long is set aside; its letter goes back by itself.
const LONGEST_TROUBLE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// While a system fails for many calls, each waits for so long at most.
const LONGEST_HELD_BACK: Duration = Duration::from_secs(60);

/// Past its deadline a recording is looked for so often before it counts as none: one empty answer says little.
const LAST_LOOKS: usize = 3;

/// A contact that nobody but a webhook has named is looked for during this time at least.
pub(crate) const UNCONFIRMED: Duration = Duration::from_secs(3600);

/// And at so many looks at least, and one more: one that was late for want of room, or after an outage, says little.
const UNCONFIRMED_LOOKS: u32 = 3;

/// The settings `[retry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay steps of a recording that is not ready; the last one repeats.
    pub not_ready_delays: Vec<Duration>,
    /// How long after its end a call may be without a recording.
    pub recording_deadline: Duration,
    /// The first delay after a transient error.
    pub error_delay_min: Duration,
    /// The longest delay after transient errors.
    pub error_delay_max: Duration,
}

impl RetryPolicy {
    /// How long a message waits that found its recording not ready. The last look is not later than the deadline.
    pub fn not_ready_delay(&self, event: &ContactEvent, now: Timestamp) -> Duration {
        let step = (event.not_ready as usize).min(self.not_ready_delays.len().saturating_sub(1));
        let delay = self.not_ready_delays.get(step).copied().unwrap_or(self.error_delay_max);
        match self.deadline(event).map(|deadline| Duration::try_from(deadline.duration_since(now))) {
            Some(Ok(left)) if left > Duration::ZERO => delay.min(left),
            _ => delay,
        }
    }

    /// How long a message waits after a transient error: doubling from the least to the longest delay, with jitter,
    /// and not shorter than the other side asked for. What concerns one call slows down further, as a recording that is
    /// not ready. While a system fails for many calls, each comes back soon: one of them finds out, and nobody asks for
    /// the others.
    pub fn error_delay(&self, trouble: &Trouble, verdict: Verdict, retry_after: Option<Duration>) -> Duration {
        let longest = match verdict {
            Verdict::System => return self.held_back().max(asked(retry_after)),
            Verdict::Call => self.not_ready_delays.last().copied().unwrap_or_default().max(self.error_delay_max),
            Verdict::Unclear => self.error_delay_max,
        };
        let mut intervals = ExponentialBackoff { max_interval: longest, ..self.intervals() };
        let mut delay = self.error_delay_min;
        for _ in 0..trouble.times.min(32) {
            delay = intervals.next_backoff().unwrap_or(longest);
        }
        delay.max(asked(retry_after))
    }

    /// How long a call is kept away from a system that fails for many; never the same, so that they do not come back
    /// together.
    pub fn held_back(&self) -> Duration {
        self.error_delay_max.min(LONGEST_HELD_BACK).mul_f64(rand::random_range(0.3..1.0))
    }

    /// Delays for work that is repeated in place, for as long as it takes.
    pub fn intervals(&self) -> ExponentialBackoff {
        ExponentialBackoffBuilder::new()
            .with_initial_interval(self.error_delay_min)
            .with_max_interval(self.error_delay_max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.25)
            .with_max_elapsed_time(None)
            .build()
    }

    /// Whether a recording that is still not there counts as none: past the deadline, counted from the call's
    /// discovery, which is not before its end whatever an event says. A call that was old when it was found (a replay) is given up
    /// earlier: past its own deadline, after a look at every delay step. No call is given up at its first looks.
    pub fn recording_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let is_past =
            |since: Option<Timestamp>| since.is_some_and(|since| now >= after(since, self.recording_deadline));
        let (looks, steps) = (event.not_ready as usize, self.not_ready_delays.len().max(1));
        (looks >= LAST_LOOKS.min(steps) && is_past(known_since(event))) || (looks >= steps && is_past(event.ended_at))
    }

    /// Whether a contact that only a webhook named, and that NICE has just not known once more, is given up: after an
    /// hour, and some looks before this one.
    pub fn unconfirmed_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let is_old = event.queued_at.is_some_and(|since| now >= after(since, UNCONFIRMED));
        event.is_unconfirmed() && is_old && event.unknown >= UNCONFIRMED_LOOKS
    }

    /// Whether a call is given up for its failures: those that count against it have cost it as much time as a recording
    /// may take. What lasts for a month is a matter for people, whoever is to blame.
    pub fn errors_given_up(&self, trouble: &Trouble, now: Timestamp) -> bool {
        let is_charged = trouble.times >= MIN_ATTEMPTS && trouble.charged() >= self.recording_deadline;
        is_charged || now.duration_since(trouble.since) >= LONGEST_TROUBLE
    }

    fn deadline(&self, event: &ContactEvent) -> Option<Timestamp> {
        known_since(event).map(|since| after(since, self.recording_deadline))
    }
}

/// When the call was discovered. The end that an event names may lie in the future: a wrong clock or time zone at
/// the other side, and no deadline would ever pass.
fn known_since(event: &ContactEvent) -> Option<Timestamp> {
    event.queued_at.or(event.ended_at)
}

fn asked(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::System;
    use crate::model::EventSource;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            not_ready_delays: vec![Duration::from_secs(30), Duration::from_secs(60)],
            recording_deadline: Duration::from_secs(3600),
            error_delay_min: Duration::from_secs(1),
            error_delay_max: Duration::from_secs(300),
        }
    }

    fn event(ended_at: &str) -> ContactEvent {
        let mut event = ContactEvent::new("acme".parse().unwrap(), "1".parse().unwrap(), EventSource::Poll);
        event.ended_at = Some(ended_at.parse().unwrap());
        event
    }

    #[test]
    fn the_last_not_ready_step_repeats_and_ends_at_the_deadline() {
        let mut event = event("2026-04-01T12:00:00Z");
        let now = "2026-04-01T12:01:00Z".parse().unwrap();
        assert_eq!(policy().not_ready_delay(&event, now), Duration::from_secs(30));
        event.not_ready = 9;
        assert_eq!(policy().not_ready_delay(&event, now), Duration::from_secs(60));
        let late = "2026-04-01T12:59:50Z".parse().unwrap();
        assert_eq!(policy().not_ready_delay(&event, late), Duration::from_secs(10));
    }

    #[test]
    fn a_call_is_given_up_only_past_the_deadline_and_after_some_looks() {
        let mut event = event("2026-04-01T12:00:00Z");
        let late = "2026-04-01T13:00:00Z".parse().unwrap();
        for looks in 0..2 {
            event.not_ready = looks;
            assert!(!policy().recording_given_up(&event, late), "{looks}");
        }
        event.not_ready = 2;
        assert!(policy().recording_given_up(&event, late));
        assert!(!policy().recording_given_up(&event, "2026-04-01T12:59:59Z".parse().unwrap()));
        let many_steps = RetryPolicy { not_ready_delays: vec![Duration::from_secs(30); 8], ..policy() };
        assert!(!many_steps.recording_given_up(&event, late));
        event.not_ready = 3;
        assert!(many_steps.recording_given_up(&event, late));
    }

    #[test]
    fn a_call_that_ends_in_the_future_is_given_up_all_the_same() {
        let mut event = event("2999-01-01T00:00:00Z");
        event.queued_at = Some("2026-04-01T12:00:00Z".parse().unwrap());
        event.not_ready = 2;
        let late = "2026-04-01T13:00:00Z".parse().unwrap();
        assert!(policy().recording_given_up(&event, late));
        let soon = "2026-04-01T12:59:50Z".parse().unwrap();
        assert!(!policy().recording_given_up(&event, soon));
        assert_eq!(policy().not_ready_delay(&event, soon), Duration::from_secs(10));
    }

    #[test]
    fn a_call_that_was_old_when_it_was_found_gets_every_step_or_its_own_deadline() {
        let mut event = event("2026-01-01T12:00:00Z");
        event.queued_at = Some("2026-04-01T12:00:00Z".parse().unwrap());
        let soon = "2026-04-01T12:02:00Z".parse().unwrap();
        event.not_ready = 1;
        assert!(!policy().recording_given_up(&event, soon));
        event.not_ready = 2;
        assert!(policy().recording_given_up(&event, soon));
    }

    fn trouble(times: u32, charged: Duration) -> Trouble {
        let first = Trouble::first("upload", System::Nice, "2026-04-01T12:00:00Z".parse().unwrap());
        Trouble { times, charged_millis: charged.as_millis() as u64, ..first }
    }

    #[test]
    fn a_call_is_given_up_for_what_counts_against_it_and_for_nothing_else() {
        let late = "2026-04-21T12:00:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        assert!(!policy().errors_given_up(&trouble(4_000_000_000, Duration::ZERO), late), "an outage of three weeks");
        assert!(policy().errors_given_up(&trouble(MIN_ATTEMPTS, hour), late));
        assert!(!policy().errors_given_up(&trouble(MIN_ATTEMPTS - 1, hour), late));
        let much_later = "2026-05-02T12:00:00Z".parse().unwrap();
        assert!(policy().errors_given_up(&trouble(9, Duration::ZERO), much_later));
    }

    #[test]
    fn only_waits_that_count_are_charged_and_as_long_as_was_meant() {
        let (minute, later) = (Duration::from_secs(60), "2026-04-04T12:00:00Z".parse().unwrap());
        let met = trouble(1, Duration::ZERO).waiting(minute);
        assert_eq!(met.again(false, later).charged(), Duration::ZERO);
        let twice = met.again(true, later).waiting(minute).again(true, later);
        assert_eq!((twice.charged(), twice.times), (2 * minute, 3));
    }

    #[test]
    fn error_delays_grow_to_the_longest_and_honour_retry_after_within_reason() {
        let delay = |times, verdict, asked| policy().error_delay(&trouble(times, Duration::ZERO), verdict, asked);
        assert!(delay(1, Verdict::Unclear, None) <= Duration::from_millis(1250));
        let longest = delay(4_000_000_000, Verdict::Unclear, None);
        assert!((225..=375).contains(&longest.as_secs()), "{longest:?}");
        let asked = Some(Duration::from_secs(60));
        assert_eq!(delay(1, Verdict::Unclear, asked), Duration::from_secs(60));
        assert_eq!(delay(1, Verdict::Unclear, Some(Duration::MAX)), MAX_RETRY_AFTER);
        assert_eq!(delay(1, Verdict::System, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }

    #[test]
    fn what_concerns_one_call_is_tried_less_and_less_and_what_concerns_many_soon_again() {
        let hourly = RetryPolicy { not_ready_delays: vec![Duration::from_secs(3600)], ..policy() };
        let delay = |verdict| hourly.error_delay(&trouble(40, Duration::ZERO), verdict, None);
        assert!((2700..=4500).contains(&delay(Verdict::Call).as_secs()));
        assert!(delay(Verdict::System) <= LONGEST_HELD_BACK);
    }
}
