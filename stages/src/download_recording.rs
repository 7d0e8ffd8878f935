//! Stage 7, download recording: a conversation → its recordings, opened and checked, not yet read.
//!
//! # Contract
//! Status, host, length and type of each recording are known before a row is written; the bytes flow later, in
//! `upload`. "Not ready yet" is no error: the message waits in a delay step. Past the deadline the conversation
//! goes on without recordings, where NICE names none.
//!
//! # Some, and not all
//! Where NICE names several recordings and gives some of them, the rest is awaited until it is long overdue (half the
//! deadline after the call's end) or the deadline has come; then the conversation goes on with what is there, and with
//! the number of those that are missing. Each recording has its position by start time among all that NICE names, so a
//! missing one leaves its position free. What NICE names later need not have the same order: a recheck knows what is
//! stored by its segment and start time, and opens what lacks for the positions that are free. Where it does not find
//! again what is stored, it opens nothing: it would store a recording twice, or pass over one.
//!
//! # Whose voice
//! Scope `leg`: of a transferred call, the segments of this leg's agent that overlap the leg in time; of a call
//! with one leg, the contact's one file. Scope `master`: the contact's one file, whoever speaks in it.

use std::sync::Arc;

use catalog::{Catalog, ConversationRow, RecordingRow};
use flow::{Outcome, RetryPolicy, Stage, StageError};
use futures::future::BoxFuture;
use jiff::Timestamp;
use model::{ContactId, Conversation, QuotaClass, System};
use nice::{Interaction, MediaLink, NiceClient, NiceError, Playback, SegmentId};
use runtime::crash;
use tracing::warn;

use crate::metrics::Metrics;
use crate::readiness::RecordingDelays;
use crate::recheck::NOTHING_NEW;
use crate::recorded::{PlacedMedia, RecordedConversation};
use crate::tenants::{RecordingScope, Tenants};

mod leg;

/// NICE names no recording of the call, or does not know it.
const NOTHING_NAMED: &str = "the recording is not processed yet";

/// Not "no recording": other legs have theirs, and this one's may be among them under another name.
const NOT_TOLD_APART: &str = "no segment of this leg is listed yet";

/// Not "no recording" either: NICE names some, and has processed none of them.
const NO_LINK: &str = "the recording has no link yet";

/// Some are there, and are worth waiting with.
const SOME_WITHOUT_LINK: &str = "some of the recordings have no link yet";

/// Why a recheck ends that cannot tell what is stored from what lacks.
const NOT_LINED_UP: &str = "not_lined_up";

/// Each segment costs a request of the rate budget; a leg has one, or a few after holds.
const MOST_SEGMENTS: usize = 100;

/// Opens recordings.
pub struct DownloadRecording {
    /// The doors to NICE.
    pub tenants: Arc<Tenants>,
    /// Knows the agents' UserHub ids.
    pub catalog: Arc<dyn Catalog>,
    /// The deadline.
    pub retry: RetryPolicy,
    /// Learns when recordings are there.
    pub readiness: RecordingDelays,
    /// Counts the looks.
    pub metrics: Metrics,
}

/// A recording that NICE names.
struct Named {
    /// By start time among all of the conversation.
    position: u32,
    /// The answer that names it.
    of: PlaybackOf,
    /// By which it is told from the others of that answer.
    mark: Mark,
    /// Its place in that answer, by start time.
    rank: usize,
    /// What it is known by later, where it can be told from the others of its call.
    source: Option<String>,
    /// Absent until it is processed.
    link: Option<MediaLink>,
}

/// A recording within an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    started_at: Option<Timestamp>,
    /// Among those that began at the same time.
    nth: usize,
}

/// What NICE gives of a conversation.
struct Found {
    /// Opened and checked.
    media: Vec<PlacedMedia>,
    /// Named, and not given.
    missing: u32,
    /// Why one of them was not, although it had a link.
    gone: Option<NiceError>,
}

