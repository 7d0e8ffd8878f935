//! A range of NICE's completed calls, slice by slice.
//!
//! In: a span of time, by the start of calls. Out: slices of it in their order, each with all its rows.
//!
//! A slice is as long as one answer of NICE holds: nothing is paged, and so no row can slip from a page that is to come
//! to one that was read, whatever changes meanwhile. The length follows the density of the calls. Only where a single
//! second has more rows than an answer, it is paged, and that again until no row is missing.
//!
//! Days beyond NICE's reach are read by data extraction where that is wanted: a slice is a day then, or what is left of
//! it, and of a call there is no end.
//!
//! Nothing is kept: whoever lists remembers up to where it came, and begins another listing there.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tracing::debug;

use super::{ListError, REACH};
use crate::clients::nice::{
    BadRow, CompletedFilter, CompletedQuery, Contact, ContactPage, ExtractedLeg, NiceError, QuotaClass,
};
use crate::clients::tenants::{Tenant, Tenants};
use crate::flow::Clock;
use crate::model::{AgentId, ContactId, TenantId};

/// Rows asked for at a time: requests are what a long range costs. NICE gives up to 10,000; a page of this size has
/// some 12 MiB.
pub const PAGE: u32 = 4_000;

/// A slice is planned to fill this part of a page, so that it seldom has to be cut.
const FILL: f64 = 0.7;

/// Below it, time is not divided further: NICE's times may be as coarse.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

/// Long enough that an empty month is read at once in few requests, short enough for NICE's own limits.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// The most rows of one second.
const MOST_OF_A_SECOND: u64 = 100_000;

/// How often a second is paged that does not come to rest.
const MAX_REPEATS: u32 = 5;

/// The most calls of a day that data extraction lists: far more than a tenant has.
const MOST_OF_A_DAY: usize = 1_000_000;

/// What a listing says of a call. Small, since there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The leg.
    pub contact_id: ContactId,
    /// The call it belongs to.
    pub master_contact_id: ContactId,
    /// The agent; none for a call that nobody took.
    pub agent_id: Option<AgentId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// It is a phone call.
    pub is_phone_call: bool,
}

impl From<&Contact> for Listed {
    fn from(contact: &Contact) -> Self {
        Self {
            contact_id: contact.contact_id,
            master_contact_id: contact.master_contact_id,
            agent_id: contact.agent_id,
            started_at: contact.started_at,
            ended_at: contact.ended_at(),
            is_phone_call: contact.is_phone_call(),
        }
    }
}

impl From<&ExtractedLeg> for Listed {
    fn from(leg: &ExtractedLeg) -> Self {
        Self {
            contact_id: leg.contact_id,
            master_contact_id: leg.master_contact_id,
            agent_id: leg.agent_id,
            started_at: leg.started_at,
            ended_at: None,
            is_phone_call: true,
        }
    }
}

/// A piece of the range, with all calls that began in it.
#[derive(Debug)]
pub struct Slice {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment after its last.
    pub to: Timestamp,
    /// The calls, each once.
    pub calls: Vec<Listed>,
    /// Rows that cannot be read as calls.
    pub bad: Vec<BadRow>,
    /// Requests that it took.
    pub requests: u64,
}

/// Reads a range.
pub struct Listing {
    tenants: Arc<Tenants>,
    tenant: TenantId,
    class: QuotaClass,
    reached: Timestamp,
    to: Timestamp,
    length: SignedDuration,
    /// By which NICE's reach is told; none where days beyond it are not wanted.
    extracts: Option<Clock>,
}

impl Listing {
    /// Of the calls that began in `[from, to)`; nothing is asked yet.
    pub fn new(tenants: Arc<Tenants>, tenant: TenantId, class: QuotaClass, from: Timestamp, to: Timestamp) -> Self {
        // Slices end where NICE's times can: within a millisecond, the call of both sides would be listed twice.
        let from = Timestamp::from_millisecond(from.as_millisecond()).unwrap_or(from);
        Self { tenants, tenant, class, reached: from, to, length: LONGEST, extracts: None }
    }

