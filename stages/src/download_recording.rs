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

use catalog::{Agents, Conversations};
use flow::{Outcome, RetryPolicy, Stage, StageError};
use model::{ContactEvent, Conversation, QuotaClass, System};
use nice::{NiceClient, NiceError, Playback, SegmentId};
use runtime::crash;
use tracing::warn;

use crate::items::{FetchedConversation, RecordedConversation};
use crate::metrics::Metrics;
use crate::readiness::RecordingDelays;
use crate::recheck::NOTHING_NEW;
use crate::tenants::RecordingScope;

mod leg;
mod named;
mod open;

use self::named::{NamedRecording, PlaybackOf, StartMark, lacking, name, next_position};
use self::open::{OpenedMedia, open_named};

/// NICE names no recording of the call, or does not know it.
const NOTHING_NAMED: &str = "the recording is not processed yet";

/// Not "no recording": other legs have theirs, and this one's may be among them under another name.
const NOT_TOLD_APART: &str = "no segment of this leg is listed yet";

/// Why a recheck ends that cannot tell what is stored from what lacks.
const NOT_LINED_UP: &str = "not_lined_up";

/// Each segment costs a request of the rate budget; a leg has one, or a few after holds.
const MOST_SEGMENTS: usize = 100;

/// Opens recordings.
pub struct DownloadRecording {
    /// The agents' UserHub ids.
    pub agents: Arc<dyn Agents>,
    /// The rows of calls that are looked at again.
    pub conversations: Arc<dyn Conversations>,
    /// The deadline.
    pub retry: RetryPolicy,
    /// Learns when recordings are there.
    pub readiness: RecordingDelays,
    /// Counts the looks.
    pub metrics: Metrics,
}

/// A conversation, and the door at which its recordings are asked for.
struct LegAtNice<'a> {
    nice: NiceClient,
    scope: RecordingScope,
    conversation: &'a Conversation,
}

impl Stage<FetchedConversation> for DownloadRecording {
    const NAME: &'static str = "download_recording";
    type Out = RecordedConversation;

    async fn process(
        &self,
        event: &ContactEvent,
        fetched: FetchedConversation,
    ) -> Result<Outcome<RecordedConversation>, StageError> {
        let FetchedConversation { tenant, conversation } = fetched;
        let nice = tenant.responsive()?.for_class(QuotaClass::of(event));
        let call = LegAtNice { nice, scope: tenant.scope, conversation: &conversation };
        let found = match event.recheck {
            true => match self.look_again(&call).await? {
                Ok(found) => found,
                Err(word) => return Ok(Outcome::Done(word)),
            },
            false => self.look(event, &call).await?,
        };
        let OpenedMedia { media, missing, .. } = found;
        crash::point("recording_opened");
        Ok(Outcome::Next(RecordedConversation { conversation, media, missing }))
    }
}

impl DownloadRecording {
    /// What a call becomes: all its recordings, or those that there are once the rest is long overdue, or none.
    async fn look(&self, event: &ContactEvent, call: &LegAtNice<'_>) -> Result<OpenedMedia, StageError> {
        let looked = |found| self.metrics.recording_looks.with_label_values(&[found]).inc();
        let ended_at = call.conversation.ended_at;
        // NICE's word on the end counts: an event may be wrong.
        let event = &ContactEvent { ended_at: Some(ended_at), ..event.clone() };
        let given_up = self.retry.recording_given_up(event);
        // One bad moment of NICE's is not enough, and neither is an outage.
        let takes_parts = self.retry.recording_overdue(event);
        match self.open_all(call, takes_parts).await.and_then(OpenedMedia::something) {
            Err(StageError::NotReady { reason }) if given_up => {
                looked("given_up");
                at_the_deadline(reason)
            }
            Err(StageError::NotReady { reason }) => {
                looked("not_ready");
                self.readiness.missed(&event.tenant, ended_at, event.looked_at);
                Err(StageError::NotReady { reason })
            }
            opened => {
                let found = opened?;
                looked("there");
                if found.missing == 0 {
                    self.readiness.found(&event.tenant, ended_at, event.looked_at).await;
                }
                Ok(found)
            }
        }
    }

