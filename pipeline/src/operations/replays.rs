//! `reconcile` and `backfill`: the comparison now, backfills, and how far each has come.

use std::sync::PoisonError;
use std::time::Duration;

use catalog::{ReplayRun, RowCount, RunKind, RunState};
use jiff::{SignedDuration, Timestamp};
use model::{ApiFamily, Members, QuotaClass};
use queue::Backlog;
use serde::{Deserialize, Serialize};
use stages::{
    source::{REACH, listing::horizon},
    watermark::agreed_now,
};
use tokio::time::Instant;

use super::{Counts, OperationError, Operations, Request, Route};
use crate::replays::LOOKED_THROUGH;
use crate::tables::{table, time};

/// A count of the rows of a whole range is used for so long.
const COUNT_AGE: Duration = Duration::from_secs(10);

/// A run, and when it will be through.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    #[serde(flatten)]
    pub(crate) run: ReplayRun,
    /// Requests to NICE that the plan's missing calls take, by family; none without a plan.
    pub(crate) requests: Option<Requests>,
    /// How long they take at the present quota.
    pub(crate) planned_seconds: Option<f64>,
    /// Of the plan's missing calls: final by now.
    pub(crate) imported: u64,
    /// `imported` and `remaining` are estimates: the catalog has so many conversations that counting takes too long.
    #[serde(default)]
    pub(crate) imported_is_about: bool,
    /// Of the plan's missing calls: not final yet.
    pub(crate) remaining: u64,
    /// Calls that become final in a second.
    pub(crate) per_second: Option<f64>,
    /// When the last one will be final.
    pub(crate) done_at: Option<Timestamp>,
}

/// Requests by API family.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) acd: u64,
    pub(crate) media_playback: u64,
}

/// Refuses a range in which nothing can have happened.
pub(crate) fn check_range(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<(), OperationError> {
    if from >= to {
        let remedy = "--to is the moment after the last, so of one day it is the next day";
        return Err(OperationError::Invalid(format!("--to: {to} is not after --from {from}; {remedy}")));
    }
    if from >= now {
        let remedy = "give a moment that has passed";
        return Err(OperationError::Invalid(format!("--from: {from} lies in the future; {remedy}")));
    }
    Ok(())
}

/// Refuses what NICE does not list any more.
pub(super) fn check_listed(from: Timestamp, now: Timestamp, key: &str) -> Result<(), OperationError> {
    if from < now.checked_sub(REACH).unwrap_or(Timestamp::MIN) {
        let begin = horizon(now);
        return Err(OperationError::Invalid(format!(
            "{key}: {from} lies beyond the 30 days that NICE lists; begin at {begin} or later"
        )));
    }
    Ok(())
}

/// Backfills in one listing; of each the final rows of its range are counted.
const MOST_LISTED: usize = 50;

/// Calls that must be final before their rate says more than the quota does.
const ENOUGH: u64 = 100;

/// A comparison of the last hours; one that is under way is taken for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reconcile {
    /// Seconds back from now; that of the settings if absent.
    pub(crate) window_seconds: Option<u64>,
}

impl Reconcile {
    /// Its first moment, or why there is none.
    pub(crate) fn begin(&self, preset: Duration, now: Timestamp) -> Result<Timestamp, OperationError> {
        let window = self.window_seconds.map_or(preset, Duration::from_secs);
        let from = now.checked_sub(window).unwrap_or(Timestamp::MIN);
        check_listed(from, now, "--window")?;
        Ok(from)
    }
}

impl Request for Reconcile {
    type Answer = ReplayRun;
    const ROUTE: Route = Route::post_body("/reconciliations");

    async fn fulfil(self, operations: &Operations) -> Result<ReplayRun, OperationError> {
        let (tenant, now) =
            (operations.tenant()?.clone(), agreed_now(&*operations.catalog, operations.clock.now()).await?);
        let runs = operations.catalog.runs(&tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        let from = self.begin(operations.replaying.window, now)?;
        // A narrower one does not do; this one begins when that is through.
        if let Some(open) = runs.into_iter().find(|run| run.state.is_open() && run.from <= from) {
            operations.replaying.wake.notify_one();
            return Ok(open);
        }
        operations.begin_run(ReplayRun::new(tenant, RunKind::Reconciliation, from, now, now)).await
    }
}

/// A comparison, as it stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShowReconciliation {
    pub(crate) id: u64,
}

