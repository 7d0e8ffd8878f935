//! The catalog in PostgreSQL.
//!
//! Every call is one statement, and so one commit: all of it is there or nothing. What many conversations need at
//! once ([`conversations`]: state, metadata, completion) goes in batches that share it. Timestamps keep the
//! microseconds that the database has.
//!
//! Of a conversation's commits only the completing one waits for the disk. That of its metadata does not: the
//! completing commit, later in the same log, makes both durable, and a crash of the server before that repeats the
//! whole. Nor does the timeline.

use std::sync::Arc;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::{Agent, ConversationKey, DeadLetter, Memberships, TenantId};
use tokio_postgres::{Row, types::Json};

use self::{
    batch::Batches,
    conversations::{Attempts, Completions, Metadata, Standings},
    erasure::Tombstones,
    timeline::Timeline,
};
use crate::{Catalog, CatalogError, CurrentTurn, TombstoneKey};

mod agents;
mod analysis;
mod batch;
mod conversations;
mod dead_letters;
mod erasure;
mod readiness;
mod runs;
mod text;
mod timeline;
mod turns;

const AGENTS: &str = "
    select external_id, user_id, user_name, first_name, last_name, is_active, member_until, memberships from agents
    where tenant_id = $1 and ($2::text is null or external_id = $2)
    order by length(external_id), external_id";

const SAVE_AGENTS: &str = "
    insert into agents (tenant_id, external_id, user_id, user_name, first_name, last_name, is_active, member_until,
        memberships)
    select $1, a.* from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[],
        $8::timestamptz[], $9::jsonb[]) a
    where fence_turn($1, $10)
    on conflict (tenant_id, external_id) do update set
        user_id = excluded.user_id, user_name = excluded.user_name, first_name = excluded.first_name,
        last_name = excluded.last_name, is_active = excluded.is_active, member_until = excluded.member_until,
        memberships = excluded.memberships";

const NOTE_AGENTS_READ: &str = "
    insert into agents_read (tenant_id, read_at) select $1::text, $2::timestamptz where fence_turn($1, $3)
    on conflict (tenant_id) do update set read_at = excluded.read_at";

const AGENTS_READ_AT: &str = "select read_at from agents_read where tenant_id = $1 and read_at is not null";

const GROUP_STANDING: &str = "select standing from agents_read where tenant_id = $1 and standing is not null";

const SAVE_GROUP_STANDING: &str = "
    insert into agents_read (tenant_id, standing) select $1::text, $2::jsonb where fence_turn($1, $3)
    on conflict (tenant_id) do update set standing = excluded.standing";

const ANALYSIS_QUEUE: &str = "
    select c.tenant_id, c.external_id, q.enqueued_at
    from (
        select conversation_id, enqueued_at from analysis_queue where claimed_at is null
        order by enqueued_at, conversation_id offset $1 limit $2
    ) q
    join conversations c on c.id = q.conversation_id
    where c.integration_type = $3
    order by q.enqueued_at, q.conversation_id";

impl From<DatabaseError> for CatalogError {
    fn from(error: DatabaseError) -> Self {
        Self(error.to_string())
    }
}

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
const DEAD_LETTER_OF: &str = "
    select id, tenant_id, conversation_id, stage, reason, message, at, cause, replay_at from dead_letters
    where tenant_id = $1 and conversation_id = $2 order by id desc limit 1";

const REMOVE_DEAD_LETTER: &str = "
    delete from dead_letters
    where id = $1 and tenant_id is not distinct from $2 and conversation_id is not distinct from $3
        and stage = $4 and reason = $5 and message = $6 and at = $7";

/// Each by an index of its own, and no further than anybody wants to know. Fresh claims are few.
const ANALYSIS_COUNTS: &str = "
    select
        (select count(*) from (select from analysis_queue where claimed_at is null limit $1) bounded),
        (select count(*) from (
            select from analysis_queue
            where claimed_at is not null and finished_at is null and failed_at is null limit $1
        ) bounded),
        (select count(*) from (select from analysis_queue where failed_at is not null limit $1) bounded)";

const PRUNE_ANALYSIS: &str = "select prune_analysis(make_interval(secs => $1), $2)";

/// How many finished entries of the analysis go at a time.
const PRUNED: i32 = 2000;

