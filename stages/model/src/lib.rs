//! What passes through the flow, in order.
//!
//! ```text
//!  ContactEvent ─► Conversation ─► StoredRecording
//!  (source, queue)  (metadata)      (what lies in the recording store)
//! ```
//!
//! Everything that comes from outside is checked here, once: an id is digits, a tenant is a short word, an
//! object key is built of checked parts only.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

mod asks;
mod conversation;
mod dead_letter;
mod hop;
pub mod http;
mod import_since;
mod key;
mod lane;
mod memberships;
mod message;
mod object_key;
mod quota;
mod retention;
pub mod retry_after;
mod settle;
mod system;
pub mod text;
mod trouble;

pub use asks::{Asks, DoorError};
pub use conversation::{Agent, Conversation, ConversationState, Direction, StoredRecording};
pub use dead_letter::DeadLetter;
pub use hop::Hop;
pub use import_since::ImportSince;
pub use key::Key;
pub use lane::Lane;
pub use memberships::{Membership, Memberships};
pub use message::{MessageError, SCHEMA};
pub use object_key::{Extension, ObjectKey};
pub use quota::{ApiFamily, Permit, Quota, QuotaClass, QuotaError, Unmetered};
pub use retention::Retention;
pub use settle::{Settle, SettleError};
pub use system::{System, UnknownSystem};
pub use trouble::{Trouble, Troubles};

/// The integration type under which NICE's conversations stand in Knovvu.
pub const INTEGRATION_TYPE: &str = "nice-cxone";

/// An id that breaks its grammar; the offending text is not repeated, since it came from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} breaks the grammar: {rule}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
}

/// NICE's ACD id of a contact (a conversation, or the master that legs belong to): 1–19 digits, above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContactId(u64);

/// NICE's ACD id of an agent: the same grammar as [`ContactId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(u64);

/// The longest decimal text of an ACD id.
const ID_DIGITS: usize = 19;

fn parse_id(text: &str, what: &'static str) -> Result<u64, IdError> {
    let rule = "1 to 19 digits, above zero, no sign, no blanks, such as 698800000001";
    if text.is_empty() || text.len() > ID_DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(IdError { what, rule });
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(IdError { what, rule }),
        Ok(id) => Ok(id),
    }
}

macro_rules! acd_id {
    ($name:ident, $what:literal) => {
        impl $name {
            /// Takes an id that NICE sent as a JSON number.
            pub fn from_number(number: u64) -> Result<Self, IdError> {
                parse_id(&number.to_string(), $what).map(Self)
            }

            /// The id as a number.
            pub fn get(self) -> u64 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_id(text, $what).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl ToSchema for $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let rule = concat!("NICE's ", $what, ": 1 to 19 digits, above zero.");
                id_schema("^[0-9]*[1-9][0-9]*$", ID_DIGITS, rule)
            }
        }
    };
}

acd_id!(ContactId, "contact id");
acd_id!(AgentId, "agent id");

/// How an id is described to other programs: a text of this form.
fn id_schema(pattern: &str, longest: usize, description: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    text.min_length(Some(1)).max_length(Some(longest)).description(Some(description)).into()
}

/// The Knovvu tenant: 1–64 letters, digits, `-` or `_`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// The tenant as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { what: "tenant id", rule: "1 to 64 letters, digits, - or _, a letter or digit first" })
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl ToSchema for TenantId {}

impl PartialSchema for TenantId {
    fn schema() -> RefOr<Schema> {
        let rule = "The Knovvu tenant: 1 to 64 letters, digits, - or _, a letter or digit first.";
        id_schema("^[A-Za-z0-9][A-Za-z0-9_-]*$", 64, rule)
    }
}

/// Who found out that a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventSource {
    /// The poll of completed contacts: the truth.
    Poll,
    /// A POST to our receiver.
    Webhook,
    /// NICE's per-agent event feed.
    AgentSession,
    /// The nightly comparison.
    Reconciliation,
    /// An operator's replay of a date range.
    Backfill,
}

impl EventSource {
    /// The name in messages, rows, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Webhook => "webhook",
            Self::AgentSession => "agent_session",
            Self::Reconciliation => "reconciliation",
            Self::Backfill => "backfill",
        }
    }
}

