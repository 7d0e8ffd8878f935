//! Stage 1, source: NICE's completed contacts → events of the group's agents.
//!
//! # Contract
//! Out: every completed phone call of a group agent, at least once. NICE repeats contacts as they change; the
//! dedupe that follows lets each through once.
//!
//! # Watermark
//! Everything that NICE changed before the watermark is found, and its claims are committed. It moves only when
//! all events up to there are settled, by NICE's clock, and stays behind by the overlap: NICE may list a contact so
//! late. When agents join, it is moved back, and a listing under way no longer moves it.
//!
//! # Rows that cannot be read
//! One that tells its id goes on as an event of that id alone: the consumer asks NICE for that contact, and sets it
//! aside if it cannot be read either. One without an id is a dead letter at once.
//!
//! # After a crash
//! The listing begins again at the watermark.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use flow::retry::Intervals;
use futures::Stream;
use jiff::Timestamp;
use model::{ContactEvent, ContactId, EventSource, ImportSince, Members, QuotaClass, TenantId};
use nice::{BadRow, Contact, ContactPage, Excess, NiceClient, NiceError};
use runtime::{Outage, crash, outage::Say, task};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::changes::Changes;
use super::event::{event_of, event_or_dead_letter};
use super::found::{ReceiptTally, count};
use super::listing::ListedCall;
use super::pages::PageSize;
use super::roster::Roster;
use super::{FoundEvent, ListDoubt, ListError, earliest_listed};
use crate::Context;
use crate::tenants::Tenants;
use crate::watermark::{Watermark, WatermarkPosition, back};

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
    pub import_since: ImportSince,
    /// How far a listing reaches back whose watermark a wrong clock has put into the future.
    pub recovery_window: Duration,
    /// The machinery.
    pub context: Context,
}

/// Lists completed contacts until the service drains.
pub fn poll(poll: Poll) -> impl Stream<Item = FoundEvent> + Send {
    task::stream("source", BOUND, move |found| {
        let stopping = poll.context.flow.stopping.clone();
        async move {
            stopping.run_until_cancelled(poll.run(found)).await;
        }
    })
}

/// What the poll remembers from one listing to the next.
#[derive(Default)]
struct PollState {
    size: Option<PageSize>,
    /// What did not add up in the last listing: it is said once.
    doubt: Option<ListDoubt>,
    /// How often in a row a single row could not be read.
    damaged: u32,
    /// Of which rows it was said that they cannot be read.
    told: HashSet<ContactId>,
    /// What the log says of listings that fail.
    outage: Outage,
}

/// Such a row may be a body that broke on the way: it is passed over when it is the same again.
const MOST_DAMAGED: u32 = 3;

/// A row stands in each listing for as long as the overlap is. Of more than so many, each is told again.
const MOST_TOLD: usize = 1_000;

impl PollState {
    fn size(&mut self, nice: &NiceClient) -> &mut PageSize {
        self.size.get_or_insert(PageSize::new(nice.page_size()))
    }

    fn tell_once(&mut self, row: &BadRow, contact: ContactId) {
        if self.told.len() >= MOST_TOLD {
            self.told.clear();
        }
        if self.told.insert(contact) {
            warn!(conversation.id = %contact, reason = row.reason, "a listed row cannot be read, the contact is asked for singly");
        }
    }
}

/// Why a listing ended early. It begins again at the watermark.
#[derive(Debug)]
enum ListingError {
    List(ListError),
    /// A claim or a dead letter could not be written; the reason is logged where it happened.
    HandedBack,
}

impl From<NiceError> for ListingError {
    fn from(error: NiceError) -> Self {
        Self::List(error.into())
    }
}

