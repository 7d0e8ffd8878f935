//! How long a tenant's conversations are kept.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The shortest retention: as long as a call may be on its way.
const SHORTEST: Duration = Duration::from_secs(86_400);

/// How much longer a row is kept that is not final: any work on it that began in time is over by then. More than the
/// longest call takes to arrive that arrives no faster than it was spoken.
const UNFINISHED: SignedDuration = SignedDuration::from_hours(6);

/// How long the conversations of a tenant are kept after their end; by default for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention(Option<Duration>);

impl Retention {
    /// Conversations are kept for this time; none where it is less than a day.
    pub fn new(kept_for: Duration) -> Option<Self> {
        (kept_for >= SHORTEST).then_some(Self(Some(kept_for)))
    }

    /// How long; none: for ever.
    pub fn kept_for(self) -> Option<Duration> {
        self.0
    }

    /// Whether a conversation that ended at `ended_at` is to be kept, and so to be imported. What lies beyond is
    /// neither replayed nor kept.
    pub fn reaches(self, ended_at: Timestamp, now: Timestamp) -> bool {
        self.horizon(now).is_none_or(|horizon| ended_at >= horizon)
    }

    /// Whether a stored conversation is to be erased.
    pub fn is_over(self, ended_at: Timestamp, is_final: bool, now: Timestamp) -> bool {
        let since = if is_final { now } else { now.checked_sub(UNFINISHED).unwrap_or(Timestamp::MIN) };
        !self.reaches(ended_at, since)
    }

    /// What ended before this is beyond the retention; none where there is no such time.
    fn horizon(self, now: Timestamp) -> Option<Timestamp> {
        now.checked_sub(self.0?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_ended_within_the_retention_is_kept_and_what_ended_before_is_not() {
        let now = at("2026-04-02T12:00:00Z");
        let day = Retention::new(SHORTEST).unwrap();
        assert!(day.reaches(at("2026-04-01T12:00:00Z"), now), "to the last moment");
        assert!(!day.reaches(at("2026-04-01T11:59:59Z"), now));
        assert!(day.reaches(at("2026-04-03T00:00:00Z"), now), "by a clock that is ahead");
        assert!(Retention::default().reaches(Timestamp::MIN, now), "for ever");
        assert_eq!(Retention::new(SHORTEST - Duration::from_secs(1)), None);
        let ages = Retention::new(Duration::from_secs(u64::MAX / 4)).unwrap();
        assert!(ages.reaches(Timestamp::MIN, now), "longer than there is time");
    }

    #[test]
    fn what_is_not_final_may_come_to_its_end() {
        let now = at("2026-04-02T12:00:00Z");
        let day = Retention::new(SHORTEST).unwrap();
        assert!(day.is_over(at("2026-04-01T11:59:59Z"), true, now));
        assert!(!day.is_over(at("2026-04-01T11:59:59Z"), false, now));
        assert!(day.is_over(at("2026-04-01T05:59:59Z"), false, now));
        assert!(!Retention::default().is_over(Timestamp::MIN, true, now));
    }
}
