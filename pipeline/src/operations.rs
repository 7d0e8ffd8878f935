//! What an operator may ask or do. The daemon does it over its admin address; where none runs, the command does
//! it itself on the same code.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, CatalogError, ConversationRow, Counts, HeldReading, RunKind, RunState, Standing};
use flow::{
    Freshness, StageError,
    metrics::{OUTCOMES, STAGES},
};
use jiff::Timestamp;
use model::{Agent, ApiFamily, ContactId, ConversationKey, DeadLetter, Hop, System, TenantId};
use queue::{Backlog, Queue, QueueError};
use quota::{Budgets, StoreError, Usage};
use runtime::{Clock, task};
use serde::{Deserialize, Serialize};
use stages::{
    completeness::ReportError,
    erase::Eraser,
    metrics::Metrics,
    shelf,
    shelf::{AskedBy, ReplayError},
    source::compare::Compare,
    sync_agents::{SyncAgents, SyncError, SyncReport},
    tenants::Tenants,
    verify::Verifier,
};
use state::StateError;
use tokio::sync::watch;

use crate::doors::Local;

mod erase;
mod recheck;
pub(crate) mod replays;
pub(crate) mod verify;

pub(crate) use erase::{Erasable, Erased};
pub(crate) use recheck::Rechecked;
pub(crate) use replays::Replaying;

/// Runs looked through for the last comparison that came to its end.
const LOOKED_BACK: usize = 30;

/// Dead letters read at a time.
const PAGE: usize = 500;

/// The most dead letters in one listing; the rest is named by the metric and comes after these are dealt with.
const MOST_LISTED: usize = 100_000;

/// Why an operator's wish was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The settings name no tenant, and it must be one.
    #[error("{0}")]
    NoTenant(String),
    /// It cannot be done with this.
    #[error("{0}")]
    Refused(String),
    /// It was asked for in a way that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// NICE, the catalog or the queue did not answer a report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// NICE could not be asked.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The queue did not answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The local state did not answer.
    #[error(transparent)]
    State(#[from] StateError),
    /// The recording store or the catalog did not answer.
    #[error("not verified to the end, run it again: {0}")]
    Verification(StageError),
    /// A conversation is not erased, or not whole: an outside system failed.
    #[error("not finished, run it again; consumers go on with it too: {0}")]
    Erasure(#[from] StageError),
    /// The rate budget did not answer.
    #[error(transparent)]
    Budget(#[from] StoreError),
}

/// The doors that operations need.
#[derive(Clone)]
pub(crate) struct Operations {
    /// None: the process serves every tenant, and none is named in its settings.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) queue: Arc<dyn Queue>,
    /// None: the process keeps no state of its own.
    pub(crate) local: Option<Local>,
    pub(crate) sync: Option<Arc<SyncAgents>>,
    /// None: the process has no recording store.
    pub(crate) eraser: Option<Eraser>,
    /// None: the process has no recording store.
    pub(crate) verifier: Option<Verifier>,
    /// Whether the producer of this process has its turn; none where no service runs.
    pub(crate) producing: Option<watch::Receiver<bool>>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) freshness: Freshness,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) replaying: Replaying,
    pub(crate) compare: Compare,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) longest_call: Duration,
}

/// The state of the whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) version: String,
    /// None: no daemon runs, this was read from the local state.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) backlog: Backlog,
    pub(crate) freshness_lag_seconds: f64,
    pub(crate) conversations: Counts,
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
    pub(crate) rate_budget: Vec<Budget>,
    pub(crate) stages: Vec<StageStatus>,
    /// None, as the two that follow: the process keeps no state of its own.
    pub(crate) webhook_inbox: Option<usize>,
    pub(crate) processed_ids: Option<usize>,
    pub(crate) state_disk_bytes: Option<u64>,
    /// The nightly comparison's last run.
    pub(crate) last_reconciliation: Option<Timestamp>,
}

/// How a rate budget stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Budget {
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
    pub(crate) by_class: std::collections::BTreeMap<String, u32>,
    /// For so long nothing is sent, where NICE refused a request just now.
    pub(crate) closed_seconds: Option<f64>,
    /// NICE's refusals since the limit was last that of the settings.
    pub(crate) refusals: u32,
    /// Until it is again, if nothing more is refused; none at full pace.
    pub(crate) full_pace_in_seconds: Option<f64>,
    /// Why the limit is where it is, in words.
    pub(crate) why: String,
}

impl Budget {
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
    pub(crate) outcomes: std::collections::BTreeMap<String, u64>,
}

/// Everything known of one conversation. The customer's number and NICE's own record stay in the catalog.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub(crate) conversation_id: ContactId,
    /// `metadata_saved`, `ready`, `no_recording`, `dead_letter`, `erased`, `dropped` (the last hop says why), or
    /// `under_way`.
    pub(crate) state: String,
    pub(crate) conversation: Option<serde_json::Value>,
    pub(crate) dead_letter: Option<DeadLetter>,
    /// Whether the dedupe lets no further event of it through.
    pub(crate) processed: bool,
    pub(crate) hops: Vec<Hop>,
}