    /// Reads days beyond NICE's reach by data extraction.
    pub fn extracting(self, clock: Clock) -> Self {
        Self { extracts: Some(clock), ..self }
    }

    /// The next slice, or none at the end of the range. The same one again until [`Listing::passed`] is told of it.
    pub async fn next(&mut self) -> Result<Option<Slice>, ListError> {
        let mut requests = 0;
        if self.reached < self.to
            && let Some(clock) = &self.extracts
            && self.reached < horizon(clock.now())
        {
            return self.extracted().await.map(Some);
        }
        while self.reached < self.to {
            let from = self.reached;
            let to = from.checked_add(self.length).unwrap_or(Timestamp::MAX).min(self.to);
            let page = self.page(from, to, 0).await?;
            requests += 1;
            let rows = page.contacts.len() as u64;
            let span = to.duration_since(from);
            if !is_more(&page, rows) {
                self.length = lengthened(self.length.max(span), rows);
                return Ok(Some(self.slice(from, to, listed(page.contacts), requests)));
            }
            if span <= SHORTEST {
                let (rows, asked) = self.page_through(from, to).await?;
                return Ok(Some(self.slice(from, to, rows, requests + asked)));
            }
            self.length = shortened(span, rows, page.total);
        }
        Ok(None)
    }

    /// Goes on behind this slice.
    pub fn passed(&mut self, slice: &Slice) {
        self.reached = slice.to;
    }

    async fn page(&self, from: Timestamp, to: Timestamp, skip: u64) -> Result<ContactPage, ListError> {
        let tenant = self.tenant().await?;
        let query = CompletedQuery { filter: CompletedFilter::Started { from, to }, top: PAGE, skip, next: None };
        Ok(tenant.nice.for_class(self.class).completed(&query).await?)
    }

    async fn tenant(&self) -> Result<Arc<Tenant>, ListError> {
        self.tenants.get(&self.tenant).await.map_err(ListError::Settings)
    }

    /// What is left of the day on which the listing stands. Calls without a recording of voice are left out: nothing of
    /// them could be imported.
    async fn extracted(&self) -> Result<Slice, ListError> {
        let day = self.reached.to_zoned(TimeZone::UTC).date();
        let to = first_moment_after(day).min(self.to);
        let tenant = self.tenant().await?;
        let mut rows = std::pin::pin!(tenant.nice.extract(day, day).await?.into_legs());
        let (mut calls, mut bad) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next().await {
            match row? {
                Ok(leg) if leg.has_voice => calls.push(Listed::from(&leg)),
                Ok(_) => {}
                Err(row) => bad.push(row),
            }
            if calls.len() + bad.len() > MOST_OF_A_DAY {
                return Err(NiceError::permanent("extraction: the day has more calls than any tenant").into());
            }
        }
        calls.sort_unstable_by_key(|call| (call.started_at, call.contact_id));
        Ok(Slice { from: self.reached, to, calls, bad, requests: 0 })
    }

    /// Each call once. One that began at the very end belongs to the next slice, if there is one.
    fn slice(&self, from: Timestamp, to: Timestamp, rows: Vec<Result<Listed, BadRow>>, requests: u64) -> Slice {
        let mut calls = HashMap::with_capacity(rows.len());
        let mut bad = Vec::new();
        for row in rows {
            match row {
                Ok(call) if to < self.to && call.started_at.is_some_and(|start| start >= to) => {}
                Ok(call) => drop(calls.insert(call.contact_id, call)),
                Err(row) => bad.push(row),
            }
        }
        let mut calls: Vec<_> = calls.into_values().collect();
        calls.sort_unstable_by_key(|call| (call.started_at, call.contact_id));
        Slice { from, to, calls, bad, requests }
    }

