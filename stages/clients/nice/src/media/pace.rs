//! How slowly a recording may arrive.
//!
//! A body that trickles is never idle and never ends: it would hold its worker for ever. What counts is the time in
//! which bytes were waited for: a store that takes them slowly is not the media host's fault.

use std::time::Duration;

use crate::{NiceError, Timeouts};

/// The bytes and the waiting of the present window.
#[derive(Debug, Default)]
pub(super) struct ArrivalRate {
    awaited: Duration,
    bytes: u64,
}

impl ArrivalRate {
    /// Counts a wait and what it brought; an error where a window is over in which too little came.
    pub(super) fn count(&mut self, awaited: Duration, bytes: usize, limits: &Timeouts) -> Result<(), NiceError> {
        self.awaited += awaited;
        self.bytes += bytes as u64;
        if self.awaited < limits.media_rate_window {
            return Ok(());
        }
        let least = limits.media_min_rate as f64 * self.awaited.as_secs_f64();
        if (self.bytes as f64) < least {
            return Err(NiceError::media(format!(
                "the recording arrives too slowly: {} bytes in {} s, [recordings] min_rate asks for {} bytes per second",
                self.bytes,
                self.awaited.as_secs(),
                limits.media_min_rate,
            )));
        }
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Timeouts {
        Timeouts { media_min_rate: 1000, media_rate_window: Duration::from_secs(60), ..Timeouts::default() }
    }

    #[test]
    fn a_byte_every_29_seconds_is_too_slow() {
        let mut pace = ArrivalRate::default();
        assert_eq!(pace.count(Duration::from_secs(29), 1, &limits()), Ok(()));
        assert_eq!(pace.count(Duration::from_secs(29), 1, &limits()), Ok(()));
        let Err(NiceError::Media { what, .. }) = pace.count(Duration::from_secs(29), 1, &limits()) else { panic!() };
        assert!(what.contains("3 bytes in 87 s") && what.contains("min_rate"), "{what}");
    }

    #[test]
    fn each_window_counts_for_itself() {
        let mut pace = ArrivalRate::default();
        assert_eq!(pace.count(Duration::from_secs(60), 60_000, &limits()), Ok(()), "as fast as it must be");
        assert_eq!(pace.count(Duration::from_secs(59), 0, &limits()), Ok(()), "the window is not over");
        assert!(pace.count(Duration::from_secs(1), 59_999, &limits()).is_err());
        let mut pace = ArrivalRate::default();
        assert_eq!(pace.count(Duration::from_secs(10), 1 << 30, &limits()), Ok(()));
        assert_eq!(pace.count(Duration::from_secs(50), 0, &limits()), Ok(()), "a pause after much");
        assert!(pace.count(Duration::from_secs(60), 0, &limits()).is_err(), "what came before counts no more");
    }

    #[test]
    fn what_is_not_waited_for_is_not_slow() {
        let mut pace = ArrivalRate::default();
        for _ in 0..1000 {
            assert_eq!(pace.count(Duration::ZERO, 1, &limits()), Ok(()));
        }
    }
}
