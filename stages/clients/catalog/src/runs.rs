//! Replay runs, and what the catalog knows of the conversations that they list.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ConversationState, EventSource, Members, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CatalogError;

/// Runs of reconciliation and backfill.
#[async_trait]
pub trait Runs: Send + Sync + 'static {
    /// Writes a new run and returns its id. Durable once it returns; the same run again (kind, tenant, time of its
    /// start) is one.
    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError>;

    /// Writes how far a run has come, and returns the state in which it stands: that of `run`, unless an operator
    /// has changed it since `before`. Durable once it returns.
    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError>;

    /// Changes the state in which a run stands, if it is still that of `run`; false if it is not. Durable once it
    /// returns.
    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError>;

    /// One run of the tenant.
    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError>;

    /// The tenant's runs of a kind that a producer works on, oldest first, at most `limit`.
    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError>;

    /// The tenant's runs of a kind, newest first, at most `limit`.
    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError>;
}

/// A number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCount {
    /// How many there are.
    pub rows: u64,
    /// An estimate: counting takes too long.
    pub is_about: bool,
}

impl RowCount {
    /// So many, counted.
    pub fn exactly(rows: u64) -> Self {
        Self { rows, is_about: false }
    }
}

/// Why a range is listed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// The comparison of NICE's calls with the catalog's: calls that ended in the window.
    Reconciliation,
    /// The import of a date range: calls that began in the window.
    Backfill,
}

impl RunKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Reconciliation, Self::Backfill];

    /// The name in metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reconciliation => "reconciliation",
            Self::Backfill => "backfill",
        }
    }

    /// The source that its events name.
    pub fn source(self) -> EventSource {
        match self {
            Self::Reconciliation => EventSource::Reconciliation,
            Self::Backfill => EventSource::Backfill,
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// The range is listed to see what there is; nothing is published.
    Planning,
    /// The plan stands, and nobody has asked for more.
    Planned,
    /// What is missing is published.
    Running,
    /// Stands still until it is resumed.
    Paused,
    /// Ended by an operator.
    Cancelled,
    /// Everything in the range is compared, and what was missing is on the queue.
    Done,
    /// Cannot go on; the reason says why.
    Failed,
}

impl RunState {
    /// The word in rows and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether it never changes again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done | Self::Failed)
    }

    /// Whether the producer works on it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Planning | Self::Running)
    }
}

/// What a run has found so far. Conversations of the group, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tallied {
    /// Listed by NICE.
    pub listed: u64,
    /// Ready for analysis.
    pub ready: u64,
    /// Without a recording for good.
    pub no_recording: u64,
    /// Set aside with a reason.
    pub dead: u64,
    /// Erased, beyond the retention, or dropped by an operator: not to be imported.
    pub excluded: u64,
    /// On their way already.
    pub in_flight: u64,
    /// Not in the catalog, and not on their way.
    pub missing: u64,
    /// Of the missing: published.
    pub replayed: u64,
    /// In the catalog and unknown to the dedupe: marked there.
    pub marked: u64,
    /// Requests that the listing took.
    pub requests: u64,
}

impl Tallied {
    /// Adds what one slice brought.
    pub fn add(&mut self, slice: &Self) {
        let Self { listed, ready, no_recording, dead, excluded, in_flight, missing, replayed, marked, requests } =
            slice;
        self.listed += listed;
        self.ready += ready;
        self.no_recording += no_recording;
        self.dead += dead;
        self.excluded += excluded;
        self.in_flight += in_flight;
        self.missing += missing;
        self.replayed += replayed;
        self.marked += marked;
        self.requests += requests;
    }

    /// Those that need no replay.
    pub fn there(&self) -> u64 {
        self.ready + self.no_recording + self.dead + self.excluded + self.in_flight
    }
}

/// A comparison of a range with the catalog, and the replay of what is missing there.
///
/// Everything that began before `reached` is compared, and what was missing of it is on the queue: after a crash the
/// run goes on from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReplayRun {
    /// Given by the catalog, ascending for each kind; 0 before it is written.
    pub id: u64,
    /// Whose calls.
    pub tenant_id: TenantId,
    /// Why.
    pub kind: RunKind,
    /// The first moment of the window.
    pub from: Timestamp,
    /// The moment after the last.
    pub to: Timestamp,
    /// How far it has come.
    pub state: RunState,
    /// Of a backfill: by which membership its agents count.
    #[serde(default)]
    pub members: Members,
    /// Nothing is published, even when the plan stands.
    pub plan_only: bool,
    /// What the plan found; none before the range was listed whole.
    pub plan: Option<Tallied>,
    /// How many of the window's conversations were final when the plan stood.
    pub final_at_plan: u64,
    /// When the plan stood.
    pub planned_at: Option<Timestamp>,
    /// Where the listing goes on.
    pub reached: Timestamp,
    /// What was found up to there.
    pub found: Tallied,
    /// Published of what lies behind that, while the queue is full.
    #[serde(default)]
    pub sending: u64,
    /// The first end of a call that was on its way then, or was put on the queue: it is looked at again.
    #[serde(default)]
    pub open_since: Option<Timestamp>,
    /// Since when a producer publishes without a pause.
    #[serde(default)]
    pub running_since: Option<Timestamp>,
    /// How many of the window's conversations were final then.
    #[serde(default)]
    pub final_at_start: u64,
    /// One of these two numbers was estimated: counting took too long.
    #[serde(default)]
    pub is_about: bool,
    /// Slices of NICE's list that did not add up: calls may be missing from them.
    #[serde(default)]
    pub doubtful: u64,
    /// What did not add up in the first of them.
    #[serde(default)]
    pub doubt: Option<String>,
    /// The latest time that NICE's clock showed.
    #[serde(default)]
    pub told_at: Option<Timestamp>,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl ReplayRun {
    /// Published so far.
    pub fn published(&self) -> u64 {
        self.found.replayed + self.sending
    }

    /// A run that has not begun. A backfill begins with its plan.
    pub fn new(tenant: TenantId, kind: RunKind, from: Timestamp, to: Timestamp, now: Timestamp) -> Self {
        let state = match kind {
            RunKind::Reconciliation => RunState::Running,
            RunKind::Backfill => RunState::Planning,
        };
        // As fine as the catalog keeps it: it tells one run from another.
        let started_at = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        Self {
            id: 0,
            tenant_id: tenant,
            kind,
            from,
            to,
            state,
            members: Members::Then,
            plan_only: false,
            plan: None,
            final_at_plan: 0,
            planned_at: None,
            reached: from,
            found: Tallied::default(),
            sending: 0,
            open_since: None,
            running_since: None,
            final_at_start: 0,
            is_about: false,
            doubtful: 0,
            doubt: None,
            told_at: None,
            reason: None,
            started_at,
            finished_at: None,
        }
    }
}

/// What the catalog knows of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Unknown,
    /// It was erased, and is not to come back.
    Erased,
    /// Its row stands.
    Row(ConversationState),
    /// Its row is ready, and lacks so many recordings that NICE names.
    Incomplete(u32),
    /// It is on the shelf; a row that is not final may stand as well.
    DeadLetter(String),
}

impl Fate {
    /// By the row's state, and by how many recordings it lacks.
    pub(crate) fn of_row(state: ConversationState, recordings_missing: u32) -> Self {
        match (state, recordings_missing) {
            (ConversationState::Ready, missing @ 1..) => Self::Incomplete(missing),
            (state, _) => Self::Row(state),
        }
    }
}
