//! The door to the catalog, the Knovvu database: agents, conversations, dead letters, the timeline.
//!
//! Every write is repeatable: the same call twice has the effect of one. A call that failed may have had its
//! effect; the caller repeats it. The key is always (tenant, integration type, external id).

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{
    Agent, AgentId, Asks, ContactId, Conversation, ConversationKey, ConversationState, DeadLetter, Direction,
    DoorError, EventSource, Hop, Retention, StoredRecording, System, TenantId,
};
use serde::{Deserialize, Serialize};

mod attempts;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod embedded;
mod erasure;
mod group;
mod lacking;
mod postgres;
mod readiness;
mod runs;
mod turns;

pub use attempts::{Attempt, AttemptKind};
pub use embedded::EmbeddedCatalog;
pub use erasure::{ErasedRows, Erasure, Expired, Place, RetentionTurn, SETTLED, Standing, Tombstone, TombstoneKey};
pub use group::{GroupStanding, HeldReading};
pub use lacking::Lacking;
pub use postgres::PostgresCatalog;
pub use readiness::{LearnedDelay, Lessons};
pub use runs::{Counted, Fate, ReplayRun, RunKind, RunState, Tallied};
pub use turns::{CurrentTurn, ProducerMemory, Turn};

/// The catalog could not do what was asked; whether it did is unknown, and repeating is harmless.
#[derive(Debug, Clone, thiserror::Error)]
#[error("catalog: {0}")]
pub struct CatalogError(pub String);

impl DoorError for CatalogError {
    fn asks(&self) -> Asks {
        match self.is_overtaken() {
            true => Asks::Overtaken,
            false => Asks::Again { system: System::Catalog, retry_after: None },
        }
    }
}

