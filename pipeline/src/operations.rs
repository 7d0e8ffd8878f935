//! What an operator may ask or do. The daemon does it over its admin address; where none runs, the command does
//! it itself on the same code.
//!
//! Each file holds one subject: its [`AdminRequest`]s, which a command line parses and the admin route carries; the
//! part of the [`Operations`] that does them, with the doors that they need; their answers; and the tables that a
//! person reads. A new request is a struct there and a name in the list of `admin/api.rs`; one that is a command of its own
//! is a line in `cli.rs`, too.

use std::sync::Arc;

use catalog::CatalogError;
use flow::StageError;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, TenantId};
use queue::QueueError;
use quota::StoreError;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use stages::{
    completeness::ReportError,
    recheck::Recheck,
    source::ListError,
    sync_agents::{SyncAgents, SyncError},
};
use state::{State, StateError};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::command_error::CommandError;
use crate::config::{Config, Need};
use crate::doors;
use crate::doors::{OpenDoors, SharedDoors, Wanted};
use crate::heartbeat::Identity;
use crate::proof::key::ProofKey;
use paging::{AnswerPage, PageStart};

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod erase;
pub(crate) mod overview;
pub(crate) mod paging;
pub(crate) mod personal;
pub(crate) mod proof;
pub(crate) mod range;
pub(crate) mod recheck;
pub(crate) mod replays;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod verify;

/// One thing that an operator asks or does: its fields are the parameters of the route, or its body, and its doc comment
/// is what the API's description says of it.
pub(crate) trait AdminRequest: Serialize + DeserializeOwned + ToSchema + Send + 'static {
    /// What it is answered with.
    type Answer: Serialize + DeserializeOwned + ToSchema + Send;
    /// The part of the operations that does it.
    type Handler: Sync;
    /// Where the daemon takes it.
    const ROUTE: AdminRoute;
    /// Whether the API gives its answer, a list, a page at a time.
    const IS_PAGED: bool = false;

    /// Does it, in the daemon or in the process of the command.
    fn fulfil(self, handler: &Self::Handler) -> impl Future<Output = Result<Self::Answer, OperationError>> + Send;

    /// One page of the answer.
    fn fulfil_page(
        self,
        handler: &Self::Handler,
        _start: PageStart,
    ) -> impl Future<Output = Result<AnswerPage<Self::Answer>, OperationError>> + Send {
        async { Ok(AnswerPage { items: self.fulfil(handler).await?, next: None }) }
    }
}

/// A request that is a command of its own.
pub(crate) trait SingleCommand: AdminRequest {
    /// The settings that it cannot do without.
    const NEED: Need = Need::Local;
    /// The doors that it needs where no daemon runs.
    const WANTED: Wanted = Wanted::Listing;

    /// Refuses what makes no sense, before anything is touched.
    fn check(&self, _now: Timestamp) -> Result<(), OperationError> {
        Ok(())
    }

    /// The answer for a person.
    fn table(answer: &Self::Answer) -> String;

    /// The exit code that the answer asks for.
    fn verdict(_answer: &Self::Answer) -> Result<(), CommandError> {
        Ok(())
    }
}

/// A route below `/api/v1`.
pub(crate) struct AdminRoute {
    pub(crate) method: Method,
    /// With the names of fields in braces; the other fields are in the query.
    pub(crate) path: &'static str,
    /// Whether the whole request is the JSON body instead.
    pub(crate) is_body: bool,
}

impl AdminRoute {
    const fn get(path: &'static str) -> Self {
        Self { method: Method::GET, path, is_body: false }
    }

    const fn delete(path: &'static str) -> Self {
        Self { method: Method::DELETE, path, is_body: false }
    }

    const fn post(path: &'static str) -> Self {
        Self { method: Method::POST, path, is_body: false }
    }

    const fn post_body(path: &'static str) -> Self {
        Self { method: Method::POST, path, is_body: true }
    }
}

/// Why a request of an operator failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    /// What it names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request is about one tenant, and the settings name none.
    #[error("{0}")]
    NoTenant(String),
    /// This process, or this thing in its present state, does not allow it.
    #[error("{0}")]
    Refused(String),
    /// Its parameters make no sense.
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
    /// A conversation is not or only partly erased: an outside system failed.
    #[error("not finished, run it again; consumers go on with it too: {0}")]
    Erasure(#[from] StageError),
    /// The rate budget did not answer.
    #[error(transparent)]
    Budget(#[from] StoreError),
}

/// What an operator may ask or do, by subject. Each part has the doors that its requests need.
#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) agents: agents::AgentOperations,
    pub(crate) audit: audit::AuditOperations,
    pub(crate) dead_letters: dead_letters::DeadLetterOperations,
    pub(crate) erasure: erase::ErasureOperations,
    pub(crate) overview: overview::OverviewOperations,
    pub(crate) personal: personal::PersonalOperations,
    pub(crate) proof: proof::ProofOperations,
    pub(crate) recheck: recheck::RecheckOperations,
    pub(crate) replays: replays::ReplayOperations,
    pub(crate) report: report::ReportOperations,
    pub(crate) status: status::StatusOperations,
    pub(crate) trace: trace::TraceOperations,
    pub(crate) verification: verify::VerifyOperations,
}

