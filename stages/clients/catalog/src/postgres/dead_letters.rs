//! The shelf of what was set aside.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use deadpool_postgres::Object;
use jiff::{Timestamp, civil::Date};
use model::{ConversationKey, DeadLetter, System};
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
    text, turns,
};
use crate::dead_letters::MOST_DAYS;
use crate::{CatalogError, DayOfLetters, DeadLetterFilter, DeadLetterGroup, DeadLetters, MOST_GROUPED};

/// That of a conversation is written anew under its id, that of a body stays, and none of an erased one is written.
const ADD_DEAD_LETTER: &str = "
    insert into dead_letters as standing
        (digest, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at)
    select $1::bytea, $2::text, $3::text, $4::text, $5::text, $6::jsonb, $7::timestamptz, $11::text, $12::timestamptz
    where not exists (select from erasures e where e.tenant_id = $2 and e.digest = $8) and fence_turn($9, $10)
    on conflict (digest) do update set
        stage = excluded.stage, reason = excluded.reason, message = excluded.message, at = excluded.at,
        cause = excluded.cause, replay_at = excluded.replay_at
    where standing.conversation_id is not null";

const DEAD_LETTERS: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where id > $1 order by id limit $2";

const DEAD_LETTERS_OF: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where id > $1 and ($3::text is null or stage = $3)
        and ($4::text is null or regexp_replace(reason, '[0-9]+', 'N', 'g') = $4)
        and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
    order by id limit $2";

const DEAD_LETTER_GROUPS: &str = "
    with newest as (
        select stage, regexp_replace(reason, '[0-9]+', 'N', 'g') as shape, at, replay_at
        from dead_letters order by id desc limit $2
    ), daily as (
        select stage, shape, (at at time zone 'UTC')::date as day, count(*) as letters, min(at) as first_at,
            max(at) as last_at, min(replay_at) as replay_at
        from newest group by 1, 2, 3
    )
    select stage, shape, sum(letters)::bigint, min(first_at), max(last_at), min(replay_at),
        (array_agg(day order by day desc))[1:$3], (array_agg(letters order by day desc))[1:$3]
    from daily group by stage, shape order by 3 desc, stage, shape limit $1";

const DEAD_LETTER: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where id = $1";

/// Times are the database's: a consumer whose clock is ahead takes nothing early.
const DUE_DEAD_LETTERS: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where replay_at <= least($1, clock_timestamp()) and (replay_at, id) > (coalesce($3::timestamptz, '-infinity'), coalesce($4::bigint, 0))
    order by replay_at, id limit $2";

const DROP_DEAD_LETTERS: &str = "delete from dead_letters where at < least($1, clock_timestamp())";

const COUNT_DEAD_LETTERS: &str = "select count(*) from dead_letters where at < least($1, clock_timestamp())";

/// By the index of conversations.
pub(super) const DEAD_LETTER_OF: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where tenant_id = $1 and conversation_id = $2 order by id desc limit 1";

const REMOVE_DEAD_LETTER: &str = "
    delete from dead_letters
    where id = $1 and tenant_id is not distinct from $2 and conversation_id is not distinct from $3
        and stage = $4 and reason = $5 and message = $6 and at = $7";

