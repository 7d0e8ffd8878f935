//! The pauses between attempts at what a broker did not do.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
#[cfg(feature = "fluvio")]
use tokio::time::Instant;

/// Intervals between attempts: short enough that everything flows again at once when the broker is back, and with
/// jitter, so that many processes do not come in the same moment.
pub(crate) fn intervals() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(200))
        .with_max_interval(Duration::from_secs(2))
        .with_multiplier(2.0)
        .with_randomization_factor(0.5)
        .with_max_elapsed_time(None)
        .build()
}

/// Sleeps for the next interval.
pub(crate) async fn pause(intervals: &mut ExponentialBackoff) {
    tokio::time::sleep(intervals.next_backoff().unwrap_or(intervals.max_interval)).await;
}

/// How long something of many may fail before it is told by itself: the outage of a broker is told where it is noticed.
#[cfg(feature = "fluvio")]
pub(crate) const TOLD_AFTER: Duration = Duration::from_secs(30);

/// Since when something fails, and whether that was told.
#[cfg(feature = "fluvio")]
#[derive(Debug, Default)]
pub(crate) struct LongFailure {
    since: Option<Instant>,
    is_told: bool,
}

#[cfg(feature = "fluvio")]
impl LongFailure {
    /// It failed. True once, when it has failed for long.
    pub(crate) fn failed(&mut self) -> bool {
        let lasts = self.since.get_or_insert_with(Instant::now).elapsed() >= TOLD_AFTER;
        lasts && !std::mem::replace(&mut self.is_told, true)
    }

    /// It works.
    pub(crate) fn is_over(&mut self) {
        *self = Self::default();
    }
}
