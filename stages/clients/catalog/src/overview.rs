//! Conversations for people: counted by day, and found by agent and time.

use async_trait::async_trait;
use jiff::{Timestamp, civil::Date};
use model::{AgentId, ContactId, ConversationState, Direction, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CatalogError, Recorded};

/// Conversations counted and listed for people.
#[async_trait]
pub trait Overviews: Send + Sync + 'static {
    /// What became of the tenant's calls that ended on each UTC day from `from` to `to`, both included. A day without
    /// any is left out.
    async fn days(&self, tenant: &TenantId, from: Date, to: Date) -> Result<Vec<DayCounts>, CatalogError>;

    /// The tenant's conversations that the filter lets through, by the day of their end and their id, the last first:
    /// at most `limit` before `before`.
    async fn found(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        before: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<FoundConversation>, CatalogError>;
}

/// What became of the calls that ended on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayCounts {
    /// The UTC day.
    pub day: Date,
    /// Ready for analysis.
    pub ready: u64,
    /// Of them: with fewer recordings than NICE names.
    pub incomplete: u64,
    /// Without a recording for good.
    pub no_recording: u64,
    /// With a row, and not final.
    pub metadata_saved: u64,
    /// Set aside on that day, and still on the shelf.
    pub dead: u64,
}

impl DayCounts {
    /// A day of which nothing is known.
    pub fn none(day: Date) -> Self {
        Self { day, ready: 0, incomplete: 0, no_recording: 0, metadata_saved: 0, dead: 0 }
    }

    /// Counts one conversation.
    pub(crate) fn count(&mut self, state: ConversationState, recordings_missing: u32) {
        match state {
            ConversationState::MetadataSaved => self.metadata_saved += 1,
            ConversationState::NoRecording => self.no_recording += 1,
            ConversationState::Ready => {
                self.ready += 1;
                self.incomplete += u64::from(recordings_missing > 0);
            }
        }
    }
}

/// Which conversations are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// They ended at or after this moment.
    pub from: Timestamp,
    /// They ended before this moment.
    pub to: Timestamp,
    /// Only those that are not ready, or lack recordings.
    pub only_exceptions: bool,
}

impl ConversationFilter {
    /// Whether it lets a conversation through.
    pub(crate) fn admits(&self, call: &FoundConversation) -> bool {
        let is_exception = call.state != ConversationState::Ready || call.recordings_missing > 0;
        self.agent.is_none_or(|agent| agent == call.agent_external_id)
            && call.ended_at >= self.from
            && call.ended_at < self.to
            && (is_exception || !self.only_exceptions)
    }
}

/// A conversation in a listing for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundConversation {
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// The leg's agent.
    pub agent_external_id: AgentId,
    /// When the leg began.
    pub started_at: Timestamp,
    /// When the leg ended.
    pub ended_at: Timestamp,
    /// Inbound, outbound, or not known.
    pub direction: Option<Direction>,
    /// How far it has come.
    pub state: ConversationState,
    /// Recordings that NICE names besides, and did not give.
    #[serde(default)]
    pub recordings_missing: u32,
}
