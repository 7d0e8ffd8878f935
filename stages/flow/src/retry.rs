//! When to try again, and when to give up.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, System, Trouble};
use runtime::chance;

use super::blame::Fault;

/// The longest delay that another side may ask of us.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The part of a delay by which it may be shorter or longer.
const JITTER: f64 = 0.25;

/// Fewer failures never make a dead letter.
const MIN_ATTEMPTS: u32 = 5;

/// A call that meets the same trouble for this time is set aside; its letter goes back by itself.
const LONGEST_TROUBLE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// After this many failures without a known reason the delays grow further.
const OFTEN: u32 = 20;

/// The longest wait of a call while a system fails for many calls.
const LONGEST_HELD_BACK: Duration = Duration::from_secs(60);

/// After its deadline a recording is looked for this many times before it counts as none: one empty answer says little.
const LAST_LOOKS: usize = 3;

/// A contact that nobody but a webhook has named is looked for during this time at least.
pub const UNCONFIRMED: Duration = Duration::from_secs(3600);

/// It must also have been looked for this many times before the present look: one late look proves little.
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
    pub fn not_ready_delay(&self, event: &ContactEvent) -> Duration {
        let delay = self.not_ready_step(event.not_ready);
        match self.recording_deadline.saturating_sub(awaited(event)) {
            Duration::ZERO => delay,
            left => delay.min(left),
        }
    }

    /// The delay step after so many looks.
    pub fn not_ready_step(&self, looks: u32) -> Duration {
        let step = (looks as usize).min(self.not_ready_delays.len().saturating_sub(1));
        self.not_ready_delays.get(step).copied().unwrap_or(self.error_delay_max)
    }

    /// How long a message waits after a transient error: doubling from the least to the longest delay, with jitter,
    /// and not shorter than the other side asked for. What concerns one call slows down further, as a recording that is
    /// not ready. While a system fails for many calls, each comes back soon: one of them finds out, and nobody asks for
    /// the others.
    pub fn error_delay(&self, trouble: &Trouble, fault: Fault, retry_after: Option<Duration>) -> Duration {
        let slow = self.not_ready_delays.last().copied().unwrap_or_default().max(self.error_delay_max);
        let longest = match fault {
            // Of refused links each one is its own call's, be they ever so many.
            _ if trouble.system == System::Call => slow,
            Fault::System => return self.held_back().max(asked(retry_after)),
            Fault::Call => slow,
            Fault::Unclear if trouble.times > OFTEN => slow,
            Fault::Unclear => self.error_delay_max,
        };
        let mut intervals = Intervals::doubling(self.error_delay_min, longest);
        let mut delay = self.error_delay_min;
        for _ in 0..trouble.times.min(32) {
            delay = intervals.next_backoff().unwrap_or(longest);
        }
        delay.max(asked(retry_after))
    }

    /// How long a call is kept away from a system that fails for many; never the same, so that they do not come back
    /// together.
    pub fn held_back(&self) -> Duration {
        self.error_delay_max.min(LONGEST_HELD_BACK).mul_f64(chance::range(0.3..1.0))
    }

    /// The next of such delays.
    pub fn next(&self, intervals: &mut Intervals) -> Duration {
        intervals.next_backoff().unwrap_or(self.error_delay_max)
    }

    /// Delays for work that is repeated in place, for as long as it takes.
    pub fn intervals(&self) -> Intervals {
        Intervals::doubling(self.error_delay_min, self.error_delay_max)
    }

    /// Whether a recording that is still not there counts as none: the call has waited for NICE's processing as long as
    /// the deadline says. Only waits that were meant for that count, and as long as they were meant: neither an outage
    /// nor a backlog takes a call's time. One that was older than the deadline when it was found (a replay) is given up
    /// after a look at every delay step. No call is given up at its first looks.
    pub fn recording_given_up(&self, event: &ContactEvent) -> bool {
        let (looks, steps) = (event.not_ready as usize, self.not_ready_delays.len().max(1));
        (looks >= LAST_LOOKS.min(steps) && awaited(event) >= self.recording_deadline)
            || (looks >= steps && self.was_old(event))
    }

    /// Whether what is not there by now is not worth waiting for with the rest: half of that, and a look more.
    pub fn recording_overdue(&self, event: &ContactEvent) -> bool {
        let looks = event.not_ready as usize;
        self.recording_given_up(event) || (looks >= LAST_LOOKS && awaited(event) >= self.recording_deadline / 2)
    }

    /// Whether the call was older than the deadline when it was found.
    fn was_old(&self, event: &ContactEvent) -> bool {
        let by = event.ended_at.map(|ended_at| after(ended_at, self.recording_deadline));
        by.is_some_and(|by| event.queued_at.is_some_and(|found_at| found_at >= by))
    }

    /// Whether a contact that only a webhook named, and that NICE has just not known once more, is given up: after an
    /// hour, and some looks before this one.
    pub fn unconfirmed_given_up(&self, event: &ContactEvent, now: Timestamp) -> bool {
        let is_old = event.queued_at.is_some_and(|since| now >= after(since, UNCONFIRMED));
        event.is_unconfirmed() && is_old && event.unknown >= UNCONFIRMED_LOOKS
    }

    /// Whether a call is given up for its failures: those that count against it have cost it as much time as a
    /// recording may take. What lasts for a month, and not for a system that fails for many, is a matter for people.
    pub fn errors_given_up(&self, trouble: &Trouble, fault: Fault, now: Timestamp) -> bool {
        let is_charged = trouble.times >= MIN_ATTEMPTS && trouble.charged() >= self.recording_deadline;
        is_charged || (fault != Fault::System && now.duration_since(trouble.since) >= LONGEST_TROUBLE)
    }
}

