//! A range of NICE's completed calls, slice by slice.
//!
//! In: a span of time, by the start of calls. Out: slices of it in their order, each with all its rows.
//!
//! A slice fits into one answer of NICE: the request for a second page returns nothing. So no row can move from a page
//! that is to come to one that was read, whatever changes meanwhile. The length follows the
//! density of the calls. Only where a single second has more rows than an answer, it is paged, and that again until no
//! row is missing. What NICE cannot give in time, or at all, is asked for in shorter slices, and at last in fewer rows.
//!
//! What does not add up is asked for again, and if it still does not, the slice is handed on with its `ListDoubt`.
//!
//! Days beyond NICE's reach are read by data extraction where that is wanted: a slice is a day then, or what is left of
//! it, and of a call there is no end. Calls that began before the range, and changed since a time, are read at its end
//! where those are wanted: a call may last longer than anybody thought.
//!
//! Nothing is kept: whoever lists remembers up to where it came, and begins another listing there.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{QuotaClass, TenantId};
use nice::{CompletedQuery, NiceClient, NiceError};
use runtime::Clock;
use tracing::{debug, warn};

use self::{earlier::EarlierCalls, length::SliceLength, slice::Span, span::SpanAnswer};
use super::{ListError, pages::PageSize};
use crate::tenants::{Tenant, Tenants};

mod earlier;
mod extraction;
mod length;
mod slice;
mod span;

pub use self::{
    extraction::horizon,
    slice::{ListedCall, Slice},
};

/// What cannot be had so often, each time after a pause, is passed over: it must not keep the rest waiting for ever.
pub(crate) const MOST_FAILURES: u32 = 3;

/// Reads a range.
pub struct Listing {
    tenants: Arc<Tenants>,
    tenant: TenantId,
    class: QuotaClass,
    reached: Timestamp,
    to: Timestamp,
    length: SliceLength,
    size: Option<PageSize>,
    /// Rows of the longest answer: what NICE gives at a time, perhaps.
    longest: usize,
    /// The slice at hand did not add up, and is asked for again.
    doubted: bool,
    /// How often in a row the least was asked for in vain.
    failures: u32,
    /// It was said that something does not add up.
    warned: bool,
    /// By which NICE's reach is told; none where days beyond it are not wanted.
    extracts: Option<Clock>,
    earlier: Option<EarlierCalls>,
}

impl Listing {
    /// Of the calls that began in `[from, to)`; nothing is asked yet.
    pub fn new(tenants: Arc<Tenants>, tenant: TenantId, class: QuotaClass, from: Timestamp, to: Timestamp) -> Self {
        // Slices end where NICE's times can: within a millisecond, the call of both sides would be listed twice.
        let from = Timestamp::from_millisecond(from.as_millisecond()).unwrap_or(from);
        Self {
            tenants,
            tenant,
            class,
            reached: from,
            to,
            length: SliceLength::longest(),
            size: None,
            longest: 0,
            doubted: false,
            failures: 0,
            warned: false,
            extracts: None,
            earlier: None,
        }
    }

    /// Reads days beyond NICE's reach by data extraction.
    pub fn extracting(self, clock: Clock) -> Self {
        Self { extracts: Some(clock), ..self }
    }

    /// Reads at the end the calls too that began before `before` and changed since `since`.
    pub fn with_earlier(self, before: Timestamp, since: Timestamp, clock: Clock) -> Self {
        Self { earlier: Some(EarlierCalls::new(before, since, clock)), ..self }
    }

    /// The next slice, or none at the end of the range. The same one again until [`Listing::passed`] is told of it.
    pub async fn next(&mut self) -> Result<Option<Slice>, ListError> {
        let tenant = self.tenant().await?;
        let nice = tenant.nice.for_class(self.class);
        if self.reached >= self.to {
            return Ok(self.next_earlier(&nice).await?);
        }
        if let Some(clock) = &self.extracts
            && self.reached < horizon(clock.now())
        {
            return Ok(Some(extraction::read_day(&tenant.nice, self.reached, self.to).await?));
        }
        Ok(Some(self.next_slice(&nice).await?))
    }

    /// Goes on behind this slice.
    pub fn passed(&mut self, slice: &Slice) {
        self.reached = slice.to.max(self.reached);
        if let Some(size) = &mut self.size {
            size.grow();
        }
    }

