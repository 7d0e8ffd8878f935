//! How far a backfill has come, and when it will be through.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catalog::{Catalog, ReplayRun, RowCount, RunState};
use jiff::{SignedDuration, Timestamp};
use model::{ApiFamily, QuotaClass};
use queue::{Backlog, Queue};
use quota::Budgets;
use runtime::Clock;
use serde::{Deserialize, Serialize};
use stages::source::listing::horizon;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::OperationError;

/// A count of the rows of a whole range is used for so long.
const COUNT_AGE: Duration = Duration::from_secs(10);

/// Calls that must be final before their rate says more than the quota does.
const ENOUGH: u64 = 100;

/// A run, and when it will be through.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BackfillProgress {
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
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) struct Requests {
    pub(crate) acd: u64,
    pub(crate) media_playback: u64,
}

/// What the progress of a backfill is told from.
#[derive(Clone)]
pub(crate) struct ProgressEstimate {
    pub(in crate::operations) catalog: Arc<dyn Catalog>,
    pub(in crate::operations) queue: Arc<dyn Queue>,
    pub(in crate::operations) budgets: Arc<Budgets>,
    pub(in crate::operations) clock: Clock,
    /// Final conversations of the ranges that were counted lately, by the number of the backfill.
    pub(in crate::operations) counts: Arc<Mutex<RecentCounts>>,
}

/// When they were counted, and how many.
type RecentCounts = HashMap<u64, (Instant, RowCount)>;

impl ProgressEstimate {
    /// A run with how far it has come, and when it will be through.
    pub(super) async fn progress(&self, run: ReplayRun) -> Result<BackfillProgress, OperationError> {
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
        Ok(BackfillProgress {
            run,
            requests,
            planned_seconds,
            imported,
            imported_is_about,
            remaining,
            per_second,
            done_at,
        })
    }

    /// How many conversations of the run's range are final; counted anew at most every ten seconds.
    async fn standing(&self, run: &ReplayRun) -> Result<RowCount, OperationError> {
        let counted = |counts: &RecentCounts| {
            counts.get(&run.id).filter(|(at, _)| at.elapsed() < COUNT_AGE).map(|(_, count)| *count)
        };
        if let Some(count) = counted(&self.counts.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(count);
        }
        let count = self.catalog.final_between(&run.tenant_id, run.from, run.to).await?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
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