const COUNTS: &str = "
    select sum(metadata_saved)::bigint, sum(ready)::bigint, sum(no_recording)::bigint,
        (select count(*) from dead_letters)
    from conversation_counts";

/// The Knovvu database in PostgreSQL.
#[derive(Clone)]
pub struct PostgresCatalog {
    inner: Arc<Inner>,
    /// Whose writes go through this handle.
    turn: CurrentTurn,
}

struct Inner {
    database: Database,
    tombstones: Arc<Tombstones>,
    standings: Batches<Standings>,
    metadata: Batches<Metadata>,
    attempts: Batches<Attempts>,
    completions: Batches<Completions>,
    timeline: Timeline,
}

impl PostgresCatalog {
    /// The catalog in a database whose tables are those of this executable; starts the tasks that write. Without a key
    /// of tombstones nothing can be erased, and what was is not known.
    pub fn new(database: Database, key: Option<TombstoneKey>) -> Self {
        let tombstones = Arc::new(Tombstones(key));
        let inner = Inner {
            standings: Batches::start(Standings(database.clone())),
            metadata: Batches::start(Metadata(database.clone())),
            attempts: Batches::start(Attempts(database.clone())),
            completions: Batches::start(Completions(database.clone())),
            timeline: Timeline::start(&database, tombstones.clone()),
            tombstones,
            database,
        };
        Self { inner: Arc::new(inner), turn: CurrentTurn::default() }
    }

    /// Fails where something was erased with another key: it would come back.
    pub async fn check_key(&self) -> Result<(), DatabaseError> {
        erasure::check_key(&self.inner.database, &self.inner.tombstones).await
    }

    fn tombstone(&self, key: &ConversationKey) -> Vec<u8> {
        self.inner.tombstones.of(key)
    }
}

#[async_trait]
impl Catalog for PostgresCatalog {
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        Arc::new(Self { inner: self.inner.clone(), turn })
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.in_turn(self.turn.pinned())
    }

    async fn clock(&self, _now: Timestamp) -> Result<Timestamp, CatalogError> {
        erasure::clock(&self.inner.database).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        conversations::tenants(&self.inner.database).await
    }

    async fn check(&self) -> Result<(), CatalogError> {
        if self.inner.database.is_at_work() {
            return Ok(());
        }
        let rows = self.inner.database.query("check", "select pg_is_in_recovery()", &[]).await?;
        if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Err(CatalogError("the database is a standby and takes no writes".to_owned()));
        }
        Ok(())
    }
}

/// The keys of many conversations, as parameters.
struct Keys {
    tenants: Vec<String>,
    external_ids: Vec<String>,
}

impl Keys {
    fn of<'a>(keys: impl Iterator<Item = &'a ConversationKey>) -> Self {
        let (tenants, external_ids) =
            keys.map(|key| (key.tenant.as_str().to_owned(), key.external_id.to_string())).unzip();
        Self { tenants, external_ids }
    }
}

/// A number as PostgreSQL's `bigint` takes it; what is larger stands for "any".
fn saturated(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A row that another program wrote in another form.
fn unreadable(error: impl std::fmt::Display) -> CatalogError {
    CatalogError(format!("unreadable row: {error}"))
}

/// An id or a name in a row.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(row: &Row, column: &str) -> Result<T, CatalogError> {
    let text: &str = row.try_get(column).map_err(unreadable)?;
    text.parse().map_err(unreadable)
}

fn key(row: &Row) -> Result<ConversationKey, CatalogError> {
    Ok(ConversationKey { tenant: parsed(row, "tenant_id")?, external_id: parsed(row, "external_id")? })
}

fn agent(row: &Row) -> Result<Agent, CatalogError> {
    // None: written by a program of before.
    let memberships: Option<Json<Memberships>> = row.try_get("memberships").map_err(unreadable)?;
    let is_active = row.try_get("is_active").map_err(unreadable)?;
    let until = row.try_get("member_until").map_err(unreadable)?;
    Ok(Agent {
        external_id: parsed(row, "external_id")?,
        user_id: row.try_get("user_id").map_err(unreadable)?,
        user_name: row.try_get("user_name").map_err(unreadable)?,
        first_name: row.try_get("first_name").map_err(unreadable)?,
        last_name: row.try_get("last_name").map_err(unreadable)?,
        memberships: memberships.map(|Json(all)| all).unwrap_or_default().agreeing_with(is_active, until),
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

#[cfg(test)]
mod tests;