    async fn next_slice(&mut self, nice: &NiceClient) -> Result<Slice, NiceError> {
        let mut size = self.size(nice);
        let mut requests = 0;
        loop {
            let span = self.next_span();
            let (from, to, length) = (span.from, span.to, span.length());
            match span::read(nice, size, span, &mut self.longest, &mut requests).await {
                Err(error @ NiceError::TooMuch { .. }) if self.length.halve(length) => {
                    debug!(%error, %from, %to, "NICE does not give so much, less is asked for");
                }
                Err(NiceError::TooMuch { why, .. }) if size.shrink(why) => {}
                Err(error) if self.is_given_up(&error, nice, to).await => {
                    warn!(%error, %from, %to, "a piece of NICE's list cannot be had, the listing goes on behind it");
                    return Ok(Slice { requests, ..Slice::unread(span) });
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    (self.size, self.failures) = (Some(size), 0);
                    if let Some(slice) = self.take(answer, span, size) {
                        return Ok(Slice { requests, ..slice });
                    }
                }
            }
        }
    }

    fn next_span(&self) -> Span {
        let to = self.reached.checked_add(self.length.get()).unwrap_or(Timestamp::MAX);
        Span { from: self.reached, to: to.min(self.to) }
    }

    /// The slice that an answer holds; none where it is to be asked for again, or is too long.
    fn take(&mut self, answer: SpanAnswer, span: Span, size: PageSize) -> Option<Slice> {
        let Span { from, to } = span;
        let (pages, doubt) = match answer {
            SpanAnswer::Whole(pages, doubt) => (pages, doubt),
            SpanAnswer::More(rows) => {
                self.length.shorten(span.length(), self.longest as u64, rows);
                return None;
            }
        };
        if let Some(doubt) = doubt {
            if !std::mem::replace(&mut self.doubted, true) {
                debug!(%doubt, %from, %to, "the list does not add up, it is read again");
                return None;
            }
            if !std::mem::replace(&mut self.warned, true) {
                warn!(%doubt, %from, %to, "NICE's list does not add up: calls may be missing from it");
            }
        }
        self.doubted = doubt.is_some();
        let rows = pages.iter().map(|page| page.contacts.len() as u64).sum();
        self.length.adapt(span.length(), rows, size);
        Some(Slice { doubt, ..Slice::of_pages(span, self.to, pages) })
    }

    /// The next page of the calls that began before the range; none where they are not wanted.
    async fn next_earlier(&mut self, nice: &NiceClient) -> Result<Option<Slice>, NiceError> {
        let mut size = self.size(nice);
        let span = Span { from: self.to, to: self.to };
        loop {
            let Some(earlier) = &mut self.earlier else { return Ok(None) };
            match earlier.next(nice, size, span).await {
                Err(NiceError::TooMuch { why, .. }) if size.shrink(why) => {}
                Err(error) if self.is_given_up(&error, nice, self.to).await => {
                    warn!(%error, "the calls that began before the range cannot be had");
                    self.earlier = None;
                    return Ok(Some(Slice::unread(span)));
                }
                Err(error) => return Err(error),
                Ok(slice) => {
                    self.failures = 0;
                    if slice.as_ref().is_none_or(|slice| slice.doubt.is_some()) {
                        self.earlier = None;
                    }
                    return Ok(slice);
                }
            }
        }
    }

    /// Counts what cannot be had; true once it has happened often enough, while NICE answers otherwise.
    async fn is_given_up(&mut self, error: &NiceError, nice: &NiceClient, at: Timestamp) -> bool {
        if !matches!(error, NiceError::TooMuch { .. }) {
            return false;
        }
        self.failures += 1;
        let is_given_up = self.failures >= MOST_FAILURES && answers_otherwise(nice, at).await;
        if is_given_up {
            self.failures = 0;
        }
        is_given_up
    }

    async fn tenant(&self) -> Result<Arc<Tenant>, ListError> {
        self.tenants.get(&self.tenant).await.map_err(ListError::Settings)
    }

    fn size(&mut self, nice: &NiceClient) -> PageSize {
        *self.size.get_or_insert(PageSize::new(nice.page_size()))
    }
}

/// Whether NICE answers a question that asks for next to nothing: if not, it is NICE that is away, and no piece of the
/// list that cannot be had.
async fn answers_otherwise(nice: &NiceClient, from: Timestamp) -> bool {
    let to = from.checked_add(SignedDuration::from_millis(1)).unwrap_or(from);
    let filter = Span { from, to }.filter();
    nice.completed(&CompletedQuery { filter, top: 1, skip: 0, next: None }).await.is_ok()
}

#[cfg(test)]
mod tests;