/// The Knovvu database.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// Every agent of the tenant, former ones too, by external id.
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError>;

    /// One agent.
    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError>;

    /// Creates or replaces these agents; all others stay as they are.
    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError>;

    /// Notes that the agents are in step with the group as it was at `at`. Durable once it returns.
    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError>;

    /// When the group was read last; none before the first time. Who is not among the agents then was not in it.
    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError>;

    /// How the group stands beside its agents: the default before the first time.
    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError>;

    /// Replaces that. Durable once it returns.
    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError>;

    /// How far a conversation has come, if its row stands.
    async fn state_of(&self, key: &ConversationKey) -> Result<Option<ConversationState>, CatalogError>;

    /// Which of these conversations need no replay: a row stands, a dead letter names them, or they were erased.
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError>;

    /// Writes the row in state `metadata_saved`. A row that is already final stays as it is. Of an erased conversation
    /// nothing is written, which is an error.
    async fn save_metadata(&self, conversation: &Conversation) -> Result<(), CatalogError>;

    /// Begins an attempt to store recordings and complete: from then on no earlier one completes. None where the row asks
    /// for no attempt of this kind. Durable once it returns.
    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError>;

    /// Whether an attempt may still complete: it is the latest, and the row still asks for one of its kind.
    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError>;

    /// In one commit: the recordings, the state `ready`, and the analysis entry. Once it returns, all three are
    /// durable. A row that is already final stays as it is; one of an erased conversation too, which is an error. So is
    /// an attempt that is not the latest any more, or finds a final row that does not hold just these recordings. None
    /// is no attempt: nothing is stored beside it.
    async fn complete(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.complete_in_part(key, recordings, 0, at, attempt).await
    }

    /// As [`Self::complete`], of a conversation of which NICE names `missing` recordings more and does not give them.
    async fn complete_in_part(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError>;

    /// Adds recordings to a final row that lacks some ([`ConversationRow::lacks_recordings`]): in one commit those at
    /// positions that are free, how many are `missing` still, the state `ready`, and the analysis entry. One that waits
    /// to be taken stays as it is; one that was taken, or is done, waits anew from `at` on. Any other row, and one to
    /// which nothing is new, stays as it is; one of an erased conversation too, which is an error, and so is an
    /// attempt that is not the latest any more, or adds nothing and brings what the row does not hold. Durable once it
    /// returns.
    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError>;

    /// The tenant's conversations that began in `[from, to)` and lack recordings, in a fixed order: at most `limit`
    /// after `after`.
    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError>;

    /// The state `no_recording`, durable once it returns; no analysis entry. A final row stays as it is, which is an error
    /// of an attempt where it has recordings; so is an attempt that is not the latest any more.
    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError>;

    /// Everything known of one conversation.
    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError>;

    /// The analysis queue, oldest first: `limit` conversations after the first `skip`.
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError>;

    /// Sets a delivery aside. Durable once it returns. The same letter twice is one letter: that of a conversation is
    /// written anew, that of an unreadable body stays as it is. False if it stayed, or if the conversation was erased.
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError>;

    /// Dead letters by id: at most `limit` after `after`.
    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Dead letters of passing causes that were to go back by `now`, the earliest first, at most `limit` after the one
    /// that was to go back at `after` and has that id.
    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Takes the dead letters off the shelf that were set aside before `before`, and counts them. Durable once it returns.
    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError>;

    /// How many there are.
    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError>;

    /// One dead letter.
    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError>;

    /// The newest dead letter of a conversation.
    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError>;

    /// Takes a dead letter off the shelf; false if it is no longer there as it was read, because it was removed or
    /// written anew meanwhile.
    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError>;

    /// Adds to the timeline of a conversation, unless it was erased. A failure is logged, never passed on: the timeline
    /// is for people.
    async fn record_hop(&self, key: &ConversationKey, hop: Hop);

    /// The timeline of a conversation, oldest first.
    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError>;

    /// How the entries of the analysis queue stand; none where nothing keeps account of them.
    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        Ok(None)
    }

    /// Removes entries of the analysis queue that were finished so long ago; how many.
    async fn prune_analysis(&self, _older_than: Duration) -> Result<u64, CatalogError> {
        Ok(0)
    }

    /// How many conversations stand in which state.
    async fn counts(&self) -> Result<Counts, CatalogError>;

    /// What is known of each of these conversations.
    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError>;

    /// The last hop of each of these conversations' timelines.
    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError>;

    /// How many of the tenant's conversations that began in `[from, to)` are final; in bounded time, and about so many
    /// where counting takes longer.
    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<Counted, CatalogError>;

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

    /// The same catalog for what works in the producer's turn that is current when it writes: agents, the reading of
    /// the group, runs, dead letters and the producer's memory. Once another turn has begun, such a write is refused.
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog>;

    /// The same catalog for work that ends with the turn of now: it does not write in a later one.
    fn pinned(&self) -> Arc<dyn Catalog>;

    /// Begins a turn of the tenant's producer, and returns its number: higher than that of every turn before. Durable
    /// once it returns; what a turn before still writes is refused from then on.
    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError>;

    /// What the tenant's producers know together. Reading it needs no turn.
    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError>;

    /// Moves the poll's watermark forward, if it was held back `held_back` times so far, or whatever was with none;
    /// and returns what is known then. An earlier time than it has moves nothing. A catalog with a clock of its own
    /// never moves it beyond that. Durable once it returns.
    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError>;

    /// Holds the poll's watermark back: moves it to `to` if it stands behind that, and counts. One that was never moved
    /// is only counted. Durable once it returns.
    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError>;

    /// Notes since when the tenant is worked for. The earliest time counts; one beyond the catalog's own clock is
    /// never noted. Durable once it returns.
    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError>;

    /// Notes up to which start of a call the nightly run has looked once more at those that lack recordings. An earlier
    /// time than it is noted changes nothing. Durable once it returns.
    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError>;

    /// Adds what a consumer learned of the tenant's first looks since it wrote last ([`Lessons`]), and gives what is
    /// known then. A hint, not durable at once: a call that is repeated counts twice.
    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError>;

    /// The learned delay of the tenant's first looks; none before the first time.
    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError>;

    /// How it stands with a conversation.
    async fn standing(&self, key: &ConversationKey) -> Result<Standing, CatalogError>;

    /// Leaves a tombstone, and notes that everything of the conversation is to be erased. Durable once it returns; from
    /// then on nothing of it is written any more. What others began to write a moment before may still appear: the
    /// erasure is pending until it is finished.
    async fn begin_erasure(&self, key: &ConversationKey, now: Timestamp) -> Result<Erasure, CatalogError>;

    /// Deletes every row of a conversation whose erasure is pending, in one commit, durable once it returns.
    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError>;

    /// Pending erasures, at most `limit` in the order of their tombstones after `after`.
    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError>;

    /// Forgets all but the tombstone of an erasure that is pending as it was read, and for so long that nothing of the
    /// conversation can be under way any more; false if it is not. A catalog with a clock of its own goes by that.
    async fn finish_erasure(&self, erasure: &Erasure, now: Timestamp) -> Result<bool, CatalogError>;

    /// The time by the catalog's own clock, or `now` where it has none.
    async fn clock(&self, now: Timestamp) -> Result<Timestamp, CatalogError> {
        Ok(now)
    }

    /// The tenants that the catalog knows; none where it holds no table of them.
    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        Ok(Vec::new())
    }

    /// The tenant's ready conversations that ended in `[from, to)`, in a fixed order: at most `limit` after `after`.
    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError>;

    /// The tenant's conversations whose retention is over, in a fixed order that is oldest first or near it: at most
    /// `limit` after `after`. A catalog that holds the tenant's settings goes by those, and one with a clock of its own
    /// by the earlier of both times.
    async fn expired(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError>;

    /// Deletes every row of those of these conversations whose retention is over, and counts them. Leaves no tombstone:
    /// what lies beyond the retention is not imported in any case.
    async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError>;

    /// The right to erase what is beyond the tenant's retention, for as long as it lives; none while another process has
    /// it. It ends with the process. A catalog that one process has alone always gives it.
    async fn retention_turn(&self, _tenant: &TenantId) -> Result<Option<RetentionTurn>, CatalogError> {
        Ok(Some(RetentionTurn::default()))
    }

    /// Writes what is left of timelines: at the end of the process.
    async fn flush(&self) {}

    /// Whether the catalog answers.
    async fn check(&self) -> Result<(), CatalogError>;
}

