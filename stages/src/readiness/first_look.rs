//! The estimate: how long after a call's end the wished share of recordings is there.
//!
//! A recording that was not there yet at the delay makes it longer by `STEP · share` (of its logarithm), one that was
//! there makes it shorter by `STEP · (1 − share)`. Where the share of those that are there is as wished, the two are
//! equal, and the delay stands. A single odd call moves it by a tenth at most.
//!
//! The answer to a change of the delay comes only after a delay: the calls that wait now were given the old one. So
//! where many calls come, each counts less, and only looks near the present delay count: a look much later than that
//! says nothing of it, nor does one that failed before it.
//!
//! # An incident is no evidence
//! While NICE gives out no recording at all, nothing is found and nothing learned. What it gives out at the end of
//! that was late because of it: all those recordings may have appeared at one moment, and of one moment no more is
//! learned than from one call ([`Moments`]).
//!
//! # Exploration
//! Looks at the delay do not tell how much shorter it might be, so a few calls are looked at early: at half the delay,
//! or, while it is longer than usual, at the usual one. Where some of those in a row find their recordings, the delay
//! is made shorter at once. The usual delay is what stood for days; it hardly moves within hours.

use std::time::Duration;

use catalog::LearnedDelay;
use jiff::{SignedDuration, Timestamp};

use self::moments::Moments;

mod moments;

/// How far one call moves the delay, at most: a tenth.
const STEP: f64 = 0.1;

/// Calls within one delay that count fully; of more, each counts less.
const FULL_CALLS: f64 = 50.0;

/// A recording that was found at this multiple of the delay, or earlier, counts as found at it. A queue keeps a message
/// a little longer than it was asked to, and what is there by then says little of a shorter delay.
const ON_TIME: f64 = 1.05;

/// The same of an early look.
const LATE: f64 = 1.25;

/// One that was missing from this part of the delay on counts as missing at it: NICE's end of the call and the
/// event's differ a little.
const EARLY: f64 = 0.9;

/// How much of the mean time between calls comes from the latest one.
const NEWEST: f64 = 0.1;

/// So short a delay is none: the call is looked at when its message comes.
const SHORTEST: Duration = Duration::from_secs(1);

/// From this multiple of the usual delay on, the delay is longer than usual.
const UNUSUAL: f64 = 1.3;

/// Early looks are made at this part of a delay that is not longer than usual.
const HALF: f64 = 0.5;

/// Early looks in a row that find their recordings before the delay becomes shorter: at the usual delay, where a good
/// deal is known of it, and below.
const ROW_AT_USUAL: u32 = 5;
const ROW_BELOW: u32 = 10;

/// The share of calls that are looked at early; more while few were found, for the first guess may be far too long.
const EXPLORING: f64 = 0.02;
const EXPLORING_YOUNG: f64 = 0.2;

/// As long as fewer recordings than this were found, little is known.
const YOUNG: u64 = 200;

/// Early looks within one usual delay that suffice, while the delay is longer than usual; and the share at most.
const EXPLORING_UNUSUAL: f64 = 8.0;
const EXPLORING_UNUSUAL_MOST: f64 = 0.1;

/// Early looks that found nothing before that share becomes smaller: it does not look like an incident. One that finds
/// its recording makes up for some of them, and no more than a few are remembered.
const MANY_IN_VAIN: u32 = 20;
const MOST_IN_VAIN: u32 = 30;
const MAKES_UP_FOR: u32 = 5;
const EXPLORING_IN_VAIN: f64 = 0.025;

/// The time in which what is usual follows a longer delay: three days. An incident is over by then.
const USUAL_UP_SECS: f64 = 72.0 * 3600.0;

/// And a shorter one.
const USUAL_DOWN_SECS: f64 = 2.0 * 3600.0;

/// A time without recordings counts no longer than this for what is usual.
const LONGEST_GAP_SECS: f64 = 3600.0;

/// What the settings allow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The share of recordings that shall be there at the first look, below 1; 0: no call waits, nothing is learned.
    pub share: f64,
    /// The delay before anything is learned.
    pub guess: Duration,
    /// No call waits longer for its first look.
    pub longest: Duration,
}

impl Bounds {
    /// Whether calls are looked at as they come.
    pub(super) fn is_off(&self) -> bool {
        self.share <= 0.0
    }

    fn clamp(&self, secs: f64) -> f64 {
        let shortest = SHORTEST.as_secs_f64();
        secs.clamp(shortest, self.longest.as_secs_f64().max(shortest))
    }
}

/// What a recording taught.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lesson {
    /// By what the delay was multiplied.
    Factor(f64),
    /// Early looks showed that it may be as short as it is now.
    Shortened,
}

/// The delay of a tenant, and how often its recordings are found.
#[derive(Debug, Clone)]
pub(super) struct FirstLook {
    secs: f64,
    /// What stood for days.
    usual: f64,
    /// The time in which recordings were found, in seconds.
    learned_for: f64,
    /// Recordings that were found.
    found: u64,
    /// Mean time between two recordings found, in seconds; none before the second one.
    gap: Option<f64>,
    last: Option<Timestamp>,
    /// Early looks in a row that found their recordings.
    row: u32,
    /// And about how many have found nothing of late.
    in_vain: u32,
    moments: Moments,
}

