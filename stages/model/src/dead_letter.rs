//! A delivery that was set aside.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ContactEvent, ConversationKey, Key, System, TenantId};

/// A delivery set aside with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Given by the catalog, ascending; 0 before it is written.
    #[serde(default)]
    pub id: u64,
    /// The tenant, where it could be read.
    pub tenant_id: Option<String>,
    /// NICE's contact id, where it could be read.
    pub conversation_id: Option<String>,
    /// The stage that gave up.
    pub stage: String,
    /// Why; without personal data or secrets.
    pub reason: String,
    /// The message, for the replay; a body that is not JSON stands as an escaped text, cut short.
    pub message: serde_json::Value,
    /// When it was set aside.
    pub at: Timestamp,
    /// The system that failed, where the call itself may be sound: then the letter goes back by itself.
    #[serde(default)]
    pub cause: Option<System>,
    /// When it goes back, at the earliest.
    #[serde(default)]
    pub replay_at: Option<Timestamp>,
}

/// How many times a letter goes back by itself.
const MOST_REPLAYS: u32 = 10;

/// Hours until a letter of a passing cause goes back by itself, at most.
const LONGEST_ON_THE_SHELF: i64 = 24;

/// The longest piece of an unreadable body that a dead letter keeps.
const KEPT_BODY: usize = 4096;

impl DeadLetter {
    /// The dead letter of an event.
    pub fn of_event(event: &ContactEvent, stage: &str, reason: &str, at: Timestamp) -> Self {
        let message = serde_json::from_slice(&event.encode()).unwrap_or_default();
        Self {
            id: 0,
            tenant_id: Some(event.tenant.to_string()),
            conversation_id: Some(event.conversation.to_string()),
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            message,
            at,
            cause: None,
            replay_at: None,
        }
    }

    /// The same for an event that was set aside because a system failed. It goes back after an hour, then after longer
    /// times, a day at most. After about a week a person must decide.
    #[must_use]
    pub fn caused_by(self, system: System, event: &ContactEvent) -> Self {
        let hours = 1_i64.checked_shl(event.replays).unwrap_or(LONGEST_ON_THE_SHELF).clamp(1, LONGEST_ON_THE_SHELF);
        let replay_at = self.at.checked_add(SignedDuration::from_hours(hours)).ok();
        let replay_at = replay_at.filter(|_| event.replays < MOST_REPLAYS);
        Self { cause: Some(system), replay_at, ..self }
    }

    /// The dead letter of a body that no event could be read from.
    pub fn of_body(body: &[u8], tenant: Option<&TenantId>, stage: &str, reason: &str, at: Timestamp) -> Self {
        let message = match serde_json::from_slice(body) {
            Ok(json) if body.len() <= KEPT_BODY => json,
            _ => body[..body.len().min(KEPT_BODY)].escape_ascii().to_string().into(),
        };
        Self {
            id: 0,
            tenant_id: tenant.map(ToString::to_string),
            conversation_id: None,
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            message,
            at,
            cause: None,
            replay_at: None,
        }
    }

    /// The conversation it belongs to, where that could be read.
    pub fn key(&self) -> Option<ConversationKey> {
        let tenant = self.tenant_id.as_deref()?.parse().ok()?;
        Some(ConversationKey { tenant, external_id: self.conversation_id.as_deref()?.parse().ok()? })
    }

    /// What makes two letters the same letter: the conversation, or else the body.
    pub fn digest(&self) -> Key {
        let body = self.message.to_string();
        match (&self.tenant_id, &self.conversation_id) {
            (Some(tenant), Some(conversation)) => Key::of(&["conversation", tenant, conversation]),
            _ => Key::of(&["body", &self.stage, &body]),
        }
    }
}
