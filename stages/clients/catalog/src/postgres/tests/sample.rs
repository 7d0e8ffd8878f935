//! Conversations for the tests.

use jiff::{SignedDuration, Timestamp};
use model::{
    AgentId, ContactEvent, ContactId, Conversation, ConversationKey, Direction, EventSource, Extension, Lane,
    ObjectKey, StoredRecording,
};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_775_000_000 + seconds).unwrap()
}

pub(super) fn key(id: u64) -> ConversationKey {
    ConversationKey { tenant: "acme".parse().unwrap(), external_id: ContactId::from_number(id).unwrap() }
}

/// The event of that conversation.
pub(super) fn event(id: u64) -> ContactEvent {
    ContactEvent::new(key(id).tenant, key(id).external_id, EventSource::Poll)
}

pub(super) fn conversation(id: u64) -> Conversation {
    let key = key(id);
    Conversation {
        tenant: key.tenant,
        external_id: key.external_id,
        source: EventSource::Poll,
        lane: Lane::Live,
        master: ContactId::from_number(id).unwrap(),
        agent: AgentId::from_number(7).unwrap(),
        started_at: at(0) - SignedDuration::from_secs(60),
        ended_at: at(0),
        direction: Some(Direction::Outbound),
        customer_number: Some("+49 30 1234".to_owned()),
        metadata: serde_json::json!({ "contactId": id }),
    }
}

pub(super) fn recording(id: u64) -> StoredRecording {
    StoredRecording {
        key: ObjectKey::new(&key(id), at(0), 0, Extension::for_content_type(Some("audio/wav"))),
        bucket: "recordings".to_owned(),
        size_bytes: id,
        sha256: format!("{id:064x}"),
        content_type: "audio/wav".to_owned(),
        source: None,
    }
}
