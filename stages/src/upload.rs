//! Stage 9, upload: the recordings into the store, then the conversation is ready.
//!
//! # Contract
//! Each recording streams from NICE into the store. The media stream compares its length with what NICE announced. The
//! store hashes it on the way, and sees to it that what lies there afterwards is what was sent. Only when every object is
//! whole does one commit write recordings, state and analysis entry, and how many recordings are missing. A recheck adds
//! to a row that is final, and replaces nothing that is stored.
//!
//! # After a crash
//! An object is whole or absent, and its key is always the same: the next delivery writes it again.
//!
//! # Two at once
//! The broker may hand a call out again while it is worked on here. Only the latest attempt completes, and an object is
//! written only in place of what lay there while that attempt was the latest: see [`catalog::Attempt`].

use std::sync::Arc;

use bytes::Bytes;
use catalog::{Attempt, AttemptKind, CatalogError, ConversationRow, Conversations, RecordingRow};
use flow::{Outcome, Stage, StageError};
use futures::{StreamExt, stream};
use model::{
    ContactEvent, Conversation, ConversationKey, ConversationState, EventSource, Extension, ObjectKey, StoredRecording,
    System,
};
use nice::Media;
use queue::Destination;
use recordings::{BodyError, CurrentObject, PutOutput, RecordingStore};
use runtime::{Clock, TraceSpan, crash};
use tracing::{info, warn};

use crate::items::{AttemptedConversation, PlacedMedia, RecordedConversation};
use crate::metrics::Metrics;
use crate::recheck::NOTHING_NEW;

/// The media type of a recording for which NICE names none.
const DEFAULT_CONTENT_TYPE: &str = "video/mp4";

/// After so many bytes an attempt is asked for again: the least part of an upload. Before the store begins one, which
/// ends what others have open for the key, it has asked within the first part.
const LOOK_EVERY: u64 = 5 * 1024 * 1024;

/// Stores recordings and completes conversations.
pub struct Upload {
    /// The recording store.
    pub store: Arc<dyn RecordingStore>,
    /// The catalog.
    pub catalog: Arc<dyn Conversations>,
    /// The time.
    pub clock: Clock,
    /// Counts bytes and the time to ready.
    pub metrics: Metrics,
}

impl Stage<AttemptedConversation> for Upload {
    const NAME: &'static str = "upload";
    type Out = ();

    async fn process(&self, event: &ContactEvent, attempted: AttemptedConversation) -> Result<Outcome<()>, StageError> {
        let AttemptedConversation { recorded, attempt } = attempted;
        let RecordedConversation { conversation, media, missing } = recorded;
        let key = conversation.key();
        let (kind, no_attempt) = match event.recheck {
            false => (AttemptKind::Complete, "already_final"),
            true => (AttemptKind::Add, NOTHING_NEW),
        };
        let attempt = match attempt {
            Some(attempt) => attempt,
            None => match self.catalog.begin_attempt(&key, kind).await? {
                Some(attempt) => attempt,
                None => return Ok(Outcome::Done(no_attempt)),
            },
        };
        if media.is_empty() {
            return self.end_without_recording(&conversation, attempt).await;
        }
        let mut targets = Vec::with_capacity(media.len());
        for media in media {
            targets.push(self.look(&conversation, attempt, media).await?);
        }
        // The attempt has begun: from then on nobody else adds to the row.
        if kind == AttemptKind::Add && self.is_stored(&conversation, &targets).await? {
            return Ok(Outcome::Done(NOTHING_NEW));
        }
        let mut stored = Vec::with_capacity(targets.len());
        for target in targets {
            stored.push(self.store_one(&conversation, attempt, target).await?);
        }
        crash::point("upload_stored");
        if self.store.takes_descriptions() {
            let row = self.row_to_be(&conversation, kind, &stored, missing).await?;
            self.describe(&conversation, attempt, &row).await?;
        }
        crash::point("description_written");
        let now = self.clock.now();
        let attempt = Some(attempt);
        match kind {
            AttemptKind::Complete => {
                let _sending = analysis_queue().sending(&TraceSpan::current());
                self.catalog.complete(&key, &stored, missing, now, attempt).await?;
            }
            AttemptKind::Add => self.catalog.add_recordings(&key, &stored, missing, now, attempt).await?,
        }
        crash::point("conversation_completed");
        self.tell(&conversation, kind, stored.len(), missing);
        if kind == AttemptKind::Complete {
            let after = now.duration_since(conversation.ended_at).as_secs_f64().max(0.0);
            self.metrics.call_ready(&event.tenant, after, event.source != EventSource::Backfill);
        }
        Ok(Outcome::Next(()))
    }
}

