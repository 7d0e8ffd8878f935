//! A range of NICE's completed calls, slice by slice.
//!
//! In: a span of time, by the start of calls. Out: slices of it in their order, each with all its rows.
//!
//! A slice is as long as one answer of NICE holds: the question for what follows it is answered with nothing, and so no
//! row can slip from a page that is to come to one that was read, whatever changes meanwhile. The length follows the
//! density of the calls. Only where a single second has more rows than an answer, it is paged, and that again until no
//! row is missing. What NICE cannot give in time, or at all, is asked for in shorter slices, and at last in fewer rows.
//!
//! What does not add up is asked for again, and if it still does not, the slice is handed on with its [`Doubt`].
//!
//! Days beyond NICE's reach are read by data extraction where that is wanted: a slice is a day then, or what is left of
//! it, and of a call there is no end. Calls that began before the range, and changed since a time, are read at its end
//! where those are wanted: a call may last longer than anybody thought.
//!
//! Nothing is kept: whoever lists remembers up to where it came, and begins another listing there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use model::{AgentId, ContactId, QuotaClass, TenantId};
use nice::{BadRow, CompletedFilter, CompletedQuery, Contact, ContactPage, ExtractedLeg, NiceClient, NiceError, Row};
use runtime::Clock;
use tracing::{debug, warn};

use super::changes::Changes;
use super::pages::{Doubt, PageSize, Pages};
use super::{ListError, REACH};
use crate::tenants::{Tenant, Tenants};

/// A slice is planned to fill this part of a page, so that it seldom has to be cut.
const FILL: f64 = 0.7;

/// Below it, time is not divided further: NICE's times may be as coarse.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

/// What NICE cannot give is asked for in slices down to this length.
const SHORTEST_ASKED: SignedDuration = SignedDuration::from_mins(1);

/// What cannot be had so often, each time after a pause, is passed over: it must not keep the rest waiting for ever.
pub(crate) const MOST_FAILURES: u32 = 3;

/// Long enough that an empty month is read at once in few requests, short enough for NICE's own limits.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// The most rows of one second.
const MOST_OF_A_SECOND: usize = 100_000;

/// How often a second is paged that does not come to rest.
const MAX_ROUNDS: u32 = 5;

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
    /// When NICE last changed it.
    pub changed_at: Option<Timestamp>,
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
            changed_at: contact.last_update_time,
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
            changed_at: None,
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
    /// What speaks against it that these are all.
    pub doubt: Option<Doubt>,
    /// The latest time that NICE's clock showed.
    pub told_at: Option<Timestamp>,
}

/// Reads a range.
pub struct Listing {
    tenants: Arc<Tenants>,
    tenant: TenantId,
    class: QuotaClass,
    reached: Timestamp,
    to: Timestamp,
    length: SignedDuration,
    /// What is longer NICE does not give.
    most: SignedDuration,
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
    earlier: Option<Earlier>,
}

/// Calls that began before the range and changed since a time.
struct Earlier {
    /// Those that were given: rows come twice where they move.
    given: HashSet<ContactId>,
    before: Timestamp,
    clock: Clock,
    changes: Changes,
}

