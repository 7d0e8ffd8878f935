//! The time, so that a test can move it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The wall clock, or one that a test sets.
#[derive(Clone, Default)]
pub struct Clock {
    kind: ClockKind,
}

#[derive(Clone, Default)]
enum ClockKind {
    #[default]
    System,
    Fixed(Arc<AtomicI64>),
    Asked(Arc<dyn Fn() -> Timestamp + Send + Sync>),
    Simulated {
        start: Timestamp,
        since: Instant,
        skew: ClockSkew,
    },
}

/// How far a simulated clock is from the true time; clones are of the same clock.
#[derive(Debug, Clone)]
pub struct ClockSkew(Arc<Mutex<Skew>>);

#[derive(Debug)]
struct Skew {
    at_first: SignedDuration,
    since: Instant,
    ppm: i64,
}

impl Clock {
    /// The wall clock of this machine.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is advanced.
    pub fn fixed(at: Timestamp) -> Self {
        Self { kind: ClockKind::Fixed(Arc::new(AtomicI64::new(at.as_millisecond()))) }
    }

    /// A clock that shows what `now` says.
    pub fn asking(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { kind: ClockKind::Asked(Arc::new(now)) }
    }

    /// A clock that shows `start` now and goes on as tokio's time does, which a test may pause; it is wrong by `skew`.
    pub fn simulated(start: Timestamp, skew: ClockSkew) -> Self {
        Self { kind: ClockKind::Simulated { start, since: Instant::now(), skew } }
    }

    /// The clock of another machine: the same true time, wrong in its own way. Only a simulated clock can be wrong.
    pub fn with_skew(&self, skew: ClockSkew) -> Self {
        match self.kind {
            ClockKind::Simulated { start, since, .. } => Self { kind: ClockKind::Simulated { start, since, skew } },
            _ => self.clone(),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        match &self.kind {
            #[expect(clippy::disallowed_methods, reason = "the one place where the time comes from")]
            ClockKind::System => Timestamp::now(),
            ClockKind::Fixed(millis) => {
                Timestamp::from_millisecond(millis.load(Ordering::Relaxed)).unwrap_or(Timestamp::MAX)
            }
            ClockKind::Asked(now) => now(),
            ClockKind::Simulated { start, since, skew } => {
                let shown = elapsed(*since).checked_add(skew.now()).and_then(|by| start.checked_add(by).ok());
                shown.unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Moves a fixed clock; the others do not move.
    pub fn advance(&self, by: SignedDuration) {
        if let ClockKind::Fixed(millis) = &self.kind {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl ClockSkew {
    /// A clock that is right.
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(Skew { at_first: SignedDuration::ZERO, since: Instant::now(), ppm: 0 })))
    }

    /// The clock is ahead by so much from now on, behind where it is negative; a drift goes on from there.
    pub fn set(&self, ahead: SignedDuration) {
        let mut skew = self.lock();
        (skew.at_first, skew.since) = (ahead, Instant::now());
    }

    /// The clock goes too fast from now on, by so many millionths; too slow where they are negative.
    pub fn drift(&self, ppm: i64) {
        let mut skew = self.lock();
        (skew.at_first, skew.since, skew.ppm) = (skew.now(), Instant::now(), ppm);
    }

    /// How far the clock is ahead.
    pub fn now(&self) -> SignedDuration {
        self.lock().now()
    }

    fn lock(&self) -> MutexGuard<'_, Skew> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ClockSkew {
    fn default() -> Self {
        Self::none()
    }
}

impl Skew {
    fn now(&self) -> SignedDuration {
        let drifted = elapsed(self.since).as_nanos() * i128::from(self.ppm) / 1_000_000;
        self.at_first.saturating_add(SignedDuration::from_nanos_i128(drifted))
    }
}

fn elapsed(since: Instant) -> SignedDuration {
    SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_with_tokios_time_and_is_wrong_by_its_skew() {
        let start: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let (right, skew) = (Clock::simulated(start, ClockSkew::none()), ClockSkew::none());
        let wrong = right.with_skew(skew.clone());
        let asking = Clock::asking({
            let wrong = wrong.clone();
            move || wrong.now()
        });
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let ahead = |clock: &Clock| clock.now().duration_since(right.now());

        tokio::time::advance(hours(30)).await;
        assert_eq!(right.now(), start + hours(30));
        assert_eq!(ahead(&wrong), SignedDuration::ZERO);
        skew.set(SignedDuration::from_hours(-2));
        assert_eq!(ahead(&wrong), SignedDuration::from_hours(-2), "behind");
        assert_eq!(asking.now(), wrong.now());

        skew.drift(1000);
        tokio::time::advance(hours(1000)).await;
        assert_eq!(ahead(&wrong), SignedDuration::from_hours(-1), "too fast by a thousandth");
        skew.drift(0);
        tokio::time::advance(hours(1000)).await;
        assert_eq!(ahead(&wrong), SignedDuration::from_hours(-1), "it stays wrong");
        assert_eq!(right.now(), start + hours(2030), "a machine's clock is its own");
    }
}
