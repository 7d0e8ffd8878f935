//! How many requests a tenant may send: a token bucket, or a window that slides.

use std::{collections::VecDeque, time::Duration};

use crate::clock::{Millis, millis};

/// Counts requests against a limit.
#[derive(Debug)]
pub(crate) enum Throttle {
    /// Fills evenly, holds the limit at most: a burst and the refill together may exceed the limit in one window.
    Bucket { limit: f64, window: f64, level: f64, at: Millis },
    /// No window of that length ever holds more than the limit.
    Sliding { limit: usize, window: Millis, taken: VecDeque<Millis> },
}

impl Throttle {
    /// A bucket, full.
    pub(crate) fn bucket(limit: u32, window: Duration, now: Millis) -> Self {
        let limit = f64::from(limit);
        Self::Bucket { limit, window: millis(window).max(1) as f64, level: limit, at: now }
    }

    /// A sliding window, empty.
    pub(crate) fn sliding(limit: u32, window: Duration) -> Self {
        Self::Sliding { limit: limit as usize, window: millis(window), taken: VecDeque::new() }
    }

    /// Puts another limit in force; what was taken in the window still counts.
    pub(crate) fn set_limit(&mut self, new: u32, now: Millis) {
        match self {
            Self::Bucket { limit, window, level, at } => {
                let filled = *level + (now - *at).max(0) as f64 * (*limit / *window);
                let new = f64::from(new);
                (*level, *at, *limit) = (filled.min(*limit).min(new), now, new);
            }
            Self::Sliding { limit, .. } => *limit = new as usize,
        }
    }

    /// Takes one request, or says how long to wait for the next.
    pub(crate) fn take(&mut self, now: Millis) -> Result<(), Duration> {
        match self {
            Self::Bucket { limit, window, level, at } => {
                let per_milli = *limit / *window;
                *level = (*level + (now - *at).max(0) as f64 * per_milli).min(*limit);
                *at = now;
                if *level >= 1.0 {
                    *level -= 1.0;
                    return Ok(());
                }
                Err(Duration::from_millis(((1.0 - *level) / per_milli.max(f64::MIN_POSITIVE)) as u64))
            }
            Self::Sliding { limit, window, taken } => {
                while taken.front().is_some_and(|first| *first <= now - *window) {
                    taken.pop_front();
                }
                if taken.len() < *limit {
                    taken.push_back(now);
                    return Ok(());
                }
                let wait = taken.front().map_or(*window, |first| *first + *window - now);
                Err(Duration::from_millis(wait.max(0) as u64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    #[test]
    fn a_bucket_refills_evenly() {
        let mut throttle = Throttle::bucket(150, WINDOW, 0);
        assert!((0..150).all(|_| throttle.take(0).is_ok()));
        assert_eq!(throttle.take(0), Err(Duration::from_secs(2)));
        assert_eq!(throttle.take(2000), Ok(()));
        assert!(throttle.take(2001).is_err());
    }

    #[test]
    fn a_bucket_whose_limit_moves_refills_at_the_new_pace() {
        let mut throttle = Throttle::bucket(150, WINDOW, 0);
        throttle.set_limit(0, 0);
        assert!(throttle.take(300_000).is_err());
        throttle.set_limit(30, 300_000);
        assert!(throttle.take(309_999).is_err(), "a limit that is raised gives nothing at once");
        assert_eq!(throttle.take(310_001), Ok(()));
        throttle.set_limit(150, 310_001);
        assert_eq!(throttle.take(312_002), Ok(()));
    }

    #[test]
    fn a_sliding_window_never_holds_more() {
        let mut throttle = Throttle::sliding(2, WINDOW);
        assert_eq!((throttle.take(0), throttle.take(1000)), (Ok(()), Ok(())));
        assert_eq!(throttle.take(2000), Err(Duration::from_secs(298)));
        assert_eq!(throttle.take(300_000), Ok(()));
        assert!(throttle.take(300_001).is_err());
    }
}
