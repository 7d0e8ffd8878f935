//! The pauses between attempts at what a broker did not do.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};

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
