//! The limit, and what each class of requests may count on.

use std::time::Duration;

use model::QuotaClass;

use super::Micros;

/// A limit: never more than so many requests in any span of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests, at least one.
    pub limit: u32,
    /// The span.
    pub window: Duration,
}

/// Two clocks that are kept by the same time server differ by less than this part.
const DRIFT_SHARE: u32 = 1000;

impl Rate {
    /// How long a request counts after its answer: the span, and what two clocks may differ in over it.
    pub fn counted_for(&self) -> Duration {
        self.window + self.window / DRIFT_SHARE
    }

    /// The time between two requests that are spread evenly.
    pub fn spacing(&self) -> Duration {
        self.window / self.limit.max(1)
    }
}

/// A limit, and how it is divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The limit.
    pub rate: Rate,
    /// The part, from 0 to 1, that reconciliation and backfill may never take beyond their floors.
    pub live_reserve: f64,
}

/// A part is rounded down to whole requests: 1 − 0.9 shall still be a tenth.
const ROUNDING: f64 = 1e-9;

/// What a comparison usually takes of the share that it has together with a backfill.
const TAKEN_BY_THE_OTHER: f64 = 0.02;

impl Terms {
    /// A limit with this reserve.
    pub fn new(rate: Rate, live_reserve: f64) -> Self {
        let rate = Rate { limit: rate.limit.max(1), window: rate.window.max(Duration::from_millis(1)) };
        Self { rate, live_reserve: live_reserve.clamp(0.0, 1.0) }
    }

    /// The part of the limit that the class gets whatever the others do. A tenth is nobody's, so that the last class
    /// has its floor although some places are lost between two requests.
    pub fn floor(class: QuotaClass) -> f64 {
        match class {
            QuotaClass::Live => 0.50,
            QuotaClass::Retry | QuotaClass::Agents | QuotaClass::Reconciliation => 0.10,
            QuotaClass::Backfill | QuotaClass::Unconfirmed => 0.05,
        }
    }

    /// The most requests of reconciliation and backfill together in a window that has `most` of all classes.
    pub fn bulk_most(&self, most: u32) -> u32 {
        let floors = Self::floor(QuotaClass::Reconciliation) + Self::floor(QuotaClass::Backfill);
        let share = f64::from(most) * (1.0 - self.live_reserve).max(floors) + ROUNDING;
        (share as u32).clamp(1, most.max(1))
    }

    /// The requests a second that the class can count on while nobody else takes of the quota and no class that goes
    /// before it has much to do.
    pub fn pace(&self, class: QuotaClass) -> f64 {
        let most = match class.is_bulk() {
            true => f64::from(self.bulk_most(self.rate.limit)) * (1.0 - TAKEN_BY_THE_OTHER),
            false => f64::from(self.rate.limit),
        };
        most / self.rate.counted_for().as_secs_f64()
    }

    /// How long a request counts after its answer.
    pub(super) fn counted(&self) -> Micros {
        micros(self.rate.counted_for())
    }

    /// The time between two of the places that the class's floor gives it.
    pub(super) fn floor_spacing(&self, class: QuotaClass, most: u32) -> Micros {
        ((self.counted() as f64 / (f64::from(most.max(1)) * Self::floor(class))) as Micros).max(1)
    }
}

/// A span in microseconds; a longer one than half a million years is that.
pub(super) fn micros(span: Duration) -> Micros {
    Micros::try_from(span.as_micros()).unwrap_or(Micros::MAX / 4).min(Micros::MAX / 4)
}