impl FirstLook {
    /// Nothing is known but the guess.
    pub(super) fn new(bounds: Bounds) -> Self {
        let secs = bounds.clamp(bounds.guess.as_secs_f64());
        let moments = Moments::default();
        Self { secs, usual: secs, learned_for: 0.0, found: 0, gap: None, last: None, row: 0, in_vain: 0, moments }
    }

    /// Learns from a recording that was found `found` seconds after its call's end, and was last missing after
    /// `missing`.
    pub(super) fn learn(&mut self, bounds: Bounds, now: Timestamp, missing: Option<f64>, found: f64) -> Lesson {
        let since = self.last.map_or(0.0, |last| now.duration_since(last).as_secs_f64());
        let weight = self.weight(now);
        let change = match missing {
            // Where calls are looked at as they come, every miss came at the delay.
            Some(missing) if missing >= EARLY * self.secs || self.delay().is_none() => {
                let missed_at = SignedDuration::try_from_secs_f64(found - missing);
                let missed_at = missed_at.ok().and_then(|ago| now.checked_sub(ago).ok()).unwrap_or(now);
                STEP * self.moments.admit(missed_at, now, weight) * bounds.share
            }
            _ if (0.0..=ON_TIME * self.secs).contains(&found) => {
                let step = weight * (1.0 - bounds.share);
                self.moments.give_room(step / bounds.share);
                -STEP * step
            }
            _ => 0.0,
        };
        let before = self.secs;
        self.secs = bounds.clamp(before * change.exp());
        self.follow(since.clamp(0.0, LONGEST_GAP_SECS));
        self.found = self.found.saturating_add(1);
        if missing.is_none() && self.explored(bounds, found) {
            return Lesson::Shortened;
        }
        Lesson::Factor(self.secs / before)
    }

    /// A first look that was made so many seconds after the call's end found nothing.
    pub(super) fn missed(&mut self, age: f64) {
        if (EARLY * self.early()..=LATE * self.early()).contains(&age) {
            self.row = 0;
            self.in_vain = (self.in_vain + 1).min(MOST_IN_VAIN);
        }
    }

    /// Goes on from what the consumers have learned together, `factor` times that.
    pub(super) fn replace(&mut self, bounds: Bounds, by: LearnedDelay, factor: f64) {
        self.secs = bounds.clamp(by.first_look.as_secs_f64() * factor);
        self.usual = bounds.clamp(by.usual.as_secs_f64());
        self.learned_for = by.learned_for.as_secs_f64();
        self.found = self.found.max(by.found);
    }

    /// The delay; none where calls are looked at as they come.
    pub(super) fn delay(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.secs)).filter(|delay| *delay > SHORTEST)
    }

    /// The delay of one call: an early one, where its `chance` from 0 to 1 is among those that explore.
    pub(super) fn delay_of(&self, chance: f64) -> Option<Duration> {
        match chance < self.exploring() {
            true => Some(Duration::from_secs_f64(self.early())).filter(|delay| *delay > SHORTEST),
            false => self.delay(),
        }
    }

    /// What is known, to be written.
    pub(super) fn learned(&self) -> LearnedDelay {
        LearnedDelay {
            first_look: Duration::from_secs_f64(self.secs),
            usual: Duration::from_secs_f64(self.usual),
            learned_for: Duration::from_secs_f64(self.learned_for),
            found: self.found,
        }
    }

    /// Whether little is known yet.
    pub(super) fn is_young(&self) -> bool {
        self.found < YOUNG
    }

    fn is_unusual(&self) -> bool {
        self.secs > UNUSUAL * self.usual
    }

    /// When early looks are made.
    fn early(&self) -> f64 {
        if self.is_unusual() { self.usual } else { HALF * self.secs }
    }

    /// The share of calls that are looked at early.
    fn exploring(&self) -> f64 {
        let gap = self.gap.unwrap_or(self.secs);
        match self.is_young() {
            true => EXPLORING_YOUNG,
            false if self.is_unusual() => {
                let many_in_vain = self.in_vain >= MANY_IN_VAIN;
                let most = if many_in_vain { EXPLORING_IN_VAIN } else { EXPLORING_UNUSUAL_MOST };
                (EXPLORING_UNUSUAL * gap / self.usual).min(most)
            }
            false => EXPLORING,
        }
    }

    /// A recording was there at the first look. Whether the delay has become shorter by it.
    fn explored(&mut self, bounds: Bounds, found: f64) -> bool {
        let (early, is_unusual) = (self.early(), self.is_unusual());
        if !(0.0..=LATE * early).contains(&found) {
            return false;
        }
        (self.row, self.in_vain) = (self.row + 1, self.in_vain.saturating_sub(MAKES_UP_FOR));
        if self.row < if is_unusual { ROW_AT_USUAL } else { ROW_BELOW } {
            return false;
        }
        self.row = 0;
        // The looks were that late too.
        let shorter = bounds.clamp(if is_unusual { early } else { LATE * early });
        let is_shorter = shorter < self.secs;
        self.secs = self.secs.min(shorter);
        is_shorter
    }

    /// What is usual follows the delay: as the mean of all at first, slowly later.
    fn follow(&mut self, since: f64) {
        self.learned_for += since;
        let time = match self.secs < self.usual {
            true => USUAL_DOWN_SECS,
            false => USUAL_UP_SECS.min(self.learned_for),
        };
        if time > 0.0 {
            self.usual *= (self.secs / self.usual).powf((since / time).min(1.0));
        }
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
