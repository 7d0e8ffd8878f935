//! What a refusal (429) teaches: to pause, and to go on with less until NICE has been content for two windows.
//!
//! # What a refusal does
//! Nothing is sent for as long as NICE asks, else for two seconds, and for twice as long at each refusal that follows,
//! up to five minutes. Then one request goes and shows whether NICE takes it; the others follow once it is answered.
//! The limit becomes what was in use, at most a third less than it was and never below a tenth of the settings'.
//! While less than half of it was in use the limit is left alone: that refusal says nothing of our own rate.
//!
//! # How it is forgotten
//! Over two quiet windows the limit grows back to that of the settings, slowly at first, so that somebody who stays
//! costs about one refusal a window. Meanwhile requests go evenly, and not all that have waited at once.

use serde::{Deserialize, Serialize};

use super::Micros;

/// The pause after a first refusal.
const FIRST_PAUSE: Micros = 2_000_000;

/// No pause is shorter: those under way come back within it.
const SHORTEST_PAUSE: Micros = 1_000_000;

/// No pause is longer.
const LONGEST_PAUSE: Micros = 300_000_000;

/// The part of a limit that a refusal leaves, at least and at most.
const LEFT_AT_LEAST: f64 = 2.0 / 3.0;
const LEFT_AT_MOST: f64 = 0.95;

/// At most, at a refusal that follows another: what was in use was still too much.
const LEFT_AGAIN: f64 = 0.9;

/// No limit falls below this part of the settings'.
const LOWEST: f64 = 0.1;

/// So many quiet windows give the whole limit back.
const QUIET_WINDOWS: Micros = 2;

/// A quiet window has at least this length, however short the limit's own.
const SHORTEST_QUIET: Micros = 10_000_000;

/// In each part of a quiet window one doubling of the pause is forgotten.
const FORGOTTEN_A_WINDOW: Micros = 4;

/// So many times faster than even go those that have waited, where the limit was left alone.
const CATCH_UP: f64 = 4.0;

/// If the request that tries whether NICE takes any is not answered by then, another one may try.
const PROBE_FOR: Micros = 10_000_000;

/// The present restraint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Restraint {
    /// The limit right after the last refusal.
    pub(super) lowered_to: f64,
    pub(super) closed_at: Micros,
    pub(super) closed_until: Micros,
    /// Refusals that followed each other.
    streak: u32,
    /// Refusals since all was well.
    pub(super) refusals: u32,
    /// Whether NICE has taken a request since.
    pub(super) is_open: bool,
    /// When the one left that tries it.
    probe_at: Option<Micros>,
    /// The even place of the next request.
    pub(super) place: Micros,
}

/// How a budget stood when NICE refused one of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateRefusal {
    pub(super) now: Micros,
    /// When the request was granted.
    pub(super) granted_at: Micros,
    /// What NICE asks to wait.
    pub(super) retry_after: Option<Micros>,
    /// Requests that count, the refused one among them.
    pub(super) used: u32,
    /// The settings'.
    pub(super) limit: u32,
    /// How long a request counts.
    pub(super) counted: Micros,
}

impl Restraint {
    /// What the refusal makes of the restraint so far.
    pub(super) fn after(before: Option<Self>, refusal: &RateRefusal) -> Self {
        let RateRefusal { now, granted_at, retry_after, used, limit, counted } = *refusal;
        let asked = retry_after.map(|asked| asked.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        if let Some(before) = before
            && granted_at <= before.closed_at
        {
            // It was under way when an earlier one was refused, and tells nothing new.
            let closed_until = before.closed_until.max(asked.map_or(0, |asked| now + asked));
            return Self { closed_until, refusals: before.refusals.saturating_add(1), ..before };
        }
        let streak = before.map_or(0, |before| before.next_streak(now, counted));
        let pause = asked.unwrap_or_else(|| (FIRST_PAUSE << streak.min(16)).min(LONGEST_PAUSE));
        let before_it = before.map_or(f64::from(limit), |before| before.grown(limit, counted, now));
        let lowered_to = match f64::from(used) * 2.0 < before_it {
            true => before_it,
            false => {
                let most = if streak > 0 { LEFT_AGAIN } else { LEFT_AT_MOST };
                f64::from(used.saturating_sub(1)).clamp(before_it * LEFT_AT_LEAST, before_it * most)
            }
        };
        Self {
            lowered_to: lowered_to.max(f64::from(limit) * LOWEST),
            closed_at: now,
            closed_until: now + pause,
            streak,
            refusals: before.map_or(0, |before| before.refusals).saturating_add(1),
            is_open: false,
            probe_at: None,
            place: now + pause,
        }
    }

    /// The most requests in a window for now.
    pub(super) fn most(&self, limit: u32, counted: Micros, now: Micros) -> u32 {
        (self.grown(limit, counted, now) as u32).clamp(1, limit.max(1))
    }

    /// The time between two requests, where `spacing` is that of the limit spread evenly. A refusal that left the limit
    /// alone said nothing of our own rate: what has waited follows faster, and not all at once.
    pub(super) fn spacing(&self, spacing: f64, limit: u32) -> f64 {
        if self.lowered_to < f64::from(limit) { spacing } else { spacing / CATCH_UP }
    }

    /// When all is forgotten, if no refusal comes.
    pub(super) fn over_at(&self, counted: Micros) -> Micros {
        self.closed_until + QUIET_WINDOWS * counted.max(SHORTEST_QUIET)
    }

    /// Until when nothing is sent, if at all.
    pub(super) fn paused_until(&self, now: Micros) -> Option<Micros> {
        Some(self.closed_until).filter(|until| *until > now)
    }

    /// Whether a request is out that shows whether NICE takes it, and all others wait for its answer.
    pub(super) fn is_probing(&self, now: Micros) -> bool {
        !self.is_open && self.probe_at.is_some_and(|probe| now < probe + PROBE_FOR)
    }

    /// A request leaves.
    pub(super) fn granted(&mut self, now: Micros) {
        if !self.is_open {
            self.probe_at = Some(now);
        }
    }

    /// NICE took a request, or one never left.
    pub(super) fn settled(&mut self, granted_at: Micros, was_taken: bool) {
        if granted_at > self.closed_at {
            self.is_open |= was_taken;
            self.probe_at = None;
        }
    }

    fn grown(&self, limit: u32, counted: Micros, now: Micros) -> f64 {
        let (limit, whole) = (f64::from(limit), self.over_at(counted) - self.closed_until);
        let quiet = now.saturating_sub(self.closed_until) as f64 / whole as f64;
        self.lowered_to + (limit - self.lowered_to) * quiet.min(1.0).powi(4)
    }

    /// Refusals that followed each other up to one that comes now.
    fn next_streak(&self, now: Micros, counted: Micros) -> u32 {
        let quiet = now.saturating_sub(self.closed_until);
        let forgotten = quiet / (counted.max(SHORTEST_QUIET) / FORGOTTEN_A_WINDOW);
        self.streak.saturating_add(1).saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}
