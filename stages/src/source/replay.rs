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

use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use catalog::{ReplayRun, RunKind, RunState, Tallied};
use flow::retry::Intervals;
use jiff::{SignedDuration, Timestamp};
use nice::NiceError;
use queue::Queue;
use runtime::crash;
use state::ProcessedLog;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use self::{progress::ReplayProgress, stop::Stop};
use super::compare::Compare;
use super::listing::{Slice, horizon};
use super::roster::Roster;
use super::{FoundEvent, ListDoubt, ListError};
use crate::Context;
use crate::tenants::Tenants;

mod lead;
mod progress;
mod slice;
mod stop;
mod window;

/// Calls of a backfill that may be published and not yet imported: some minutes' work at NICE's usual quota. Those that
/// find no room in it come and go on the queue, so there are few.
pub const LEAD: u64 = 200;

/// NICE's clock and ours may differ by so much.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// The settings and clients of a replay.
#[derive(Clone)]
pub struct ReplayWorker {
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
    pub found: mpsc::Sender<FoundEvent>,
    /// The machinery.
    pub context: Context,
}

impl ReplayWorker {
    /// Works on a run until it is done, or the service drains, or an operator pauses or cancels it.
    pub async fn run(self, mut run: ReplayRun) {
        let kind = run.kind.as_str();
        info!(kind, run = run.id, from = %run.from, to = %run.to, reached = %run.reached, "replay begins");
        let retry = &self.context.flow.retry;
        let mut intervals = retry.intervals();
        let stopping = self.context.flow.stopping.clone();
        let mut progress = ReplayProgress::default();
        while run.state.is_open() {
            // In a box: a future that holds so many others is too deep for the compiler of whoever awaits it.
            let pass = Box::pin(self.pass(&mut run, &mut progress, &mut intervals));
            match stopping.run_until_cancelled(pass).await {
                Some(Ok(())) => {}
                None | Some(Err(Stop::Ended)) => return,
                Some(Err(Stop::Failed(why))) => return self.fail(run, why).await,
                Some(Err(Stop::Troubled { why, delay })) => {
                    let delay = retry.next(&mut intervals).max(delay);
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
    async fn pass(
        &self,
        run: &mut ReplayRun,
        progress: &mut ReplayProgress,
        intervals: &mut Intervals,
    ) -> Result<(), Stop> {
        self.roster.clone().wait_for(Roster::is_known).await.map_err(|_closed| Stop::Ended)?;
        if run.state == RunState::Running && !progress.is_timed {
            self.note_beginning(run, progress).await?;
        }
        let mut listing = progress.listing.take().unwrap_or_else(|| self.listing(run));
        loop {
            let slice = match listing.next().await {
                Ok(Some(slice)) => slice,
                Ok(None) => return self.finish(run).await,
                Err(error) => {
                    // It has learned how much NICE gives, and how often it did not.
                    progress.listing = Some(listing);
                    return Err(self.troubled(run, &error));
                }
            };
            let (tallied, open_since) = self.work_through(run, &slice, progress).await?;
            let before = run.state;
            advance(run, &slice, &tallied, open_since);
            if run.state == RunState::Running {
                self.context.metrics.replay_advanced(run.kind.as_str(), &tallied);
            }
            self.save(run, before).await?;
            crash::point("replay_advanced");
            listing.passed(&slice);
            progress.slice_is_done();
            intervals.reset();
        }
    }

    /// Notes how much is there before the run changes anything, and since when it works.
    async fn note_beginning(&self, run: &mut ReplayRun, progress: &mut ReplayProgress) -> Result<(), Stop> {
        let counted = self.context.catalog.final_between(&run.tenant_id, run.from, run.to).await?;
        (run.final_at_start, run.is_about) = (counted.rows, run.is_about || counted.is_about);
        let before = run.running_since.replace(self.context.flow.clock.now());
        self.save(run, run.state).await?;
        progress.is_timed = true;
        progress.may_be_resumed = before.is_some();
        Ok(())
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
}

/// The run after this slice.
fn advance(run: &mut ReplayRun, slice: &Slice, tallied: &Tallied, open_since: Option<Timestamp>) {
    run.open_since = [run.open_since, open_since].into_iter().flatten().min();
    run.found.add(tallied);
    run.reached = slice.to;
    run.told_at = run.told_at.max(slice.told_at);
    if slice.doubt == Some(ListDoubt::NotRead) {
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
}

#[cfg(test)]
mod tests;