/// Asks whether an attempt is still the latest one.
#[derive(Clone)]
struct AttemptCheck {
    catalog: Arc<dyn Conversations>,
    key: ConversationKey,
    attempt: Attempt,
}

impl AttemptCheck {
    /// An error once another attempt has begun.
    async fn check(&self) -> Result<(), CatalogError> {
        match self.catalog.is_current(&self.key, self.attempt).await? {
            true => Ok(()),
            false => Err(CatalogError::overtaken()),
        }
    }
}

/// Where a recording will lie.
struct UploadTarget {
    key: ObjectKey,
    content_type: String,
    source: Option<String>,
    /// What lies there now.
    found: CurrentObject,
    media: Media,
}

impl Upload {
    /// Of a call that has no recording.
    async fn end_without_recording(
        &self,
        conversation: &Conversation,
        attempt: Attempt,
    ) -> Result<Outcome<()>, StageError> {
        if attempt.kind() == AttemptKind::Add {
            return Ok(Outcome::Done(NOTHING_NEW));
        }
        if self.store.takes_descriptions() {
            self.describe(conversation, attempt, &ConversationRow::without_recording(conversation)).await?;
        }
        self.catalog.complete_without_recording(&conversation.key(), Some(attempt)).await?;
        Ok(Outcome::Done("no_recording"))
    }

    /// Whether others have added all of it since it was opened. Where they have added some, or others in its places, it
    /// is looked up anew what lacks.
    async fn is_stored(&self, conversation: &Conversation, targets: &[UploadTarget]) -> Result<bool, StageError> {
        let Some(row) = self.catalog.conversation(&conversation.key()).await? else {
            return Err(StageError::transient(System::Catalog, "the row is gone meanwhile"));
        };
        let position = |target: &UploadTarget| target.key.position();
        let at = |target: &UploadTarget| row.recordings.iter().find(|stored| stored.position == position(target));
        if targets.iter().all(|target| at(target).is_none()) {
            return Ok(false);
        }
        match targets.iter().all(|target| at(target).is_some_and(|stored| stored.source == target.source)) {
            true => Ok(true),
            false => Err(CatalogError::overtaken().into()),
        }
    }

    /// Where a recording is to lie, and what lies there: nothing, where no attempt was before.
    async fn look(
        &self,
        conversation: &Conversation,
        attempt: Attempt,
        media: PlacedMedia,
    ) -> Result<UploadTarget, StageError> {
        let PlacedMedia { position, source, media } = media;
        let content_type = media.content_type().map_or(DEFAULT_CONTENT_TYPE, essence).to_owned();
        let extension = Extension::for_content_type(Some(&content_type));
        let key = ObjectKey::new(&conversation.key(), conversation.started_at, position, extension);
        let found = match attempt.is_first() {
            true => CurrentObject::Nothing,
            false => self.store.find(&key).await?,
        };
        Ok(UploadTarget { key, content_type, source, found, media })
    }