impl Trace {
    /// All that is known of an erased conversation.
    fn erased(conversation_id: ContactId) -> Self {
        Self {
            conversation_id,
            state: "erased".to_owned(),
            conversation: None,
            dead_letter: None,
            processed: false,
            hops: Vec::new(),
        }
    }
}

/// Dead letters by their age.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Older {
    pub(crate) older_than_secs: u64,
    /// Only count them.
    pub(crate) dry_run: bool,
}

impl Operations {
    pub(crate) fn tenant(&self) -> Result<&TenantId, OperationError> {
        let missing =
            || OperationError::NoTenant("[tenant] id: missing, and the question is about one tenant".to_owned());
        self.tenant.as_ref().ok_or_else(missing)
    }

    /// The state of the whole.
    pub(crate) async fn status(&self) -> Result<Status, OperationError> {
        let (mut agents, mut agents_last_sync, mut rate_budget) = (Vec::new(), None, Vec::new());
        let mut agents_held = None;
        if let Some(tenant) = &self.tenant {
            agents = self.catalog.agents(tenant).await?;
            agents_last_sync = self.catalog.agents_read_at(tenant).await?;
            agents_held = self.catalog.group_standing(tenant).await?.held;
            for family in [ApiFamily::Acd, ApiFamily::MediaPlayback] {
                let usage = self.budgets.usage(tenant, family).await?;
                rate_budget.push(Budget::of(family, &usage, self.clock.now()));
            }
        }
        let state = self.local.as_ref().map(|local| &local.state);
        let agents_active = agents.iter().filter(|agent| agent.is_active()).count();
        let outcome = |stage: &str, name: &str| self.metrics.flow.stage_items.with_label_values(&[stage, name]).get();
        let stages = STAGES.iter().map(|stage| StageStatus {
            stage: (*stage).to_owned(),
            in_flight: self.metrics.flow.stage_in_flight.with_label_values(&[stage]).get(),
            outcomes: OUTCOMES.iter().map(|name| ((*name).to_owned(), outcome(stage, name))).collect(),
        });
        let (mut last_reconciliation, mut poll_watermark) = (None, None);
        if let Some(tenant) = &self.tenant {
            poll_watermark = self.catalog.producer_memory(tenant).await?.poll_watermark;
            let runs = self.catalog.runs(tenant, RunKind::Reconciliation, LOOKED_BACK).await?;
            last_reconciliation =
                runs.into_iter().find(|run| run.state == RunState::Done).and_then(|run| run.finished_at);
        }
        Ok(Status {
            tenant: self.tenant.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            backlog: self.queue.backlog().await?,
            freshness_lag_seconds: self.freshness.lag(self.clock.now()).as_secs_f64(),
            conversations: self.catalog.counts().await?,
            agents_active,
            agents_inactive: agents.len() - agents_active,
            agents_last_sync,
            agents_held,
            agents_missing: self.sync.as_ref().map_or(0, |sync| sync.missing()),
            poll_watermark,
            rate_budget,
            stages: stages.collect(),
            webhook_inbox: state.map(|state| state.inbox().len()),
            processed_ids: state.map(|state| state.processed().len()),
            state_disk_bytes: state.map(|state| state.store().size_on_disk()).transpose()?,
            last_reconciliation,
        })
    }

