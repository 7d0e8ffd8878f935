//! The message on the queue: JSON, versioned, the same for every broker.
//!
//! `schema`, `integrationType`, `tenantId` and `conversationId` are mandatory. Optional fields that are absent
//! or null are treated alike, and fields of a later version are carried on unchanged.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AgentId, ContactEvent, ContactId, EventSource, INTEGRATION_TYPE, TenantId, Troubles};
use crate::text::bare_json;

/// The version of the message that this build writes and reads.
pub const SCHEMA: u64 = 1;

/// A longer body is refused before it is parsed: a real message has some 400 bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Why a message cannot be worked on; each ends in a dead letter, never in a retry.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The body is larger than any real message.
    #[error("message has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// Not JSON, or a mandatory field is absent, or a field has another type or grammar.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Written by a later version.
    #[error("unknown message schema {0}, this version reads {SCHEMA}")]
    UnknownSchema(u64),
    /// A message of another integration.
    #[error("integration type is not {INTEGRATION_TYPE}")]
    OtherIntegration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema: u64,
    integration_type: String,
    tenant_id: TenantId,
    conversation_id: ContactId,
    #[serde(default)]
    master_contact_id: Option<ContactId>,
    #[serde(default)]
    agent_id: Option<AgentId>,
    #[serde(default)]
    ended_at: Option<Timestamp>,
    #[serde(default)]
    source: Option<EventSource>,
    #[serde(default, skip_serializing_if = "is_zero")]
    late: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    members_now: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    recheck: bool,
    #[serde(default)]
    attempt: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    deferrals: u32,
    #[serde(default, skip_serializing_if = "Troubles::is_empty")]
    troubles: Troubles,
    #[serde(default, skip_serializing_if = "is_zero")]
    awaited_millis: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    replays: u32,
    #[serde(default)]
    not_ready: u32,
    #[serde(default, rename = "unknownLooks", skip_serializing_if = "is_zero")]
    unknown: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    busy_secs: u64,
    #[serde(default)]
    queued_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_queued_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    looked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(flatten)]
    further: serde_json::Map<String, serde_json::Value>,
}

/// Most messages do not carry the fields that are zero or false here.
fn is_zero(count: &(impl Default + PartialEq)) -> bool {
    *count == Default::default()
}

/// Read first, so that the error of a later schema names the schema, not a missing field.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    schema: u64,
    integration_type: String,
}

impl ContactEvent {
    /// The message that carries this event.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            schema: SCHEMA,
            integration_type: INTEGRATION_TYPE.to_owned(),
            tenant_id: self.tenant.clone(),
            conversation_id: self.conversation,
            master_contact_id: self.master,
            agent_id: self.agent,
            ended_at: self.ended_at,
            source: Some(self.source),
            late: self.late,
            members_now: self.members_now,
            recheck: self.recheck,
            attempt: self.attempt,
            deferrals: self.deferrals,
            troubles: self.troubles.clone(),
            awaited_millis: self.awaited_millis,
            replays: self.replays,
            not_ready: self.not_ready,
            unknown: self.unknown,
            busy_secs: self.busy_secs,
            queued_at: self.queued_at,
            first_queued_at: self.first_queued_at,
            looked_at: self.looked_at,
            due_at: self.due_at,
            traceparent: self.traceparent.clone(),
            further: self.further.clone(),
        };
        serde_json::to_vec(&wire).expect("a message of texts and numbers is always JSON")
    }

    /// Reads a message; the error says what is wrong with it without repeating its content.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        if body.len() > MAX_BYTES {
            return Err(MessageError::TooLarge(body.len()));
        }
        let body = bare_json(body);
        let malformed = |error: serde_json::Error| MessageError::Malformed(describe(&error));
        let envelope: Envelope = serde_json::from_slice(body).map_err(malformed)?;
        if envelope.schema != SCHEMA {
            return Err(MessageError::UnknownSchema(envelope.schema));
        }
        if envelope.integration_type != INTEGRATION_TYPE {
            return Err(MessageError::OtherIntegration);
        }
        let wire: Wire = serde_json::from_slice(body).map_err(malformed)?;
        Ok(Self {
            tenant: wire.tenant_id,
            conversation: wire.conversation_id,
            master: wire.master_contact_id,
            agent: wire.agent_id,
            ended_at: wire.ended_at,
            source: wire.source.unwrap_or(EventSource::Poll),
            late: wire.late,
            members_now: wire.members_now,
            recheck: wire.recheck,
            attempt: wire.attempt,
            deferrals: wire.deferrals,
            troubles: wire.troubles,
            awaited_millis: wire.awaited_millis,
            replays: wire.replays,
            not_ready: wire.not_ready,
            unknown: wire.unknown,
            busy_secs: wire.busy_secs,
            queued_at: wire.queued_at,
            first_queued_at: wire.first_queued_at,
            looked_at: wire.looked_at,
            due_at: wire.due_at,
            traceparent: wire.traceparent,
            further: wire.further,
        })
    }
}