impl Found {
    /// The same, or why nothing could be opened.
    fn something(mut self) -> Result<Self, StageError> {
        match self.gone.take_if(|_| self.media.is_empty()) {
            Some(NiceError::NotReady { .. }) => Err(StageError::NotReady { reason: NO_LINK }),
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }
}

/// Where a playback answer comes from, so that a link can be asked for again.
#[derive(Clone)]
enum PlaybackOf {
    Contact(ContactId),
    Segment(SegmentId),
}

impl PlaybackOf {
    async fn fetch(&self, nice: &NiceClient) -> Result<Playback, NiceError> {
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

impl Stage<Conversation> for DownloadRecording {
    const NAME: &'static str = "download_recording";
    type Out = RecordedConversation;

    async fn process(&self, conversation: Conversation) -> Result<Outcome<RecordedConversation>, StageError> {
        let found = match conversation.event.recheck {
            true => match self.look_again(&conversation).await? {
                Ok(found) => found,
                Err(word) => return Ok(Outcome::Done(word)),
            },
            false => self.look(&conversation).await?,
        };
        let Found { media, missing, .. } = found;
        crash::point("recording_opened");
        Ok(Outcome::Next(RecordedConversation { conversation, media, missing }))
    }
}

impl DownloadRecording {
    /// What a call becomes: all its recordings, or those that there are once the rest is long overdue, or none.
    async fn look(&self, conversation: &Conversation) -> Result<Found, StageError> {
        let looked = |found| self.metrics.recording_looks.with_label_values(&[found]).inc();
        let event = &conversation.event;
        let given_up = self.retry.recording_given_up(event);
        // One bad moment of NICE's is not enough, and neither is an outage.
        let takes_parts = self.retry.recording_overdue(event);
        match self.open_all(conversation, takes_parts).await.and_then(Found::something) {
            Err(StageError::NotReady { reason }) if given_up => {
                looked("given_up");
                at_the_deadline(reason)
            }
            Err(StageError::NotReady { reason }) => {
                looked("not_ready");
                self.readiness.missed(&event.tenant, conversation.ended_at, event.looked_at);
                Err(StageError::NotReady { reason })
            }
            opened => {
                let found = opened?;
                looked("there");
                if found.missing == 0 {
                    self.readiness.found(&event.tenant, conversation.ended_at, event.looked_at).await;
                }
                Ok(found)
            }
        }
    }

    /// What a final call lacked and NICE has by now, or why it ends without. One look is enough: the next recheck asks
    /// again. RecordingDelays learns nothing from it.
    async fn look_again(&self, conversation: &Conversation) -> Result<Result<Found, &'static str>, StageError> {
        let Some(row) = self.catalog.conversation(&conversation.key()).await? else { return Ok(Err(NOTHING_NEW)) };
        let (nice, named) = match self.all_named(conversation).await {
            Err(StageError::NotReady { .. }) => return Ok(Err(NOTHING_NEW)),
            named => named?,
        };
        let Some(lacking) = lacking(named, &row) else {
            let (id, stored) = (conversation.event.conversation, row.recordings.len());
            let remedy = "compare what is stored of the call with what NICE plays of it; nothing was changed";
            warn!(conversation.id = %id, stored, remedy, "NICE does not name again what is stored of a call that lacks recordings");
            return Ok(Err(NOT_LINED_UP));
        };
        match open_named(&nice, lacking, true).await {
            Err(StageError::NotReady { .. }) => Ok(Err(NOTHING_NEW)),
            Ok(found) if found.media.is_empty() => Ok(Err(NOTHING_NEW)),
            opened => opened.map(Ok),
        }
    }

    /// Opens every recording that NICE names; without `takes_parts` all or none.
    async fn open_all(&self, conversation: &Conversation, takes_parts: bool) -> Result<Found, StageError> {
        let (nice, named) = self.all_named(conversation).await?;
        open_named(&nice, named, takes_parts).await
    }

    /// Every recording that NICE names, and the door to ask for it.
    async fn all_named(&self, conversation: &Conversation) -> Result<(NiceClient, Vec<Named>), StageError> {
        let tenant = self.tenants.get(&conversation.event.tenant).await?;
        let nice = tenant.nice.for_class(QuotaClass::of(&conversation.event));
        let named = self.named(&nice, tenant.scope, conversation).await?;
        Ok((nice, named))
    }

    /// Every recording of the conversation that NICE names, by start time.
    async fn named(
        &self,
        nice: &NiceClient,
        scope: RecordingScope,
        conversation: &Conversation,
    ) -> Result<Vec<Named>, StageError> {
        let contact = PlaybackOf::Contact(conversation.master);
        let playback = match contact.fetch(nice).await {
            Err(NiceError::NotReady { .. }) => return Err(StageError::NotReady { reason: NOTHING_NAMED }),
            playback => playback?,
        };
        let wanted = match scope {
            RecordingScope::Master => None,
            RecordingScope::Leg => self.segments(nice, conversation, &playback).await?,
        };
        let mut named = Vec::new();
        let Some(segments) = wanted else {
            name(&mut named, &contact, playback);
            return match named.is_empty() {
                true => Err(StageError::NotReady { reason: "what NICE lists of the call is no voice" }),
                false => Ok(named),
            };
        };
        for segment in segments {
            let segment = PlaybackOf::Segment(segment);
            match segment.fetch(nice).await {
                // Named by the contact's answer, with one recording as a rule.
                Err(NiceError::NotReady { .. }) => {
                    let (position, mark) = (next_position(&named), Mark { started_at: None, nth: 0 });
                    named.push(Named { position, of: segment, mark, rank: 0, source: None, link: None });
                }
                playback => name(&mut named, &segment, playback?),
            }
        }
        Ok(named)
    }

    /// The leg's segments, or none where the contact's one file is the leg's.
    async fn segments(
        &self,
        nice: &NiceClient,
        conversation: &Conversation,
        playback: &Playback,
    ) -> Result<Option<Vec<SegmentId>>, StageError> {
        if !leg::may_be_transferred(conversation, playback) {
            return Ok(None);
        }
        let legs = nice.legs(conversation.event.conversation).await?;
        // Another master means another leg, listed or not: the contact's file would hold other agents' voices.
        if legs.len() <= 1 && conversation.master == conversation.event.conversation {
            return Ok(None);
        }
        let agent = self.catalog.agent(&conversation.event.tenant, conversation.agent).await?;
        let segments = leg::segments_of(conversation, agent.as_ref(), playback);
        if segments.is_empty() {
            return Err(StageError::NotReady { reason: NOT_TOLD_APART });
        }
        if segments.len() > MOST_SEGMENTS {
            return Err(StageError::permanent("the leg has more segments than any real leg"));
        }
        Ok(Some(segments))
    }
}

/// What becomes of a call of which nothing was there until the deadline: it has no recording only where NICE names none.
fn at_the_deadline(reason: &'static str) -> Result<Found, StageError> {
    match reason {
        NOTHING_NAMED => Ok(Found { media: Vec::new(), missing: 0, gone: None }),
        NOT_TOLD_APART => Err(StageError::permanent("the call has recordings, and none can be told to be of this leg")),
        reason => {
            let reason =
                format!("NICE names recordings of the call, and gave none of them until the deadline: {reason}");
            Err(StageError::SetAside { system: System::Nice, reason })
        }
    }
}

/// Puts the recordings of an answer behind those that are named already, by start time.
fn name(named: &mut Vec<Named>, of: &PlaybackOf, playback: Playback) {
    for (rank, (mark, interaction)) in by_start(playback).enumerate() {
        let (position, source) = (next_position(named), of.source(mark.started_at));
        named.push(Named { position, of: of.clone(), mark, rank, source, link: interaction.link });
    }
}

/// Those that are not stored, at the positions that are free; none where what is stored cannot be told from others. Where
/// nothing that is stored is found again by its source, NICE does not tell sources apart for good: then the rank counts,
/// provided that as many are named as before.
fn lacking(mut named: Vec<Named>, row: &ConversationRow) -> Option<Vec<Named>> {
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
fn next_position(named: &[Named]) -> u32 {
    u32::try_from(named.len()).unwrap_or(u32::MAX)
}

/// Opens what is named; without `takes_parts` all or none.
async fn open_named(nice: &NiceClient, named: Vec<Named>, takes_parts: bool) -> Result<Found, StageError> {
    let with_link = named.iter().filter(|recording| recording.link.is_some()).count();
    if with_link == 0 && !named.is_empty() {
        return Err(StageError::NotReady { reason: NO_LINK });
    }
    // Before anything is opened: most who wait for the rest would open and drop the others at every look.
    if with_link < named.len() && !takes_parts {
        return Err(StageError::NotReady { reason: SOME_WITHOUT_LINK });
    }
    open(nice, named, takes_parts).await
}

/// Opens what has a link. With `takes_parts` what cannot be had counts as missing.
async fn open(nice: &NiceClient, named: Vec<Named>, takes_parts: bool) -> Result<Found, StageError> {
    let mut found = Found { media: Vec::with_capacity(named.len()), missing: 0, gone: None };
    for Named { position, of, mark, rank, source, link } in named {
        let Some(link) = link else {
            found.missing += 1;
            continue;
        };
        match nice.open_media_with_refresh(&link, refresher(nice, &of, mark, rank)).await {
            Ok(media) => found.media.push(PlacedMedia { position, source, media }),
            Err(NiceError::NotReady { .. }) if !takes_parts => return Err(StageError::NotReady { reason: NO_LINK }),
            Err(error @ (NiceError::NotReady { .. } | NiceError::LinkExpired)) if takes_parts => {
                found.missing += 1;
                found.gone = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Asks for a fresh link when the one in use has expired.
fn refresher(nice: &NiceClient, of: &PlaybackOf, mark: Mark, rank: usize) -> Arc<Refresher> {
    let (nice, of) = (nice.clone(), of.clone());
    Arc::new(move || {
        let (nice, of) = (nice.clone(), of.clone());
        Box::pin(async move {
            let playback = of.fetch(&nice).await?;
            // By its start: others may have come before it since. By its rank where no start is as it was.
            let mut named: Vec<_> = by_start(playback).collect();
            let same = named.iter().position(|(other, _)| *other == mark).unwrap_or(rank);
            let link = (same < named.len()).then(|| named.swap_remove(same).1.link).flatten();
            link.ok_or(NiceError::NotReady { what: "the recording has no link any more" })
        })
    })
}

type Refresher = dyn Fn() -> BoxFuture<'static, Result<MediaLink, NiceError>> + Send + Sync;

/// In the order of their positions.
fn by_start(playback: Playback) -> impl Iterator<Item = (Mark, Interaction)> {
    let mut interactions = playback.interactions;
    interactions.sort_by_key(|interaction| interaction.started_at);
    let mut before: Option<Mark> = None;
    interactions.into_iter().map(move |interaction| {
        let started_at = interaction.started_at;
        let nth = before.filter(|before| before.started_at == started_at).map_or(0, |before| before.nth + 1);
        let mark = Mark { started_at, nth };
        before = Some(mark);
        (mark, interaction)
    })
}

#[cfg(test)]
pub(crate) mod tests;
