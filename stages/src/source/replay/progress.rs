//! What a run remembers while this process works on it. After a crash the run itself says how far it came.

use std::collections::{HashMap, VecDeque};

use catalog::RunKind;
use flow::StageError;
use jiff::Timestamp;
use model::{ContactEvent, ContactId};

use super::LEAD;
use crate::source::{
    compare::{CallStatus, Compare},
    listing::Listing,
};

/// How far the work is, beside what stands in the run.
#[derive(Default)]
pub(super) struct ReplayProgress {
    /// Published of the slice at hand, also when it was tried before, and whether it was missing.
    sent: HashMap<ContactId, bool>,
    /// What a backfill published last, as far as it is on its way: at most [`LEAD`].
    recent: VecDeque<ContactEvent>,
    /// The listing that was broken off by trouble of NICE's.
    pub(super) listing: Option<Listing>,
    /// The beginning of the work is noted in the run.
    pub(super) is_timed: bool,
    /// Somebody began the run before, and may have been broken off in the slice at hand.
    pub(super) may_be_resumed: bool,
}

impl ReplayProgress {
    /// Notes a call that is being published.
    pub(super) fn sending(&mut self, kind: RunKind, event: &ContactEvent, was_missing: bool) {
        self.sent.insert(event.conversation, was_missing);
        if kind == RunKind::Backfill {
            self.recent.push_back(event.clone());
            if self.recent.len() as u64 > LEAD {
                self.recent.pop_front();
            }
        }
    }

    /// Whether a call that is on its way was missing, and published by this run before it was broken off in this slice.
    pub(super) fn was_missing(
        &self,
        event: &ContactEvent,
        enqueued_at: Option<Timestamp>,
        published_since: Timestamp,
    ) -> bool {
        let is_of_this_run = || self.may_be_resumed && enqueued_at.is_some_and(|at| at >= published_since);
        self.sent.get(&event.conversation).copied().unwrap_or_else(is_of_this_run)
    }

    /// Calls published of the slice at hand.
    pub(super) fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Everything of the slice at hand is on the queue.
    pub(super) fn slice_is_done(&mut self) {
        self.sent.clear();
        self.may_be_resumed = false;
    }

    /// How many of the calls that were published last are still on their way.
    pub(super) async fn on_their_way(&mut self, compare: &Compare) -> Result<u64, StageError> {
        let mut statuses = compare.compare(self.recent.make_contiguous()).await?.into_iter();
        self.recent.retain(|_| matches!(statuses.next(), Some(CallStatus::InFlight { .. })));
        Ok(self.recent.len() as u64)
    }
}
