//! How far the consumer is behind: the age of the oldest call it is working on.
//!
//! The queue delivers in order, so the oldest call in flight is the oldest that is due. Calls that wait in a
//! delay step wait for NICE, not for us, and do not count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::delivery::SettleError;
use super::{Delivery, Settle};
use crate::model::ContactEvent;

/// The calls in flight by the time they ended.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    ended: Arc<Mutex<BTreeMap<Timestamp, usize>>>,
}

impl Freshness {
    /// Counts a delivery as in flight until it is settled or dropped.
    pub fn track(&self, event: ContactEvent, settle: Box<dyn Settle>) -> Delivery<ContactEvent> {
        // A webhook may not say when its call ended: then the time of its message counts.
        let ended_at = event.ended_at.or(event.queued_at);
        if let Some(ended_at) = ended_at {
            *self.lock().entry(ended_at).or_default() += 1;
        }
        let tracked = Tracked { settle, _in_flight: InFlight { freshness: self.clone(), ended_at } };
        Delivery::new(event.clone(), event, Box::new(tracked))
    }

    /// The age of the oldest call in flight; zero when there is none.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let oldest = self.lock().keys().next().copied();
        oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Timestamp, usize>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Tracked {
    settle: Box<dyn Settle>,
    _in_flight: InFlight,
}

#[async_trait]
impl Settle for Tracked {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.settle.ack().await
    }

    async fn defer(self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        self.settle.defer(event, delay).await
    }
}

struct InFlight {
    freshness: Freshness,
    ended_at: Option<Timestamp>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(ended_at) = self.ended_at else { return };
        let mut ended = self.freshness.lock();
        if let Some(count) = ended.get_mut(&ended_at) {
            *count -= 1;
            if *count == 0 {
                ended.remove(&ended_at);
            }
        }
    }
}
