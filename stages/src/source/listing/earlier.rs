//! Calls that began before the range and changed since a time: a call may last longer than anybody thought.

use std::collections::HashSet;

use jiff::Timestamp;
use model::ContactId;
use nice::{ContactPage, NiceClient, NiceError};
use runtime::Clock;

use crate::source::{
    changes::Changes,
    earliest_listed,
    pages::{ListDoubt, PageSize},
};

/// A list of them under way.
pub(super) struct EarlierCalls {
    /// Those that were given: rows come twice where they move.
    given: HashSet<ContactId>,
    before: Timestamp,
    clock: Clock,
    changes: Changes,
}

impl EarlierCalls {
    pub(super) fn new(before: Timestamp, since: Timestamp, clock: Clock) -> Self {
        let since = since.max(earliest_listed(clock.now()));
        Self { given: HashSet::new(), before, clock, changes: Changes::since(since) }
    }

    /// The next page of them; none at the end. After an error the same page again.
    pub(super) async fn next(&mut self, nice: &NiceClient, size: PageSize) -> Result<Option<ContactPage>, NiceError> {
        let Some(mut page) = self.changes.next(nice, size, self.clock.now()).await? else { return Ok(None) };
        // A row that cannot be read is in the list by start, unless it began before.
        page.contacts.retain(|row| match row {
            Ok(call) => call.started_at.is_some_and(|start| start < self.before) && self.given.insert(call.contact_id),
            Err(bad) => bad.contact_id.is_some_and(|id| self.given.insert(id)),
        });
        Ok(Some(page))
    }

    pub(super) fn doubt(&self) -> Option<ListDoubt> {
        self.changes.doubt()
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.changes.requests()
    }
}