/// What came of the question for a slice.
enum Read {
    Slice(Vec<ContactPage>, Option<Doubt>),
    /// There are more rows than an answer holds, so many at least.
    More(u64),
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
            length: LONGEST,
            most: LONGEST,
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
        let since = since.max(clock.now().checked_sub(REACH).unwrap_or(Timestamp::MIN));
        Self { earlier: Some(Earlier { given: HashSet::new(), before, clock, changes: Changes::since(since) }), ..self }
    }

    /// The next slice, or none at the end of the range. The same one again until [`Listing::passed`] is told of it.
    pub async fn next(&mut self) -> Result<Option<Slice>, ListError> {
        if self.reached < self.to
            && let Some(clock) = &self.extracts
            && self.reached < horizon(clock.now())
        {
            return self.extracted().await.map(Some);
        }
        if self.reached >= self.to {
            return self.earlier().await;
        }
        let nice = self.tenant().await?.nice.for_class(self.class);
        let mut size = *self.size.get_or_insert(PageSize::new(nice.page_size()));
        let mut requests = 0;
        loop {
            let (from, to) =
                (self.reached, self.reached.checked_add(self.length).unwrap_or(Timestamp::MAX).min(self.to));
            let span = to.duration_since(from);
            let read = match self.read(&nice, size, from, to, &mut requests).await {
                Err(NiceError::TooMuch { what, .. }) if span > SHORTEST_ASKED => {
                    debug!(reason = what, %from, %to, "NICE does not give so much, less is asked for");
                    self.most = (span / 2).max(SHORTEST_ASKED);
                    self.length = self.most;
                    continue;
                }
                Err(NiceError::TooMuch { why, .. }) if size.shrink(why) => continue,
                Err(NiceError::TooMuch { what, .. })
                    if self.failures + 1 >= MOST_FAILURES && answers_otherwise(&nice, to).await =>
                {
                    warn!(reason = what, %from, %to, "a piece of NICE's list cannot be had, the listing goes on behind it");
                    self.failures = 0;
                    return Ok(Some(self.slice(from, to, Vec::new(), Some(Doubt::NotRead), requests)));
                }
                Err(error) => {
                    self.failures += u32::from(matches!(error, NiceError::TooMuch { .. }));
                    return Err(error.into());
                }
                Ok(read) => read,
            };
            (self.size, self.failures) = (Some(size), 0);
            match read {
                Read::Slice(_, Some(doubt)) if !self.doubted => {
                    debug!(%doubt, %from, %to, "the list does not add up, it is read again");
                    self.doubted = true;
                }
                Read::Slice(pages, doubt) => {
                    if let Some(doubt) = doubt
                        && !std::mem::replace(&mut self.warned, true)
                    {
                        warn!(%doubt, %from, %to, "NICE's list does not add up: calls may be missing from it");
                    }
                    self.doubted = doubt.is_some();
                    let rows = pages.iter().map(|page| page.contacts.len() as u64).sum();
                    self.length = lengthened(self.length.max(span), rows, size).min(self.most);
                    // What was too much once may have been an outage: tried again, seldom.
                    self.most = scaled(self.most, 1.05);
                    return Ok(Some(self.slice(from, to, pages, doubt, requests)));
                }
                Read::More(rows) => self.length = shortened(span, self.longest as u64, rows),
            }
        }
    }

    /// Goes on behind this slice.
    pub fn passed(&mut self, slice: &Slice) {
        self.reached = slice.to.max(self.reached);
        if let Some(size) = &mut self.size {
            size.grow();
        }
    }

    /// Asks for a slice, and for what follows on it.
    async fn read(
        &mut self,
        nice: &NiceClient,
        size: PageSize,
        from: Timestamp,
        to: Timestamp,
        requests: &mut u64,
    ) -> Result<Read, NiceError> {
        let filter = CompletedFilter::Started { from, to };
        // No answer is longer than what is asked for now.
        self.longest = self.longest.min(size.rows() as usize);
        let mut pages = Pages::new(filter);
        let mut read = Vec::new();
        let outcome = loop {
            let page = match pages.next(nice, size).await {
                Ok(Some(page)) => page,
                Ok(None) => break Ok(Read::Slice(read, pages.doubt())),
                Err(error) => break Err(error),
            };
            let rows = page.contacts.len();
            self.longest = self.longest.max(rows);
            // A server that does not pass over rows shows the same again. Unless it cuts its answers short, all are there.
            // Others that were there are rows that moved, and one may have slipped.
            let is_the_same =
                pages.repeats() && read.first().is_some_and(|first: &ContactPage| first.contacts.len() == rows);
            let is_cut_short = !is_the_same || rows * 4 >= self.longest * 3;
            if !read.is_empty() && is_cut_short {
                if to.duration_since(from) > SHORTEST {
                    // How many there are is worth a guess: a wrong one costs requests.
                    break Ok(Read::More(pages.rows().max(pages.announced().unwrap_or_default())));
                }
                let mut asked = 0;
                let paged = page_through(nice, size, filter, &mut asked).await;
                *requests += asked;
                break paged;
            }
            match pages.repeats() {
                true => break Ok(Read::Slice(read, pages.total_doubt())),
                false => read.push(page),
            }
        };
        *requests += pages.requests();
        outcome
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
        Ok(Slice { from: self.reached, to, calls, bad, requests: 0, doubt: None, told_at: None })
    }

    /// The next page of the calls that began before the range; none where they are not wanted.
    async fn earlier(&mut self) -> Result<Option<Slice>, ListError> {
        let nice = self.tenant().await?.nice.for_class(self.class);
        let Some(Earlier { given, before, clock, changes }) = &mut self.earlier else { return Ok(None) };
        let mut size = *self.size.get_or_insert(PageSize::new(nice.page_size()));
        let requests = changes.requests();
        let page = loop {
            match changes.next(&nice, size, clock.now()).await {
                Err(NiceError::TooMuch { why, .. }) if size.shrink(why) => {}
                Err(NiceError::TooMuch { what, .. })
                    if self.failures + 1 >= MOST_FAILURES && answers_otherwise(&nice, self.to).await =>
                {
                    warn!(reason = what, "the calls that began before the range cannot be had");
                    self.earlier = None;
                    let slice = self.slice(self.to, self.to, Vec::new(), Some(Doubt::NotRead), 0);
                    return Ok(Some(slice));
                }
                Err(error) => {
                    self.failures += u32::from(matches!(error, NiceError::TooMuch { .. }));
                    return Err(error.into());
                }
                Ok(page) => break page,
            }
        };
        self.failures = 0;
        let Some(mut page) = page else {
            let doubt = changes.doubt();
            self.earlier = None;
            return Ok(doubt.map(|doubt| self.slice(self.to, self.to, Vec::new(), Some(doubt), 0)));
        };
        let requests = changes.requests() - requests;
        // A row that cannot be read is in the list by start, unless it began before.
        page.contacts.retain(|row| match row {
            Ok(call) => call.started_at.is_some_and(|start| start < *before) && given.insert(call.contact_id),
            Err(bad) => bad.contact_id.is_some_and(|id| given.insert(id)),
        });
        Ok(Some(self.slice(self.to, self.to, vec![page], None, requests)))
    }

    /// Each call once. One that began at the very end belongs to the next slice, if there is one.
    fn slice(
        &self,
        from: Timestamp,
        to: Timestamp,
        pages: Vec<ContactPage>,
        doubt: Option<Doubt>,
        requests: u64,
    ) -> Slice {
        let told_at = pages.iter().filter_map(|page| page.last_poll_time).max();
        let mut calls = BTreeMap::new();
        // By its reason: where pages overlap a row comes twice.
        let mut bad = BTreeMap::new();
        for row in pages.into_iter().flat_map(|page| page.contacts) {
            match row {
                Ok(call) if to < self.to && call.started_at.is_some_and(|start| start >= to) => {}
                Ok(call) => drop(calls.insert(call.contact_id, Listed::from(&call))),
                Err(row) => drop(bad.insert((row.contact_id, row.reason.clone()), row)),
            }
        }
        let mut calls: Vec<_> = calls.into_values().collect();
        calls.sort_unstable_by_key(|call| (call.started_at, call.contact_id));
        Slice { from, to, calls, bad: bad.into_values().collect(), requests, doubt, told_at }
    }
}

