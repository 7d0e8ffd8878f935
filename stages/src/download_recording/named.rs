//! The recordings that NICE names of a call: their positions, and which of them a final row lacks.

use catalog::{ConversationRow, RecordingRow};
use jiff::Timestamp;
use model::ContactId;
use nice::{Interaction, MediaLink, NiceClient, NiceError, Playback, SegmentId};

/// A recording that NICE names.
pub(super) struct NamedRecording {
    /// By start time among all of the conversation.
    pub(super) position: u32,
    /// The answer that names it.
    pub(super) of: PlaybackOf,
    /// By which it is told from the others of that answer.
    pub(super) mark: StartMark,
    /// Its place in that answer, by start time.
    pub(super) rank: usize,
    /// What it is known by later, where it can be told from the others of its call.
    pub(super) source: Option<String>,
    /// Absent until it is processed.
    pub(super) link: Option<MediaLink>,
}

/// A recording within an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct StartMark {
    pub(super) started_at: Option<Timestamp>,
    /// Among those that began at the same time.
    pub(super) nth: usize,
}

/// Where a playback answer comes from, so that a link can be asked for again.
#[derive(Clone)]
pub(super) enum PlaybackOf {
    Contact(ContactId),
    Segment(SegmentId),
}

impl PlaybackOf {
    pub(super) async fn fetch(&self, nice: &NiceClient) -> Result<Playback, NiceError> {
        match self {
            Self::Contact(master) => nice.contact_playback(*master).await,
            Self::Segment(segment) => nice.segment_playback(segment).await,
        }
    }

    /// What a recording of this answer is known by. A link without more may lead to any recording of a contact.
    fn source(&self, started_at: Option<Timestamp>) -> Option<String> {
        match (self, started_at) {
            (Self::Contact(_), None) => None,
            (Self::Contact(_), Some(start)) => Some(format!("contact {start}")),
            (Self::Segment(id), None) => Some(format!("segment {}", id.as_str())),
            (Self::Segment(id), Some(start)) => Some(format!("segment {} {start}", id.as_str())),
        }
    }
}

/// Puts the recordings of an answer behind those that are named already, by start time.
pub(super) fn name(named: &mut Vec<NamedRecording>, of: &PlaybackOf, playback: Playback) {
    for (rank, (mark, interaction)) in by_start(playback).enumerate() {
        let (position, source) = (next_position(named), of.source(mark.started_at));
        named.push(NamedRecording { position, of: of.clone(), mark, rank, source, link: interaction.link });
    }
}

/// Those that are not stored, at the positions that are free; none where what is stored cannot be told from others.
/// Where nothing that is stored is found again by its source, NICE does not tell sources apart for good: then the rank
/// counts, provided that as many are named as before.
pub(super) fn lacking(mut named: Vec<NamedRecording>, row: &ConversationRow) -> Option<Vec<NamedRecording>> {
    let stored = &row.recordings;
    let is_named_again = |recording: &&RecordingRow| {
        let Some(source) = recording.source.as_ref() else { return false };
        let are_it = stored.iter().filter(|other| other.source.as_ref() == Some(source)).count();
        named.iter().filter(|named| named.source.as_ref() == Some(source)).count() == are_it
    };
    match stored.iter().filter(is_named_again).count() {
        all if all == stored.len() => {}
        0 if named.len() == stored.len() + row.recordings_missing as usize
            && named.iter().all(|named| named.source.is_some())
            && !named.iter().any(|named| stored.iter().any(|stored| stored.source == named.source)) =>
        {
            named.retain(|named| stored.iter().all(|stored| stored.position != named.position));
            return Some(named);
        }
        _ => return None,
    }
    named.retain(|named| named.source.is_none() || stored.iter().all(|stored| stored.source != named.source));
    let is_free = |position: &u32| stored.iter().all(|stored| stored.position != *position);
    for (recording, position) in named.iter_mut().zip((0..).filter(is_free)) {
        recording.position = position;
    }
    Some(named)
}

/// A recording that is not there has its position all the same, so that it can come later.
pub(super) fn next_position(named: &[NamedRecording]) -> u32 {
    u32::try_from(named.len()).unwrap_or(u32::MAX)
}

/// In the order of their positions.
pub(super) fn by_start(playback: Playback) -> impl Iterator<Item = (StartMark, Interaction)> {
    let mut interactions = playback.interactions;
    interactions.sort_by_key(|interaction| interaction.started_at);
    let mut before: Option<StartMark> = None;
    interactions.into_iter().map(move |interaction| {
        let started_at = interaction.started_at;
        let nth = before.filter(|before| before.started_at == started_at).map_or(0, |before| before.nth + 1);
        let mark = StartMark { started_at, nth };
        before = Some(mark);
        (mark, interaction)
    })
}
