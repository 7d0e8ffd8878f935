//! Where recordings lie, and who speaks in them.

use serde_json::value::RawValue;

use super::ShapeError;
use super::lenient::{self, Object};
use crate::clients::nice::{Interaction, MediaLink, Participant, Playback, Segment, SegmentId};

/// A contact has one interaction, a few when it moves between channels.
const MAX_INTERACTIONS: usize = 1_000;

/// Segments and participants of one interaction: some per transfer.
const MAX_PARTS: usize = 10_000;

/// Reads the recordings of a contact or of a segment; none for an answer in which nothing is processed yet.
pub fn playback(body: &[u8]) -> Result<Option<Playback>, ShapeError> {
    let text = match lenient::document(body) {
        Ok(text) => text,
        Err(ShapeError::Empty) => return Ok(None),
        Err(error) => return Err(error),
    };
    let object = Object::parse(&text)?;
    let link = link(&object, &["redirectUrl"]).or_else(|| link(&object, &["fileToPlayUrl"]));
    let object = object.object(&["value"]).unwrap_or(object);
    let mut interactions = Vec::new();
    for raw in object.items(&["interactions"], MAX_INTERACTIONS)?.unwrap_or_default() {
        interactions.extend(interaction(raw)?);
    }
    if let Some(link) = link
        && interactions.iter().all(|interaction| interaction.link.is_none())
    {
        match interactions.as_mut_slice() {
            [only] => only.link = Some(link),
            _ => interactions.push(bare(link)),
        }
    }
    Ok((!interactions.is_empty()).then_some(Playback { interactions }))
}

/// The interaction of an answer that is nothing but a link.
fn bare(link: MediaLink) -> Interaction {
    Interaction { link: Some(link), started_at: None, ended_at: None, segments: Vec::new(), participants: Vec::new() }
}

fn interaction(raw: &RawValue) -> Result<Option<Interaction>, ShapeError> {
    let outer = Object::of(raw).ok_or(ShapeError::Shape("an interaction is no object"))?;
    let outer = outer.object(&["Interaction"]).unwrap_or(outer);
    if !is_voice(&outer) {
        return Ok(None);
    }
    let inner = outer.object(&["data"]);
    let inner = inner.as_ref().unwrap_or(&outer);
    let mut segments = Vec::new();
    for raw in inner.items(&["segmentsDataList"], MAX_PARTS)?.unwrap_or_default() {
        let object = Object::of(raw).ok_or(ShapeError::Shape("a segment is no object"))?;
        if let Some(id) = segment_id(&object)? {
            let (started_at, ended_at) = (object.time(&["startTime"]), object.time(&["endTime"]));
            segments.push(Segment { id, started_at, ended_at });
        }
    }
    let mut participants = Vec::new();
    for raw in inner.items(&["participantDataList"], MAX_PARTS)?.unwrap_or_default() {
        let object = Object::of(raw).ok_or(ShapeError::Shape("a participant is no object"))?;
        participants.push(Participant {
            is_agent: object.text(&["participantType"]).is_some_and(|kind| kind.eq_ignore_ascii_case("agent")),
            segment_id: segment_id(&object)?,
            user_id: object.text(&["userId"]),
            agent_name: object.text(&["agentName"]),
            channel: object.integer(&["channel"]),
        });
    }
    Ok(Some(Interaction {
        link: link(inner, &["fileToPlayUrl"]).or_else(|| link(&outer, &["fileToPlayUrl"])),
        started_at: outer.time(&["startTime"]).or_else(|| inner.time(&["startTime"])),
        ended_at: outer.time(&["endTime"]).or_else(|| inner.time(&["endTime"])),
        segments,
        participants,
    }))
}

/// Whether there is a voice in it; an interaction that names no medium is taken for one, as voice was asked for.
fn is_voice(interaction: &Object<'_>) -> bool {
    match (interaction.text(&["mediaType"]), interaction.text(&["channelType"])) {
        (Some(medium), _) => medium.to_ascii_lowercase().contains("voice"),
        (None, Some(channel)) => channel.eq_ignore_ascii_case("PHONE_CALL"),
        (None, None) => true,
    }
}

fn segment_id(object: &Object<'_>) -> Result<Option<SegmentId>, ShapeError> {
    let Some(raw) = object.value(&["segmentId"]) else { return Ok(None) };
    match lenient::scalar(raw) {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ShapeError::Grammar("a segment id")),
        None => Err(ShapeError::Grammar("a segment id")),
    }
}

/// A link as NICE wrote it: it is checked when it is opened.
fn link(object: &Object<'_>, names: &[&str]) -> Option<MediaLink> {
    let text = lenient::scalar(object.value(names)?)?;
    (!text.trim().is_empty()).then(|| MediaLink::new(text.trim()))
}

#[cfg(test)]
#[path = "playback_tests.rs"]
mod tests;