impl Poll {
    async fn run(mut self, found: mpsc::Sender<FoundEvent>) {
        let mut intervals = self.context.flow.retry.intervals();
        let mut state = PollState::default();
        // Whoever cannot list from the beginning of its turn on is behind as well.
        self.show_listing();
        loop {
            if self.roster.wait_for(Roster::is_known).await.is_err() {
                return;
            }
            self.begin().await;
            let (position, begun) = (self.watermark.position(), Instant::now());
            let pause = match self.list(position, &mut state, &found).await {
                Ok(doubt) => {
                    intervals.reset();
                    self.listed(doubt, &mut state);
                    self.interval
                }
                Err(error) => {
                    self.context.metrics.flow.stage_finished("source", "retry", begun.elapsed());
                    self.delay(&error, &mut intervals, &mut state.outage)
                }
            };
            // A changed group takes effect at once.
            let _woken = tokio::time::timeout(pause, self.roster.changed()).await;
        }
    }

    /// Shows that a listing has come to its end, and says what did not add up.
    fn listed(&self, doubt: Option<ListDoubt>, state: &mut PollState) {
        if let Some(doubt) = doubt
            && state.doubt != Some(doubt)
        {
            warn!(%doubt, "NICE's list does not add up: calls may be missing from it");
        }
        if let Some(over) = state.outage.over() {
            info!(count = over.count, "NICE's list is read whole again");
        }
        state.doubt = doubt;
        self.context.metrics.poll_list_doubtful.set(doubt.is_some().into());
        self.show_listing();
    }

    /// How long to wait before the next listing, after one that failed.
    fn delay(&self, error: &ListingError, intervals: &mut Intervals, outage: &mut Outage) -> Duration {
        let retry = &self.context.flow.retry;
        let delay = retry.next(intervals);
        let ListingError::List(error) = error else { return delay };
        let delay = delay.max(error.asks_for(retry));
        let delay_secs = delay.as_secs_f64();
        match outage.failed(self.context.flow.clock.now()) {
            Say::Begins => warn!(%error, delay_secs, "listing failed, will retry"),
            Say::GoesOn { count } => warn!(%error, count, delay_secs, "the listing goes on failing, will retry"),
            Say::Nothing => debug!(%error, delay_secs, "listing failed, will retry"),
        }
        delay
    }

    fn show_listing(&self) {
        let now = self.context.flow.clock.now();
        self.context.metrics.poll_last_listing.set(now.as_millisecond() as f64 / 1e3);
    }

    /// Fixes where the very first listing begins: it must not creep forward while NICE cannot be read. And moves a
    /// watermark back that lies in the future.
    async fn begin(&self) {
        if let Err(error) = self.watermark.doubt(self.context.flow.clock.now(), self.recovery_window).await {
            warn!(%error, "the watermark lies in the future and is not moved back, will retry");
        }
        if self.watermark.get().is_none() {
            let to = self.import_since.of(self.installed_at(self.context.flow.clock.now()));
            if let Err(error) = self.watermark.advance(to).await {
                warn!(%error, "the beginning of the first listing is not written, will retry");
            }
        }
    }

    /// When the tenant was first worked for, however long NICE could not be read since.
    fn installed_at(&self, now: Timestamp) -> Timestamp {
        self.watermark.worked_since().map_or(now, |since| since.min(now))
    }

    /// Where the next listing begins.
    fn since(&self, position: WatermarkPosition) -> Timestamp {
        let now = self.context.flow.clock.now();
        let since = position.at.unwrap_or_else(|| self.import_since.of(self.installed_at(now)));
        let earliest = earliest_listed(now);
        if since < earliest {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(
                || warn!(watermark = %since, "the watermark lies beyond NICE's 30 days; calls before that need a backfill"),
            );
        }
        since.max(earliest)
    }

