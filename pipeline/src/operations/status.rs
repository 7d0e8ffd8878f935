//! `status`: are calls lost or late, whose fault is it, and what is to be done; then the figures.
//!
//! It is answered from what this process knows already, and from what queue, catalog and budget say within a second:
//! so it is there in two seconds whatever is away. What other services know comes with their heartbeats.

use std::time::Duration;

use catalog::{ConversationCounts, DeadLetterGroup, HeldReading};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use model::TenantId;
use queue::Backlog;
use serde::{Deserialize, Serialize};
use state::State;

use super::{AdminRequest, AdminRoute, OperationError, Running, ServedTenant, SingleCommand};
use crate::command_error::CommandError;
use crate::heartbeat::{Reporter, ServiceReport, StageStatus};
use crate::observer::Observer;
use crate::probes::ProbeAnswer;
use crate::systems::{SystemState, SystemStatus};

mod budget;
mod services;
mod text;

pub(crate) use budget::BudgetStatus;
use services::Others;
pub(crate) use services::ServiceStatus;

/// How long queue, catalog and budget may take: all are asked side by side.
const PATIENCE: Duration = Duration::from_secs(1);

/// A producer that has not read NICE's list for so long finds no calls.
const LISTED_WITHIN: SignedDuration = SignedDuration::from_mins(15);

/// What the state of the whole is read from.
#[derive(Clone)]
pub(crate) struct StatusOperations {
    pub(super) tenant: ServedTenant,
    pub(super) observer: Observer,
    pub(super) reporter: Reporter,
    /// None: the process keeps no state of its own.
    pub(super) state: Option<State>,
    pub(super) running: Running,
    /// A call that is due for longer is late.
    pub(super) freshness_goal: Duration,
}

impl StatusOperations {
    /// The tenant of the settings, if they name one.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.tenant.0.as_ref().map(TenantId::as_str)
    }
}

/// The state of the whole is asked for.
#[derive(Debug, Args, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ShowStatus {}

/// The daemon is asked who it is: only the one that this state directory belongs to knows the token.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ShowDaemon {}

/// A running daemon.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DaemonStatus {
    pub(crate) version: String,
    /// None where no service runs.
    pub(crate) started_at: Option<Timestamp>,
}

impl AdminRequest for ShowDaemon {
    type Answer = DaemonStatus;
    type Handler = StatusOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/daemon");

    async fn fulfil(self, operations: &StatusOperations) -> Result<DaemonStatus, OperationError> {
        let started_at = operations.running.identity.as_ref().map(|identity| identity.started_at);
        Ok(DaemonStatus { version: env!("CARGO_PKG_VERSION").to_owned(), started_at })
    }
}

/// The state of the whole.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Status {
    /// The answer to the first question, in a word.
    pub(crate) verdict: Verdict,
    /// What is not well, the worst first; each in a line, with what to do.
    pub(crate) concerns: Vec<String>,
    /// Every outside system.
    pub(crate) systems: Vec<SystemStatus>,
    /// How late calls are.
    pub(crate) freshness: FreshnessStatus,
    /// What was set aside, by stage and reason: the largest groups.
    pub(crate) lost: Vec<DeadLetterGroup>,
    /// The services that run, and those that are missed.
    pub(crate) services: Vec<ServiceStatus>,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) version: String,
    /// None: no daemon runs, this was read from the local state.
    pub(crate) started_at: Option<Timestamp>,
    /// None: the queue was never asked with success.
    pub(crate) backlog: Option<Backlog>,
    /// The same as `freshness.oldest_due_seconds`. None: not known.
    pub(crate) freshness_lag_seconds: Option<f64>,
    /// None: the catalog was never asked with success.
    pub(crate) conversations: Option<ConversationCounts>,
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
    /// Of all services that run.
    pub(crate) stages: Vec<StageStatus>,
    /// None, as the two that follow: the process keeps no state of its own.
    pub(crate) webhook_inbox: Option<usize>,
    pub(crate) processed_ids: Option<usize>,
    pub(crate) state_disk_bytes: Option<u64>,
    /// The nightly comparison's last run.
    pub(crate) last_reconciliation: Option<Timestamp>,
    /// Figures that could not be asked for now: they are as they were last seen, or empty.
    pub(crate) not_asked: Vec<String>,
}