/// Whether NICE answers a question that asks for next to nothing: if not, it is NICE that is away, and no piece of the
/// list that cannot be had.
async fn answers_otherwise(nice: &NiceClient, from: Timestamp) -> bool {
    let to = from.checked_add(SignedDuration::from_millis(1)).unwrap_or(from);
    let filter = CompletedFilter::Started { from, to };
    nice.completed(&CompletedQuery { filter, top: 1, skip: 0, next: None }).await.is_ok()
}

/// All rows of a span that cannot be cut. Rows may move from page to page meanwhile: paged again, in pages that overlap,
/// until they are as many as NICE says there are, or until nothing new appears.
async fn page_through(
    nice: &NiceClient,
    size: PageSize,
    filter: CompletedFilter,
    requests: &mut u64,
) -> Result<Read, NiceError> {
    let mut found: BTreeMap<_, Row> = BTreeMap::new();
    let mut told_at = None;
    let mut doubt = None;
    for round in 0..=MAX_ROUNDS {
        let mut pages = if round == 0 { Pages::new(filter) } else { Pages::overlapping(filter) };
        let before = found.len();
        let answer = async {
            while let Some(page) = pages.next(nice, size).await? {
                told_at = page.last_poll_time.or(told_at);
                for row in page.contacts {
                    let key = row.as_ref().map(|call| call.contact_id).map_err(BadRow::clone);
                    found.insert(key, row);
                }
                if found.len() > MOST_OF_A_SECOND {
                    return Err(NiceError::transient("completed: NICE's list has no end"));
                }
            }
            Ok(())
        };
        let answer = answer.await;
        *requests += pages.requests();
        answer?;
        let has_rested = round > 0 && found.len() == before;
        doubt = pages
            .doubt()
            .or((round == MAX_ROUNDS && !has_rested && pages.announced().is_none()).then_some(Doubt::Unrest));
        if has_rested || (doubt.is_none() && pages.announced().is_some()) {
            break;
        }
        debug!(attempt = round, "rows move while they are paged, paged again");
    }
    let contacts = found.into_values().collect();
    let page = ContactPage { contacts, last_poll_time: told_at, total: None, next: None, refused_next: false };
    Ok(Read::Slice(vec![page], doubt))
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

/// The length of the next slice after one of `length` that had so many rows.
fn lengthened(length: SignedDuration, rows: u64, size: PageSize) -> SignedDuration {
    let wanted = f64::from(size.rows()) * FILL;
    // Growing at most fourfold: the calls of a night say little of those of the morning.
    let factor = (wanted / (rows.max(1) as f64)).min(4.0);
    scaled(length, factor)
}

/// The length after a slice of `span` turned out to have more rows, so many at least, than an answer holds.
fn shortened(span: SignedDuration, held: u64, rows: u64) -> SignedDuration {
    scaled(span, (held.max(1) as f64 * FILL / rows.max(1) as f64).clamp(0.125, 0.5))
}

fn scaled(length: SignedDuration, factor: f64) -> SignedDuration {
    let scaled = SignedDuration::from_millis((length.as_millis() as f64 * factor) as i64);
    scaled.clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests;
