//! The catalog in PostgreSQL.
//!
//! Every call is one statement, and so one commit: all of it is there or nothing. What many conversations need at
//! once ([`conversations`]: state, metadata, completion) goes in batches that share it. Timestamps keep the
//! microseconds that the database has.
//!
//! Of a conversation's commits only the completing one waits for the disk. That of its metadata does not: the
//! completing commit, later in the same log, makes both durable, and a crash of the server before that repeats the
//! whole. Nor does the timeline.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use deadpool_postgres::Object;
use jiff::Timestamp;
use model::{
    Agent, AgentId, ContactId, Conversation, ConversationKey, ConversationState, DeadLetter, Hop, INTEGRATION_TYPE,
    Memberships, Retention, StoredRecording, System, TenantId,
};
use tokio_postgres::{
    Row,
    types::{Json, ToSql},
};

use self::{
    batch::Batches,
    conversations::{Attempts, Completion, Completions, Metadata, Standings},
    erasure::Tombstones,
    timeline::Timeline,
};
use crate::{
    AnalysisCounts, AnalysisEntry, Attempt, AttemptKind, Catalog, CatalogError, ConversationRow, Counted, Counts,
    CurrentTurn, ErasedRows, Erasure, Expired, Fate, GroupStanding, Lacking, LearnedDelay, Lessons, ProducerMemory,
    Recorded, ReplayRun, RetentionTurn, RunKind, RunState, Standing, Tombstone, TombstoneKey,
};