/// Whose calls the replay of a range brings in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Members {
    /// Calls of agents who were in the group when the call ended.
    #[default]
    Then,
    /// Calls of agents who are in the group today, whenever the call ended.
    Now,
}

/// "This conversation ended": what the sources emit and the queue carries.
#[derive(Debug, Clone, PartialEq)]
pub struct ContactEvent {
    /// The tenant whose call it was.
    pub tenant: TenantId,
    /// The agent leg that ended.
    pub conversation: ContactId,
    /// The call the leg belongs to, where the source knows it.
    pub master: Option<ContactId>,
    /// The leg's agent, where the source knows it.
    pub agent: Option<AgentId>,
    /// When the leg ended, where the source knows it.
    pub ended_at: Option<Timestamp>,
    /// Who found out.
    pub source: EventSource,
    /// It ended long before it was put on the queue, so it goes after fresh calls.
    pub late: bool,
    /// What counts is whether the agent is in the group now, not whether it was at the end of the call.
    pub members_now: bool,
    /// Its row is final; NICE is asked once more for the recordings that are missing.
    pub recheck: bool,
    /// How often the message was put back with a delay because of an error or a missing recording.
    pub attempt: u32,
    /// How often it was put back for any reason. By this number copies of one message are found.
    pub deferrals: u32,
    /// The failures that it meets again and again at present.
    pub troubles: Troubles,
    /// How long it has waited for NICE's processing so far, in milliseconds. The deadline counts this.
    pub awaited_millis: u64,
    /// How often its dead letter went back to the queue by itself.
    pub replays: u32,
    /// How many of those attempts found the recording not ready yet.
    pub not_ready: u32,
    /// In how many of those NICE did not know the contact.
    pub unknown: u32,
    /// How long the message has waited for its turn while its tenant's NICE takes no more, in seconds.
    pub busy_secs: u64,
    /// When the message was put on the queue, or its dead letter was replayed.
    pub queued_at: Option<Timestamp>,
    /// When the message of a replayed dead letter was first put on the queue.
    pub first_queued_at: Option<Timestamp>,
    /// When NICE last had no recording yet.
    pub looked_at: Option<Timestamp>,
    /// Until when the message waits for NICE. Time before that is not our delay.
    pub due_at: Option<Timestamp>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Fields of the message that this version does not know; carried on unchanged.
    pub further: serde_json::Map<String, serde_json::Value>,
}

impl ContactEvent {
    /// An event as a source emits it.
    pub fn new(tenant: TenantId, conversation: ContactId, source: EventSource) -> Self {
        Self {
            tenant,
            conversation,
            master: None,
            agent: None,
            ended_at: None,
            source,
            late: false,
            members_now: false,
            recheck: false,
            attempt: 0,
            deferrals: 0,
            troubles: Troubles::default(),
            awaited_millis: 0,
            replays: 0,
            not_ready: 0,
            unknown: 0,
            busy_secs: 0,
            queued_at: None,
            first_queued_at: None,
            looked_at: None,
            due_at: None,
            traceparent: None,
            further: serde_json::Map::new(),
        }
    }

    /// Whether nobody but a webhook has named the contact so far: NICE has not known it at any look.
    pub fn is_unconfirmed(&self) -> bool {
        self.source == EventSource::Webhook && self.unknown == self.not_ready
    }

    /// The key under which this conversation is known everywhere.
    pub fn key(&self) -> ConversationKey {
        ConversationKey { tenant: self.tenant.clone(), external_id: self.conversation }
    }
}

/// A conversation's key everywhere: tenant, integration type (always [`INTEGRATION_TYPE`]), external id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConversationKey {
    /// The tenant.
    pub tenant: TenantId,
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
}

impl ConversationKey {
    /// The 16 bytes under which the processed-id log knows the conversation.
    pub fn digest(&self) -> Key {
        Key::of(&[self.tenant.as_str(), INTEGRATION_TYPE, &self.external_id.to_string()])
    }

    /// The id of its trace: the same for all that is ever done for the conversation, so that it can be looked up.
    pub fn trace_id(&self) -> u128 {
        let key = Key::of(&["trace", self.tenant.as_str(), INTEGRATION_TYPE, &self.external_id.to_string()]);
        u128::from_be_bytes(*key.as_bytes()).max(1)
    }
}

impl fmt::Display for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.external_id)
    }
}
