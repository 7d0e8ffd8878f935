//! What an operator may ask of replays: the comparison now, backfills, and how far each has come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catalog::{Counted, ReplayRun, RunKind, RunState};
use jiff::{SignedDuration, Timestamp};
use model::{ApiFamily, Members, QuotaClass};
use queue::Backlog;
use serde::{Deserialize, Serialize};
use stages::{
    completeness,
    completeness::{Completeness, Question},
    source::{REACH, listing::horizon, roster::Roster},
    watermark::agreed_now,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{OperationError, Operations};
use crate::replays::LOOKED_THROUGH;

/// What asks for replays.
#[derive(Clone)]
pub(crate) struct Replaying {
    /// How far the comparison looks back.
    pub(crate) window: Duration,
    /// Tells the producer of this process.
    pub(crate) wake: Arc<Notify>,
    /// Final conversations of the ranges that were asked for of late, by the backfill's number.
    pub(crate) counts: Arc<Mutex<Counts>>,
}

/// When they were counted, and how many.
type Counts = HashMap<u64, (Instant, Counted)>;

/// A count of the rows of a whole range is used for so long.
const COUNT_AGE: Duration = Duration::from_secs(10);

/// The range of a backfill, by the start of calls.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// By which membership agents count.
    #[serde(default)]
    pub(crate) members: Members,
    /// Only the plan.
    #[serde(default)]
    pub(crate) plan_only: bool,
}

impl Range {
    /// Refuses a range in which nothing can have happened.
    pub(crate) fn validate(&self, now: Timestamp) -> Result<(), OperationError> {
        if self.from >= self.to {
            let Self { from, to, .. } = self;
            let remedy = "--to is the moment after the last, so of one day it is the next day";
            return Err(OperationError::Invalid(format!("--to: {to} is not after --from {from}; {remedy}")));
        }
        if self.from >= now {
            let remedy = "give a moment that has passed";
            return Err(OperationError::Invalid(format!("--from: {} lies in the future; {remedy}", self.from)));
        }
        Ok(())
    }

    /// And one that NICE's list of completed calls does not reach any more.
    pub(crate) fn validate_listed(&self, now: Timestamp) -> Result<(), OperationError> {
        self.validate(now)?;
        listable(self.from, now, "--from")
    }
}

/// Refuses what NICE does not list any more.
fn listable(from: Timestamp, now: Timestamp, key: &str) -> Result<(), OperationError> {
    if from < now.checked_sub(REACH).unwrap_or(Timestamp::MIN) {
        let begin = horizon(now);
        return Err(OperationError::Invalid(format!(
            "{key}: {from} lies beyond the 30 days that NICE lists; begin at {begin} or later"
        )));
    }
    Ok(())
}

/// The window of a comparison.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Seconds back from now; that of the settings if absent.
    pub(crate) window_seconds: Option<u64>,
}

impl Window {
    /// Its first moment, or why there is none.
    pub(crate) fn begin(&self, preset: Duration, now: Timestamp) -> Result<Timestamp, OperationError> {
        let window = self.window_seconds.map_or(preset, Duration::from_secs);
        let from = now.checked_sub(window).unwrap_or(Timestamp::MIN);
        listable(from, now, "--window")?;
        Ok(from)
    }
}

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

/// An operator's wish about a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Pause,
    Resume,
    Cancel,
}

impl Change {
    /// The word in a path.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }
}

/// Backfills in one listing; of each the final rows of its range are counted.
const MOST_LISTED: usize = 50;

/// Calls that must be final before their rate says more than the quota does.
const ENOUGH: u64 = 100;