impl Request for ShowReconciliation {
    type Answer = ReplayRun;
    const ROUTE: Route = Route::get("/reconciliations/{id}");

    async fn fulfil(self, operations: &Operations) -> Result<ReplayRun, OperationError> {
        let Self { id } = self;
        let run = operations.catalog.run(operations.tenant()?, RunKind::Reconciliation, id).await?;
        run.ok_or_else(|| OperationError::NotFound(format!("there is no reconciliation {id}")))
    }
}

/// A backfill of the calls that began in a range: its plan first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Backfill {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// By which membership agents count.
    #[serde(default)]
    pub(crate) members: Members,
    /// Only the plan.
    #[serde(default)]
    pub(crate) plan_only: bool,
}

impl Request for Backfill {
    type Answer = ReplayRun;
    const ROUTE: Route = Route::post_body("/backfills");

    async fn fulfil(self, operations: &Operations) -> Result<ReplayRun, OperationError> {
        let tenant = operations.tenant()?.clone();
        let now = agreed_now(&*operations.catalog, operations.clock.now()).await?;
        let Self { from, to, members, plan_only } = self;
        check_range(from, to, now)?;
        let run = ReplayRun::new(tenant, RunKind::Backfill, from, to.min(now), now);
        operations.begin_run(ReplayRun { members, plan_only, ..run }).await
    }
}

/// The latest backfills, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListBackfills {}

impl Request for ListBackfills {
    type Answer = Vec<Progress>;
    const ROUTE: Route = Route::get("/backfills");

    async fn fulfil(self, operations: &Operations) -> Result<Vec<Progress>, OperationError> {
        let mut all = Vec::new();
        for run in operations.catalog.runs(operations.tenant()?, RunKind::Backfill, MOST_LISTED).await? {
            all.push(operations.progress(run).await?);
        }
        Ok(all)
    }
}

/// A backfill, as it stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShowBackfill {
    pub(crate) id: u64,
}

impl Request for ShowBackfill {
    type Answer = Progress;
    const ROUTE: Route = Route::get("/backfills/{id}");

    async fn fulfil(self, operations: &Operations) -> Result<Progress, OperationError> {
        let run = operations.backfill_run(self.id).await?;
        operations.progress(run).await
    }
}

/// A backfill is paused, resumed or cancelled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChangeBackfill {
    pub(crate) id: u64,
    pub(crate) change: Change,
}

/// An operator's wish about a backfill.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Pause,
    Resume,
    Cancel,
}

impl Request for ChangeBackfill {
    type Answer = Progress;
    const ROUTE: Route = Route::post("/backfills/{id}/{change}");

    async fn fulfil(self, operations: &Operations) -> Result<Progress, OperationError> {
        let Self { id, change } = self;
        let mut run = operations.backfill_run(id).await?;
        let to = match (change, run.state) {
            (Change::Pause, RunState::Planning | RunState::Running) => RunState::Paused,
            (Change::Resume, RunState::Paused | RunState::Planned | RunState::Failed) if run.plan.is_none() => {
                RunState::Planning
            }
            (Change::Resume, RunState::Paused | RunState::Planned | RunState::Failed) => RunState::Running,
            (Change::Cancel, state) if !state.is_final() => RunState::Cancelled,
            (Change::Pause, RunState::Paused)
            | (Change::Resume, RunState::Planning | RunState::Running)
            | (Change::Cancel, RunState::Cancelled) => return operations.progress(run).await,
            (_, state) => {
                return Err(OperationError::Refused(format!("backfill {id} is {}", state.as_str())));
            }
        };
        if !operations.catalog.change_run(&run, to, operations.clock.now()).await? {
            return Err(OperationError::Refused(format!("backfill {id} has just changed; look at it again")));
        }
        tracing::info!(id, state = to.as_str(), "backfill changed by an operator");
        operations.replaying.wake.notify_one();
        run.state = to;
        operations.progress(run).await
    }
}

impl Operations {
    async fn begin_run(&self, mut run: ReplayRun) -> Result<ReplayRun, OperationError> {
        run.id = self.catalog.begin_run(&run).await?;
        self.replaying.wake.notify_one();
        Ok(run)
    }

    async fn backfill_run(&self, id: u64) -> Result<ReplayRun, OperationError> {
        let run = self.catalog.run(self.tenant()?, RunKind::Backfill, id).await?;
        run.ok_or_else(|| OperationError::NotFound(format!("there is no backfill {id}")))
    }