impl Status {
    /// What is said where nobody could be asked: nothing is known, and so it is not well.
    fn unknown(tenant: Option<TenantId>, goal: Duration) -> Self {
        let figures = ["backlog", "conversations", "lost", "services", "agents", "rate_budget"];
        Self {
            verdict: Verdict::Degraded,
            concerns: Vec::new(),
            systems: Vec::new(),
            freshness: FreshnessStatus {
                is_known: false,
                oldest_due_seconds: None,
                waits_for: None,
                goal_seconds: goal.as_secs_f64(),
                listed_at: None,
            },
            lost: Vec::new(),
            services: Vec::new(),
            tenant,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: None,
            backlog: None,
            freshness_lag_seconds: None,
            conversations: None,
            agents_active: 0,
            agents_inactive: 0,
            agents_last_sync: None,
            agents_held: None,
            agents_missing: 0,
            poll_watermark: None,
            rate_budget: Vec::new(),
            stages: Vec::new(),
            webhook_inbox: None,
            processed_ids: None,
            state_disk_bytes: None,
            last_reconciliation: None,
            not_asked: figures.map(str::to_owned).to_vec(),
        }
    }

    /// What can be said where a door does not open: which system is away. All else is not known.
    pub(crate) fn of_probes(tenant: Option<TenantId>, goal: Duration, answers: &[ProbeAnswer]) -> Self {
        let system = |answer: &ProbeAnswer| {
            let reason = answer.answer.as_ref().err().cloned();
            let tenant = tenant.clone().filter(|_| !answer.system.is_shared());
            SystemStatus::of(answer.system, tenant, answer.state()).since(None, reason)
        };
        let systems = answers.iter().map(system).collect();
        let mut status = Self { systems, ..Self::unknown(tenant.clone(), goal) };
        (status.verdict, status.concerns) = judge(&status, Timestamp::UNIX_EPOCH);
        if status.verdict == Verdict::Well {
            let late = "queue, catalog and services could not be read in time: ask again, or ask where a service runs";
            (status.verdict, status.concerns) = (Verdict::Degraded, vec![late.to_owned()]);
        }
        status
    }
}

/// The answer to the first question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Calls go through, and none is late.
    Well,
    /// Some are late or set aside, or something is slower than it should be.
    Degraded,
    /// A system is away that calls wait for.
    Away,
}

impl Verdict {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Degraded => "degraded",
            Self::Away => "away",
        }
    }
}

/// How late calls are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FreshnessStatus {
    /// Whether anybody knows: not where the calls wait on a queue that is away, or that nobody reads.
    pub(crate) is_known: bool,
    /// For how long the oldest call is due, wherever it waits; none where none is.
    pub(crate) oldest_due_seconds: Option<f64>,
    /// The system that keeps it.
    pub(crate) waits_for: Option<String>,
    /// A call that is due for longer is late.
    pub(crate) goal_seconds: f64,
    /// When a producer last read NICE's list of ended calls whole.
    pub(crate) listed_at: Option<Timestamp>,
}

impl AdminRequest for ShowStatus {
    type Answer = Status;
    type Handler = StatusOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/status");

    async fn fulfil(self, operations: &StatusOperations) -> Result<Status, OperationError> {
        let latest = operations.observer.look_closely(PATIENCE).await;
        let now = operations.observer.clock.now();
        let looked_at = latest.at.unwrap_or(now);
        let own = operations.reporter.report();
        let others = Others::of(latest.services.get(), latest.services.age(now), operations.running.identity.as_ref());
        let not_asked = [
            ("backlog", latest.backlog.since(looked_at).is_none()),
            ("conversations", latest.counts.since(looked_at).is_none()),
            ("lost", latest.groups.since(looked_at).is_none()),
            ("services", latest.services.since(looked_at).is_none()),
            ("agents", latest.figures.since(looked_at).is_none()),
            ("rate_budget", latest.budgets.since(looked_at).is_none()),
        ];
        let figures = latest.figures.get().cloned().unwrap_or_default();
        let budgets = latest.budgets.get().into_iter().flatten();
        let (state, running) = (operations.state.as_ref(), &operations.running);
        let tenant = operations.tenant.0.as_ref();
        let mut freshness = freshness(&own, &others, tenant, operations.freshness_goal, now);
        if freshness.oldest_due_seconds.is_none() && !others.knows_of_calls(running.identity.as_ref(), &own) {
            freshness.is_known = false;
        }
        let mut status = Status {
            systems: others.systems(own.systems.clone()),
            lost: latest.groups.get().cloned().unwrap_or_default(),
            services: others.services(running.identity.as_ref(), &own),
            started_at: running.identity.as_ref().map(|identity| identity.started_at),
            backlog: latest.backlog.get().copied(),
            freshness_lag_seconds: freshness.oldest_due_seconds,
            freshness,
            conversations: latest.counts.get().copied(),
            agents_active: figures.agents_active,
            agents_inactive: figures.agents_inactive,
            agents_last_sync: figures.agents_read_at,
            agents_held: figures.agents_held,
            agents_missing: running.sync.as_ref().map_or(0, |sync| sync.missing()),
            poll_watermark: figures.poll_watermark,
            rate_budget: budgets.map(|(family, usage)| BudgetStatus::of(*family, usage, now)).collect(),
            stages: others.stages(own.stages),
            webhook_inbox: state.map(|state| state.inbox().len()),
            processed_ids: state.map(|state| state.processed().len()),
            state_disk_bytes: state.and_then(|state| state.store().size_on_disk().ok()),
            last_reconciliation: figures.reconciled_at,
            not_asked: not_asked
                .iter()
                .filter(|(_, is_missing)| *is_missing)
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            ..Status::unknown(operations.tenant.0.clone(), operations.freshness_goal)
        };
        (status.verdict, status.concerns) = judge(&status, now);
        if let Some(error) = state.and_then(|state| state.store().check().err()) {
            status.verdict = Verdict::Away;
            status.concerns.insert(0, format!("the local state takes no more writes ({error}): look at the disk"));
        }
        Ok(status)
    }
}