/// A conversation's row, with its recordings and its analysis entry.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationRow {
    /// Stable id of the row.
    pub id: String,
    /// The tenant.
    pub tenant_id: TenantId,
    /// Always [`model::INTEGRATION_TYPE`].
    pub integration_type: String,
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// The call the leg belongs to.
    pub master_external_id: ContactId,
    /// The leg's agent.
    pub agent_external_id: AgentId,
    /// When the leg began.
    pub started_at: Timestamp,
    /// When the leg ended.
    pub ended_at: Timestamp,
    /// Inbound, outbound, or not known.
    pub direction: Option<Direction>,
    /// The customer's number. Personal data.
    pub customer_number: Option<String>,
    /// What NICE said of the contact.
    pub metadata: serde_json::Value,
    /// How far it has come.
    pub state: ConversationState,
    /// Who found out that the conversation ended.
    pub source: EventSource,
    /// The recordings by position; empty until the row is `ready`. A missing one leaves its position free.
    pub recordings: Vec<RecordingRow>,
    /// Recordings that NICE names besides, and did not give.
    #[serde(default)]
    pub recordings_missing: u32,
    /// When it entered the analysis queue.
    pub enqueued_at: Option<Timestamp>,
    /// When the analysis took it.
    pub claimed_at: Option<Timestamp>,
}

