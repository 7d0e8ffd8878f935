//! How far the consumer is behind: the age of the oldest call it is working on.
//!
//! The queue delivers in order, so the oldest call in flight is the oldest that is due. A call that waits in a delay
//! step waits for NICE, not for us: it does not count, and its age does from the end of that wait on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use model::ContactEvent;

use super::delivery::Hold;

/// The calls in flight by the time from which on they could have been worked on.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    since: Arc<Mutex<BTreeMap<Timestamp, usize>>>,
}

impl Freshness {
    /// Counts a call as in flight until the answer is dropped.
    pub fn count(&self, event: &ContactEvent) -> CallInFlight {
        // A webhook may not say when its call ended: then the time of its message counts.
        let since = event.due_at.max(event.ended_at.or(event.queued_at));
        if let Some(since) = since {
            *self.lock().entry(since).or_default() += 1;
        }
        CallInFlight { freshness: self.clone(), since }
    }

    /// The age of the oldest call in flight; zero when there is none.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let oldest = self.lock().keys().next().copied();
        oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Timestamp, usize>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight; not any more when it is dropped.
#[derive(Debug)]
pub struct CallInFlight {
    freshness: Freshness,
    since: Option<Timestamp>,
}

impl Hold for CallInFlight {}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        let Some(since) = self.since else { return };
        let mut calls = self.freshness.lock();
        if let Some(count) = calls.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&since);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_time_that_a_call_waited_for_nice_is_not_our_delay() {
        let freshness = Freshness::default();
        let mut event = testing::event(1);
        let now = "2026-04-01T17:00:00Z".parse().unwrap();
        let fresh = freshness.count(&event);
        assert_eq!(freshness.lag(now), Duration::from_secs(25 * 60 + 35));
        drop(fresh);
        assert_eq!(freshness.lag(now), Duration::ZERO);
        event.due_at = Some("2026-04-01T16:59:50Z".parse().unwrap());
        let _waited = freshness.count(&event);
        assert_eq!(freshness.lag(now), Duration::from_secs(10));
    }
}
