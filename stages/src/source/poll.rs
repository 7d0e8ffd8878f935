//! Stage 1, source: NICE's completed contacts → events of the group's agents.
//!
//! # Contract
//! Out: every completed phone call of a group agent, at least once. NICE repeats contacts as they change; the
//! dedupe that follows lets each through once.
//!
//! # Watermark
//! Everything that NICE changed before the watermark is found, and its claims are committed. It moves only when
//! all events of a listing are settled, by NICE's clock, and stays behind by the overlap. Where a listing has
//! several pages it is repeated until no new contact appears: rows move while one pages through them. When agents
//! join, it is moved back, and a listing under way no longer moves it.
//!
//! # After a crash
//! The listing begins again at the watermark.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backoff::backoff::Backoff;
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::listing::Listed;
use super::roster::Roster;
use super::{Found, ListError, REACH, Tally, back, event_of, set_aside};
use crate::clients::nice::{CompletedFilter, CompletedQuery, Contact, ContactPage, NextLink, NiceError, QuotaClass};
use crate::clients::tenants::Tenants;
use crate::flow::{FlowContext, crash, task};
use crate::model::{ContactEvent, ContactId, EventSource, TenantId};
use crate::watermark::{Position, Watermark};

/// Rows asked for at a time.
const PAGE: u32 = 1_000;

/// Rows after which a listing begins again at the newest row seen, so that moving rows disturb it less.
const LISTING: u64 = 10_000;

/// Where no row says when it was changed, or all were changed in one second, a listing goes on up to here.
const LONGEST_LISTING: u64 = 200_000;

/// Repeats of a listing of several pages that does not come to rest; the nightly comparison sees to the rest.
const MAX_REPEATS: u32 = 5;

/// NICE's own resolution of a change may be as coarse as this.
const RESOLUTION: Duration = Duration::from_secs(1);

/// Events on their way to the dedupe.
const BOUND: usize = 256;

/// The settings and clients of the poll.
#[derive(Clone)]
pub struct Poll {
    /// The way to the tenant's NICE.
    pub tenants: Arc<Tenants>,
    /// Whose calls these are.
    pub tenant: TenantId,
    /// Up to where everything is found.
    pub watermark: Watermark,
    /// Whose calls are let through.
    pub roster: watch::Receiver<Roster>,
    /// Time between two listings.
    pub interval: Duration,
    /// How far a listing reaches back behind the last one.
    pub overlap: Duration,
    /// How far the very first listing reaches back.
    pub first_window: Duration,
    /// How far a listing reaches back whose watermark a wrong clock has put into the future.
    pub hot_window: Duration,
    /// The machinery.
    pub context: FlowContext,
}

/// Lists completed contacts until the service drains.
pub fn poll(poll: Poll) -> impl Stream<Item = Found> + Send {
    task::stream("source", BOUND, move |found| {
        let stopping = poll.context.stopping.clone();
        async move {
            stopping.run_until_cancelled(poll.run(found)).await;
        }
    })
}

/// Why a listing ended early. It begins again at the watermark.
enum PassError {
    List(ListError),
    /// A claim or a dead letter could not be written; the reason is logged where it happened.
    HandedBack,
}

impl From<NiceError> for PassError {
    fn from(error: NiceError) -> Self {
        Self::List(error.into())
    }
}

/// What one listing found.
struct Pass {
    pages: u32,
    new_ids: usize,
    listed: HashSet<ContactId>,
    complete: bool,
    newest: Option<Timestamp>,
    sorted: bool,
    last_poll_time: Option<Timestamp>,
}

impl Poll {
    async fn run(mut self, found: mpsc::Sender<Found>) {
        let mut intervals = self.context.retry.intervals();
        loop {
            if self.roster.wait_for(Roster::is_known).await.is_err() {
                return;
            }
            self.begin().await;
            let position = self.watermark.position();
            let begun = Instant::now();
            let pause = match self.list_all(position, &found).await {
                Ok(()) => {
                    intervals.reset();
                    self.interval
                }
                Err(error) => {
                    self.context.metrics.stage_finished("source", "retry", begun.elapsed());
                    let delay = intervals.next_backoff().unwrap_or(self.context.retry.error_delay_max);
                    match error {
                        PassError::List(error) => {
                            let delay = delay.max(error.asks_for(&self.context.retry));
                            warn!(%error, delay_secs = delay.as_secs_f64(), "listing failed, will retry");
                            delay
                        }
                        PassError::HandedBack => delay,
                    }
                }
            };
            // A changed group takes effect at once.
            let _woken = tokio::time::timeout(pause, self.roster.changed()).await;
        }
    }

    /// Fixes where the very first listing begins: it must not creep forward while NICE cannot be read. And moves a
    /// watermark back that lies in the future.
    async fn begin(&self) {
        if let Err(error) = self.watermark.doubt(self.context.clock.now(), self.hot_window).await {
            warn!(%error, "the watermark lies in the future and is not moved back, will retry");
        }
        if self.watermark.get().is_none() {
            let to = back(self.context.clock.now(), self.first_window);
            if let Err(error) = self.watermark.advance(to).await {
                warn!(%error, "the beginning of the first listing is not written, will retry");
            }
        }
    }

    /// Where the next listing begins.
    fn since(&self, position: Position) -> Timestamp {
        let now = self.context.clock.now();
        let since = position.at.unwrap_or_else(|| back(now, self.first_window));
        let reach = now.checked_sub(REACH).unwrap_or(Timestamp::MIN);
        if since < reach {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(
                || warn!(%since, "the watermark lies beyond NICE's 30 days; calls before that need a backfill"),
            );
        }
        since.max(reach)
    }