    /// Lists all that changed since the watermark, and moves it as far as all events before it are settled.
    async fn list(
        &self,
        position: WatermarkPosition,
        state: &mut PollState,
        found: &mpsc::Sender<FoundEvent>,
    ) -> Result<Option<ListDoubt>, ListingError> {
        let tenant = self.tenants.get(&self.tenant).await;
        let tenant = tenant.map_err(|error| ListingError::List(ListError::Settings(error)))?;
        let nice = tenant.nice.for_class(QuotaClass::Live);
        let mut changes = Changes::since(self.since(position));
        let mut reached = changes.reached();
        loop {
            let page = self.next_page(&mut changes, &nice, state).await?;
            crash::point("event_read");
            let has_ended = page.is_none();
            if let Some(page) = page {
                self.hand_on(page, state, found).await?;
                state.size(&nice).recover();
            }
            if changes.reached() > reached {
                reached = changes.reached();
                // A poll time ahead of us would skip what comes in between.
                self.move_watermark(position, reached.min(self.context.flow.clock.now())).await?;
            }
            if has_ended {
                state.size(&nice).grow();
                let doubt = changes.doubt();
                if doubt != Some(ListDoubt::NotRead) {
                    state.damaged = 0;
                }
                return Ok(doubt);
            }
        }
    }

    /// The next page, in fewer rows where NICE does not give as many. A row that could not be read several times is
    /// passed over.
    async fn next_page(
        &self,
        changes: &mut Changes,
        nice: &NiceClient,
        state: &mut PollState,
    ) -> Result<Option<ContactPage>, NiceError> {
        let mut just_stepped = false;
        loop {
            let size = *state.size(nice);
            let (what, why) = match changes.next(nice, size, self.context.flow.clock.now()).await {
                Err(NiceError::TooMuch { what, why }) => (what, why),
                page => return page,
            };
            if state.size(nice).shrink(why) {
                warn!(error = what, count = state.size(nice).rows(), "NICE does not give so much, less is asked for");
            } else if why == Excess::Damage && state.damaged >= MOST_DAMAGED && !just_stepped {
                // It stands in each listing for as long as the overlap is, and is told of once.
                if state.doubt != Some(ListDoubt::NotRead) {
                    warn!(
                        error = what,
                        "a row of NICE's list is unreadable and was skipped; the nightly comparison will check it"
                    );
                }
                changes.step_over(size.rows());
                just_stepped = true;
            } else {
                state.damaged += u32::from(why == Excess::Damage);
                return Err(NiceError::TooMuch { what, why });
            }
        }
    }

    /// Sends the events of a page into the flow, and waits until all of them are settled.
    async fn hand_on(
        &self,
        page: ContactPage,
        state: &mut PollState,
        found: &mpsc::Sender<FoundEvent>,
    ) -> Result<(), ListingError> {
        let mut tally = ReceiptTally::new();
        for row in page.contacts {
            let event = match row {
                Ok(contact) => self.event(&contact),
                Err(row) => self.event_of_bad_row(&row, state).await?,
            };
            if let Some(event) = event {
                let found_one = FoundEvent::new(event, tally.receipt());
                found.send(found_one).await.map_err(|_closed| ListingError::HandedBack)?;
            }
        }
        if tally.all_settled().await { Ok(()) } else { Err(ListingError::HandedBack) }
    }

    /// The event of a contact, if it is a phone call of a group agent.
    fn event(&self, contact: &Contact) -> Option<ContactEvent> {
        let (call, roster) = (ListedCall::from(contact), self.roster.borrow());
        let event = event_of(&call, &self.tenant, EventSource::Poll, &roster, Members::Then);
        count(&self.context, if event.is_some() { "ok" } else { "done" });
        event
    }

    async fn event_of_bad_row(
        &self,
        row: &BadRow,
        state: &mut PollState,
    ) -> Result<Option<ContactEvent>, ListingError> {
        let event = event_or_dead_letter(row, &self.tenant, EventSource::Poll, &self.context).await;
        let event = event.map_err(|error| {
            warn!(%error, "dead letter not written, the listing is repeated");
            ListingError::HandedBack
        })?;
        if let Some(event) = &event {
            state.tell_once(row, event.conversation);
        }
        Ok(event)
    }

    async fn move_watermark(&self, position: WatermarkPosition, reached: Timestamp) -> Result<(), ListingError> {
        let to = back(reached, self.overlap);
        let moved = self.watermark.advance_from(position, to).await.map_err(|error| {
            warn!(%error, "watermark not moved, the listing is repeated");
            ListingError::HandedBack
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

#[cfg(test)]
mod tests;
