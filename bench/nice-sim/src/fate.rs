//! What lasts: what becomes of a call by the faults that were in force when it ended.
//!
//! A fault of this kind strikes a share of the calls that end while it is on, and what it did stays when it is off: a
//! row that comes half a day late comes half a day late. Each draw is a pure function of the seed and the call, so that
//! nothing is kept and the truth can be told at any time.

use std::time::Duration;

use crate::{
    call::{Call, Leg},
    chance::{derive, word},
    clock::{Millis, millis},
    faults::FaultDraws,
    recording::Recording,
};

/// The shortest delay of a row that comes late.
const ROW_AT_LEAST: Duration = Duration::from_secs(120);

/// The shortest delay of a recording or a part that comes late.
const RECORDING_AT_LEAST: Duration = Duration::from_secs(600);

/// The shortest time from a recording to its other bytes.
const CHANGE_AT_LEAST: Duration = Duration::from_secs(30);

/// The shortest time from a recording to its end.
const GONE_AT_LEAST: Duration = Duration::from_secs(3600);

/// Draws what lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fates<'a> {
    pub(crate) seed: u64,
    pub(crate) faults: &'a FaultDraws,
}

/// What becomes of a leg's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowFate {
    /// When it is listed among the completed.
    pub(crate) listed_at: Millis,
    /// Until when it lacks its agent and its duration.
    pub(crate) half_until: Millis,
    /// Whether it changes once more, hours later.
    pub(crate) changes_again: bool,
}

/// What becomes of a call's recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordingFate {
    /// Whether there is ever one.
    pub(crate) recorded: bool,
    /// When it is there.
    pub(crate) at: Millis,
    /// The second part of a call of one leg.
    pub(crate) second: Option<SecondPart>,
    /// From when on other bytes lie under its link.
    pub(crate) changed_at: Option<Millis>,
    /// From when on it is gone.
    pub(crate) gone_at: Option<Millis>,
}

/// A second interaction of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecondPart {
    /// When its recording is there.
    pub(crate) at: Millis,
    /// Nothing tells of it before.
    pub(crate) unlisted_before: bool,
}

impl RecordingFate {
    /// The version of the bytes at an instant.
    pub(crate) fn version(&self, now: Millis) -> u32 {
        u32::from(self.changed_at.is_some_and(|at| at <= now))
    }

    /// Whether the recording was there and is no more.
    pub(crate) fn is_gone(&self, now: Millis) -> bool {
        self.gone_at.is_some_and(|at| at <= now)
    }
}

impl Fates<'_> {
    /// The fate of a leg's row.
    pub(crate) fn row(&self, leg: &Leg) -> RowFate {
        let ended_at = leg.acw_ended_at();
        let faults = self.faults.in_force(ended_at);
        let id = leg.contact_id;
        let late = self.hits(id, "late row", faults.late_rows);
        let delay = if late { self.span(id, "late row by", ROW_AT_LEAST, faults.late_rows_by) } else { 0 };
        let half = self.hits(id, "half row", faults.half_rows);
        RowFate {
            listed_at: leg.listed_at + delay,
            half_until: if half { ended_at + millis(faults.half_rows_for) } else { ended_at },
            changes_again: self.hits(id, "changed row", faults.changed_rows),
        }
    }

    /// When a leg's row last changed, as of `now`.
    pub(crate) fn updated_at(&self, leg: &Leg, now: Millis) -> Millis {
        if leg.third_update_at <= now && self.row(leg).changes_again {
            leg.third_update_at
        } else {
            leg.updated_at(now)
        }
    }

    /// The fate of a call's recording.
    pub(crate) fn recording(&self, call: &Call) -> RecordingFate {
        let faults = self.faults.in_force(call.acw_ended_at());
        let id = call.master;
        let late = self.hits(id, "late recording", faults.recordings_late);
        let longest = faults.recordings_late_by;
        let delay = if late { self.span(id, "late recording by", RECORDING_AT_LEAST, longest) } else { 0 };
        let at = call.recording_at() + delay;
        let in_parts = !call.transferred() && self.hits(id, "recording in parts", faults.recordings_in_parts);
        let part = call.second_part_delay.map(|delay| SecondPart { at: at + delay, unlisted_before: false });
        let second = part.or_else(|| {
            in_parts.then(|| SecondPart {
                at: at + self.span(id, "part late by", RECORDING_AT_LEAST, longest),
                unlisted_before: self.hits(id, "part unlisted", 0.5),
            })
        });
        let changes = self.hits(id, "changed recording", faults.recordings_changed);
        let goes = self.hits(id, "gone recording", faults.recordings_gone);
        let whole_at = second.map_or(at, |second| second.at);
        RecordingFate {
            recorded: call.recorded && !self.hits(id, "never recorded", faults.recordings_never),
            at,
            second,
            changed_at: changes
                .then(|| at + self.span(id, "changed after", CHANGE_AT_LEAST, faults.recordings_changed_after)),
            gone_at: goes.then(|| whole_at + self.span(id, "gone after", GONE_AT_LEAST, faults.recordings_gone_after)),
        }
    }

    fn fraction(&self, id: i64, kind: &str) -> f64 {
        (word(derive(self.seed, kind), id as u64) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn hits(&self, id: i64, kind: &str, share: f64) -> bool {
        share > 0.0 && self.fraction(id, kind) < share
    }

    /// A span between both, short ones as likely as long ones: evenly drawn by its logarithm.
    fn span(&self, id: i64, kind: &str, shortest: Duration, longest: Duration) -> Millis {
        let (shortest, longest) = (millis(shortest).max(1) as f64, millis(longest).max(1) as f64);
        let (low, high) = (shortest.min(longest).ln(), longest.ln());
        (low + (high - low) * self.fraction(id, kind)).exp() as Millis
    }
}

/// The bytes of a recording's version: 0 as it was first, 1 as it is after the change, some bytes longer or shorter.
pub(crate) fn version_of(recording: Recording, version: u32) -> Recording {
    match version {
        0 => recording,
        version => {
            let seed = word(recording.seed, u64::from(version));
            let size = (recording.size + seed % 512).saturating_sub(seed / 512 % 512).max(1);
            Recording { seed, size }
        }
    }
}