/// The oldest call of all services.
fn freshness(
    own: &ServiceReport,
    others: &Others,
    tenant: Option<&TenantId>,
    goal: Duration,
    now: Timestamp,
) -> FreshnessStatus {
    let reports = others.alive().chain([own]);
    let listed_at = others.producers_of(tenant).chain([own]).filter_map(|report| report.listed_at).max();
    let oldest = reports.clone().filter_map(|report| Some((report.oldest_due?, &report.oldest_waits_for))).min();
    let age = oldest.as_ref().and_then(|(since, _)| Duration::try_from(now.duration_since(*since)).ok());
    FreshnessStatus {
        is_known: true,
        oldest_due_seconds: age.map(|age| age.as_secs_f64()),
        waits_for: oldest.and_then(|(_, waits_for)| waits_for.clone()),
        goal_seconds: goal.as_secs_f64(),
        listed_at,
    }
}

/// What is not well, the worst first, and the word for the whole.
fn judge(status: &Status, now: Timestamp) -> (Verdict, Vec<String>) {
    let mut concerns: Vec<(Verdict, String)> = Vec::new();
    let mut concern = |verdict, text: String| concerns.push((verdict, text));
    for system in &status.systems {
        let verdict = match system.state {
            state if state.is_away() => Verdict::Away,
            SystemState::Limited => Verdict::Degraded,
            _ => continue,
        };
        let remedy = system.remedy.as_deref().unwrap_or("the log says more");
        concern(verdict, format!("{} {}: {remedy}", system.name(), system.state.as_str()));
    }
    services::judge(status, &mut concern);
    let FreshnessStatus { oldest_due_seconds, goal_seconds, listed_at, .. } = &status.freshness;
    if let Some(seconds) = oldest_due_seconds.filter(|seconds| seconds > goal_seconds) {
        let waits = text::span(seconds);
        concern(Verdict::Degraded, format!("a call is due for {waits}: see what it waits for below"));
    }
    if let Some(at) = listed_at.filter(|at| now.duration_since(*at) > LISTED_WITHIN) {
        let ago = text::span(now.duration_since(at).as_secs_f64());
        concern(Verdict::Degraded, format!("NICE's list was last read whole {ago} ago: new calls are not found"));
    }
    if let Some(held) = &status.agents_held {
        concern(Verdict::Degraded, super::agents::held(held));
    }
    if let Some(ConversationCounts { dead_letters: count @ 1.., .. }) = status.conversations {
        concern(Verdict::Degraded, format!("{count} calls are set aside: `nice-knovvu dead-letters list --groups`"));
    }
    // Stable: of the same weight, in the order in which they were found.
    concerns.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = concerns.first().map_or(Verdict::Well, |(verdict, _)| *verdict);
    (verdict, concerns.into_iter().map(|(_, text)| text).collect())
}

impl SingleCommand for ShowStatus {
    fn table(status: &Status) -> String {
        text::page(status)
    }

    fn verdict(status: &Status) -> Result<(), CommandError> {
        let first = || status.concerns.first().cloned().unwrap_or_default();
        match status.verdict {
            Verdict::Well => Ok(()),
            Verdict::Degraded => Err(CommandError::partly(format!("degraded: {}", first()))),
            Verdict::Away => Err(CommandError::unreachable(first())),
        }
    }
}