    async fn progress(&self, run: ReplayRun) -> Result<Progress, OperationError> {
        let now = self.clock.now();
        let missing = run.plan.map_or(0, |plan| plan.missing);
        let requests = run.plan.map(|plan| Requests { acd: plan.requests + missing, media_playback: missing });
        let pace = |family| self.budgets.terms(family).pace(QuotaClass::Backfill);
        let planned_seconds = requests.map(|requests| {
            let seconds = |count: u64, pace: f64| if count == 0 { 0.0 } else { count as f64 / pace };
            seconds(requests.media_playback, pace(ApiFamily::MediaPlayback))
                .max(seconds(requests.acd, pace(ApiFamily::Acd)))
                .max(extraction_seconds(&run, now))
        });
        let mut standing = RowCount::exactly(0);
        if run.plan.is_some() && missing > 0 {
            standing = self.standing(&run).await?;
        }
        let imported_is_about = run.is_about || standing.is_about;
        let standing = standing.rows;
        let mut imported = standing.saturating_sub(run.final_at_plan).min(missing);
        if imported_is_about {
            // What is not published is not imported, whatever is estimated.
            imported = imported.min(run.published());
        }
        let remaining = missing - imported;
        let is_under_way = match run.state {
            RunState::Running => remaining > 0,
            // What is left when nothing is on the queue any more became no row: a dead letter, say.
            RunState::Done => remaining > 0 && self.queue.backlog().await? != Backlog::default(),
            _ => false,
        };
        let per_second = match (run.running_since, planned_seconds) {
            (Some(since), Some(planned)) if is_under_way => {
                Some(rate(standing.saturating_sub(run.final_at_start), missing, now.duration_since(since), planned))
            }
            _ => None,
        };
        let left = per_second.map(|rate| SignedDuration::from_millis((remaining as f64 / rate * 1e3) as i64));
        let done_at = left.and_then(|left| now.checked_add(left).ok());
        Ok(Progress { run, requests, planned_seconds, imported, imported_is_about, remaining, per_second, done_at })
    }

    /// How many conversations of the run's range are final; counted anew at most every ten seconds.
    async fn standing(&self, run: &ReplayRun) -> Result<RowCount, OperationError> {
        let counted =
            |counts: &Counts| counts.get(&run.id).filter(|(at, _)| at.elapsed() < COUNT_AGE).map(|(_, count)| *count);
        if let Some(count) = counted(&self.replaying.counts.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(count);
        }
        let count = self.catalog.final_between(&run.tenant_id, run.from, run.to).await?;
        let mut counts = self.replaying.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, (at, _)| at.elapsed() < COUNT_AGE);
        counts.insert(run.id, (Instant::now(), count));
        Ok(count)
    }
}

/// NICE takes one data extraction in 30 seconds, and each is of one day.
fn extraction_seconds(run: &ReplayRun, now: Timestamp) -> f64 {
    let beyond = run.to.min(horizon(now)).duration_since(run.from);
    (beyond.as_secs().max(0) as f64 / 86_400.0).ceil() * 30.0
}

/// Calls per second: as the quota promises, until enough are imported to tell.
fn rate(imported: u64, missing: u64, elapsed: SignedDuration, planned_seconds: f64) -> f64 {
    let elapsed = elapsed.as_millis() as f64 / 1e3;
    if imported >= ENOUGH && elapsed > 0.0 {
        return imported as f64 / elapsed;
    }
    missing as f64 / planned_seconds.max(1e-3)
}

pub(crate) fn reconciliation(run: &ReplayRun) -> String {
    let found = &run.found;
    let mut lines = vec![format!(
        "{} calls of the group ended from {} to {}: {} ready, {} without a recording, {} dead, {} excluded, {} in flight, \
         {} missing",
        found.listed,
        time(Some(run.from)),
        time(Some(run.to)),
        found.ready,
        found.no_recording,
        found.dead,
        found.excluded,
        found.in_flight,
        found.missing
    )];
    lines.extend(doubt(run.doubtful, run.doubt.as_deref()));
    lines.push(match (run.state, found.missing) {
        (RunState::Done, 0) if run.doubtful > 0 => "nothing of what NICE listed was missing".to_owned(),
        (RunState::Done, 0) => "nothing was missing".to_owned(),
        (RunState::Done, _) => format!("{} are on the queue now", found.replayed),
        (state, _) => format!("reconciliation {} is {}", run.id, state.as_str()),
    });
    lines.join("\n")
}

