//! Stage 7, download recording: a conversation → its recordings, opened and checked, not yet read.
//!
//! # Contract
//! Status, host, length and type of each recording are known before a row is written; the bytes flow later, in
//! `upload`. "Not ready yet" is no error: the message waits in a delay step. Past the deadline the conversation
//! goes on without recordings.
//!
//! # Whose voice
//! Scope `leg`: of a transferred call, the segments of this leg's agent that overlap the leg in time; of a call
//! with one leg, the contact's one file. Scope `master`: the contact's one file, whoever speaks in it.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::clients::catalog::Catalog;
use crate::clients::nice::{Interaction, Media, MediaLink, NiceClient, NiceError, Playback, QuotaClass, SegmentId};
use crate::clients::tenants::{RecordingScope, Tenants};
use crate::flow::{Clock, Metrics, Outcome, Readiness, RetryPolicy, Stage, StageError, crash};
use crate::model::{ContactId, Conversation, RecordedConversation};

mod leg;

/// Not "no recording": other legs have theirs, and this one's may be among them under another name.
const NOT_TOLD_APART: &str = "no segment of this leg is listed yet";

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
    pub readiness: Readiness,
    /// Counts the looks.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
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
}

impl Stage<Conversation> for DownloadRecording {
    const NAME: &'static str = "download_recording";
    type Out = RecordedConversation;

    async fn process(&self, conversation: Conversation) -> Result<Outcome<RecordedConversation>, StageError> {
        let looked = |found| self.metrics.recording_looks.with_label_values(&[found]).inc();
        let event = &conversation.event;
        let media = match self.open_all(&conversation).await {
            Err(StageError::NotReady { reason }) if self.retry.recording_given_up(event, self.clock.now()) => {
                looked("given_up");
                if reason == NOT_TOLD_APART {
                    let reason = "the call has recordings, and none can be told to be of this leg";
                    return Err(StageError::permanent(reason));
                }
                Vec::new()
            }
            Err(StageError::NotReady { reason }) => {
                looked("not_ready");
                self.readiness.missed(&event.tenant, conversation.ended_at, event.looked_at);
                return Err(StageError::NotReady { reason });
            }
            opened => {
                let media = opened?;
                looked("there");
                self.readiness.found(&event.tenant, conversation.ended_at, event.looked_at).await;
                media
            }
        };
        crash::point("recording_opened");
        Ok(Outcome::Next(RecordedConversation { conversation, media }))
    }
}

impl DownloadRecording {
    async fn open_all(&self, conversation: &Conversation) -> Result<Vec<Media>, StageError> {
        let contact = PlaybackOf::Contact(conversation.master);
        let tenant = self.tenants.get(&conversation.event.tenant).await?;
        let nice = &tenant.nice.for_class(QuotaClass::of(&conversation.event));
        let playback = contact.fetch(nice).await?;
        let wanted = match tenant.scope {
            RecordingScope::Master => None,
            RecordingScope::Leg => self.segments(nice, conversation, &playback).await?,
        };
        let Some(segments) = wanted else {
            return open(nice, &contact, playback).await;
        };
        let mut media = Vec::new();
        for segment in segments {
            let segment = PlaybackOf::Segment(segment);
            let playback = segment.fetch(nice).await?;
            media.extend(open(nice, &segment, playback).await?);
        }
        Ok(media)
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

/// Opens every interaction of an answer, by start time.
async fn open(nice: &NiceClient, of: &PlaybackOf, playback: Playback) -> Result<Vec<Media>, StageError> {
    let interactions = by_start(playback);
    if interactions.is_empty() {
        return Err(StageError::NotReady { reason: "no recording is listed yet" });
    }
    let mut media = Vec::with_capacity(interactions.len());
    for (index, interaction) in interactions.into_iter().enumerate() {
        let Some(link) = interaction.link else {
            return Err(StageError::NotReady { reason: "the recording has no link yet" });
        };
        let opened = nice.open_media_with_refresh(&link, refresher(nice, of, index)).await?;
        media.push(opened);
    }
    Ok(media)
}

/// Asks for a fresh link when the one in use has expired.
fn refresher(nice: &NiceClient, of: &PlaybackOf, index: usize) -> Arc<Refresher> {
    let (nice, of) = (nice.clone(), of.clone());
    Arc::new(move || {
        let (nice, of) = (nice.clone(), of.clone());
        Box::pin(async move {
            let playback = of.fetch(&nice).await?;
            let link = by_start(playback).into_iter().nth(index).and_then(|interaction| interaction.link);
            link.ok_or(NiceError::NotReady { what: "the recording has no link any more" })
        })
    })
}

type Refresher = dyn Fn() -> BoxFuture<'static, Result<MediaLink, NiceError>> + Send + Sync;

fn by_start(playback: Playback) -> Vec<Interaction> {
    let mut interactions = playback.interactions;
    interactions.sort_by_key(|interaction| interaction.started_at);
    interactions
}
