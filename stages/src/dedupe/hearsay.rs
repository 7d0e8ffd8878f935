//! What only a webhook has told so far: ids that NICE may not know.
//!
//! The consumer drops such an id after an hour in which NICE did not know it. When the poll finds it later, it was real,
//! and late: the dedupe lets it through once more. Kept in memory: after a restart the nightly comparison finds it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use state::Key;

use crate::flow::retry::UNCONFIRMED;

/// More ids than honest webhooks tell before the poll finds the calls; some 5 MB. Of more, all of before are forgotten.
const MOST: usize = 100_000;

/// When each id was told.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    told: Mutex<HashMap<Key, Timestamp>>,
}

impl Hearsay {
    /// A webhook's event is on the queue.
    pub(super) fn tell(&self, key: Key, now: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST {
            told.clear();
        }
        told.insert(key, now);
    }

    /// Whether it was told so long ago that it may have been dropped, now that another source has found the call.
    pub(super) fn may_be_dropped(&self, key: &Key, now: Timestamp) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = told.get(key) else { return false };
        let is_late = Duration::try_from(now.duration_since(*at)).is_ok_and(|age| age >= UNCONFIRMED);
        if !is_late {
            told.remove(key);
        }
        is_late
    }

    /// The call that another source has found is on the queue.
    pub(super) fn forget(&self, key: &Key) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
