//! Stage 1, source: a range that is listed again, and what the catalog does not have of it.
//!
//! # Contract
//! In: a [`ReplayRun`]: the window of the nightly comparison, or the date range of a backfill. Out: an event for every
//! call of a group agent in it that is neither in the catalog nor on its way. It goes through the same dedupe as all
//! others, and so does not double what another source finds at the same moment.
//!
//! # Both ways
//! What the dedupe remembers and the catalog does not have is replayed, once it is older than any work in flight. What
//! the catalog has and the dedupe does not know is marked there.
//!
//! # After a crash
//! The run stands in the catalog with the time up to which everything is on the queue. It is written when the claims
//! of a slice of the listing are committed, so a crash repeats one slice at most: what was published of it is found
//! on its way.
//!
//! # Bounds
//! One slice of the listing is in memory: a page of NICE's, or an extracted day. A backfill publishes at most [`LEAD`]
//! calls more than have come through: the queue stays short, and a pause takes effect soon.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use catalog::{CatalogError, ReplayRun, RunKind, RunState, Tallied};
use flow::JournalError;
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, ContactId, QuotaClass};
use nice::NiceError;
use queue::{Queue, QueueError};
use runtime::{crash, task};
use state::ProcessedLog;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::compare::{Compare, CompareError, Verdict};
use super::listing::{Listed, Listing, Slice, horizon};
use super::roster::Roster;
use super::{Doubt, Found, ListError, REACH, Tally, event_of_bad_row, event_of_members, set_aside};
use crate::Context;
use crate::tenants::Tenants;

/// Calls of a backfill that may be published and not yet imported: some minutes' work at NICE's usual quota. Those that
/// find no room in it come and go on the queue, so there are few.
pub const LEAD: u64 = 200;

/// How often a backfill that waits for the consumers looks again at the queue, which is cheap.
const LOOK: Duration = Duration::from_secs(1);

/// And at what became of the calls that it published last.
const LOOKS_PER_COMPARISON: u32 = 5;

/// NICE's clock and ours may differ by so much.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// What a run remembers while it works.
#[derive(Default)]
struct Memory {
    /// Published of the slice at hand, also when it was tried before, and whether it was missing.
    sent: HashMap<ContactId, bool>,
    /// What a backfill published last, as far as it is on its way: at most [`LEAD`].
    recent: VecDeque<ContactEvent>,
    /// The listing that was broken off by trouble of NICE's.
    listing: Option<Listing>,
    /// The beginning of the work is noted in the run.
    is_timed: bool,
    /// Somebody began the run before, and may have been broken off in the slice at hand.
    may_be_resumed: bool,
}

impl Memory {
    fn sent(&mut self, kind: RunKind, event: &ContactEvent, was_missing: bool) {
        self.sent.insert(event.conversation, was_missing);
        if kind == RunKind::Backfill {
            self.recent.push_back(event.clone());
            if self.recent.len() as u64 > LEAD {
                self.recent.pop_front();
            }
        }
    }

    async fn forget_those_that_came_through(&mut self, compare: &Compare) -> Result<(), CompareError> {
        let events = self.recent.make_contiguous();
        let verdicts = compare.compare(events).await?;
        let mut verdicts = verdicts.into_iter();
        self.recent.retain(|_| matches!(verdicts.next(), Some(Verdict::InFlight { .. })));
        Ok(())
    }
}

/// The settings and clients of a replay.
#[derive(Clone)]
pub struct Replay {
    /// The way to the tenant's NICE.
    pub tenants: Arc<Tenants>,
    /// Whose calls are let through.
    pub roster: watch::Receiver<Roster>,
    /// Says what became of each call.
    pub compare: Compare,
    /// The dedupe's memory.
    pub processed: ProcessedLog,
    /// How far that memory reaches.
    pub retention: Duration,
    /// Where calls wait for the consumers.
    pub queue: Arc<dyn Queue>,
    /// Whether consumers take from the queue meanwhile, so that a backfill waits for them.
    pub has_consumers: bool,
    /// A call that ended in a window began at most so long before it.
    pub longest_call: Duration,
    /// Into the dedupe.
    pub found: mpsc::Sender<Found>,
    /// The machinery.
    pub context: Context,
}