pub(crate) fn plan(progress: &Progress) -> String {
    let run = &progress.run;
    let plan = run.plan.unwrap_or_default();
    let mut lines = vec![format!("plan of backfill {}: calls that began from {} to {}", run.id, run.from, run.to)];
    lines.push(format!("members         {}", members(run.members)));
    lines.push(format!("calls           {}", plan.listed));
    lines.push(format!(
        "already there   {} ({} ready, {} without a recording, {} dead, {} excluded, {} in flight)",
        plan.there(),
        plan.ready,
        plan.no_recording,
        plan.dead,
        plan.excluded,
        plan.in_flight
    ));
    lines.push(format!("missing         {}", plan.missing));
    if let (Some(requests), Some(seconds)) = (progress.requests, progress.planned_seconds) {
        lines.push(format!("API requests    {} for recordings, {} to the ACD", requests.media_playback, requests.acd));
        lines.push(format!("time            {} at the present quota", span(seconds)));
    }
    lines.join("\n")
}

pub(crate) fn outcome(progress: &Progress) -> String {
    let (run, state) = (&progress.run, progress.run.state);
    let id = run.id;
    match state {
        RunState::Planned => {
            format!("nothing is published; `nice-knovvu backfill resume {id}` imports what is missing")
        }
        RunState::Done if run.found.missing == 0 && run.doubtful > 0 => {
            let doubt = doubt(run.doubtful, run.doubt.as_deref()).unwrap_or_default();
            format!("backfill {id} is done: nothing of what NICE listed was missing\n{doubt}")
        }
        RunState::Done if run.found.missing == 0 => format!("backfill {id} is done: nothing was missing"),
        RunState::Done => {
            format!("backfill {id}: {} calls are on the queue; {}", run.found.replayed, eta(progress))
        }
        _ => format!("backfill {id} is {}: {} of {} calls on the queue", state.as_str(), run.published(), missing(run)),
    }
}

pub(crate) fn backfills(all: &[Progress]) -> String {
    let mut table =
        table(&["id", "from", "to", "state", "calls", "missing", "on the queue", "imported", "per second", "done at"]);
    for progress in all {
        let run = &progress.run;
        table.add_row([
            run.id.to_string(),
            time(Some(run.from)),
            time(Some(run.to)),
            match &run.reason {
                Some(reason) => format!("{}, waits: {reason}", run.state.as_str()),
                None => run.state.as_str().to_owned(),
            },
            run.plan.map_or(run.found.listed, |plan| plan.listed).to_string(),
            missing(run).to_string(),
            run.published().to_string(),
            imported(progress),
            progress.per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}")),
            time(progress.done_at),
        ]);
    }
    table.to_string()
}

/// That NICE's list does not add up, if it does not.
pub(super) fn doubt(slices: u64, first: Option<&str>) -> Option<String> {
    let first = first.unwrap_or("it does not add up");
    let remedy = "calls may be missing from it; compare the number of calls with NICE's own reports";
    (slices > 0).then(|| format!("NICE's list is doubtful, in {slices} of its slices ({first}): {remedy}"))
}

/// How fast it goes, and when it ends.
pub(crate) fn eta(progress: &Progress) -> String {
    match (progress.per_second, progress.done_at) {
        (Some(rate), Some(at)) => format!(
            "{} of {} imported, {rate:.2} a second, the last one about {}",
            imported(progress),
            progress.imported + progress.remaining,
            time(Some(at))
        ),
        _ => format!("{} of {} imported", imported(progress), progress.imported + progress.remaining),
    }
}

/// How many are imported, or about how many.
fn imported(progress: &Progress) -> String {
    let about = if progress.imported_is_about { "about " } else { "" };
    format!("{about}{}", progress.imported)
}

fn members(members: Members) -> &'static str {
    match members {
        Members::Then => "those who were in the group when the call ended (--members-then)",
        Members::Now => "those who are in the group today (--members-now)",
    }
}

fn missing(run: &ReplayRun) -> u64 {
    run.plan.map_or(run.found.missing, |plan| plan.missing)
}

fn span(seconds: f64) -> String {
    let seconds = seconds.ceil().min(1e9) as i64;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
