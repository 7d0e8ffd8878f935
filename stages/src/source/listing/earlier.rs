//! Calls that began before the range and changed since a time: a call may last longer than anybody thought.

use std::collections::HashSet;

use jiff::Timestamp;
use model::ContactId;
use nice::{NiceClient, NiceError};
use runtime::Clock;

use super::slice::{Slice, Span};
use crate::source::{changes::Changes, earliest_listed, pages::PageSize};

/// A list of them under way.
pub(super) struct EarlierCalls {
    /// Those that were given: rows come twice where they move.
    given: HashSet<ContactId>,
    before: Timestamp,
    clock: Clock,
    changes: Changes,
    /// Requests that were told with a slice.
    counted: u64,
}

impl EarlierCalls {
    pub(super) fn new(before: Timestamp, since: Timestamp, clock: Clock) -> Self {
        let since = since.max(earliest_listed(clock.now()));
        Self { given: HashSet::new(), before, clock, changes: Changes::since(since), counted: 0 }
    }

    /// The next of them, as a slice of this span; none at the end, or a last one that says what does not add up. After
    /// an error the same page again.
    pub(super) async fn next(
        &mut self,
        nice: &NiceClient,
        size: PageSize,
        span: Span,
    ) -> Result<Option<Slice>, NiceError> {
        let page = self.changes.next(nice, size, self.clock.now()).await?;
        let requests = self.changes.requests() - std::mem::replace(&mut self.counted, self.changes.requests());
        let Some(mut page) = page else {
            let doubt = self.changes.doubt();
            return Ok(doubt.map(|_| Slice { doubt, requests, ..Slice::of_pages(span, span.to, Vec::new()) }));
        };
        // A row that cannot be read is in the list by start, unless it began before.
        page.contacts.retain(|row| match row {
            Ok(call) => call.started_at.is_some_and(|start| start < self.before) && self.given.insert(call.contact_id),
            Err(bad) => bad.contact_id.is_some_and(|id| self.given.insert(id)),
        });
        Ok(Some(Slice { requests, ..Slice::of_pages(span, span.to, vec![page]) }))
    }
}
