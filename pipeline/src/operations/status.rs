//! `status`: stages, backlog, lag and rate budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::{Catalog, ConversationCounts, HeldReading, RunKind, RunState};
use clap::Args;
use flow::{
    Freshness,
    metrics::{OUTCOMES, STAGES},
};
use jiff::Timestamp;
use model::{ApiFamily, TenantId};
use queue::{Backlog, Queue};
use quota::{Budgets, Usage};
use runtime::Clock;
use serde::{Deserialize, Serialize};
use stages::metrics::Metrics;
use state::State;

use super::{AdminRequest, AdminRoute, OperationError, Running, ServedTenant, SingleCommand, agents};
use crate::tables::{numbers, table, time};

/// Runs looked through for the last comparison that came to its end.
const LOOKED_BACK: usize = 30;

/// What the state of the whole is read from.
#[derive(Clone)]
pub(crate) struct StatusOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) queue: Arc<dyn Queue>,
    /// None: the process keeps no state of its own.
    pub(super) state: Option<State>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) freshness: Freshness,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) running: Running,
}

impl StatusOperations {
    /// The tenant of the settings, if they name one.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.tenant.0.as_ref().map(TenantId::as_str)
    }
}

/// The state of the whole is asked for.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct ShowStatus {}

/// The state of the whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) version: String,
    /// None: no daemon runs, this was read from the local state.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) backlog: Backlog,
    pub(crate) freshness_lag_seconds: f64,
    pub(crate) conversations: ConversationCounts,
    pub(crate) agents_active: usize,
    pub(crate) agents_inactive: usize,
    pub(crate) agents_last_sync: Option<Timestamp>,
    /// A reading of the group that is not believed yet.
    #[serde(default)]
    pub(crate) agents_held: Option<HeldReading>,
    /// Agents that NICE counts beyond those that it names, where a daemon has read the group.
    #[serde(default)]
    pub(crate) agents_missing: u64,
    pub(crate) poll_watermark: Option<Timestamp>,
    pub(crate) rate_budget: Vec<BudgetStatus>,
    pub(crate) stages: Vec<StageStatus>,
    /// None, as the two that follow: the process keeps no state of its own.
    pub(crate) webhook_inbox: Option<usize>,
    pub(crate) processed_ids: Option<usize>,
    pub(crate) state_disk_bytes: Option<u64>,
    /// The nightly comparison's last run.
    pub(crate) last_reconciliation: Option<Timestamp>,
}

/// The state of a rate budget.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BudgetStatus {
    pub(crate) family: String,
    /// Requests that may leave now.
    pub(crate) available: u32,
    /// The most in a window, by the settings.
    pub(crate) limit: u32,
    /// The most at present: less than `limit` after NICE refused a request.
    pub(crate) limit_now: u32,
    /// Requests of the present window.
    pub(crate) used: u32,
    /// The same by class.
    pub(crate) by_class: BTreeMap<String, u32>,
    /// For so long nothing is sent, where NICE refused a request just now.
    pub(crate) closed_seconds: Option<f64>,
    /// NICE's refusals since the limit was last that of the settings.
    pub(crate) refusals: u32,
    /// Until it is again, if nothing more is refused; none at full pace.
    pub(crate) full_pace_in_seconds: Option<f64>,
    /// Why the limit is where it is, in words.
    pub(crate) why: String,
}

impl BudgetStatus {
    fn of(family: ApiFamily, usage: &Usage, now: Timestamp) -> Self {
        Self {
            family: family.as_str().to_owned(),
            available: usage.available(),
            limit: usage.limit,
            limit_now: usage.limit_now,
            used: usage.used(),
            by_class: usage.by_class.iter().map(|(class, used)| (class.as_str().to_owned(), *used)).collect(),
            closed_seconds: usage.refused.and_then(|refused| refused.closed_for).map(|left| left.as_secs_f64()),
            refusals: usage.refused.map_or(0, |refused| refused.count),
            full_pace_in_seconds: usage.refused.map(|refused| refused.full_pace_in.as_secs_f64()),
            why: usage.in_words(now),
        }
    }
}

/// One stage since the start of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StageStatus {
    pub(crate) stage: String,
    pub(crate) in_flight: i64,
    pub(crate) outcomes: BTreeMap<String, u64>,
}

impl AdminRequest for ShowStatus {
    type Answer = Status;
    type Handler = StatusOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/status");

