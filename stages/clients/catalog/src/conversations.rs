//! Conversations: their rows, with recordings and the entry of the analysis queue.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{
    AgentId, ContactId, Conversation, ConversationKey, ConversationState, Direction, EventSource, StoredRecording,
    TenantId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Attempt, AttemptKind, CatalogError, ConversationStatus, Fate, Lacking, RowCount};

/// The rows of conversations.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
    /// Which of these conversations need no replay: a row stands, a dead letter names them, or they were erased.
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError>;

    /// Writes the row in state `metadata_saved`, and begins an attempt to complete it, in one commit. None where the row
    /// is already final: it stays as it is. Of an erased conversation nothing is written, which is an error.
    async fn save_metadata(&self, conversation: &Conversation) -> Result<Option<Attempt>, CatalogError>;

    /// Begins an attempt to store recordings of a row that stands: from then on no earlier one completes. None where the
    /// row asks for no attempt of this kind. Durable once it returns.
    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError>;

    /// Whether an attempt may still complete: it is the latest, and the row still asks for one of its kind.
    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError>;

    /// In one commit: the recordings, the state `ready`, and the analysis entry. Once it returns, all three are
    /// durable. A row that is already final stays as it is; one of an erased conversation too, which is an error. So is
    /// an attempt that is not the latest any more, or finds a final row that does not hold just these recordings. None
    /// is no attempt: nothing is stored beside it. NICE names `missing` recordings more, and does not give them.
    async fn complete(
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

    /// The state `no_recording`, durable once it returns; no analysis entry. A final row stays as it is, which is an
    /// error of an attempt where it has recordings; so is an attempt that is not the latest any more.
    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError>;

    /// Everything known of one conversation.
    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError>;

    /// How many conversations stand in which state.
    async fn counts(&self) -> Result<ConversationCounts, CatalogError>;

    /// What is known of each of these conversations.
    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError>;

    /// How many of the tenant's conversations that began in `[from, to)` are final; in bounded time, and about so many
    /// where counting takes longer.
    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<RowCount, CatalogError>;

    /// Whether a row of the conversation stands, and in which state, or whether it was erased.
    async fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError>;

    /// The tenant's ready conversations that ended in `[from, to)`, in a fixed order: at most `limit` after `after`.
    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError>;
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
            source: conversation.source,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// How many conversations stand in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationCounts {
    /// Rows whose recordings are on their way.
    pub metadata_saved: u64,
    /// Rows that are ready for analysis.
    pub ready: u64,
    /// Rows of calls that NICE did not record.
    pub no_recording: u64,
    /// Dead letters on the shelf.
    pub dead_letters: u64,
}
