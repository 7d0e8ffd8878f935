//! Where recordings lie, and who speaks in them.

use super::ShapeError;
use super::lenient;
use super::lenient::Object;
use crate::{Interaction, MediaLink, Participant, Playback, Segment, SegmentId};

/// A contact has one interaction, a few when it moves between channels.
const MAX_INTERACTIONS: usize = 1_000;

/// Segments and participants of one interaction: some per transfer.
const MAX_PARTS: usize = 10_000;

/// An answer, and what of it was passed over.
#[derive(Debug)]
pub struct Answered {
    /// The recordings; none where nothing is processed yet.
    pub playback: Option<Playback>,
    /// The media type of each interaction that was passed over: one of [`TYPES`], or `other`.
    pub passed_over: Vec<&'static str>,
}

/// The media types that NICE documents.
pub const TYPES: [&str; 9] = [
    "voice-only",
    "voice-and-screen",
    "chat",
    "chat-and-screen",
    "email",
    "email-and-screen",
    "BE",
    "BE_AND_SCREEN",
    "WORKITEM",
];

/// Stands for every other media type.
pub const OTHER: &str = "other";

/// Reads the recordings of a contact or of a segment; none for an answer in which nothing is processed yet.
pub fn playback(body: &[u8]) -> Result<Option<Playback>, ShapeError> {
    Ok(read(body)?.playback)
}

/// As [`playback`], with what was passed over.
pub fn read(body: &[u8]) -> Result<Answered, ShapeError> {
    let text = match lenient::document(body) {
        Ok(text) => text,
        Err(ShapeError::Empty) => return Ok(Answered { playback: None, passed_over: Vec::new() }),
        Err(error) => return Err(error),
    };
    let object = Object::parse(&text)?;
    let link = link(&object, &["redirectUrl"]).or_else(|| link(&object, &["fileToPlayUrl"]));
    let object = object.object(&["value"]).unwrap_or(object);
    let (mut interactions, mut passed_over, mut skipped) = (Vec::new(), Vec::new(), 0);
    for raw in object.items(&["interactions"], MAX_INTERACTIONS)?.unwrap_or_default() {
        let outer = Object::of(raw).ok_or(ShapeError::Shape("an interaction is no object"))?;
        let outer = outer.object(&["Interaction"]).unwrap_or(outer);
        match voice_in(&outer) {
            Voice::Yes => interactions.push(interaction(&outer)?),
            verdict @ (Voice::No | Voice::Perhaps) => {
                skipped += u32::from(verdict == Voice::Perhaps);
                passed_over.push(type_of(&outer).unwrap_or(OTHER));
            }
        }
    }
    if let Some(link) = link
        && interactions.iter().all(|interaction| interaction.link.is_none())
    {
        match interactions.as_mut_slice() {
            [only] => only.link = Some(link),
            _ => interactions.push(bare(link)),
        }
    }
    let something = !interactions.is_empty() || skipped > 0;
    Ok(Answered { playback: something.then_some(Playback { interactions, skipped }), passed_over })
}

/// The interaction of an answer that is nothing but a link.
fn bare(link: MediaLink) -> Interaction {
    Interaction { link: Some(link), started_at: None, ended_at: None, segments: Vec::new(), participants: Vec::new() }
}

fn interaction(outer: &Object<'_>) -> Result<Interaction, ShapeError> {
    let inner = outer.object(&["data"]);
    let inner = inner.as_ref().unwrap_or(outer);
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
    Ok(Interaction {
        link: link(inner, &["fileToPlayUrl"]).or_else(|| link(outer, &["fileToPlayUrl"])),
        started_at: outer.time(&["startTime"]).or_else(|| inner.time(&["startTime"])),
        ended_at: outer.time(&["endTime"]).or_else(|| inner.time(&["endTime"])),
        segments,
        participants,
    })
}

/// Whether there is a voice in an interaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Yes,
    No,
    /// What it says of itself does not tell.
    Perhaps,
}

/// What a phone call is called where channels are named.
const PHONE_CALL: &str = "PHONE_CALL";

/// An interaction that names no medium is taken for a voice, as voice was asked for. `BE` and `BE_AND_SCREEN` come
/// over every channel: one over the phone is a voice.
fn voice_in(interaction: &Object<'_>) -> Voice {
    let Some(medium) = interaction.text(&["mediaType"]) else {
        return match interaction.text(&["channelType"]) {
            Some(channel) if !channel.eq_ignore_ascii_case(PHONE_CALL) => Voice::No,
            _ => Voice::Yes,
        };
    };
    if medium.to_ascii_lowercase().contains("voice") {
        return Voice::Yes;
    }
    match (type_of(interaction), by_phone(interaction)) {
        (Some("BE" | "BE_AND_SCREEN"), Some(true)) => Voice::Yes,
        (Some("BE" | "BE_AND_SCREEN") | None, Some(true) | None) => Voice::Perhaps,
        (Some(_), _) | (None, Some(false)) => Voice::No,
    }
}

/// Whether a channel is named, and one of them is the phone: the interaction's own, or that of one of its segments.
fn by_phone(interaction: &Object<'_>) -> Option<bool> {
    let mut channels: Vec<_> = interaction.text(&["channelType"]).into_iter().collect();
    let inner = interaction.object(&["data"]);
    let inner = inner.as_ref().unwrap_or(interaction);
    for raw in inner.items(&["segmentsDataList"], MAX_PARTS).ok().flatten().unwrap_or_default() {
        channels.extend(Object::of(raw).and_then(|segment| segment.text(&["channelType"])));
    }
    (!channels.is_empty()).then(|| channels.iter().any(|channel| channel.eq_ignore_ascii_case(PHONE_CALL)))
}

/// The documented media type that it has.
fn type_of(interaction: &Object<'_>) -> Option<&'static str> {
    let medium = interaction.text(&["mediaType"])?;
    TYPES.into_iter().find(|known| medium.eq_ignore_ascii_case(known))
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
