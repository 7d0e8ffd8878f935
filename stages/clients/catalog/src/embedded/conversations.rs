//! The rows of conversations.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Conversation, ConversationKey, ConversationState, DeadLetter, StoredRecording, TenantId};
use serde::Deserialize;

use super::{EmbeddedCatalog, Inner, keyed, kind, lacking::LackingRow, letter_key, numbered};
use crate::{
    Attempt, AttemptKind, CatalogError, ConversationCounts, ConversationRow, ConversationStatus, Conversations, Fate,
    Lacking, Recorded, RecordingRow, RowCount,
};

#[async_trait]
impl Conversations for EmbeddedCatalog {
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        let known = |key: &ConversationKey| {
            let row = keyed(kind::CONVERSATION, &key.tenant, key.external_id.get());
            Ok(self.inner.is_erased(key)
                || self.inner.tree.contains_key(row).map_err(|error| self.inner.broken(error))?
                || self.inner.tree.contains_key(letter_key(key)).map_err(|error| self.inner.broken(error))?)
        };
        keys.iter().map(known).collect()
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<Option<Attempt>, CatalogError> {
        let mut counters = self.inner.lock();
        self.inner.refuse_erased(&conversation.key())?;
        let before = self.inner.row(&conversation.key())?.map(|row| row.state);
        if before.is_some_and(ConversationState::is_final) {
            return Ok(None);
        }
        let row = ConversationRow::metadata_saved(conversation);
        self.inner.write_row(&row, before, &mut counters)?;
        // Not awaited: the completing commit makes it durable, and a crash before that repeats the whole.
        self.inner.store.commit_soon();
        Ok(Some(counters.begin(row.key(), AttemptKind::Complete)))
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.inner.begin_attempt(key, kind)
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        let counters = self.inner.lock();
        let is_asked_for = self.inner.row(key)?.is_some_and(|row| row.asks_for(attempt.kind));
        Ok(is_asked_for && counters.attempts.get(key) == Some(&attempt))
    }

    async fn complete(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let is_done = |row: &ConversationRow| row.recordings.len() == recordings.len() && row.holds(recordings);
        self.inner.finish(key, attempt, is_done, |row| {
            row.recordings = recordings.iter().map(RecordingRow::from).collect();
            row.recordings_missing = missing;
            row.state = ConversationState::Ready;
            row.enqueued_at = Some(at);
        })?;
        self.inner.commit().await
    }

    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner.add_recordings(key, recordings, missing, at, attempt)?;
        // Also where nothing was new: another caller may have written it a moment ago.
        self.inner.commit().await
    }

    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError> {
        let (of, after) = (tenant.clone(), after.map(|after| after.external_id));
        let pick = move |row: LackingRow| {
            let is_meant = row.lacks_recordings() && row.started_at >= from && row.started_at < to;
            is_meant.then(|| row.listed(of.clone()))
        };
        self.inner.scan(tenant, after, limit, pick).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let is_done = |row: &ConversationRow| row.state == ConversationState::NoRecording;
        self.inner.finish(key, attempt, is_done, |row| row.state = ConversationState::NoRecording)?;
        self.inner.commit().await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        self.inner.row(key)
    }

    async fn counts(&self) -> Result<ConversationCounts, CatalogError> {
        Ok(self.inner.lock().counts)
    }

    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError> {
        keys.iter().map(|key| self.inner.fate(key)).collect()
    }

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<RowCount, CatalogError> {
        let pick = move |row: StartedRow| {
            (row.state.is_final() && row.started_at >= from && row.started_at < to).then_some(())
        };
        let rows = self.inner.scan(tenant, None, usize::MAX, pick).await?;
        Ok(RowCount::exactly(rows.len() as u64))
    }

    async fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError> {
        if self.inner.is_erased(key) {
            return Ok(ConversationStatus::Erased);
        }
        Ok(self.inner.row(key)?.map_or(ConversationStatus::Unknown, |row| ConversationStatus::Saved(row.state)))
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        let pick = move |row: ConversationRow| {
            let is_meant = row.state == ConversationState::Ready && row.ended_at >= from && row.ended_at < to;
            is_meant.then_some(Recorded { external_id: row.external_id, ended_at: row.ended_at })
        };
        self.inner.scan(tenant, after.map(|after| after.external_id), limit, pick).await
    }
}

/// As much of a conversation's row as its fate needs.
#[derive(Deserialize)]
struct FateRow {
    state: ConversationState,
    #[serde(default)]
    recordings_missing: u32,
}

/// As much of a conversation's row as a count by its start needs.
#[derive(Deserialize)]
struct StartedRow {
    started_at: Timestamp,
    state: ConversationState,
}

impl Inner {
    fn fate(&self, key: &ConversationKey) -> Result<Fate, CatalogError> {
        if self.is_erased(key) {
            return Ok(Fate::Erased);
        }
        let row: Option<FateRow> = self.get(&keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()))?;
        if let Some(FateRow { state, recordings_missing }) = &row
            && state.is_final()
        {
            return Ok(Fate::of_row(*state, *recordings_missing));
        }
        if let Some(letter) = self.letter_of(key)? {
            return Ok(Fate::DeadLetter(letter.reason));
        }
        Ok(row.map_or(Fate::Unknown, |row| Fate::Row(row.state)))
    }

    /// The dead letter of a conversation.
    pub(super) fn letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        self.number(&letter_key(key))?.map_or(Ok(None), |id| self.get(&numbered(kind::DEAD_LETTER, id)))
    }
}