/// Delays that double, each with jitter, without an end. The jitter is our own: `backoff` takes its chance from the
/// system.
#[derive(Debug)]
pub struct Intervals(ExponentialBackoff);

impl Intervals {
    /// From the first delay to the longest.
    pub fn doubling(from: Duration, to: Duration) -> Self {
        let growing = ExponentialBackoffBuilder::new()
            .with_initial_interval(from)
            .with_max_interval(to)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self(growing)
    }
}

impl Backoff for Intervals {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn next_backoff(&mut self) -> Option<Duration> {
        // `backoff` adds up to a nanosecond of its own chance even where it is to add none.
        let even = Duration::from_micros(u64::try_from(self.0.next_backoff()?.as_micros()).unwrap_or(u64::MAX));
        Some(even.mul_f64(chance::range(1.0 - JITTER..=1.0 + JITTER)))
    }
}

/// How long the call has waited for NICE's processing.
fn awaited(event: &ContactEvent) -> Duration {
    Duration::from_millis(event.awaited_millis)
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
    use model::EventSource;
    use model::System;
    use runtime::Machine;

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

    /// An event of a call that has been looked at in vain so often and has waited so long for that.
    fn awaited_event(looks: u32, seconds: u64) -> ContactEvent {
        let mut event = event("2026-04-01T12:00:00Z");
        event.queued_at = Some("2026-04-01T12:01:00Z".parse().unwrap());
        (event.not_ready, event.awaited_millis) = (looks, seconds * 1000);
        event
    }

    #[test]
    fn the_last_not_ready_step_repeats_and_ends_at_the_deadline() {
        assert_eq!(policy().not_ready_delay(&awaited_event(0, 0)), Duration::from_secs(30));
        assert_eq!(policy().not_ready_delay(&awaited_event(9, 600)), Duration::from_secs(60));
        assert_eq!(policy().not_ready_delay(&awaited_event(60, 3590)), Duration::from_secs(10));
        assert_eq!(policy().not_ready_delay(&awaited_event(61, 3600)), Duration::from_secs(60));
    }

    #[test]
    fn a_call_is_given_up_only_past_the_deadline_and_after_some_looks() {
        for (looks, seconds, given_up) in [(0, 9999, false), (1, 3600, false), (2, 3599, false), (2, 3600, true)] {
            assert_eq!(policy().recording_given_up(&awaited_event(looks, seconds)), given_up, "{looks}, {seconds}");
        }
        let many_steps = RetryPolicy { not_ready_delays: vec![Duration::from_secs(30); 8], ..policy() };
        assert!(!many_steps.recording_given_up(&awaited_event(2, 3600)));
        assert!(many_steps.recording_given_up(&awaited_event(3, 3600)));
    }

    #[test]
    fn neither_an_outage_nor_a_backlog_takes_a_calls_time() {
        let mut event = awaited_event(7, 1800);
        event.queued_at = Some("2026-04-01T12:01:00Z".parse().unwrap());
        // However late it is by now: nothing here asks for the time.
        assert!(!policy().recording_given_up(&event) && policy().recording_overdue(&event));
        event.awaited_millis = 1799 * 1000;
        assert!(!policy().recording_overdue(&event));
    }

    #[test]
    fn a_call_that_was_old_when_it_was_found_gets_a_look_at_every_step() {
        let mut event = awaited_event(1, 30);
        event.ended_at = Some("2026-01-01T12:00:00Z".parse().unwrap());
        assert!(!policy().recording_given_up(&event));
        event.not_ready = 2;
        assert!(policy().recording_given_up(&event));
        event.ended_at = Some("2026-04-01T12:00:00Z".parse().unwrap());
        assert!(!policy().recording_given_up(&event), "it was fresh, and may have waited long for us");
    }

    fn trouble(times: u32, charged: Duration) -> Trouble {
        let first = Trouble::first("upload", System::Nice, "2026-04-01T12:00:00Z".parse().unwrap());
        Trouble { times, charged_millis: charged.as_millis() as u64, ..first }
    }

    #[test]
    fn a_call_is_given_up_for_what_counts_against_it_and_for_nothing_else() {
        let late = "2026-04-21T12:00:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        assert!(
            !policy().errors_given_up(&trouble(4_000_000_000, Duration::ZERO), Fault::Unclear, late),
            "an outage of three weeks"
        );
        assert!(policy().errors_given_up(&trouble(MIN_ATTEMPTS, hour), Fault::Call, late));
        assert!(!policy().errors_given_up(&trouble(MIN_ATTEMPTS - 1, hour), Fault::Call, late));
        let much_later = "2026-05-02T12:00:00Z".parse().unwrap();
        assert!(policy().errors_given_up(&trouble(9, Duration::ZERO), Fault::Unclear, much_later));
        assert!(!policy().errors_given_up(&trouble(9, Duration::ZERO), Fault::System, much_later));
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
        let delay = |times, fault, asked| policy().error_delay(&trouble(times, Duration::ZERO), fault, asked);
        assert!(delay(1, Fault::Unclear, None) <= Duration::from_millis(1250));
        let longest = delay(4_000_000_000, Fault::Unclear, None);
        assert!((225..=375).contains(&longest.as_secs()), "{longest:?}");
        let asked = Some(Duration::from_secs(60));
        assert_eq!(delay(1, Fault::Unclear, asked), Duration::from_secs(60));
        assert_eq!(delay(1, Fault::Unclear, Some(Duration::MAX)), MAX_RETRY_AFTER);
        assert_eq!(delay(1, Fault::System, Some(Duration::MAX)), MAX_RETRY_AFTER);
    }

    #[test]
    fn what_concerns_one_call_is_tried_less_and_less_and_what_concerns_many_soon_again() {
        let hourly = RetryPolicy { not_ready_delays: vec![Duration::from_secs(3600)], ..policy() };
        let delay = |fault| hourly.error_delay(&trouble(40, Duration::ZERO), fault, None);
        assert!((2700..=4500).contains(&delay(Fault::Call).as_secs()));
        assert!(delay(Fault::System) <= LONGEST_HELD_BACK);
    }

    #[tokio::test]
    async fn the_jitter_is_the_seeds_and_spreads_by_a_quarter() {
        let drawn = |seed| async move {
            let draw = async {
                let mut intervals = policy().intervals();
                let delays: Vec<_> = (0..500).map(|_| intervals.next_backoff().unwrap()).collect();
                (delays, policy().held_back(), policy().error_delay(&trouble(9, Duration::ZERO), Fault::Unclear, None))
            };
            Machine::new(seed).run(draw).await.unwrap()
        };
        let (delays, held_back, error_delay) = drawn(3).await;
        assert_eq!((delays.clone(), held_back, error_delay), drawn(3).await);
        assert_ne!(delays, drawn(4).await.0);
        assert!((0.75..=1.25).contains(&delays[0].as_secs_f64()), "{:?}", delays[0]);
        let late = delays[20..].iter().map(Duration::as_secs_f64);
        let (least, most) = (late.clone().fold(f64::MAX, f64::min), late.fold(f64::MIN, f64::max));
        assert!((225.0..240.0).contains(&least) && (360.0..=375.0).contains(&most), "{least}, {most}");
    }
}
