//! Conversations that lack recordings: NICE had none, or not all that it names.

use jiff::Timestamp;
use model::{AgentId, ContactId, ConversationKey, TenantId};

/// A final conversation that lacks recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Whose it is.
    pub tenant: TenantId,
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// The call the leg belongs to.
    pub master: ContactId,
    /// The leg's agent.
    pub agent: AgentId,
    /// When it ended.
    pub ended_at: Timestamp,
}

impl Lacking {
    /// The key of its row.
    pub fn key(&self) -> ConversationKey {
        ConversationKey { tenant: self.tenant.clone(), external_id: self.external_id }
    }
}