    async fn store_one(
        &self,
        conversation: &Conversation,
        attempt: Attempt,
        target: UploadTarget,
    ) -> Result<StoredRecording, StageError> {
        let UploadTarget { key, content_type, source, found, media } = target;
        let halfway = media.content_length().unwrap_or_default() / 2;
        crash::point("upload_begun");
        let check = AttemptCheck { catalog: self.catalog.clone(), key: conversation.key(), attempt };
        let mut read = 0;
        let body = media.into_stream().then({
            let check = check.clone();
            move |bytes| {
                let before = read;
                read += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                let (after, check) = (read, check.clone());
                async move {
                    let bytes: Bytes = bytes?;
                    if before <= halfway && after > halfway {
                        crash::point("upload_halfway");
                    }
                    if before / LOOK_EVERY < after / LOOK_EVERY {
                        check.check().await?;
                    }
                    Ok::<_, BodyError>(bytes)
                }
            }
        });
        // Before the object appears: an attempt that was overtaken meanwhile fails here.
        let last = stream::once(async move { check.check().await.err().map(|error| Err(error.into())) });
        let body = body.chain(last.filter_map(std::future::ready)).boxed();
        let PutOutput { size_bytes, sha256 } =
            self.store.put_if_unchanged(&key, &content_type, Some(&found), body).await?;
        self.metrics.recording_bytes.inc_by(size_bytes);
        Ok(StoredRecording { key, bucket: self.store.bucket().to_owned(), size_bytes, sha256, content_type, source })
    }

    /// The row as it is about to become.
    async fn row_to_be(
        &self,
        conversation: &Conversation,
        kind: AttemptKind,
        stored: &[StoredRecording],
        missing: u32,
    ) -> Result<ConversationRow, StageError> {
        let mut row = ConversationRow::metadata_saved(conversation);
        if kind == AttemptKind::Add {
            let known = self.catalog.conversation(&conversation.key()).await?;
            row = known.ok_or_else(|| StageError::transient(System::Catalog, "the row is gone meanwhile"))?;
            row.recordings.retain(|known| stored.iter().all(|new| new.key.position() != known.position));
        }
        row.recordings.extend(stored.iter().map(RecordingRow::from));
        row.recordings.sort_by_key(|recording| recording.position);
        row.state = ConversationState::Ready;
        row.recordings_missing = missing;
        row.enqueued_at.get_or_insert(self.clock.now());
        Ok(row)
    }

    /// Counts and logs recordings that came late, and those that lack.
    fn tell(&self, conversation: &Conversation, kind: AttemptKind, stored: usize, missing: u32) {
        let (id, tenant) = (conversation.external_id, conversation.tenant.as_str());
        if kind == AttemptKind::Add {
            self.metrics.recordings_late.of(tenant, &[]).inc_by(stored as u64);
            info!(conversation.id = %id, stored, missing, "recordings came late, and are added");
            return;
        }
        self.metrics.recordings_missing.of(tenant, &[]).inc_by(missing.into());
        if missing > 0 {
            let remedy = "`recheck` asks for them again";
            warn!(conversation.id = %id, stored, missing, remedy, "ready without all recordings that NICE names");
        }
    }

    /// Writes the row as it is about to become beside the recordings: for people, and for the case that the catalog is
    /// lost. Nobody who was overtaken writes it, lest it tell of what another one has replaced.
    async fn describe(
        &self,
        conversation: &Conversation,
        attempt: Attempt,
        row: &ConversationRow,
    ) -> Result<(), StageError> {
        if !self.catalog.is_current(&conversation.key(), attempt).await? {
            return Err(CatalogError::overtaken().into());
        }
        let key = ObjectKey::new(
            &conversation.key(),
            conversation.started_at,
            0,
            Extension::for_content_type(Some(DEFAULT_CONTENT_TYPE)),
        );
        let page = serde_json::to_vec_pretty(row)
            .map_err(|error| StageError::permanent(format!("the conversation cannot be described: {error}")))?;
        Ok(self.store.describe(key.folder(), &page).await?)
    }
}

/// The commit of a conversation sends it to the analysis.
fn analysis_queue() -> Destination {
    Destination { system: "knovvu", name: "analysis_queue".to_owned() }
}

/// A media type without its parameters; what breaks its grammar counts as NICE's default.
fn essence(content_type: &str) -> &str {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let fits = essence.len() <= 64
        && essence.contains('/')
        && essence.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-+.".contains(&byte));
    if fits { essence } else { DEFAULT_CONTENT_TYPE }
}

#[cfg(test)]
mod tests;
