//! The shelf of what was set aside.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use deadpool_postgres::Object;
use jiff::Timestamp;
use model::{ConversationKey, DeadLetter, System};
use tokio_postgres::types::ToSql;

use super::{
    ADD_DEAD_LETTER, COUNT_DEAD_LETTERS, DEAD_LETTER, DEAD_LETTER_OF, DEAD_LETTERS, DROP_DEAD_LETTERS,
    DUE_DEAD_LETTERS, PostgresCatalog, REMOVE_DEAD_LETTER, dead_letter, saturated, shelved, turns, unreadable,
};
use crate::{CatalogError, DeadLetters};

#[async_trait]
impl DeadLetters for PostgresCatalog {
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError> {
        let digest = letter.digest();
        let tombstone = letter.key().map(|key| self.tombstone(&key)).unwrap_or_default();
        let letter = shelved(&letter);
        let turn = self.turn.get();
        let written = self
            .inner
            .database
            .execute(
                "add dead letter",
                ADD_DEAD_LETTER,
                &[
                    &digest.as_bytes().as_slice(),
                    &letter.tenant_id,
                    &letter.conversation_id,
                    &letter.stage,
                    &letter.reason,
                    &letter.message,
                    &letter.at,
                    &tombstone,
                    &turn.as_ref().map(|turn| turn.tenant.as_str()),
                    &turns::number(turn.as_ref()),
                    &letter.cause.map(System::as_str),
                    &letter.replay_at,
                ],
            )
            .await
            .map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(written > 0)
    }

    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        let (limit, at) = (saturated(limit), after.map(|(at, _)| at));
        let id = after.map(|(_, id)| saturated(id));
        let bounds: [&(dyn ToSql + Sync); 4] = [&now, &limit, &at, &id];
        let rows = self.inner.database.query("list due dead letters", DUE_DEAD_LETTERS, &bounds).await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        Ok(self.inner.database.execute("drop dead letters", DROP_DEAD_LETTERS, &[&before]).await?)
    }

    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let rows = self.inner.database.query("count dead letters", COUNT_DEAD_LETTERS, &[&before]).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(unreadable)?;
        u64::try_from(count).map_err(unreadable)
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError> {
        let (after, limit) = (saturated(after), saturated(limit));
        let rows = self.inner.database.query("list dead letters", DEAD_LETTERS, &[&after, &limit]).await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError> {
        let rows = self.inner.database.query("read dead letter", DEAD_LETTER, &[&saturated(id)]).await?;
        rows.first().map(dead_letter).transpose()
    }

    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
        let rows =
            self.inner.database.query("read a conversation's dead letter", DEAD_LETTER_OF, &[&tenant, &id]).await?;
        rows.first().map(dead_letter).transpose()
    }

    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError> {
        let (id, letter) = (saturated(letter.id), shelved(letter));
        // Of a run whose answer was lost: if the letter is gone at the next one, that run has removed it.
        let ran_before = AtomicBool::new(false);
        let (ran_before, letter) = (&ran_before, &letter);
        let remove = |client: Object| async move {
            let statement = client.prepare_cached(REMOVE_DEAD_LETTER).await?;
            let may_be_done = ran_before.swap(true, Ordering::Relaxed);
            let removed = client
                .execute(
                    &statement,
                    &[
                        &id,
                        &letter.tenant_id,
                        &letter.conversation_id,
                        &letter.stage,
                        &letter.reason,
                        &letter.message,
                        &letter.at,
                    ],
                )
                .await?;
            if removed == 0 && may_be_done {
                let statement = client.prepare_cached(DEAD_LETTER).await?;
                return Ok(client.query_opt(&statement, &[&id]).await?.is_none());
            }
            Ok(removed > 0)
        };
        Ok(self.inner.database.run("remove dead letter", remove).await?)
    }
}
