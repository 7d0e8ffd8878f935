//! How long a slice is: as long as one answer of NICE holds. The length follows the density of the calls.
//! Pure: the rows of the slice before go in.

use jiff::SignedDuration;

use crate::source::pages::PageSize;

/// A slice is planned to fill this part of a page, so that it seldom has to be cut.
const FILL: f64 = 0.7;

/// Below it, time is not divided further: NICE's times may be as coarse.
pub(super) const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

/// What NICE cannot give is asked for in slices down to this length.
const SHORTEST_ASKED: SignedDuration = SignedDuration::from_mins(1);

/// Long enough that an empty month is read at once in few requests, short enough for NICE's own limits.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// The length of the next slice.
#[derive(Debug)]
pub(super) struct SliceLength {
    now: SignedDuration,
    /// What is longer NICE does not give.
    most: SignedDuration,
}

impl SliceLength {
    /// As long as any.
    pub(super) fn longest() -> Self {
        Self { now: LONGEST, most: LONGEST }
    }

    pub(super) fn get(&self) -> SignedDuration {
        self.now
    }

    /// Half as long, after NICE did not give a slice of `span`; false where it would be too short.
    pub(super) fn halve(&mut self, span: SignedDuration) -> bool {
        if span <= SHORTEST_ASKED {
            return false;
        }
        self.most = (span / 2).max(SHORTEST_ASKED);
        self.now = self.most;
        true
    }

    /// Shorter, after a slice of `span` turned out to have more rows, so many at least, than an answer holds.
    pub(super) fn shorten(&mut self, span: SignedDuration, held: u64, rows: u64) {
        self.now = scaled(span, (held.max(1) as f64 * FILL / rows.max(1) as f64).clamp(0.125, 0.5));
    }

    /// As long as a page holds, after a slice of `span` that had so many rows.
    pub(super) fn adapt(&mut self, span: SignedDuration, rows: u64, size: PageSize) {
        let wanted = f64::from(size.rows()) * FILL;
        // Growing at most fourfold: the calls of a night say little of those of the morning.
        let factor = (wanted / (rows.max(1) as f64)).min(4.0);
        self.now = scaled(self.now.max(span), factor).min(self.most);
        // What was too much once may have been an outage: tried again, seldom.
        self.most = scaled(self.most, 1.05);
    }
}

fn scaled(length: SignedDuration, factor: f64) -> SignedDuration {
    let scaled = SignedDuration::from_millis((length.as_millis() as f64 * factor) as i64);
    scaled.clamp(SHORTEST, LONGEST)
}
