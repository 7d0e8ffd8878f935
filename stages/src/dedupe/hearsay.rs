//! What a webhook told first: ids that NICE may not know, or of which it may not have known all yet.
//!
//! The consumer drops such an id after an hour in which NICE did not know it. When the poll finds it later, it was
//! real, and late: the dedupe lets it through once more. It also drops one whose record names no agent of the group.
//! When the poll finds the call with one, within the hour, the dedupe asks what became of it, now and then as long as
//! it is listed. Kept in memory: after a restart the nightly comparison finds it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flow::retry::UNCONFIRMED;
use jiff::Timestamp;
use model::Key;

/// Time between two questions what became of an id. The poll lists a call again and again for as long as it overlaps.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// An id is asked for at most so often: by then the call is imported, or the nightly comparison's.
const MOST_QUESTIONS: u8 = 20;

/// More ids than honest webhooks tell before the poll finds the calls; some 5 MB. Of more, all of before are forgotten.
const MOST: usize = 100_000;

/// What is to be done with an event that another source found and that is on the queue already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HearsayCheck {
    /// It is known.
    None,
    /// It may have been dropped: the catalog knows.
    Ask,
    /// It was dropped, or nobody can tell any more.
    Dropped,
}

#[derive(Debug, Clone, Copy)]
struct HearsayEntry {
    at: Timestamp,
    /// Another source has found it since: when the catalog was last asked, and how often.
    asked: Option<(Timestamp, u8)>,
}

/// When each id was told.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    told: Mutex<HashMap<Key, HearsayEntry>>,
}

impl Hearsay {
    /// A webhook's event is on the queue.
    pub(super) fn tell(&self, key: Key, now: Timestamp) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST {
            told.clear();
        }
        told.insert(key, HearsayEntry { at: now, asked: None });
    }

    /// Whether it may have been dropped, now that another source has found the call.
    pub(super) fn doubt(&self, key: &Key, now: Timestamp) -> HearsayCheck {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = all.get_mut(key) else { return HearsayCheck::None };
        let is_past =
            |since: Timestamp, by: Duration| Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= by);
        match told.asked {
            None if is_past(told.at, UNCONFIRMED) => HearsayCheck::Dropped,
            Some((_, MOST_QUESTIONS)) => {
                all.remove(key);
                HearsayCheck::None
            }
            Some((last, _)) if !is_past(last, ASK_AGAIN) => HearsayCheck::None,
            asked => {
                told.asked = Some((now, asked.map_or(1, |(_, times)| times + 1)));
                HearsayCheck::Ask
            }
        }
    }

    /// The call is on the queue as another source found it, or needs no further care.
    pub(super) fn forget(&self, key: &Key) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