/// What is wrong, without the values: serde repeats the offending text in `invalid type: string "…"`.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Io => "it could not be read",
        serde_json::error::Category::Data if text.starts_with("missing field") => {
            return text.split(" at line").next().unwrap_or("a field is missing").to_owned();
        }
        serde_json::error::Category::Data if text.contains("breaks the grammar") => {
            return text.split(" at line").next().unwrap_or("an id breaks the grammar").to_owned();
        }
        serde_json::error::Category::Data => "a field has the wrong type",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        r#"{"schema":1,"integrationType":"nice-cxone","tenantId":"acme","conversationId":"698800000001"}"#;

    #[test]
    fn what_lies_around_a_message_is_no_part_of_it() {
        let event = ContactEvent::new("acme".parse().unwrap(), "7".parse().unwrap(), EventSource::Poll);
        let body = event.encode();
        for around in [[&b"\xef\xbb\xbf"[..], &body, b"\r\n"], [b"\n", &body, b"\0"]] {
            assert_eq!(ContactEvent::decode(&around.concat()).unwrap(), event);
        }
        for around in [[&b""[..], &body[..body.len() - 1], b""], [b"", &body, b"{}"], [b"", &body, b"\0x"]] {
            assert!(matches!(ContactEvent::decode(&around.concat()), Err(MessageError::Malformed(_))));
        }
    }

    #[test]
    fn the_four_mandatory_fields_suffice() {
        let event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        assert_eq!(event.conversation.get(), 698_800_000_001);
        assert_eq!(event.attempt, 0);
    }

    #[test]
    fn the_time_spent_waiting_for_the_budget_travels_on() {
        let mut event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        assert!(!String::from_utf8(event.encode()).unwrap().contains("busySecs"));
        event.busy_secs = 7;
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn the_last_look_and_the_due_time_travel_on() {
        let mut event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        let plain = String::from_utf8(event.encode()).unwrap();
        assert!(!plain.contains("lookedAt") && !plain.contains("dueAt"), "{plain}");
        event.looked_at = Some("2026-04-01T16:34:25Z".parse().unwrap());
        event.due_at = Some("2026-04-01T17:04:25Z".parse().unwrap());
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn whose_membership_counts_travels_on() {
        let mut event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        assert!(!event.members_now && !String::from_utf8(event.encode()).unwrap().contains("membersNow"));
        event.members_now = true;
        assert!(String::from_utf8(event.encode()).unwrap().contains("\"membersNow\":true"));
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn what_a_call_has_met_travels_on_and_what_cannot_be_read_of_it_is_no_poison() {
        let mut event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        assert!(!String::from_utf8(event.encode()).unwrap().contains("troubles"));
        let met = crate::Trouble::first("upload", crate::System::Call, "2026-04-01T16:34:25Z".parse().unwrap());
        event.troubles.note(met.waiting(std::time::Duration::from_secs(7)));
        (event.replays, event.awaited_millis) = (2, 30_000);
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
        let later =
            MINIMAL.replace("\"schema\":1", r#""schema":1,"troubles":[{"stage":"upload","system":"the moon"}]"#);
        assert!(ContactEvent::decode(later.as_bytes()).unwrap().troubles.is_empty());
        let other = MINIMAL.replace("\"schema\":1", r#""schema":1,"troubles":7"#);
        assert!(ContactEvent::decode(other.as_bytes()).unwrap().troubles.is_empty());
    }

    #[test]
    fn a_recheck_travels_on_as_one() {
        let mut event = ContactEvent::decode(MINIMAL.as_bytes()).unwrap();
        assert!(!event.recheck && !String::from_utf8(event.encode()).unwrap().contains("recheck"));
        event.recheck = true;
        assert!(String::from_utf8(event.encode()).unwrap().contains("\"recheck\":true"));
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn unknown_fields_travel_on() {
        let body = MINIMAL.replace("\"schema\":1", "\"schema\":1,\"priority\":{\"of\":[7]}");
        let event = ContactEvent::decode(body.as_bytes()).unwrap();
        let again: serde_json::Value = serde_json::from_slice(&event.encode()).unwrap();
        assert_eq!(again["priority"]["of"][0], 7);
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn numbers_in_unknown_fields_do_not_drift() {
        let body = MINIMAL.replace("\"schema\":1", "\"schema\":1,\"share\":8.96547e-298");
        let event = ContactEvent::decode(body.as_bytes()).unwrap();
        assert_eq!(ContactEvent::decode(&event.encode()).unwrap(), event);
    }

    #[test]
    fn a_bad_message_is_named_without_its_content() {
        for (body, expected) in [
            ("", "ends too early"),
            ("<html>", "not JSON"),
            (&MINIMAL[..60], "ends too early"),
            (&MINIMAL.replace("\"schema\":1", "\"schema\":2"), "unknown message schema 2"),
            (&MINIMAL.replace("nice-cxone", "five9"), "integration type"),
            (&MINIMAL.replace("698800000001", "../secret"), "grammar"),
            (&MINIMAL.replace("698800000001", "-1"), "grammar"),
            (&MINIMAL.replace("698800000001", "0"), "grammar"),
            (&MINIMAL.replace("698800000001", " 1"), "grammar"),
            (&MINIMAL.replace("698800000001", "12345678901234567890"), "grammar"),
            (&MINIMAL.replace("\"acme\"", "\"a/b\""), "grammar"),
            (&MINIMAL.replace(",\"tenantId\":\"acme\"", ""), "missing field `tenantId`"),
            (&MINIMAL.replace("\"698800000001\"", "[\"secret\"]"), "wrong type"),
        ] {
            let error = ContactEvent::decode(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