    /// What a final call lacked and NICE has by now, or why it ends without. One look is enough: the next recheck asks
    /// again. The learned delay does not change by it.
    async fn look_again(&self, call: &LegAtNice<'_>) -> Result<Result<OpenedMedia, &'static str>, StageError> {
        let key = call.conversation.key();
        let Some(row) = self.conversations.conversation(&key).await? else { return Ok(Err(NOTHING_NEW)) };
        let named = match self.named(call).await {
            Err(StageError::NotReady { .. }) => return Ok(Err(NOTHING_NEW)),
            named => named?,
        };
        let Some(lacking) = lacking(named, &row) else {
            let (id, stored) = (key.external_id, row.recordings.len());
            let remedy = "compare what is stored of the call with what NICE plays of it; nothing was changed";
            warn!(conversation.id = %id, stored, remedy, "NICE does not name again what is stored of a call that lacks recordings");
            return Ok(Err(NOT_LINED_UP));
        };
        match open_named(&call.nice, lacking, true).await {
            Err(StageError::NotReady { .. }) => Ok(Err(NOTHING_NEW)),
            Ok(found) if found.media.is_empty() => Ok(Err(NOTHING_NEW)),
            opened => opened.map(Ok),
        }
    }

    /// Opens every recording that NICE names; without `takes_parts` all or none.
    async fn open_all(&self, call: &LegAtNice<'_>, takes_parts: bool) -> Result<OpenedMedia, StageError> {
        open_named(&call.nice, self.named(call).await?, takes_parts).await
    }

    /// Every recording of the conversation that NICE names, by start time.
    async fn named(&self, call: &LegAtNice<'_>) -> Result<Vec<NamedRecording>, StageError> {
        let nice = &call.nice;
        let contact = PlaybackOf::Contact(call.conversation.master);
        let playback = match contact.fetch(nice).await {
            Err(NiceError::NotReady { .. }) => return Err(StageError::NotReady { reason: NOTHING_NAMED }),
            playback => playback?,
        };
        let wanted = match call.scope {
            RecordingScope::Master => None,
            RecordingScope::Leg => self.segments(call, &playback).await?,
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
                    let (position, mark) = (next_position(&named), StartMark { started_at: None, nth: 0 });
                    named.push(NamedRecording { position, of: segment, mark, rank: 0, source: None, link: None });
                }
                playback => name(&mut named, &segment, playback?),
            }
        }
        Ok(named)
    }

    /// The leg's segments, or none where the contact's one file is the leg's.
    async fn segments(&self, call: &LegAtNice<'_>, playback: &Playback) -> Result<Option<Vec<SegmentId>>, StageError> {
        let conversation = call.conversation;
        if !leg::may_be_transferred(conversation, playback) {
            return Ok(None);
        }
        let legs = call.nice.legs(conversation.external_id).await?;
        // Another master means another leg, listed or not: the contact's file would hold other agents' voices.
        if legs.len() <= 1 && conversation.master == conversation.external_id {
            return Ok(None);
        }
        let agent = self.agents.agent(&conversation.tenant, conversation.agent).await?;
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

/// What becomes of a call of which nothing was there until the deadline: it has no recording only where NICE names
/// none.
fn at_the_deadline(reason: &'static str) -> Result<OpenedMedia, StageError> {
    match reason {
        NOTHING_NAMED => Ok(OpenedMedia { media: Vec::new(), missing: 0, gone: None }),
        NOT_TOLD_APART => Err(StageError::permanent("the call has recordings, and none can be told to be of this leg")),
        reason => {
            let reason =
                format!("NICE names recordings of the call, and gave none of them until the deadline: {reason}");
            Err(StageError::SetAside { system: System::Nice, reason })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
