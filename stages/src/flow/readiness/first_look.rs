//! The estimate: how long after a call's end the wished share of recordings is there.
//!
//! A recording that was not there yet at the delay makes it longer by `STEP · share` (of its logarithm), one that was
//! there makes it shorter by `STEP · (1 − share)`. Where the share of those that are there is as wished, the two are
//! equal, and the delay stands. No look is made to learn, and a single odd call moves it by a tenth at most.
//!
//! The answer to a change of the delay comes only after a delay: the calls that wait now were given the old one. So
//! where many calls come, each counts less, and only looks near the present delay count: a look much later than that
//! says nothing of it, nor does one that failed before it.

use std::time::Duration;

use jiff::Timestamp;

/// How far one call moves the delay, at most: a tenth.
const STEP: f64 = 0.1;

/// Calls within one delay that count fully; of more, each counts less.
const FULL_CALLS: f64 = 50.0;

/// A recording that was found at this multiple of the delay, or earlier, counts as found at it.
const LATE: f64 = 1.25;

/// One that was missing from this part of the delay on counts as missing at it: NICE's end of the call and the
/// event's differ a little.
const EARLY: f64 = 0.9;

/// How much of the mean time between calls comes from the latest one.
const NEWEST: f64 = 0.1;

/// So short a delay is none: the call is looked at when its message comes.
const SHORTEST: Duration = Duration::from_secs(1);

/// What the settings allow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The share of recordings that shall be there at the first look, below 1; 0: no call waits, nothing is learned.
    pub share: f64,
    /// No call waits longer for its first look.
    pub longest: Duration,
}

impl Bounds {
    /// Whether calls are looked at as they come.
    pub(super) fn is_off(&self) -> bool {
        self.share <= 0.0
    }
}

/// The delay of a tenant, and how often its recordings are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstLook {
    secs: f64,
    /// Mean time between two recordings found, in seconds; none before the second one.
    gap: Option<f64>,
    last: Option<Timestamp>,
}

impl Default for FirstLook {
    fn default() -> Self {
        Self { secs: SHORTEST.as_secs_f64(), gap: None, last: None }
    }
}

impl FirstLook {
    /// Learns from a recording that was found `found` seconds after its call's end, and was last missing after
    /// `missing`. By what the delay was multiplied.
    pub(super) fn learn(&mut self, bounds: Bounds, now: Timestamp, missing: Option<f64>, found: f64) -> f64 {
        let step = STEP * self.weight(now);
        let change = match missing {
            // Where calls are looked at as they come, every miss came at the delay.
            Some(missing) if missing >= EARLY * self.secs || self.delay().is_none() => step * bounds.share,
            _ if (0.0..=LATE * self.secs).contains(&found) => -step * (1.0 - bounds.share),
            _ => 0.0,
        };
        let before = self.secs;
        self.set(bounds, before * change.exp());
        self.secs / before
    }

    /// Goes on from what the consumers have learned together.
    pub(super) fn replace(&mut self, bounds: Bounds, by: Duration) {
        self.set(bounds, by.as_secs_f64());
    }

    /// The delay; none where calls are looked at as they come.
    pub(super) fn delay(&self) -> Option<Duration> {
        Some(self.exact()).filter(|delay| *delay > SHORTEST)
    }

    /// As [`FirstLook::delay`], to be written.
    pub(super) fn exact(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }

    fn set(&mut self, bounds: Bounds, secs: f64) {
        let shortest = SHORTEST.as_secs_f64();
        self.secs = secs.clamp(shortest, bounds.longest.as_secs_f64().max(shortest));
    }

    /// How much a call counts, up to 1.
    fn weight(&mut self, now: Timestamp) -> f64 {
        let last = self.last.replace(now);
        if let Some(last) = last {
            let since = now.duration_since(last).as_secs_f64().clamp(0.0, self.secs);
            let gap = self.gap.unwrap_or(self.secs);
            self.gap = Some(gap + NEWEST * (since - gap));
        }
        self.gap.map_or(1.0, |gap| (FULL_CALLS * gap / self.secs).min(1.0))
    }
}

#[cfg(test)]
mod tests;