    async fn fulfil(self, operations: &StatusOperations) -> Result<Status, OperationError> {
        let (mut agents, mut agents_last_sync, mut rate_budget) = (Vec::new(), None, Vec::new());
        let mut agents_held = None;
        if let Some(tenant) = &operations.tenant.0 {
            agents = operations.catalog.agents(tenant).await?;
            agents_last_sync = operations.catalog.agents_read_at(tenant).await?;
            agents_held = operations.catalog.group_standing(tenant).await?.held;
            for family in [ApiFamily::Acd, ApiFamily::MediaPlayback] {
                let usage = operations.budgets.usage(tenant, family).await?;
                rate_budget.push(BudgetStatus::of(family, &usage, operations.clock.now()));
            }
        }
        let state = operations.state.as_ref();
        let agents_active = agents.iter().filter(|agent| agent.is_active()).count();
        let outcome =
            |stage: &str, name: &str| operations.metrics.flow.stage_items.with_label_values(&[stage, name]).get();
        let stages = STAGES.iter().map(|stage| StageStatus {
            stage: (*stage).to_owned(),
            in_flight: operations.metrics.flow.stage_in_flight.with_label_values(&[stage]).get(),
            outcomes: OUTCOMES.iter().map(|name| ((*name).to_owned(), outcome(stage, name))).collect(),
        });
        let (mut last_reconciliation, mut poll_watermark) = (None, None);
        if let Some(tenant) = &operations.tenant.0 {
            poll_watermark = operations.catalog.producer_memory(tenant).await?.poll_watermark;
            let runs = operations.catalog.runs(tenant, RunKind::Reconciliation, LOOKED_BACK).await?;
            last_reconciliation =
                runs.into_iter().find(|run| run.state == RunState::Done).and_then(|run| run.finished_at);
        }
        Ok(Status {
            tenant: operations.tenant.0.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: operations.running.since,
            backlog: operations.queue.backlog().await?,
            freshness_lag_seconds: operations.freshness.lag(operations.clock.now()).as_secs_f64(),
            conversations: operations.catalog.counts().await?,
            agents_active,
            agents_inactive: agents.len() - agents_active,
            agents_last_sync,
            agents_held,
            agents_missing: operations.running.sync.as_ref().map_or(0, |sync| sync.missing()),
            poll_watermark,
            rate_budget,
            stages: stages.collect(),
            webhook_inbox: state.map(|state| state.inbox().len()),
            processed_ids: state.map(|state| state.processed().len()),
            state_disk_bytes: state.map(|state| state.store().size_on_disk()).transpose()?,
            last_reconciliation,
        })
    }
}

impl SingleCommand for ShowStatus {
    fn table(status: &Status) -> String {
        let mut lines = Vec::new();
        let daemon = match status.started_at {
            Some(since) => format!("running since {}", time(Some(since))),
            None => "not running here".to_owned(),
        };
        let tenant = status.tenant.as_ref().map_or("every", |tenant| tenant.as_str());
        lines.push(format!("tenant          {tenant} (nice-knovvu {}, {daemon})", status.version));
        let backlog = status.backlog;
        lines.push(format!(
            "backlog         {} live, {} backfill, {} delayed, {} in flight{}",
            backlog.live,
            backlog.backfill,
            backlog.delayed,
            backlog.in_flight,
            status.webhook_inbox.map(|count| format!("; webhook inbox {count}")).unwrap_or_default()
        ));
        lines.push(format!("lag             {:.1} s (oldest call in flight)", status.freshness_lag_seconds));
        let counts = status.conversations;
        lines.push(format!(
            "conversations   {} ready, {} no recording, {} under way, {} dead letters",
            counts.ready, counts.no_recording, counts.metadata_saved, counts.dead_letters
        ));
        lines.push(format!(
            "agents          {} active, {} inactive; last read {}",
            status.agents_active,
            status.agents_inactive,
            time(status.agents_last_sync)
        ));
        if status.agents_missing > 0 {
            lines.push(format!("agents counted  {} more than NICE names", status.agents_missing));
        }
        if let Some(held) = &status.agents_held {
            lines.push(format!("agents held     {}", agents::held(held)));
        }
        lines.push(format!("found up to     {} (each poll looks back to there)", time(status.poll_watermark)));
        for budget in &status.rate_budget {
            lines.push(format!("rate budget     {}", budget_line(budget)));
        }
        lines.push(format!("reconciliation  last run {}", time(status.last_reconciliation)));
        if let (Some(ids), Some(bytes)) = (status.processed_ids, status.state_disk_bytes) {
            let mib = bytes as f64 / f64::from(1 << 20);
            lines.push(format!("local state     {ids} processed ids, {mib:.1} MiB on disk"));
        }
        if status.started_at.is_none() {
            return lines.join("\n");
        }
        let mut stages =
            table(&["stage", "in flight", "ok", "done", "not ready", "busy", "retry", "dead letter", "handed back"]);
        for stage in &status.stages {
            let count = |outcome: &str| stage.outcomes.get(outcome).copied().unwrap_or_default().to_string();
            let mut row = vec![stage.stage.clone(), stage.in_flight.to_string()];
            row.extend(["ok", "done", "not_ready", "busy", "retry", "dead_letter", "handed_back"].map(count));
            stages.add_row(row);
        }
        numbers(&mut stages, 1);
        format!("{}\n{stages}", lines.join("\n"))
    }
}

/// The state of a rate budget, in a line.
fn budget_line(budget: &BudgetStatus) -> String {
    let BudgetStatus { family, available, limit, limit_now, used, .. } = budget;
    let mut line = format!("{family}: {available} requests available now, {used} of {limit_now} used");
    if !budget.by_class.is_empty() {
        let classes: Vec<_> = budget.by_class.iter().map(|(class, used)| format!("{class} {used}")).collect();
        line.push_str(&format!(" ({})", classes.join(", ")));
    }
    if limit_now < limit {
        line.push_str(&format!(", lowered from {limit}"));
    }
    format!("{line}; {}", budget.why)
}
