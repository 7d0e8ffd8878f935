//! When to try again, and when to give up.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use jiff::{SignedDuration, Timestamp};

use crate::model::ContactEvent;

/// The longest delay that another side may ask of us.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// An outage shorter than this many attempts never makes a dead letter, however old the call is.
const MIN_ATTEMPTS: u32 = 5;

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

    /// How long a message waits after a transient error: doubling from the least to the longest delay, with
    /// jitter, and not shorter than the other side asked for.
    pub fn error_delay(&self, event: &ContactEvent, retry_after: Option<Duration>) -> Duration {
        let errors = event.attempt.saturating_sub(event.not_ready);
        let mut intervals = self.intervals();
        let mut delay = self.error_delay_min;
        for _ in 0..=errors.min(32) {
            delay = intervals.next_backoff().unwrap_or(self.error_delay_max);
        }
        delay.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
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
    /// earlier: past its own deadline, after a look at every delay step. No call is given up at the first look.
    pub fn recording_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let is_past =
            |since: Option<Timestamp>| since.is_some_and(|since| now >= after(since, self.recording_deadline));
        let seen_every_step = event.not_ready as usize >= self.not_ready_delays.len();
        event.not_ready >= 1 && (is_past(known_since(event)) || (seen_every_step && is_past(event.ended_at)))
    }

    /// Whether a contact that only a webhook named, and that NICE has just not known once more, is given up: after an
    /// hour, and some looks before this one.
    pub fn unconfirmed_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let is_old = event.queued_at.is_some_and(|since| now >= after(since, UNCONFIRMED));
        event.is_unconfirmed() && is_old && event.unknown >= UNCONFIRMED_LOOKS
    }

    /// Whether transient errors have lasted too long for this message. The time that it waited for the rate budget
    /// was not lost to errors.
    pub fn errors_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let allowed = self.recording_deadline.saturating_add(Duration::from_secs(event.busy_secs));
        event.attempt >= MIN_ATTEMPTS && known_since(event).is_some_and(|since| now >= after(since, allowed))
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

fn after(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_call_is_given_up_only_past_the_deadline_and_after_a_second_look() {
        let mut event = event("2026-04-01T12:00:00Z");
        let late = "2026-04-01T13:00:00Z".parse().unwrap();
        assert!(!policy().recording_given_up(&event, late));
        event.not_ready = 1;
        assert!(policy().recording_given_up(&event, late));
        assert!(!policy().recording_given_up(&event, "2026-04-01T12:59:59Z".parse().unwrap()));
    }

    #[test]
    fn a_call_that_ends_in_the_future_is_given_up_all_the_same() {
        let mut event = event("2999-01-01T00:00:00Z");
        event.queued_at = Some("2026-04-01T12:00:00Z".parse().unwrap());
        event.not_ready = 1;
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
        assert!(policy().recording_given_up(&event, "2026-04-01T13:00:00Z".parse().unwrap()));
        event.not_ready = 2;
        assert!(policy().recording_given_up(&event, soon));
    }

    #[test]
    fn waiting_for_the_budget_for_days_gives_up_no_call() {
        let mut event = event("2026-04-01T12:00:00Z");
        event.attempt = MIN_ATTEMPTS;
        let late = "2026-04-01T13:00:00Z".parse().unwrap();
        assert!(policy().errors_given_up(&event, late));
        event.busy_secs = 1;
        assert!(!policy().errors_given_up(&event, late));
        event.busy_secs = u64::MAX;
        assert!(!policy().errors_given_up(&event, Timestamp::MAX - SignedDuration::from_secs(1)));
    }

    #[test]
    fn error_delays_grow_to_the_longest_and_honour_retry_after_within_reason() {
        let mut event = event("2026-04-01T12:00:00Z");
        assert!(policy().error_delay(&event, None) <= Duration::from_millis(1250));
        event.attempt = 4_000_000_000;
        let delay = policy().error_delay(&event, None);
        assert!((225..=375).contains(&delay.as_secs()), "{delay:?}");
        event.attempt = 0;
        assert_eq!(policy().error_delay(&event, Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert_eq!(policy().error_delay(&event, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }
}
