//! The rows of conversations.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Conversation, ConversationKey, ConversationState, StoredRecording, TenantId};

use super::{EmbeddedCatalog, Inner, keyed, kind};
use crate::{
    Attempt, AttemptKind, CatalogError, ConversationCounts, ConversationRow, ConversationStatus, Conversations, Fate,
    Lacking, Recorded, RecordingRow, RowCount,
};

#[async_trait]
impl Conversations for EmbeddedCatalog {
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        let known = |key: &ConversationKey| {
            let row = keyed(kind::CONVERSATION, &key.tenant, key.external_id.get());
            let letter = model::Key::of(&["conversation", key.tenant.as_str(), &key.external_id.to_string()]);
            let letter = [&[kind::DEAD_LETTER_OF], letter.as_bytes().as_slice()].concat();
            Ok(self.inner.is_erased(key)
                || self.inner.tree.contains_key(row).map_err(|error| self.inner.broken(error))?
                || self.inner.tree.contains_key(letter).map_err(|error| self.inner.broken(error))?)
        };
        keys.iter().map(known).collect()
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<(), CatalogError> {
        let mut counters = self.inner.lock();
        self.inner.refuse_erased(&conversation.key())?;
        let before = self.inner.row(&conversation.key())?.map(|row| row.state);
        if before.is_some_and(ConversationState::is_final) {
            return Ok(());
        }
        let row = ConversationRow::metadata_saved(conversation);
        self.inner.write_row(&row, before, &mut counters)?;
        // Not awaited: the completing commit makes it durable, and a crash before that repeats the whole.
        self.inner.store.commit_soon();
        Ok(())
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
        let after = after.map(|after| after.external_id);
        self.inner.clone().lacking(tenant.clone(), (from, to), after, limit).await
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
        Ok(RowCount::exactly(self.inner.clone().final_between(tenant.clone(), from, to).await?))
    }

    async fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError> {
        self.inner.status(key)
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        Inner::recorded(&self.inner, tenant, from, to, after, limit).await
    }
}