    async fn list_all(&self, position: Position, found: &mpsc::Sender<Found>) -> Result<(), PassError> {
        let mut cursor = self.since(position);
        let mut seen = HashSet::new();
        let mut repeats = 0;
        loop {
            let pass = self.list(cursor, &mut seen, found).await?;
            if pass.pages > 1 && pass.new_ids > 0 && repeats < MAX_REPEATS {
                repeats += 1;
                debug!(pages = pass.pages, new_ids = pass.new_ids, "listing repeated: rows move while it is paged");
                continue;
            }
            if !pass.complete {
                let Some(next) = pass.resume_at(cursor, self.context.clock.now()) else {
                    // The watermark stays: what lies behind must not be passed over in silence.
                    return Err(NiceError::transient("completed: NICE's list has no end").into());
                };
                self.move_watermark(position, next).await?;
                cursor = next;
                seen.clear();
                repeats = 0;
                continue;
            }
            let reached = pass.last_poll_time.or(pass.newest);
            if let Some(reached) = reached {
                // A poll time ahead of us would skip what comes in between.
                self.move_watermark(position, reached.min(self.context.clock.now())).await?;
            }
            return Ok(());
        }
    }

    /// Pages through one listing and waits until all its events are settled.
    async fn list(
        &self,
        since: Timestamp,
        seen: &mut HashSet<ContactId>,
        found: &mpsc::Sender<Found>,
    ) -> Result<Pass, PassError> {
        let mut pass = Pass {
            pages: 0,
            new_ids: 0,
            listed: HashSet::new(),
            complete: false,
            newest: None,
            sorted: true,
            last_poll_time: None,
        };
        let mut tally = Tally::new();
        let tenant = self.tenants.get(&self.tenant).await;
        let tenant = tenant.map_err(|error| PassError::List(ListError::Settings(error)))?;
        let nice = tenant.nice.for_class(QuotaClass::Live);
        let mut next: Option<NextLink> = None;
        let mut skip = 0;
        while skip < LONGEST_LISTING {
            if skip >= LISTING && pass.resume_at(since, self.context.clock.now()).is_some() {
                break;
            }
            let filter = CompletedFilter::UpdatedSince(since);
            let query = CompletedQuery { filter, top: PAGE, skip, next: next.take() };
            let page = nice.completed(&query).await?;
            crash::point("event_read");
            pass.pages += 1;
            if pass.pages == 1 {
                pass.last_poll_time = page.last_poll_time;
            }
            let rows = page.contacts.len() as u64;
            let (more, listed) = (is_more(&page, skip, rows), pass.listed.len());
            next = page.next;
            for row in page.contacts {
                match row {
                    Ok(contact) => {
                        pass.take(&contact, seen);
                        if let Some(event) = self.event(&contact) {
                            let found_one = Found::new(event, tally.receipt());
                            found.send(found_one).await.map_err(|_closed| PassError::HandedBack)?;
                        }
                    }
                    Err(bad) => set_aside(&self.context, &self.tenant, &bad.reason).await.map_err(|error| {
                        warn!(%error, "dead letter not written, the listing is repeated");
                        PassError::HandedBack
                    })?,
                }
            }
            skip += rows;
            if !more || rows == 0 {
                pass.complete = true;
                break;
            }
            if skip >= LISTING && pass.listed.len() == listed {
                break; // the pages repeat themselves
            }
        }
        if tally.all_settled().await { Ok(pass) } else { Err(PassError::HandedBack) }
    }

    /// The event of a contact, if it is a phone call of a group agent.
    fn event(&self, contact: &Contact) -> Option<ContactEvent> {
        let event = event_of(&Listed::from(contact), &self.tenant, EventSource::Poll, &self.roster.borrow());
        let outcome = if event.is_some() { "ok" } else { "done" };
        self.context.metrics.stage_items.with_label_values(&["source", outcome]).inc();
        event
    }

    async fn move_watermark(&self, position: Position, reached: Timestamp) -> Result<(), PassError> {
        let to = back(reached, self.overlap);
        let moved = self.watermark.advance_from(position, to).await.map_err(|error| {
            warn!(%error, "watermark not moved, the listing is repeated");
            PassError::HandedBack
        })?;
        if !moved {
            debug!("agents joined during the listing, which is repeated from where their calls may begin");
            return Ok(());
        }
        crash::point("watermark_moved");
        self.context.metrics.poll_watermark.set(to.as_millisecond() as f64 / 1e3);
        Ok(())
    }
}

impl Pass {
    fn take(&mut self, contact: &Contact, seen: &mut HashSet<ContactId>) {
        if seen.insert(contact.contact_id) {
            self.new_ids += 1;
        }
        if !self.listed.insert(contact.contact_id) {
            return; // a row that is shown again says nothing of the order
        }
        match contact.last_update_time {
            Some(time) if self.newest.is_none_or(|newest| time >= newest) => self.newest = Some(time),
            Some(_) => self.sorted = false,
            None => {}
        }
    }

    /// From when on a listing finds what this one did not come to: at the newest row, if the rows came in their
    /// order and that leads on, but not beyond the present.
    fn resume_at(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let next = back(self.newest.filter(|_| self.sorted)?, RESOLUTION);
        (next > since && next <= now).then_some(next)
    }
}

fn is_more(page: &ContactPage, skip: u64, rows: u64) -> bool {
    let listed = skip.saturating_add(rows);
    page.next.is_some()
        || page.refused_next
        || page.total.is_some_and(|total| total > listed)
        || (page.total.is_none() && rows >= u64::from(PAGE))
}

#[cfg(test)]
mod tests;