/// Why a run stands still.
#[derive(Debug)]
enum Stop {
    /// The service drains, or the run's state was changed by another.
    Ended,
    /// It can never go on; a person must look.
    Failed(String),
    /// The same again later.
    Troubled { why: String, delay: Duration },
}

impl From<CatalogError> for Stop {
    fn from(error: CatalogError) -> Self {
        Self::Troubled { why: error.to_string(), delay: Duration::ZERO }
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Troubled { why: error.to_string(), delay: Duration::ZERO }
    }
}

impl From<QueueError> for Stop {
    fn from(error: QueueError) -> Self {
        Self::Troubled { why: error.to_string(), delay: Duration::ZERO }
    }
}

impl From<CompareError> for Stop {
    fn from(error: CompareError) -> Self {
        Self::Troubled { why: error.to_string(), delay: Duration::ZERO }
    }
}

impl Replay {
    /// Works on a run until it is done, or the service drains, or an operator pauses or cancels it.
    pub async fn run(self, mut run: ReplayRun) {
        let kind = run.kind.as_str();
        info!(kind, run = run.id, from = %run.from, to = %run.to, reached = %run.reached, "replay begins");
        let mut intervals = self.context.flow.retry.intervals();
        let stopping = self.context.flow.stopping.clone();
        let mut memory = Memory::default();
        while run.state.is_open() {
            match stopping.run_until_cancelled(self.pass(&mut run, &mut memory, &mut intervals)).await {
                Some(Ok(())) => {}
                None | Some(Err(Stop::Ended)) => return,
                Some(Err(Stop::Failed(why))) => return self.fail(run, why).await,
                Some(Err(Stop::Troubled { why, delay })) => {
                    let delay = intervals.next_backoff().unwrap_or(self.context.flow.retry.error_delay_max).max(delay);
                    warn!(
                        kind,
                        run = run.id,
                        reason = why,
                        delay_secs = delay.as_secs_f64(),
                        "replay waits, will retry"
                    );
                    if stopping.run_until_cancelled(self.wait_in_trouble(&mut run, why, delay)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Lists from where the run stands to its end, and changes its state there.
    async fn pass(&self, run: &mut ReplayRun, memory: &mut Memory, intervals: &mut impl Backoff) -> Result<(), Stop> {
        self.roster.clone().wait_for(Roster::is_known).await.map_err(|_| Stop::Ended)?;
        let class = match run.kind {
            RunKind::Reconciliation => QuotaClass::Reconciliation,
            RunKind::Backfill => QuotaClass::Backfill,
        };
        if run.state == RunState::Running && !memory.is_timed {
            let counted = self.context.catalog.final_between(&run.tenant_id, run.from, run.to).await?;
            (run.final_at_start, run.is_about) = (counted.rows, run.is_about || counted.is_about);
            let before = run.running_since.replace(self.context.flow.clock.now());
            self.save(run, run.state).await?;
            memory.is_timed = true;
            memory.may_be_resumed = before.is_some();
        }
        let mut listing = memory.listing.take().unwrap_or_else(|| self.listing(run, class));
        loop {
            let slice = match listing.next().await {
                Ok(Some(slice)) => slice,
                Ok(None) => break,
                Err(error) => {
                    // It has learned how much NICE gives, and how often it did not.
                    memory.listing = Some(listing);
                    return Err(self.troubled(run, &error));
                }
            };
            let (tallied, open_since) = self.slice(run, &slice, memory).await?;
            let before = run.state;
            run.open_since = [run.open_since, open_since].into_iter().flatten().min();
            run.found.add(&tallied);
            run.reached = slice.to;
            run.told_at = run.told_at.max(slice.told_at);
            if slice.doubt == Some(Doubt::NotRead) {
                // The next night looks there again.
                let since = if slice.from < run.to { slice.from } else { run.from };
                run.open_since = [run.open_since, Some(since)].into_iter().flatten().min();
            }
            if let Some(doubt) = slice.doubt {
                run.doubtful += 1;
                run.doubt.get_or_insert_with(|| doubt.to_string());
            }
            run.sending = 0;
            run.reason = None;
            self.count(run, &tallied);
            self.save(run, before).await?;
            crash::point("replay_advanced");
            listing.passed(&slice);
            memory.sent.clear();
            memory.may_be_resumed = false;
            intervals.reset();
        }
        self.finish(run).await
    }

    fn listing(&self, run: &ReplayRun, class: QuotaClass) -> Listing {
        let (begin, to, clock) = (self.begin(run), self.end(run), self.context.flow.clock.clone());
        let listing = Listing::new(self.tenants.clone(), run.tenant_id.clone(), class, begin, to);
        match run.kind {
            RunKind::Backfill => listing.extracting(clock),
            // A call may have lasted longer than anybody thought.
            RunKind::Reconciliation => listing.with_earlier(self.first_start(run), run.from, clock),
        }
    }

    /// Where the listing begins: calls are listed by their start, and the comparison is of those that ended in the
    /// window.
    fn begin(&self, run: &ReplayRun) -> Timestamp {
        match run.kind {
            RunKind::Reconciliation if run.reached == run.from => self.first_start(run),
            RunKind::Reconciliation | RunKind::Backfill => run.reached,
        }
    }

    /// From when on a comparison lists calls by their start.
    fn first_start(&self, run: &ReplayRun) -> Timestamp {
        super::back(run.from, self.longest_call)
            .max(self.context.flow.clock.now().checked_sub(REACH).unwrap_or(Timestamp::MIN))
    }

    /// Nothing is listed beyond the present.
    fn end(&self, run: &ReplayRun) -> Timestamp {
        run.to.min(self.context.flow.clock.now()).max(run.reached)
    }

    /// Compares one slice, sends what is missing, and returns when it is on the queue.
    async fn slice(
        &self,
        run: &ReplayRun,
        slice: &Slice,
        memory: &mut Memory,
    ) -> Result<(Tallied, Option<Timestamp>), Stop> {
        let (mut events, expired) = self.events(run, slice).await?;
        for row in &slice.bad {
            match event_of_bad_row(row, &run.tenant_id, run.kind.source()) {
                Some(event) => events.push(event),
                None => set_aside(&self.context, &run.tenant_id, &row.reason).await?,
            }
        }
        let verdicts = self.compare.compare(&events).await?;
        let mut tallied = Tallied {
            listed: events.len() as u64 + expired,
            excluded: expired,
            requests: slice.requests,
            ..Tallied::default()
        };
        let mut open_since: Option<Timestamp> = None;
        let (mut tally, mut lead, mut known) = (Tally::new(), 0, Vec::new());
        let publishes = run.state == RunState::Running;
        let published_since = run.planned_at.unwrap_or(run.started_at);
        for (event, verdict) in events.into_iter().zip(verdicts) {
            if verdict.needs_a_message() || matches!(verdict, Verdict::InFlight { .. }) {
                open_since = [open_since, event.ended_at].into_iter().flatten().min();
            }
            match verdict {
                Verdict::Ready | Verdict::Incomplete(_) => tallied.ready += 1,
                Verdict::NoRecording => tallied.no_recording += 1,
                Verdict::Dead(_) => tallied.dead += 1,
                Verdict::Excluded(_) => tallied.excluded += 1,
                // Published by this run, before it was broken off in this slice.
                Verdict::InFlight { enqueued_at, .. }
                    if memory.sent.get(&event.conversation).copied().unwrap_or(
                        memory.may_be_resumed && publishes && enqueued_at.is_some_and(|at| at >= published_since),
                    ) =>
                {
                    tallied.missing += 1;
                    tallied.replayed += 1;
                }
                Verdict::InFlight { .. } => tallied.in_flight += 1,
                Verdict::Missing { .. } | Verdict::NotLookedFor => {
                    let marked = matches!(verdict, Verdict::Missing { marked: true, .. });
                    // Whose call a row is that cannot be read is not known.
                    let is_missing = verdict != Verdict::NotLookedFor && event.agent.is_some();
                    match is_missing {
                        true => tallied.missing += 1,
                        false => tallied.in_flight += 1,
                    }
                    if publishes {
                        if lead == 0 {
                            // What is on its way to the queue does not count there yet.
                            settled(std::mem::replace(&mut tally, Tally::new())).await?;
                            lead = self.lead(run, memory).await?;
                        }
                        lead -= 1;
                        memory.sent(run.kind, &event, is_missing);
                        let found = Found { event, receipt: tally.receipt(), heals: marked };
                        self.found.send(found).await.map_err(|_closed| Stop::Ended)?;
                        tallied.replayed += u64::from(is_missing);
                    }
                    continue;
                }
            }
            let digest = event.key().digest();
            if publishes && self.is_markable(&event) && !self.processed.contains(&digest) {
                known.push(digest);
            }
        }
        if !known.is_empty() {
            let processed = self.processed.clone();
            let marked = task::blocking(move || processed.seed(known)).await;
            let marked = marked.map_err(|error| error.to_string()).and_then(|seeded| seeded.map_err(|e| e.to_string()));
            tallied.marked = marked.map_err(|why| Stop::Troubled { why, delay: Duration::ZERO })?;
        }
        settled(tally).await?;
        Ok((tallied, open_since))
    }

    /// The calls of the group in the run's window, and how many more there are beyond the tenant's retention: of an
    /// extracted call the end is not known.
    async fn events(&self, run: &ReplayRun, slice: &Slice) -> Result<(Vec<ContactEvent>, u64), Stop> {
        let tenant = self.tenants.get(&run.tenant_id).await;
        let retention = tenant.map_err(|error| self.troubled(run, &ListError::Settings(error)))?.retention;
        let now = self.context.flow.clock.now();
        let latest_end = |call: &Listed| call.ended_at.or_else(|| call.started_at?.checked_add(self.longest_call).ok());
        let roster = self.roster.borrow();
        let is_in = |time: Option<Timestamp>| time.is_none_or(|time| time >= run.from && time < run.to);
        let in_window = slice.calls.iter().filter(|call| match run.kind {
            RunKind::Reconciliation => is_in(call.ended_at),
            RunKind::Backfill => is_in(call.started_at),
        });
        let (mut events, mut expired) = (Vec::new(), 0);
        for call in in_window {
            let event = event_of_members(call, &run.tenant_id, run.kind.source(), &roster, run.members);
            let Some(event) = event else { continue };
            match call.ended_at.is_some() || latest_end(call).is_none_or(|end| retention.reaches(end, now)) {
                true => events.push(event),
                false => expired += 1,
            }
        }
        Ok((events, expired))
    }

    /// Whether another source may still tell of it: an older one would only take up room.
    fn is_markable(&self, event: &ContactEvent) -> bool {
        let retention = SignedDuration::try_from(self.retention).unwrap_or(SignedDuration::MAX);
        event.ended_at.is_some_and(|ended_at| self.context.flow.clock.now().duration_since(ended_at) < retention)
    }

    /// How many calls may be published now; waits until it is at least one.
    async fn lead(&self, run: &ReplayRun, memory: &mut Memory) -> Result<u64, Stop> {
        if run.kind != RunKind::Backfill || !self.has_consumers {
            return Ok(LEAD);
        }
        for look in 0_u32.. {
            let backlog = self.queue.backlog().await?;
            // A call that finds no room in the quota waits in a delay step, among other calls.
            let mut ahead = backlog.backfill + backlog.delayed + backlog.in_flight;
            if ahead >= LEAD && look.is_multiple_of(LOOKS_PER_COMPARISON) {
                memory.forget_those_that_came_through(&self.compare).await?;
                ahead = memory.recent.len() as u64;
            }
            if ahead < LEAD {
                return Ok(LEAD - ahead);
            }
            self.obey(run, memory.sent.len() as u64).await?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(LEAD)
    }

    /// Tells operators how far it is, and ends here if one of them has changed the run.
    async fn obey(&self, run: &ReplayRun, sent: u64) -> Result<(), Stop> {
        let told = ReplayRun { sending: sent, ..run.clone() };
        self.save(&told, run.state).await
    }

    /// The listing is at its end.
    async fn finish(&self, run: &mut ReplayRun) -> Result<(), Stop> {
        let (before, now) = (run.state, self.context.flow.clock.now());
        let mut next = ReplayRun { reason: None, ..run.clone() };
        if run.state == RunState::Planning {
            next.plan = Some(run.found);
            let counted = self.context.catalog.final_between(&run.tenant_id, run.from, run.to).await?;
            (next.final_at_plan, next.is_about) = (counted.rows, run.is_about || counted.is_about);
            next.planned_at = Some(now);
            (next.reached, next.found) = (run.from, Tallied::default());
            (next.doubtful, next.doubt) = (0, None);
            next.state = if run.plan_only { RunState::Planned } else { RunState::Running };
        } else {
            // What NICE's clock had not come to is not listed, whatever ours said.
            let told_at = run.told_at.filter(|told_at| run.to.duration_since(*told_at) > CLOCK_MARGIN);
            next.to = run.to.min(now).min(told_at.unwrap_or(Timestamp::MAX)).max(run.from);
            next.reached = next.to;
            next.state = RunState::Done;
            next.finished_at = Some(now);
        }
        self.save(&next, before).await?;
        *run = next;
        if run.state == RunState::Done {
            let Tallied { listed, missing, replayed, marked, in_flight, .. } = run.found;
            let (kind, doubtful) = (run.kind.as_str(), run.doubtful);
            info!(kind, run = run.id, listed, missing, replayed, marked, in_flight, doubtful, "replay is done");
            self.context.metrics.replay_finished(kind, now, missing, doubtful);
        }
        Ok(())
    }

    /// Writes the run, and ends if its state was changed meanwhile.
    async fn save(&self, run: &ReplayRun, before: RunState) -> Result<(), Stop> {
        match self.context.catalog.save_run(run, before).await? {
            state if state == run.state => Ok(()),
            _ => Err(Stop::Ended),
        }
    }

    async fn fail(&self, mut run: ReplayRun, why: String) {
        warn!(kind = run.kind.as_str(), run = run.id, reason = why, "replay failed");
        let before = run.state;
        (run.state, run.reason, run.finished_at) = (RunState::Failed, Some(why), Some(self.context.flow.clock.now()));
        if let Err(error) = self.context.catalog.save_run(&run, before).await {
            warn!(%error, "the end of the replay is not written, it begins again");
        }
    }

    /// Tells operators what the run waits for, and ends early if they change it.
    async fn wait_in_trouble(&self, run: &mut ReplayRun, why: String, delay: Duration) {
        run.reason = Some(why);
        let told = self.context.catalog.save_run(run, run.state).await;
        if let Ok(state) = told
            && state != run.state
        {
            run.state = state;
            return;
        }
        tokio::time::sleep(delay).await;
    }

    /// What lies beyond NICE's reach and may not be extracted either can never be listed.
    fn troubled(&self, run: &ReplayRun, error: &ListError) -> Stop {
        let horizon = horizon(self.context.flow.clock.now());
        if let ListError::Nice(
            NiceError::Refused { .. } | NiceError::Permanent { .. } | NiceError::Odd { .. } | NiceError::TooMuch { .. },
        ) = error
            && run.kind == RunKind::Backfill
            && run.reached < horizon
        {
            return Stop::Failed(format!(
                "NICE lists completed calls of the last 30 days only, and calls before {horizon} by data extraction, \
                 which failed: {error}; or begin the backfill at {horizon}"
            ));
        }
        Stop::Troubled { why: error.to_string(), delay: error.asks_for(&self.context.flow.retry) }
    }

    fn count(&self, run: &ReplayRun, slice: &Tallied) {
        if run.state == RunState::Running {
            self.context.metrics.replay_advanced(run.kind.as_str(), slice);
        }
    }
}

/// Waits until everything sent is on the queue.
async fn settled(tally: Tally) -> Result<(), Stop> {
    match tally.all_settled().await {
        true => Ok(()),
        false => {
            let why = "a call could not be put on the queue".to_owned();
            Err(Stop::Troubled { why, delay: Duration::ZERO })
        }
    }
}

#[cfg(test)]
mod tests;
