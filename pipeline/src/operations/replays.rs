//! `reconcile` and `backfill`: the comparison now, backfills, and how far each has come.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, ReplayRun, RunKind, RunState};
use jiff::Timestamp;
use model::Members;
use runtime::Clock;
use serde::{Deserialize, Serialize};
use stages::watermark::agreed_now;
use tokio::sync::Notify;
use utoipa::ToSchema;

use super::paging::{AnswerPage, PageStart};
use super::range::{check_listed, check_range};
use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};
use crate::replays::LOOKED_THROUGH;

mod progress;
mod text;

pub(crate) use progress::{BackfillProgress, ProgressEstimate};
pub(super) use text::doubt;
pub(crate) use text::{backfills, eta, outcome, plan, reconciliation};

/// What is asked of comparisons and backfills.
#[derive(Clone)]
pub(crate) struct ReplayOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) clock: Clock,
    /// How far the comparison looks back.
    pub(super) window: Duration,
    /// Tells the producer of this process.
    pub(super) wake: Arc<Notify>,
    pub(super) estimate: ProgressEstimate,
}

/// Backfills in one listing or page; of each the final rows of its range are counted.
const MOST_LISTED: usize = 50;

/// Runs that the pages reach back.
const MOST_PAGED: usize = 1000;

/// A comparison of the last hours; one that is under way is taken for it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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

impl AdminRequest for Reconcile {
    type Answer = ReplayRun;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/reconciliations");

    async fn fulfil(self, operations: &ReplayOperations) -> Result<ReplayRun, OperationError> {
        let (tenant, now) =
            (operations.tenant.get()?.clone(), agreed_now(&*operations.catalog, operations.clock.now()).await?);
        let runs = operations.catalog.runs(&tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        let from = self.begin(operations.window, now)?;
        // A narrower one does not do; this one begins when that is through.
        if let Some(open) = runs.into_iter().find(|run| run.state.is_open() && run.from <= from) {
            operations.wake.notify_one();
            return Ok(open);
        }
        operations.begin_run(ReplayRun::new(tenant, RunKind::Reconciliation, from, now, now)).await
    }
}

/// A comparison in its present state.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowReconciliation {
    pub(crate) id: u64,
}

impl AdminRequest for ShowReconciliation {
    type Answer = ReplayRun;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/reconciliations/{id}");

    async fn fulfil(self, operations: &ReplayOperations) -> Result<ReplayRun, OperationError> {
        let Self { id } = self;
        let run = operations.catalog.run(operations.tenant.get()?, RunKind::Reconciliation, id).await?;
        run.ok_or_else(|| OperationError::NotFound(format!("there is no reconciliation {id}")))
    }
}

/// The latest comparisons, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListReconciliations {}

impl AdminRequest for ListReconciliations {
    type Answer = Vec<ReplayRun>;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/reconciliations");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &ReplayOperations) -> Result<Vec<ReplayRun>, OperationError> {
        let tenant = operations.tenant.get()?;
        Ok(operations.catalog.runs(tenant, RunKind::Reconciliation, MOST_LISTED).await?)
    }

    async fn fulfil_page(
        self,
        operations: &ReplayOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<ReplayRun>>, OperationError> {
        let limit = start.limit()?.min(MOST_LISTED);
        let runs = operations.runs_before(RunKind::Reconciliation, start.after()?, limit).await?;
        Ok(AnswerPage::of(runs, limit, |run| run.id.to_string()))
    }
}

/// A backfill of the calls that began in a range: its plan first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
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

impl AdminRequest for Backfill {
    type Answer = ReplayRun;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/backfills");

    async fn fulfil(self, operations: &ReplayOperations) -> Result<ReplayRun, OperationError> {
        let tenant = operations.tenant.get()?.clone();
        let now = agreed_now(&*operations.catalog, operations.clock.now()).await?;
        let Self { from, to, members, plan_only } = self;
        check_range(from, to, now)?;
        let run = ReplayRun::new(tenant, RunKind::Backfill, from, to.min(now), now);
        operations.begin_run(ReplayRun { members, plan_only, ..run }).await
    }
}

/// The latest backfills, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListBackfills {}

impl AdminRequest for ListBackfills {
    type Answer = Vec<BackfillProgress>;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/backfills");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &ReplayOperations) -> Result<Vec<BackfillProgress>, OperationError> {
        let mut all = Vec::new();
        for run in operations.catalog.runs(operations.tenant.get()?, RunKind::Backfill, MOST_LISTED).await? {
            all.push(operations.estimate.progress(run).await?);
        }
        Ok(all)
    }

    async fn fulfil_page(
        self,
        operations: &ReplayOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<BackfillProgress>>, OperationError> {
        let limit = start.limit()?.min(MOST_LISTED);
        let mut page = Vec::new();
        for run in operations.runs_before(RunKind::Backfill, start.after()?, limit).await? {
            page.push(operations.estimate.progress(run).await?);
        }
        Ok(AnswerPage::of(page, limit, |progress| progress.run.id.to_string()))
    }
}

/// A backfill in its present state.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowBackfill {
    pub(crate) id: u64,
}

impl AdminRequest for ShowBackfill {
    type Answer = BackfillProgress;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/backfills/{id}");

    async fn fulfil(self, operations: &ReplayOperations) -> Result<BackfillProgress, OperationError> {
        let run = operations.backfill_run(self.id).await?;
        operations.estimate.progress(run).await
    }
}

/// A backfill is paused, resumed or cancelled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangeBackfill {
    pub(crate) id: u64,
    pub(crate) change: Change,
}

/// What an operator does with a backfill.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Pause,
    Resume,
    Cancel,
}

impl AdminRequest for ChangeBackfill {
    type Answer = BackfillProgress;
    type Handler = ReplayOperations;
    const ROUTE: AdminRoute = AdminRoute::post("/backfills/{id}/{change}");

    async fn fulfil(self, operations: &ReplayOperations) -> Result<BackfillProgress, OperationError> {
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
            | (Change::Cancel, RunState::Cancelled) => return operations.estimate.progress(run).await,
            (_, state) => {
                return Err(OperationError::Refused(format!("backfill {id} is {}", state.as_str())));
            }
        };
        if !operations.catalog.change_run(&run, to, operations.clock.now()).await? {
            return Err(OperationError::Refused(format!("backfill {id} has just changed; look at it again")));
        }
        tracing::info!(run = id, state = to.as_str(), "backfill changed by an operator");
        operations.wake.notify_one();
        run.state = to;
        operations.estimate.progress(run).await
    }
}

impl ReplayOperations {
    async fn begin_run(&self, mut run: ReplayRun) -> Result<ReplayRun, OperationError> {
        run.id = self.catalog.begin_run(&run).await?;
        self.wake.notify_one();
        Ok(run)
    }

    /// The latest runs before the one with this number.
    async fn runs_before(
        &self,
        kind: RunKind,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<ReplayRun>, OperationError> {
        let reach = if before.is_none() { most } else { MOST_PAGED };
        let mut runs = self.catalog.runs(self.tenant.get()?, kind, reach).await?;
        runs.retain(|run| before.is_none_or(|before| run.id < before));
        runs.truncate(most);
        Ok(runs)
    }

    async fn backfill_run(&self, id: u64) -> Result<ReplayRun, OperationError> {
        let run = self.catalog.run(self.tenant.get()?, RunKind::Backfill, id).await?;
        run.ok_or_else(|| OperationError::NotFound(format!("there is no backfill {id}")))
    }
}
