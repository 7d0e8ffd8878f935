//! The completed calls that changed since a time, in the order of their changes.
//!
//! Rows move while they are paged: one that changes goes to the end, and those behind it each take a step forward, over
//! the boundary of two pages perhaps. So a list of several pages goes on at the newest row of a page, not behind it.
//! Where the rows do not allow that (more of one second than a page has, no times, no order) it is paged, and that
//! again until no new row appears.

use std::time::Duration;

use jiff::Timestamp;
use model::ContactId;
use nice::{CompletedFilter, ContactPage, NiceClient, NiceError};
use tracing::debug;

use super::pages::{CompletedPages, ListDoubt, PageSize};
use crate::watermark::back;

/// Rows that are paged where nothing else leads on.
const LONGEST_PAGED: u64 = 200_000;

/// How often rows are paged again that do not come to rest; the nightly comparison sees to the rest.
const MAX_ROUNDS: u32 = 5;

/// NICE's own resolution of a change may be as coarse as this.
const RESOLUTION: Duration = Duration::from_secs(1);

/// A list under way.
#[derive(Debug)]
pub(super) struct Changes {
    since: Timestamp,
    pages: CompletedPages,
    /// Where the list goes on behind the first page since `since`.
    leads_to: Option<Timestamp>,
    newest: Option<Timestamp>,
    /// NICE's clock at the first of these pages.
    poll_time: Option<Timestamp>,
    /// Rows of the longest page.
    longest: usize,
    /// More than one page is there.
    is_long: bool,
    rounds: u32,
    /// Ids of the rounds before.
    known: std::collections::HashSet<ContactId>,
    has_news: bool,
    ended: bool,
    has_stepped_over: bool,
    requests: u64,
}

impl Changes {
    pub(super) fn since(since: Timestamp) -> Self {
        Self {
            since,
            pages: CompletedPages::new(CompletedFilter::UpdatedSince(since)),
            leads_to: None,
            newest: None,
            poll_time: None,
            longest: 0,
            is_long: false,
            rounds: 0,
            known: Default::default(),
            has_news: false,
            ended: false,
            has_stepped_over: false,
            requests: 0,
        }
    }

    /// The next page; none at the end. After an error the same page again.
    pub(super) async fn next(
        &mut self,
        nice: &NiceClient,
        size: PageSize,
        now: Timestamp,
    ) -> Result<Option<ContactPage>, NiceError> {
        while !self.ended {
            let before = self.pages.requests();
            let answer = self.pages.next(nice, size).await;
            self.requests += self.pages.requests() - before;
            match answer? {
                Some(page) => {
                    self.take(&page, now)?;
                    return Ok(Some(page));
                }
                None if self.is_to_be_repeated() => {
                    self.rounds += 1;
                    self.has_news = false;
                    debug!(attempt = self.rounds, "rows move while they are paged, they are paged again");
                    self.pages = CompletedPages::new(CompletedFilter::UpdatedSince(self.since));
                }
                None => self.ended = true,
            }
        }
        Ok(None)
    }

    /// Passes over rows that cannot be had.
    pub(super) fn step_over(&mut self, rows: u32) {
        self.has_stepped_over = true;
        self.pages.step_over(rows);
    }

    /// Everything that changed before this was given.
    pub(super) fn reached(&self) -> Timestamp {
        match self.ended {
            true => self.poll_time.or(self.newest).unwrap_or(self.since),
            false => self.since,
        }
    }

    /// What speaks against it that all rows were given, once the end was reached. A count says little here, for rows
    /// come while they are listed; but none of many says that NICE hides them.
    pub(super) fn doubt(&self) -> Option<ListDoubt> {
        if self.has_stepped_over {
            return Some(ListDoubt::NotRead);
        }
        let is_unrest = self.rounds >= MAX_ROUNDS && self.has_news;
        let hidden = self.pages.doubt().filter(|doubt| *doubt == ListDoubt::Repeats || self.pages.rows() == 0);
        hidden.or(is_unrest.then_some(ListDoubt::Unrest))
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    fn take(&mut self, page: &ContactPage, now: Timestamp) -> Result<(), NiceError> {
        let is_first = self.pages.rows() == page.contacts.len() as u64;
        if is_first {
            self.poll_time = page.last_poll_time;
            self.newest = newest(page);
            self.leads_to = self.newest.map(|newest| back(newest, RESOLUTION)).filter(|next| {
                // Not beyond the present: what is to come would be passed over.
                *next > self.since && *next <= now
            });
        }
        for contact in page.contacts.iter().flatten() {
            self.has_news |= self.known.insert(contact.contact_id);
        }
        let is_full = page.contacts.len() >= self.longest;
        self.longest = self.longest.max(page.contacts.len());
        self.is_long |= !is_first;
        match self.leads_to {
            Some(next) if !is_first || (self.is_long && is_full) => {
                self.since = next;
                self.pages = CompletedPages::new(CompletedFilter::UpdatedSince(next));
                self.known.clear();
                (self.leads_to, self.rounds, self.has_news) = (None, 0, false);
            }
            _ if self.pages.rows() > LONGEST_PAGED => {
                return Err(NiceError::transient("completed: NICE's list has no end"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a row may have slipped from a page that was to come to one that was read.
    fn is_to_be_repeated(&self) -> bool {
        self.pages.requests() > 2 && self.has_news && self.rounds < MAX_ROUNDS
    }
}

/// The time of the newest row, if the rows came in their order; a row that is shown again says nothing of it.
fn newest(page: &ContactPage) -> Option<Timestamp> {
    let mut seen = std::collections::HashSet::new();
    let mut newest = None;
    for contact in page.contacts.iter().flatten().filter(|contact| seen.insert(contact.contact_id)) {
        match contact.last_update_time {
            Some(time) if newest.is_none_or(|newest| time >= newest) => newest = Some(time),
            Some(_) => return None,
            None => {}
        }
    }
    newest
}