    /// All rows of a span that cannot be cut. Rows may move from page to page meanwhile: paged again until all are
    /// there that NICE says there are, or until nothing new appears. Pages overlap by half then, for a row that moved
    /// over the boundary of two stands in the middle of another.
    async fn page_through(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(Vec<Result<Listed, BadRow>>, u64), ListError> {
        let mut found = HashMap::new();
        // By its reason: in an overlap a row comes twice.
        let mut bad = HashMap::new();
        let mut requests = 0;
        for repeat in 0..=MAX_REPEATS {
            let (before, mut skip, mut total) = (found.len(), 0, None);
            loop {
                let page = self.page(from, to, skip).await?;
                requests += 1;
                let rows = page.contacts.len() as u64;
                let more = is_more_after(&page, skip, rows);
                total = page.total.or(total);
                for row in listed(page.contacts) {
                    match row {
                        Ok(call) => drop(found.insert(call.contact_id, call)),
                        Err(row) => drop(bad.insert(row.reason.clone(), row)),
                    }
                }
                if !more || rows == 0 {
                    break;
                }
                skip += if repeat == 0 { rows } else { rows.div_ceil(2) };
                if skip >= MOST_OF_A_SECOND {
                    return Err(NiceError::transient("completed: NICE's list has no end").into());
                }
            }
            let all_there = total.is_some_and(|total| (found.len() + bad.len()) as u64 >= total);
            if all_there || (repeat > 0 && found.len() == before) {
                break;
            }
            debug!(repeat, "rows move while they are paged, paged again");
        }
        Ok((found.into_values().map(Ok).chain(bad.into_values().map(Err)).collect(), requests))
    }
}

/// The first moment of the day from which on the list of completed calls is whole.
pub fn horizon(now: Timestamp) -> Timestamp {
    let reach = now.checked_sub(REACH).unwrap_or(Timestamp::MIN);
    first_moment_after(reach.to_zoned(TimeZone::UTC).date())
}

fn first_moment_after(day: Date) -> Timestamp {
    let next = day.tomorrow().ok().and_then(|next| next.to_zoned(TimeZone::UTC).ok());
    next.map_or(Timestamp::MAX, |next| next.timestamp())
}

/// The little that a listing keeps of a page.
fn listed(rows: Vec<Result<Contact, BadRow>>) -> Vec<Result<Listed, BadRow>> {
    rows.into_iter().map(|row| row.map(|contact| Listed::from(&contact))).collect()
}

fn is_more(page: &ContactPage, rows: u64) -> bool {
    is_more_after(page, 0, rows)
}

/// Whether rows follow after the `rows` that stand after `skip` others.
pub(super) fn is_more_after(page: &ContactPage, skip: u64, rows: u64) -> bool {
    let listed = skip.saturating_add(rows);
    page.next.is_some()
        || page.refused_next
        || page.total.is_some_and(|total| total > listed)
        || (page.total.is_none() && rows >= u64::from(PAGE))
}

/// The length of the next slice after one of `length` that had so many rows.
fn lengthened(length: SignedDuration, rows: u64) -> SignedDuration {
    let wanted = f64::from(PAGE) * FILL;
    // Growing at most fourfold: the calls of a night say little of those of the morning.
    let factor = (wanted / (rows.max(1) as f64)).min(4.0);
    scaled(length, factor)
}

/// The length after a slice of `span` turned out to have more rows than an answer.
fn shortened(span: SignedDuration, rows: u64, total: Option<u64>) -> SignedDuration {
    let total = total.unwrap_or_default().max(rows.saturating_mul(2)).max(1);
    // What an answer really held, which may be less than was asked for.
    scaled(span, rows.max(1) as f64 * FILL / total as f64)
}

fn scaled(length: SignedDuration, factor: f64) -> SignedDuration {
    let scaled = SignedDuration::from_millis((length.as_millis() as f64 * factor) as i64);
    scaled.clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests;
