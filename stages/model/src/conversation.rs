//! A conversation on its way through the Conversation Consumer.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::__dev::ComposeSchema;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::{AgentId, ContactId, ConversationKey, EventSource, Lane, Memberships, ObjectKey, TenantId};

/// Who called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The customer called.
    Inbound,
    /// The agent called.
    Outbound,
}

/// How far a conversation's row has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConversationState {
    /// The row stands; its recordings are on their way.
    MetadataSaved,
    /// Every recording is stored whole and the analysis entry is made.
    Ready,
    /// NICE had no recording until the deadline.
    NoRecording,
}

impl ConversationState {
    /// Whether nothing remains to be done.
    pub fn is_final(self) -> bool {
        match self {
            Self::MetadataSaved => false,
            Self::Ready | Self::NoRecording => true,
        }
    }

    /// The name in the database, in metrics and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MetadataSaved => "metadata_saved",
            Self::Ready => "ready",
            Self::NoRecording => "no_recording",
        }
    }
}

/// An agent of the group, as Knovvu keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AgentRow", into = "AgentRow")]
pub struct Agent {
    /// NICE's ACD agent id.
    pub external_id: AgentId,
    /// The UserHub id, by which a recording's participants are known.
    pub user_id: Option<String>,
    /// The login.
    pub user_name: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// When it was in the group and not deactivated: the calls that ended then are imported.
    pub memberships: Memberships,
}

/// Longer than any call: when the end of a call is not known, it is at most this long after its start.
const LONGEST_CALL: SignedDuration = SignedDuration::from_hours(4);

impl Agent {
    /// In the group and not deactivated.
    pub fn is_active(&self) -> bool {
        self.memberships.is_open()
    }

    /// Whether a call that ended at `ended_at` (if known) belongs to this agent's time in the group.
    pub fn was_member_at(&self, ended_at: Option<Timestamp>) -> bool {
        ended_at.map_or(!self.memberships.is_empty(), |ended_at| self.memberships.contains(ended_at))
    }

    /// Whether a call of which only the start is known may belong to this agent's time in the group.
    pub fn may_be_member_at_the_end(&self, started_at: Timestamp) -> bool {
        let latest = started_at.checked_add(LONGEST_CALL).unwrap_or(Timestamp::MAX);
        self.memberships.meets(started_at, latest)
    }
}

/// An agent as it is stored and listed.
// Rows of earlier versions have no memberships.
#[derive(Serialize, Deserialize, ToSchema)]
struct AgentRow {
    external_id: AgentId,
    user_id: Option<String>,
    user_name: String,
    first_name: String,
    last_name: String,
    is_active: bool,
    #[serde(default)]
    member_since: Option<Timestamp>,
    member_until: Option<Timestamp>,
    #[serde(default)]
    memberships: Memberships,
}

impl ToSchema for Agent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        AgentRow::schemas(schemas);
    }
}

// The derive macro would describe the fields of `Agent`; a list of agents asks for the trait that it derives.
impl ComposeSchema for Agent {
    fn compose(generics: Vec<RefOr<Schema>>) -> RefOr<Schema> {
        AgentRow::compose(generics)
    }
}

impl From<AgentRow> for Agent {
    fn from(row: AgentRow) -> Self {
        Self {
            external_id: row.external_id,
            user_id: row.user_id,
            user_name: row.user_name,
            first_name: row.first_name,
            last_name: row.last_name,
            memberships: row.memberships.agreeing_with(row.is_active, row.member_until),
        }
    }
}

impl From<Agent> for AgentRow {
    fn from(agent: Agent) -> Self {
        Self {
            external_id: agent.external_id,
            is_active: agent.is_active(),
            user_id: agent.user_id,
            user_name: agent.user_name,
            first_name: agent.first_name,
            last_name: agent.last_name,
            member_since: agent.memberships.last_since(),
            member_until: agent.memberships.until(),
            memberships: agent.memberships,
        }
    }
}

impl std::fmt::Debug for Agent {
    /// Without the names: people's names stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("external_id", &self.external_id)
            .field("memberships", &self.memberships)
            .finish_non_exhaustive()
    }
}

/// A conversation with its metadata.
#[derive(Clone, PartialEq)]
pub struct Conversation {
    /// The customer it belongs to.
    pub tenant: TenantId,
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// Who found out that it ended.
    pub source: EventSource,
    /// Whether its analysis comes before or after that of other calls.
    pub lane: Lane,
    /// The call the leg belongs to.
    pub master: ContactId,
    /// The leg's agent.
    pub agent: AgentId,
    /// When the leg began.
    pub started_at: Timestamp,
    /// When the leg ended: start plus total duration.
    pub ended_at: Timestamp,
    /// Inbound, outbound, or not known.
    pub direction: Option<Direction>,
    /// The customer's number as NICE has it. Personal data: never logged.
    pub customer_number: Option<String>,
    /// What NICE said of the contact, as it said it.
    pub metadata: serde_json::Value,
}

impl Conversation {
    /// The key under which this conversation is known everywhere.
    pub fn key(&self) -> ConversationKey {
        ConversationKey { tenant: self.tenant.clone(), external_id: self.external_id }
    }
}

impl std::fmt::Debug for Conversation {
    /// Without number and metadata: personal data stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("key", &self.key()).field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// One recording that lies whole in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecording {
    /// Its place in the store.
    pub key: ObjectKey,
    /// The bucket or folder that holds it.
    pub bucket: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its media type.
    pub content_type: String,
    /// NICE's name for it; none where NICE does not tell it from the others of its call.
    pub source: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_before_is_read_and_a_new_one_says_the_same_to_who_knows_no_memberships() {
        let row = |rest: &str| {
            let text = format!(
                r#"{{"external_id":"7","user_id":null,"user_name":"x","first_name":"x","last_name":"x",{rest}}}"#
            );
            serde_json::from_str::<Agent>(&text).unwrap()
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let active = row(r#""is_active":true,"member_until":null"#);
        assert!(active.is_active() && active.was_member_at(at("1999-01-01T00:00:00Z")));
        let left = row(r#""is_active":false,"member_until":"2026-04-01T12:00:00Z""#);
        assert!(!left.is_active() && left.was_member_at(at("2026-04-01T11:59:59Z")));
        assert!(!left.was_member_at(at("2026-04-01T12:00:00Z")));
        assert!(!row(r#""is_active":false,"member_until":null"#).was_member_at(None));

        let written = serde_json::to_value(&left).unwrap();
        assert_eq!((&written["is_active"], &written["member_until"]), (&false.into(), &"2026-04-01T12:00:00Z".into()));
        assert_eq!(written["member_since"], "1970-01-01T00:00:00Z");
        assert_eq!(serde_json::from_value::<Agent>(written).unwrap(), left);
    }

    #[test]
    fn a_call_whose_end_is_not_known_may_be_a_joiners() {
        let agent = Agent {
            external_id: AgentId::from_number(7).unwrap(),
            user_id: None,
            user_name: "x".to_owned(),
            first_name: "x".to_owned(),
            last_name: "x".to_owned(),
            memberships: Memberships::since("2026-04-01T12:00:00Z".parse().unwrap()),
        };
        let may = |start: &str| agent.may_be_member_at_the_end(start.parse().unwrap());
        assert!(may("2026-04-01T11:50:00Z") && may("2026-04-03T00:00:00Z"));
        assert!(!may("2026-04-01T07:59:59Z"));
    }
}