    /// Everything known of one conversation.
    pub(crate) async fn trace(&self, id: &str) -> Result<Trace, OperationError> {
        let external_id: ContactId =
            id.parse().map_err(|error| OperationError::Refused(format!("CONVERSATION_ID: {error}")))?;
        let key = ConversationKey { tenant: self.tenant()?.clone(), external_id };
        if self.catalog.standing(&key).await? == Standing::Erased {
            return Ok(Trace::erased(external_id));
        }
        let row = self.catalog.conversation(&key).await?;
        let hops = self.catalog.hops(&key).await?;
        let dead_letter = self.catalog.dead_letter_of(&key).await?;
        let dead_letter = dead_letter.map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter });
        let processed = self.local.as_ref().is_some_and(|local| local.state.processed().contains(&key.digest()));
        if row.is_none() && hops.is_empty() && dead_letter.is_none() && !processed {
            return Err(OperationError::NotFound(format!("nothing is known of conversation {external_id}")));
        }
        let state = match (&row, &dead_letter) {
            (Some(row), None) => row.state.as_str(),
            (Some(row), Some(_)) if row.state.is_final() => row.state.as_str(),
            (_, Some(_)) => "dead_letter",
            (None, None) if hops.last().is_some_and(|hop| hop.outcome == "done") => "dropped",
            (None, None) => "under_way",
        };
        let state = state.to_owned();
        Ok(Trace {
            conversation_id: external_id,
            state,
            conversation: row.map(without_personal_data),
            dead_letter,
            processed,
            hops,
        })
    }

    /// Every agent, former ones too.
    pub(crate) async fn agents(&self) -> Result<Vec<Agent>, OperationError> {
        Ok(self.catalog.agents(self.tenant()?).await?)
    }

    /// The reading of the group that is held, if one is.
    pub(crate) async fn held_reading(&self) -> Result<Option<HeldReading>, OperationError> {
        Ok(self.catalog.group_standing(self.tenant()?).await?.held)
    }

    /// Reads the group now.
    pub(crate) async fn sync_agents(&self) -> Result<SyncReport, OperationError> {
        let sync = self.agent_sync()?.clone();
        to_its_end(async move { sync.run_once().await }).await
    }

    /// Reads the group now, and believes what it reads.
    pub(crate) async fn accept_agents(&self) -> Result<SyncReport, OperationError> {
        let sync = self.agent_sync()?.clone();
        to_its_end(async move { sync.accept().await }).await
    }

    fn agent_sync(&self) -> Result<&Arc<SyncAgents>, OperationError> {
        if self.producing.as_ref().is_some_and(|producing| !*producing.borrow()) {
            let reason = "this producer waits for the lease; ask the one that has it";
            return Err(OperationError::Refused(reason.to_owned()));
        }
        let nobody = || OperationError::Refused("this process keeps no agents in step; ask the producer".to_owned());
        self.sync.as_ref().ok_or_else(nobody)
    }

    /// Every dead letter, oldest first, without its message: that may tell of people, and is for who asks for the one.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<DeadLetter>, OperationError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(0, |letter: &DeadLetter| letter.id);
            let page = self.catalog.dead_letters(after, PAGE).await?;
            let done = page.len() < PAGE;
            all.extend(page.into_iter().map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter }));
            if done || all.len() >= MOST_LISTED {
                return Ok(all);
            }
        }
    }

    /// One dead letter.
    pub(crate) async fn dead_letter(&self, id: u64) -> Result<DeadLetter, OperationError> {
        let letter = self.catalog.dead_letter(id).await?;
        letter.ok_or_else(|| OperationError::NotFound(format!("there is no dead letter {id}")))
    }

    /// Puts a dead letter's message back on the queue, behind fresh calls.
    pub(crate) async fn replay(&self, id: u64) -> Result<(), OperationError> {
        let letter = self.dead_letter(id).await?;
        let now = self.clock.now();
        match shelf::replay(&letter, AskedBy::Operator, &*self.catalog, &*self.queue, now).await {
            Ok(_) => Ok(()),
            Err(ReplayError::Queue(error)) => Err(error.into()),
            Err(ReplayError::Catalog(error)) => Err(error.into()),
            Err(error @ ReplayError::Unreadable(..)) => Err(OperationError::Refused(error.to_string())),
        }
    }

    /// Takes every dead letter off the shelf that stands for longer, or only counts them.
    pub(crate) async fn drop_dead_letters(&self, older: Older) -> Result<u64, OperationError> {
        let before = self.clock.now().checked_sub(Duration::from_secs(older.older_than_secs)).unwrap_or(Timestamp::MIN);
        if older.dry_run {
            return Ok(self.catalog.count_dead_letters(before).await?);
        }
        let dropped = self.catalog.drop_dead_letters(before).await?;
        tracing::info!(dropped, %before, "dead letters dropped");
        Ok(dropped)
    }

    /// Takes a dead letter off the shelf for good.
    pub(crate) async fn drop_dead_letter(&self, id: u64) -> Result<(), OperationError> {
        let letter = self.dead_letter(id).await?;
        if !self.catalog.remove_dead_letter(&letter).await? {
            return Err(OperationError::Refused(format!("dead letter {id} was just written anew; look at it again")));
        }
        tracing::info!(id, reason = letter.reason, "dead letter dropped");
        Ok(())
    }
}

/// A sync goes on when who asked for it goes away.
async fn to_its_end(
    sync: impl Future<Output = Result<SyncReport, SyncError>> + Send + 'static,
) -> Result<SyncReport, OperationError> {
    let synced = task::spawn("asked_sync", sync).detach().await;
    let ended_early =
        |_| SyncError::Settings(StageError::transient(System::Nice, "the sync ended early, the log says why"));
    Ok(synced.map_err(ended_early)??)
}

fn without_personal_data(row: ConversationRow) -> serde_json::Value {
    let mut row = serde_json::to_value(row).unwrap_or_default();
    if let Some(fields) = row.as_object_mut() {
        fields.remove("customer_number");
        fields.remove("metadata");
    }
    row
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_sync_goes_on_when_who_asked_for_it_goes_away() {
        let ((read, has_read), (ended, has_ended)) = (oneshot::channel::<()>(), oneshot::channel());
        let sync = async move {
            has_read.await.unwrap();
            ended.send(()).unwrap();
            Ok(SyncReport::default())
        };
        let mut asked = Box::pin(to_its_end(sync));
        assert!(futures::poll!(&mut asked).is_pending());
        drop(asked);
        read.send(()).unwrap();
        has_ended.await.expect("it came to its end");
        assert_eq!(to_its_end(async { Ok(SyncReport::default()) }).await.unwrap(), SyncReport::default());
    }
}