mod batch;
mod conversations;
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
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        let (tenant, any) = (tenant.as_str(), None::<String>);
        let rows = self.inner.database.query("list agents", AGENTS, &[&tenant, &any]).await?;
        rows.iter().map(agent).collect()
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        let (tenant, id) = (tenant.as_str(), Some(id.to_string()));
        let rows = self.inner.database.query("read agent", AGENTS, &[&tenant, &id]).await?;
        rows.first().map(agent).transpose()
    }

    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError> {
        // One statement writes a row once: of an agent that is named twice, as it is named last.
        let agents: BTreeMap<AgentId, &Agent> = agents.iter().map(|agent| (agent.external_id, agent)).collect();
        let ids: Vec<_> = agents.keys().map(ToString::to_string).collect();
        let agents: Vec<_> = agents.into_values().collect();
        let user_ids: Vec<_> = agents.iter().map(|agent| agent.user_id.as_deref().map(text::text)).collect();
        let user_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.user_name)).collect();
        let first_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.first_name)).collect();
        let last_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.last_name)).collect();
        let active: Vec<_> = agents.iter().map(|agent| agent.is_active()).collect();
        let until: Vec<_> = agents.iter().map(|agent| agent.memberships.until()).collect();
        let memberships: Vec<_> = agents.iter().map(|agent| Json(&agent.memberships)).collect();
        let (tenant, turn) = (tenant.as_str(), self.turn.get());
        self.inner
            .database
            .execute(
                "save agents",
                SAVE_AGENTS,
                &[
                    &tenant,
                    &ids,
                    &user_ids,
                    &user_names,
                    &first_names,
                    &last_names,
                    &active,
                    &until,
                    &memberships,
                    &turns::number(turn.as_ref()),
                ],
            )
            .await
            .map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        self.inner
            .database
            .execute("note agents read", NOTE_AGENTS_READ, &[&tenant.as_str(), &at, &turns::number(turn.as_ref())])
            .await
            .map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        let rows = self.inner.database.query("agents read at", AGENTS_READ_AT, &[&tenant.as_str()]).await?;
        rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        let rows = self.inner.database.query("read group standing", GROUP_STANDING, &[&tenant.as_str()]).await?;
        let standing = rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()?;
        Ok(standing.map_or_else(GroupStanding::default, |Json(standing)| standing))
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenant.as_str(), &Json(standing), &turns::number(turn.as_ref())];
        let saved = self.inner.database.execute("save group standing", SAVE_GROUP_STANDING, &parameters).await;
        saved.map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }

    async fn state_of(&self, key: &ConversationKey) -> Result<Option<ConversationState>, CatalogError> {
        Ok(self.standing(key).await?.state())
    }

    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        conversations::known(&self.inner.database, &self.inner.tombstones, keys).await
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<(), CatalogError> {
        let tombstone = self.tombstone(&conversation.key());
        self.inner.metadata.ask(conversations::writable(conversation, tombstone)).await
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.inner.attempts.ask((key.clone(), self.tombstone(key), kind)).await
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        conversations::is_current(&self.inner.database, key, attempt).await
    }

    async fn complete_in_part(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner.completions.ask(Completion::ready(key, self.tombstone(key), recordings, missing, at, attempt)).await
    }

    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let added = Completion::ready(key, self.tombstone(key), recordings, missing, at, attempt).added();
        self.inner.completions.ask(added).await
    }

    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError> {
        conversations::lacking(&self.inner.database, tenant, (from, to), after, limit).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner.completions.ask(Completion::no_recording(key, self.tombstone(key), attempt)).await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        conversations::read(&self.inner.database, key).await
    }

    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        let (skip, limit) = (saturated(skip), saturated(limit));
        let rows = self
            .inner
            .database
            .query("list analysis queue", ANALYSIS_QUEUE, &[&skip, &limit, &INTEGRATION_TYPE])
            .await?;
        rows.iter()
            .map(|row| Ok(AnalysisEntry { key: key(row)?, enqueued_at: row.try_get(2).map_err(unreadable)? }))
            .collect()
    }

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

    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        let most = saturated(AnalysisCounts::MOST);
        let rows = self.inner.database.query("count the analysis queue", ANALYSIS_COUNTS, &[&most]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let count = |column: usize| -> Result<u64, CatalogError> {
            u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
        };
        Ok(Some(AnalysisCounts { waiting: count(0)?, claimed: count(1)?, failed: count(2)? }))
    }

    async fn prune_analysis(&self, older_than: Duration) -> Result<u64, CatalogError> {
        let (age, mut pruned) = (older_than.as_secs_f64(), 0);
        loop {
            let rows = self.inner.database.query("prune the analysis queue", PRUNE_ANALYSIS, &[&age, &PRUNED]).await?;
            let bite: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(unreadable)?;
            pruned += u64::try_from(bite).unwrap_or_default();
            if bite < i64::from(PRUNED) {
                return Ok(pruned);
            }
        }
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

    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        self.inner.timeline.record(key, hop);
    }

    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        self.inner.timeline.of(key).await
    }

    async fn counts(&self) -> Result<Counts, CatalogError> {
        let rows = self.inner.database.query("count", COUNTS, &[]).await?;
        let count = |column: usize| -> Result<u64, CatalogError> {
            let count: Option<i64> =
                rows.first().map(|row| row.try_get(column)).transpose().map_err(unreadable)?.flatten();
            Ok(u64::try_from(count.unwrap_or_default()).unwrap_or_default())
        };
        Ok(Counts { metadata_saved: count(0)?, ready: count(1)?, no_recording: count(2)?, dead_letters: count(3)? })
    }

    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError> {
        runs::fates(&self.inner.database, &self.inner.tombstones, keys).await
    }

    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        self.inner.timeline.flush().await;
        runs::last_hops(&self.inner.database, keys).await
    }

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<Counted, CatalogError> {
        runs::final_between(&self.inner.database, tenant, from, to, runs::COUNTING).await
    }

    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        runs::begin(&self.inner.database, self.turn.get().as_ref(), run).await
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        runs::save(&self.inner.database, self.turn.get().as_ref(), run, before).await
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        runs::change(&self.inner.database, run, to, at).await
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        runs::read(&self.inner.database, tenant, kind, id).await
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        runs::list_open(&self.inner.database, tenant, kind, limit).await
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        runs::list(&self.inner.database, tenant, kind, limit).await
    }

    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        Arc::new(Self { inner: self.inner.clone(), turn })
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.in_turn(self.turn.pinned())
    }

    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError> {
        turns::begin(&self.inner.database, tenant).await
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        turns::read(&self.inner.database, tenant).await
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        turns::advance(&self.inner.database, tenant, self.turn.get().as_ref(), to, held_back).await
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        turns::hold_back(&self.inner.database, tenant, self.turn.get().as_ref(), to).await
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        turns::worked_since(&self.inner.database, tenant, self.turn.get().as_ref(), at).await
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        turns::rechecked(&self.inner.database, tenant, self.turn.get().as_ref(), to).await
    }

    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError> {
        readiness::note(&self.inner.database, tenant, lessons).await
    }

    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError> {
        readiness::read(&self.inner.database, tenant).await
    }

    async fn standing(&self, key: &ConversationKey) -> Result<Standing, CatalogError> {
        self.inner.standings.ask((key.clone(), self.tombstone(key))).await
    }

    async fn begin_erasure(&self, key: &ConversationKey, _now: Timestamp) -> Result<Erasure, CatalogError> {
        erasure::begin(&self.inner.database, &self.inner.tombstones, key).await
    }

    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        // What was recorded here before is written, and then deleted with the rest.
        self.flush().await;
        erasure::erase_rows(&self.inner.database, &self.inner.tombstones, key).await
    }

    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError> {
        erasure::pending(&self.inner.database, after, limit).await
    }

    async fn finish_erasure(&self, erasure: &Erasure, _now: Timestamp) -> Result<bool, CatalogError> {
        erasure::finish(&self.inner.database, erasure).await
    }

    async fn clock(&self, _now: Timestamp) -> Result<Timestamp, CatalogError> {
        erasure::clock(&self.inner.database).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        conversations::tenants(&self.inner.database).await
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        conversations::recorded(&self.inner.database, tenant, (from, to), after, limit).await
    }

    async fn expired(
        &self,
        tenant: &TenantId,
        _retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        erasure::expired(&self.inner.database, tenant, now, after, limit).await
    }

    async fn expire_rows(
        &self,
        tenant: &TenantId,
        _retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        self.flush().await;
        erasure::expire_rows(&self.inner.database, tenant, now, ids).await
    }

    async fn flush(&self) {
        self.inner.timeline.flush().await;
    }

    async fn retention_turn(&self, tenant: &TenantId) -> Result<Option<RetentionTurn>, CatalogError> {
        erasure::retention_turn(&self.inner.database, tenant).await
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
