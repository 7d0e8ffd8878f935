//! How far this process is behind: the age of the oldest call that is due, wherever it waits, and how many calls wait
//! for which system.
//!
//! A call is in flight while the flow holds it. What is put off is remembered until it should be back: another process
//! may take it then. A call whose recording NICE has yet to make waits for NICE, not for us: it is not due, and its age
//! counts from the end of that wait on. Calls of the lane `backfill` ended long ago and have no age here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, Key, Lane, System, TenantId};

use super::delivery::{Hold, PutOff};

/// Calls put off that are remembered, some 100 bytes each. Of a longer backlog the oldest ones came first.
const REMEMBERED: usize = 30_000;

/// A call that is put off is back on the queue at its time, and in hand within this. If it is not, another process has
/// it.
const BACK_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// The calls that this process works on or has put off; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    calls: Arc<Mutex<DueCalls>>,
}

#[derive(Debug, Default)]
struct DueCalls {
    /// By the time from which on they could have been worked on.
    in_flight: BTreeMap<Timestamp, usize>,
    put_off: BTreeMap<Key, PutOffCall>,
}

#[derive(Debug)]
struct PutOffCall {
    /// None while it is not due.
    since: Option<Timestamp>,
    until: Timestamp,
    /// The system whose failure keeps it, and whose call it is.
    waits_for: Option<(System, TenantId)>,
}

/// The call that is due for longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestDue {
    /// Since when.
    pub since: Timestamp,
    /// The system whose failure keeps it; none where it is worked on, or waits for its turn.
    pub waits_for: Option<System>,
}

impl Freshness {
    /// Counts a call as in flight until the answer is dropped.
    pub fn count(&self, event: &ContactEvent) -> CallInFlight {
        // A webhook may not say when its call ended: then the time of its message counts.
        let since = event.due_at.max(event.ended_at.or(event.queued_at));
        let since = since.filter(|_| Lane::of(event) == Lane::Live);
        let key = event.key().digest();
        let mut calls = self.lock();
        calls.put_off.remove(&key);
        if let Some(since) = since {
            *calls.in_flight.entry(since).or_default() += 1;
        }
        CallInFlight { freshness: self.clone(), key, since }
    }

    /// The call that is due for longest.
    pub fn oldest(&self, now: Timestamp) -> Option<OldestDue> {
        let mut calls = self.lock();
        calls.forget(now);
        let working = calls.in_flight.keys().next().map(|since| OldestDue { since: *since, waits_for: None });
        let put_off = calls.put_off.values();
        let put_off = put_off.filter_map(|call| {
            Some(OldestDue { since: call.since?, waits_for: call.waits_for.as_ref().map(|(system, _)| *system) })
        });
        working.into_iter().chain(put_off).min_by_key(|call| call.since)
    }

    /// The age of that call; none where it is not known. Nobody knows the age of what waits on the queue before it is
    /// taken, so without a call in hand it is zero only while none is `waiting` there.
    pub fn lag(&self, now: Timestamp, waiting: Option<u64>) -> Option<Duration> {
        let in_hand = self.oldest(now);
        let age = in_hand.map(|oldest| Duration::try_from(now.duration_since(oldest.since)).unwrap_or_default());
        age.or((waiting == Some(0)).then_some(Duration::ZERO))
    }

    /// How many calls of which tenant are put off for the failure of which system.
    pub fn waiting(&self, now: Timestamp) -> BTreeMap<(System, TenantId), u64> {
        let mut calls = self.lock();
        calls.forget(now);
        let mut waiting = BTreeMap::new();
        for waits_for in calls.put_off.values().filter_map(|call| call.waits_for.clone()) {
            *waiting.entry(waits_for).or_default() += 1;
        }
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, DueCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DueCalls {
    /// Forgets the calls that should be back, and are not.
    fn forget(&mut self, now: Timestamp) {
        self.put_off.retain(|_, call| now.duration_since(call.until) <= BACK_WITHIN);
    }
}

/// A call in flight; not any more when it is dropped.
#[derive(Debug)]
pub struct CallInFlight {
    freshness: Freshness,
    key: Key,
    since: Option<Timestamp>,
}

impl Hold for CallInFlight {
    fn deferred(&self, item: &PutOff<'_>) {
        let mut calls = self.freshness.lock();
        if calls.put_off.len() < REMEMBERED {
            let since = self.since.filter(|_| item.is_due);
            let waits_for = item.waits_for.map(|system| (system, item.event.tenant.clone()));
            calls.put_off.insert(self.key, PutOffCall { since, until: item.until, waits_for });
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        let Some(since) = self.since else { return };
        let mut calls = self.freshness.lock();
        if let Some(count) = calls.in_flight.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                calls.in_flight.remove(&since);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn at(text: &str) -> Timestamp {
        format!("2026-04-01T{text}Z").parse().unwrap()
    }

    #[test]
    fn the_time_that_a_call_waited_for_nice_is_not_our_delay() {
        let freshness = Freshness::default();
        let mut event = testing::event(1);
        let now = at("17:00:00");
        let fresh = freshness.count(&event);
        assert_eq!(freshness.lag(now, Some(9)), Some(Duration::from_secs(25 * 60 + 35)));
        drop(fresh);
        assert_eq!(freshness.lag(now, Some(0)), Some(Duration::ZERO));
        event.due_at = Some(at("16:59:50"));
        let _waited = freshness.count(&event);
        assert_eq!(freshness.lag(now, Some(9)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_call_that_a_system_keeps_stays_late_while_it_is_put_off() {
        let freshness = Freshness::default();
        let event = testing::event(1);
        let put_off = |is_due, waits_for| {
            let call = freshness.count(&event);
            call.deferred(&PutOff { event: &event, until: at("17:01:00"), is_due, waits_for });
        };
        put_off(true, Some(System::Nice));
        let oldest = freshness.oldest(at("17:00:00")).unwrap();
        assert_eq!(oldest, OldestDue { since: at("16:34:25"), waits_for: Some(System::Nice) });
        assert_eq!(freshness.waiting(at("17:00:00")), BTreeMap::from([((System::Nice, event.tenant.clone()), 1)]));
        assert_eq!(freshness.lag(at("17:10:00"), Some(0)), Some(Duration::ZERO), "another process has it");
        put_off(false, None);
        assert_eq!(freshness.lag(at("17:00:00"), Some(0)), Some(Duration::ZERO), "NICE has yet to make its recording");
        assert_eq!(freshness.waiting(at("17:00:00")), BTreeMap::new());
    }

    #[test]
    fn the_age_of_what_waits_on_a_queue_that_this_process_does_not_read_is_not_known() {
        let freshness = Freshness::default();
        let lag = |waiting| freshness.lag(at("17:00:00"), waiting);
        assert_eq!([lag(Some(0)), lag(Some(1)), lag(None)], [Some(Duration::ZERO), None, None]);
        let _call = freshness.count(&testing::event(1));
        let known = Some(Duration::from_secs(25 * 60 + 35));
        assert_eq!([lag(Some(0)), lag(Some(1)), lag(None)], [known; 3]);
    }

    #[test]
    fn a_call_of_a_backfill_has_no_age() {
        let freshness = Freshness::default();
        let event = ContactEvent { source: model::EventSource::Backfill, ..testing::event(1) };
        let _call = freshness.count(&event);
        assert_eq!(freshness.oldest(at("17:00:00")), None);
    }
}