/// What else runs in the process.
#[derive(Clone, Default)]
pub(crate) struct Running {
    /// The agent sync.
    pub(crate) sync: Option<Arc<SyncAgents>>,
    /// Whether the producer has its turn; none where no service runs.
    pub(crate) producing: Option<watch::Receiver<bool>>,
    /// Which service it is; none where none runs.
    pub(crate) identity: Option<Identity>,
}

impl Operations {
    /// What an operator may ask or do with these doors.
    pub(crate) fn new(config: &Config, doors: &OpenDoors, running: Running) -> Self {
        let tenant = ServedTenant(doors::tenant(config).ok());
        let SharedDoors { catalog, queue, .. } = &doors.shared;
        let (budgets, clock) = (&doors.nice.budgets, &doors.clock);
        Self {
            audit: audit::AuditOperations {
                catalog: catalog.clone(),
                clock: clock.clone(),
                keep: config.admin.audit_retention,
            },
            overview: overview::OverviewOperations { tenant: tenant.clone(), catalog: catalog.clone() },
            personal: personal::PersonalOperations {
                tenant: tenant.clone(),
                catalog: catalog.clone(),
                recordings: doors.shared.recordings.clone(),
            },
            dead_letters: dead_letters::DeadLetterOperations {
                catalog: catalog.clone(),
                queue: queue.clone(),
                clock: clock.clone(),
            },
            erasure: erase::ErasureOperations {
                tenant: tenant.clone(),
                catalog: catalog.clone(),
                queue: queue.clone(),
                state: doors.state.clone(),
                eraser: doors.eraser(),
            },
            proof: proof::ProofOperations {
                tenant: tenant.clone(),
                dir: config.proof.dir.clone(),
                public_key: config.proof.key.as_ref().map(|key| ProofKey::of(key.expose()).public()),
            },
            recheck: recheck::RecheckOperations {
                tenant: tenant.clone(),
                recheck: Recheck { catalog: catalog.clone(), queue: queue.clone(), clock: clock.clone() },
            },
            replays: replays::ReplayOperations {
                tenant: tenant.clone(),
                catalog: catalog.clone(),
                clock: clock.clone(),
                window: config.reconciliation.window,
                wake: doors.wake.clone(),
                estimate: replays::ProgressEstimate {
                    catalog: catalog.clone(),
                    queue: queue.clone(),
                    budgets: budgets.clone(),
                    clock: clock.clone(),
                    counts: Arc::default(),
                },
            },
            report: report::ReportOperations {
                tenant: tenant.clone(),
                compare: doors.compare(config),
                longest_call: config.reconciliation.longest_call,
            },
            status: status::StatusOperations {
                observer: doors.observer(tenant.0.clone()),
                reporter: doors.reporter(tenant.0.clone(), running.producing.clone()),
                tenant: tenant.clone(),
                state: doors.state.clone(),
                running: running.clone(),
                freshness_goal: config.flow.freshness_goal,
            },
            trace: trace::TraceOperations {
                tenant: tenant.clone(),
                catalog: catalog.clone(),
                state: doors.state.clone(),
                tenants: doors.nice.producer.clone(),
                retry: doors::retry_policy(config),
            },
            verification: verify::VerifyOperations { tenant: tenant.clone(), verifier: doors.verifier(config) },
            agents: agents::AgentOperations { tenant, catalog: catalog.clone(), running },
        }
    }
}

/// The tenant of the settings; none where the process serves every tenant and its settings name none.
#[derive(Clone)]
pub(crate) struct ServedTenant(Option<TenantId>);

impl ServedTenant {
    fn get(&self) -> Result<&TenantId, OperationError> {
        let missing =
            || OperationError::NoTenant("[tenant] id: missing, and the question is about one tenant".to_owned());
        self.0.as_ref().ok_or_else(missing)
    }

    fn key(&self, external_id: ContactId) -> Result<ConversationKey, OperationError> {
        Ok(ConversationKey { tenant: self.get()?.clone(), external_id })
    }
}

/// Whether the dedupe lets no further event of a conversation through.
fn is_processed(state: Option<&State>, key: &ConversationKey) -> bool {
    state.is_some_and(|state| state.processed().contains(&key.digest()))
}

impl From<OperationError> for CommandError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Sync(SyncError::Settings(StageError::Permanent { .. }))
            | OperationError::Report(ReportError::List(ListError::Settings(StageError::Permanent { .. }))) => {
                Self::failed(error)
            }
            OperationError::Sync(SyncError::Nice(_) | SyncError::Settings(_))
            | OperationError::Erasure(_)
            | OperationError::Report(ReportError::List(_)) => Self::unreachable(error),
            OperationError::NoTenant(_) | OperationError::Invalid(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
