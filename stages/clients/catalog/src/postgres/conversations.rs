//! Conversations: looked up, written and completed, many in one statement.
//!
//! Two consumers may hold the same conversation. Its row is locked before it is changed, rows in the order of
//! their keys everywhere, and changed only from `metadata_saved`: whoever comes second finds it final and leaves it.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Conversation, ConversationKey, StoredRecording, TenantId};

pub(super) use self::{
    attempts::{AttemptLook, BeginAttempt},
    completion::Completion,
    metadata::SaveMetadata,
    read::direction,
    status::StatusRequest,
};
use super::{PostgresCatalog, rows::unreadable};
use crate::{
    Attempt, AttemptKind, CatalogError, ConversationCounts, ConversationRow, ConversationStatus, Conversations, Fate,
    Lacking, Recorded, RowCount,
};

mod attempts;
pub(super) mod compare;
mod completion;
mod listing;
mod metadata;
mod read;
mod status;

const COUNTS: &str = "
    select sum(metadata_saved)::bigint, sum(ready)::bigint, sum(no_recording)::bigint,
        (select count(*) from dead_letters)
    from conversation_counts";

#[async_trait]
impl Conversations for PostgresCatalog {
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        compare::known(&self.inner.database, &self.inner.tombstones, keys).await
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<Option<Attempt>, CatalogError> {
        let tombstone = self.tombstone(&conversation.key());
        self.inner.metadata.submit(SaveMetadata::new(conversation, tombstone)).await
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.inner.attempts.submit(BeginAttempt { key: key.clone(), tombstone: self.tombstone(key), kind }).await
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        self.inner.looks.submit(AttemptLook { key: key.clone(), attempt }).await
    }

    async fn complete(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let completion = Completion::ready(key, self.tombstone(key), recordings, missing, at, attempt);
        self.inner.completions.submit(completion).await
    }

    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let completion = Completion::ready(key, self.tombstone(key), recordings, missing, at, attempt);
        self.inner.completions.submit(Completion { adds: true, ..completion }).await
    }

    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError> {
        listing::lacking(&self.inner.database, tenant, (from, to), after, limit).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner
            .completions
            .submit(Completion {
                key: key.clone(),
                tombstone: self.tombstone(key),
                enqueued_at: None,
                recordings: Vec::new(),
                missing: 0,
                adds: false,
                attempt,
            })
            .await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        read::read(&self.inner.database, key).await
    }

    async fn counts(&self) -> Result<ConversationCounts, CatalogError> {
        let rows = self.query("count", COUNTS, &[]).await?;
        let count = |column: usize| -> Result<u64, CatalogError> {
            let count: Option<i64> =
                rows.first().map(|row| row.try_get(column)).transpose().map_err(unreadable)?.flatten();
            Ok(u64::try_from(count.unwrap_or_default()).unwrap_or_default())
        };
        Ok(ConversationCounts {
            metadata_saved: count(0)?,
            ready: count(1)?,
            no_recording: count(2)?,
            dead_letters: count(3)?,
        })
    }

    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError> {
        compare::fates(&self.inner.database, &self.inner.tombstones, keys).await
    }

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<RowCount, CatalogError> {
        compare::final_between(&self.inner.database, tenant, from, to, compare::COUNTING).await
    }

    async fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError> {
        self.inner.statuses.submit(StatusRequest { key: key.clone(), tombstone: self.tombstone(key) }).await
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        listing::recorded(&self.inner.database, tenant, (from, to), after, limit).await
    }
}

fn no_row(key: &ConversationKey) -> CatalogError {
    CatalogError(format!("no row of conversation {}", key.external_id))
}