impl ConversationRow {
    /// The row of a conversation whose metadata is known and whose recordings are on their way.
    pub fn metadata_saved(conversation: &Conversation) -> Self {
        let key = conversation.key();
        Self {
            id: format!("{:?}", key.digest()),
            tenant_id: key.tenant,
            integration_type: model::INTEGRATION_TYPE.to_owned(),
            external_id: key.external_id,
            master_external_id: conversation.master,
            agent_external_id: conversation.agent,
            started_at: conversation.started_at,
            ended_at: conversation.ended_at,
            direction: conversation.direction,
            customer_number: conversation.customer_number.clone(),
            metadata: conversation.metadata.clone(),
            state: ConversationState::MetadataSaved,
            source: conversation.source(),
            recordings: Vec::new(),
            recordings_missing: 0,
            enqueued_at: None,
            claimed_at: None,
        }
    }

    /// The row of a conversation of which NICE has no recording.
    pub fn without_recording(conversation: &Conversation) -> Self {
        Self { state: ConversationState::NoRecording, ..Self::metadata_saved(conversation) }
    }

    /// Whether NICE may have recordings that are not stored: it had none, or not all that it names.
    pub fn lacks_recordings(&self) -> bool {
        match self.state {
            ConversationState::MetadataSaved => false,
            ConversationState::Ready => self.recordings_missing > 0,
            ConversationState::NoRecording => true,
        }
    }

    /// Whether it asks for an attempt of this kind.
    pub(crate) fn asks_for(&self, kind: AttemptKind) -> bool {
        match kind {
            AttemptKind::Complete => !self.state.is_final(),
            AttemptKind::Add => self.lacks_recordings(),
        }
    }

    /// Whether it holds these recordings, with these bytes.
    pub(crate) fn holds(&self, recordings: &[StoredRecording]) -> bool {
        recordings.iter().all(|new| {
            let same = |row: &RecordingRow| row.position == new.key.position() && row.sha256 == new.sha256;
            self.recordings.iter().any(same)
        })
    }

    /// The key of the row.
    pub fn key(&self) -> ConversationKey {
        ConversationKey { tenant: self.tenant_id.clone(), external_id: self.external_id }
    }
}

/// A conversation with recordings, in a listing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// When the leg ended.
    pub ended_at: Timestamp,
}

/// One recording's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingRow {
    /// From 0 by start time.
    pub position: u32,
    /// The bucket or folder that holds it.
    pub bucket: String,
    /// Its place in the store.
    pub object_key: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its media type.
    pub content_type: String,
    /// What NICE names it by, where it can be told from the others of its call: a recheck knows it by that.
    #[serde(default)]
    pub source: Option<String>,
}

impl From<&StoredRecording> for RecordingRow {
    fn from(stored: &StoredRecording) -> Self {
        Self {
            position: stored.key.position(),
            bucket: stored.bucket.clone(),
            object_key: stored.key.to_string(),
            size_bytes: stored.size_bytes,
            sha256: stored.sha256.clone(),
            content_type: stored.content_type.clone(),
            source: stored.source.clone(),
        }
    }
}

/// A conversation that awaits its analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalysisEntry {
    /// The conversation.
    pub key: ConversationKey,
    /// When it entered the queue.
    pub enqueued_at: Timestamp,
}

/// How the entries of the analysis queue stand, each counted up to [`Self::MOST`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnalysisCounts {
    /// Wait for a worker.
    pub waiting: u64,
    /// A worker has them.
    pub claimed: u64,
    /// Lie on the shelf.
    pub failed: u64,
}

impl AnalysisCounts {
    /// Beyond it nobody wants to know more, and counting would cost the database something.
    pub const MOST: u64 = 10_000;
}

/// How many conversations stand in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows whose recordings are on their way.
    pub metadata_saved: u64,
    /// Rows that are ready for analysis.
    pub ready: u64,
    /// Rows of calls that NICE did not record.
    pub no_recording: u64,
    /// Dead letters on the shelf.
    pub dead_letters: u64,
}