#[async_trait]
impl DeadLetters for PostgresCatalog {
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError> {
        let digest = letter.digest();
        let tombstone = letter.key().map(|key| self.tombstone(&key)).unwrap_or_default();
        let letter = shelved(&letter);
        let turn = self.turn.get();
        let written = self
            .execute_in(
                turn.as_ref(),
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
            .await?;
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
        let rows = self.query("list due dead letters", DUE_DEAD_LETTERS, &bounds).await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        Ok(self.inner.database.execute("drop dead letters", DROP_DEAD_LETTERS, &[&in_range(before)]).await?)
    }

    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let rows = self.query("count dead letters", COUNT_DEAD_LETTERS, &[&in_range(before)]).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(unreadable)?;
        u64::try_from(count).map_err(unreadable)
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError> {
        let (after, limit) = (saturated(after), saturated(limit));
        let rows = self.query("list dead letters", DEAD_LETTERS, &[&after, &limit]).await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn dead_letters_of(
        &self,
        selected: &DeadLetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        let DeadLetterFilter { stage, shape, from, to } = selected;
        // No text here has NUL, and the server refuses to be asked for it.
        if [stage, shape].into_iter().flatten().any(|text| text.contains('\0')) {
            return Ok(Vec::new());
        }
        let (from, to) = (from.map(in_range), to.map(in_range));
        let (after, limit) = (saturated(after), saturated(limit));
        let bounds: [&(dyn ToSql + Sync); 6] = [&after, &limit, stage, shape, &from, &to];
        let rows = self.query("select dead letters", DEAD_LETTERS_OF, &bounds).await?;
        rows.iter().map(dead_letter).collect()
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>, CatalogError> {
        let days = i32::try_from(MOST_DAYS).map_err(unreadable)?;
        let bounds: [&(dyn ToSql + Sync); 3] = [&saturated(limit), &saturated(MOST_GROUPED), &days];
        let rows = self.query("group dead letters", DEAD_LETTER_GROUPS, &bounds).await?;
        rows.iter().map(group).collect()
    }

    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError> {
        let rows = self.query("read dead letter", DEAD_LETTER, &[&saturated(id)]).await?;
        rows.first().map(dead_letter).transpose()
    }

    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
        let rows = self.query("read a conversation's dead letter", DEAD_LETTER_OF, &[&tenant, &id]).await?;
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

/// A moment that PostgreSQL can hold: its times begin at 4713 BC, and ours before. They end after ours.
fn in_range(at: Timestamp) -> Timestamp {
    at.max(FIRST)
}

/// 4000 BC: no letter is older.
const FIRST: Timestamp = Timestamp::constant(-188_395_200_000, 0);

fn group(row: &Row) -> Result<DeadLetterGroup, CatalogError> {
    let days: Vec<Date> = row.try_get(6).map_err(unreadable)?;
    let counts: Vec<i64> = row.try_get(7).map_err(unreadable)?;
    let of_day = |(day, count): (Date, i64)| -> Result<DayOfLetters, CatalogError> {
        Ok(DayOfLetters { day, count: u64::try_from(count).map_err(unreadable)? })
    };
    Ok(DeadLetterGroup {
        stage: row.try_get(0).map_err(unreadable)?,
        reason: row.try_get(1).map_err(unreadable)?,
        count: u64::try_from(row.try_get::<_, i64>(2).map_err(unreadable)?).map_err(unreadable)?,
        first_at: row.try_get(3).map_err(unreadable)?,
        last_at: row.try_get(4).map_err(unreadable)?,
        replay_at: row.try_get(5).map_err(unreadable)?,
        days: days.into_iter().zip(counts).map(of_day).collect::<Result<_, _>>()?,
    })
}

fn dead_letter(row: &Row) -> Result<DeadLetter, CatalogError> {
    Ok(DeadLetter {
        id: u64::try_from(row.try_get::<_, i64>("id").map_err(unreadable)?).map_err(unreadable)?,
        tenant_id: row.try_get("tenant_id").map_err(unreadable)?,
        conversation_id: row.try_get("conversation_id").map_err(unreadable)?,
        stage: row.try_get("stage").map_err(unreadable)?,
        reason: row.try_get("reason").map_err(unreadable)?,
        message: row.try_get("message").map_err(unreadable)?,
        at: row.try_get("at").map_err(unreadable)?,
        // A later version's word names nothing here.
        cause: row.try_get::<_, Option<&str>>("cause").map_err(unreadable)?.and_then(|word| word.parse().ok()),
        replay_at: row.try_get("replay_at").map_err(unreadable)?,
    })
}

/// A dead letter as the tables take it.
fn shelved(letter: &DeadLetter) -> DeadLetter {
    DeadLetter {
        id: letter.id,
        tenant_id: letter.tenant_id.as_deref().map(text::text),
        conversation_id: letter.conversation_id.as_deref().map(text::text),
        stage: text::text(&letter.stage),
        reason: text::text(&letter.reason),
        message: text::json(&letter.message),
        at: letter.at,
        cause: letter.cause,
        replay_at: letter.replay_at,
    }
}