impl Operations {
    /// Asks for a comparison of the last hours; one that is under way is taken for it.
    pub(crate) async fn reconcile(&self, window: Window) -> Result<ReplayRun, OperationError> {
        let (tenant, now) = (self.tenant()?.clone(), agreed_now(&*self.catalog, self.clock.now()).await?);
        let runs = self.catalog.runs(&tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        let from = window.begin(self.replaying.window, now)?;
        // A narrower one does not do; this one begins when that is through.
        if let Some(open) = runs.into_iter().find(|run| run.state.is_open() && run.from <= from) {
            self.replaying.wake.notify_one();
            return Ok(open);
        }
        self.begin(ReplayRun::new(tenant, RunKind::Reconciliation, from, now, now)).await
    }

    /// Asks for a backfill: its plan first.
    pub(crate) async fn backfill(&self, range: Range) -> Result<ReplayRun, OperationError> {
        let (tenant, now) = (self.tenant()?.clone(), agreed_now(&*self.catalog, self.clock.now()).await?);
        range.validate(now)?;
        let mut run = ReplayRun::new(tenant, RunKind::Backfill, range.from, range.to.min(now), now);
        (run.members, run.plan_only) = (range.members, range.plan_only);
        self.begin(run).await
    }

    /// A comparison.
    pub(crate) async fn reconciliation(&self, id: u64) -> Result<ReplayRun, OperationError> {
        let run = self.catalog.run(self.tenant()?, RunKind::Reconciliation, id).await?;
        run.ok_or_else(|| OperationError::NotFound(format!("there is no reconciliation {id}")))
    }

    /// The latest backfills, newest first.
    pub(crate) async fn backfills(&self) -> Result<Vec<Progress>, OperationError> {
        let mut all = Vec::new();
        for run in self.catalog.runs(self.tenant()?, RunKind::Backfill, MOST_LISTED).await? {
            all.push(self.progress(run).await?);
        }
        Ok(all)
    }

    /// One backfill.
    pub(crate) async fn backfill_progress(&self, id: u64) -> Result<Progress, OperationError> {
        let run = self.backfill_run(id).await?;
        self.progress(run).await
    }

    /// Pauses, resumes or cancels a backfill.
    pub(crate) async fn change_backfill(&self, id: u64, change: Change) -> Result<Progress, OperationError> {
        let mut run = self.backfill_run(id).await?;
        let to = match (change, run.state) {
            (Change::Pause, RunState::Planning | RunState::Running) => RunState::Paused,
            (Change::Resume, RunState::Paused | RunState::Planned | RunState::Failed) if run.plan.is_none() => {
                RunState::Planning
            }
            (Change::Resume, RunState::Paused | RunState::Planned | RunState::Failed) => RunState::Running,
            (Change::Cancel, state) if !state.is_final() => RunState::Cancelled,
            (Change::Pause, RunState::Paused)
            | (Change::Resume, RunState::Planning | RunState::Running)
            | (Change::Cancel, RunState::Cancelled) => return self.progress(run).await,
            (_, state) => {
                return Err(OperationError::Refused(format!("backfill {id} is {}", state.as_str())));
            }
        };
        if !self.catalog.change_run(&run, to, self.clock.now()).await? {
            return Err(OperationError::Refused(format!("backfill {id} has just changed; look at it again")));
        }
        tracing::info!(id, state = to.as_str(), "backfill changed by an operator");
        self.replaying.wake.notify_one();
        run.state = to;
        self.progress(run).await
    }

    /// What became of every call that ended in a range.
    pub(crate) async fn report(&self, range: Range) -> Result<Completeness, OperationError> {
        let (tenant, now) = (self.tenant()?.clone(), self.clock.now());
        range.validate_listed(now)?;
        if self.catalog.agents_read_at(&tenant).await?.is_none() {
            let reason = "the group was never read, so no call is known to be its; run `nice-knovvu agents sync`";
            return Err(OperationError::Refused(reason.to_owned()));
        }
        let (roster, reader) = watch::channel(Roster::default());
        Roster::replace(&roster, &self.catalog.agents(&tenant).await?);
        let question = Question {
            tenants: self.tenants.clone(),
            tenant,
            roster: reader.borrow().clone(),
            compare: self.compare.clone(),
            from: range.from,
            to: range.to.min(now),
            longest_call: self.longest_call,
        };
        Ok(completeness::report(question).await?)
    }

    async fn begin(&self, mut run: ReplayRun) -> Result<ReplayRun, OperationError> {
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
        let mut standing = Counted::exactly(0);
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
}

impl Operations {
    /// How many conversations of the run's range are final; counted anew at most every ten seconds.
    async fn standing(&self, run: &ReplayRun) -> Result<Counted, OperationError> {
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
