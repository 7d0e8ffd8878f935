//! The feed of an agent's session: every value is a text, and no name is certain in its case.

use serde_json::value::RawValue;

use super::ShapeError;
use super::lenient;
use super::lenient::Object;
use crate::{AgentEvent, CallEvent, Feed, Phase, SessionId};

/// A joined feed begins with some dozen states and contacts; a later answer has a few events.
const MAX_EVENTS: usize = 10_000;

/// Reads the session that was joined.
pub fn joined(body: &[u8]) -> Result<SessionId, ShapeError> {
    let text = lenient::document(body)?;
    session_id(&Object::parse(&text)?)?.ok_or(ShapeError::Shape("no session id"))
}

/// Reads the next events of a session. An event that makes no sense is one of no use; a session id that is none
/// is an error.
pub fn events(body: &[u8]) -> Result<Feed, ShapeError> {
    let text = match lenient::document(body) {
        Ok(text) => text,
        Err(ShapeError::Empty) => return Ok(Feed::Idle),
        Err(error) => return Err(error),
    };
    let object = Object::parse(&text)?;
    let next = session_id(&object)?;
    let events = object.items(&["events"], MAX_EVENTS)?.unwrap_or_default();
    Ok(Feed::Events { next, events: events.into_iter().map(event).collect() })
}

fn session_id(object: &Object<'_>) -> Result<Option<SessionId>, ShapeError> {
    let Some(raw) = object.value(&["sessionId"]) else { return Ok(None) };
    match lenient::scalar(raw) {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ShapeError::Grammar("a session id")),
        None => Err(ShapeError::Grammar("a session id")),
    }
}

fn event(raw: &RawValue) -> AgentEvent {
    let Some(object) = Object::of(raw) else { return AgentEvent::Other };
    let kind = object.text(&["Type"]).unwrap_or_default();
    let is = |name: &str| kind.eq_ignore_ascii_case(name);
    if is("CallContactEvent") {
        call(&object).map_or(AgentEvent::Other, AgentEvent::Call)
    } else if is("AgentState") {
        AgentEvent::State
    } else if is("AgentSessionStart") {
        AgentEvent::SessionStarted
    } else if is("AgentSessionEnd") {
        AgentEvent::SessionEnded
    } else {
        AgentEvent::Other
    }
}

/// A call; none where its id is missing or is none.
fn call(object: &Object<'_>) -> Option<CallEvent> {
    Some(CallEvent {
        contact: object.text(&["ContactID"])?.trim().parse().ok()?,
        master: object.text(&["MasterID"]).and_then(|id| id.trim().parse().ok()),
        phase: phase(object),
        since: object.time(&["LastStateChangeTimeUTC"]),
    })
}

fn phase(object: &Object<'_>) -> Phase {
    let status = object.text(&["Status"]).unwrap_or_default();
    let is_one_of = |names: &[&str]| names.iter().any(|name| status.trim().eq_ignore_ascii_case(name));
    if is_one_of(&["Disconnected"]) {
        // One that does not say so is not taken for the last: that costs a wait, the other way a look too early.
        let is_final = object.flag(&["FinalState"]).unwrap_or(false);
        if is_final { Phase::Over } else { Phase::Disconnected }
    } else if is_one_of(&["Active", "Holding", "Masking", "Joined"]) {
        Phase::Taken
    } else if is_one_of(&["Incoming", "Dialing", "NaturalCallDialing", "NaturalCallAMD", "NaturalCallRinging"]) {
        Phase::Offered
    } else {
        Phase::Unknown
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
