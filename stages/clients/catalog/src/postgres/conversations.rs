//! Conversations: looked up, written and completed, many in one statement.
//!
//! Two consumers may hold the same conversation. Its row is locked before it is changed, rows in the order of
//! their keys everywhere, and changed only from `metadata_saved`: whoever comes second finds it final and leaves it.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::{
    Conversation, ConversationKey, ConversationState, Direction, EventSource, INTEGRATION_TYPE, StoredRecording,
    TenantId,
};

use super::{
    COUNTS, Keys, PostgresCatalog,
    batch::Work,
    erasure::{Tombstones, standing},
    parsed, runs, saturated, text, unreadable,
};
use crate::{
    Attempt, AttemptKind, CatalogError, ConversationRow, Conversations, Counted, Counts, Fate, Lacking, Recorded,
    RecordingRow, Standing,
};

#[async_trait]
impl Conversations for PostgresCatalog {
    async fn state_of(&self, key: &ConversationKey) -> Result<Option<ConversationState>, CatalogError> {
        Ok(self.standing(key).await?.state())
    }

    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        known(&self.inner.database, &self.inner.tombstones, keys).await
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<(), CatalogError> {
        let tombstone = self.tombstone(&conversation.key());
        self.inner.metadata.ask(writable(conversation, tombstone)).await
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.inner.attempts.ask((key.clone(), self.tombstone(key), kind)).await
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        is_current(&self.inner.database, key, attempt).await
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
        lacking(&self.inner.database, tenant, (from, to), after, limit).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner.completions.ask(Completion::no_recording(key, self.tombstone(key), attempt)).await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        read(&self.inner.database, key).await
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

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<Counted, CatalogError> {
        runs::final_between(&self.inner.database, tenant, from, to, runs::COUNTING).await
    }

    async fn standing(&self, key: &ConversationKey) -> Result<Standing, CatalogError> {
        self.inner.standings.ask((key.clone(), self.tombstone(key))).await
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        recorded(&self.inner.database, tenant, (from, to), after, limit).await
    }
}

const STANDINGS: &str = "
    select a.n, c.state, e.digest is not null as is_erased
    from unnest($1::text[], $2::text[], $4::bytea[]) with ordinality as a (tenant_id, external_id, tombstone, n)
    left join conversations c on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    left join erasures e on e.tenant_id = a.tenant_id and e.digest = a.tombstone
    where c.state is not null or e.digest is not null";

const KNOWN: &str = "
    select a.n
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    join conversations c on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    union all
    select a.n
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    join dead_letters d on d.tenant_id = a.tenant_id and d.conversation_id = a.external_id
    union all
    select a.n
    from unnest($1::text[], $4::bytea[]) with ordinality as a (tenant_id, tombstone, n)
    join erasures e on e.tenant_id = a.tenant_id and e.digest = a.tombstone";

/// In the order of the keys. The commit waits for no disk; the setting lasts for this statement's commit only. Gives
/// the places of the rows that are not written because the conversation was erased.
const SAVE_METADATA: &str = "
    with asked as (
        select a.*, exists (select from erasures e where e.tenant_id = a.tenant_id and e.digest = a.tombstone) as is_erased
        from unnest($1::text[], $2::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[],
                $9::text[], $10::jsonb[], $11::text[], $12::bytea[], $13::text[]) with ordinality
            as a (tenant_id, external_id, master, agent, started_at, ended_at, direction, customer_number, metadata,
                source, tombstone, lane, n)
    ), saved as (
        insert into conversations as c (
            tenant_id, external_id, integration_type, master_external_id, agent_external_id, started_at, ended_at,
            direction, customer_number, metadata, source, lane, state)
        select a.tenant_id, a.external_id, $3, a.master, a.agent, a.started_at, a.ended_at,
            a.direction, a.customer_number, a.metadata, a.source, a.lane, 'metadata_saved'
        from asked a
        where not a.is_erased and (select set_config('synchronous_commit', 'off', true)) = 'off'
        order by a.n
        on conflict (tenant_id, integration_type, external_id) do update set
            master_external_id = excluded.master_external_id, agent_external_id = excluded.agent_external_id,
            started_at = excluded.started_at, ended_at = excluded.ended_at, direction = excluded.direction,
            customer_number = excluded.customer_number, metadata = excluded.metadata, source = excluded.source,
            lane = excluded.lane
        where c.state = 'metadata_saved'
    )
    select n from asked where is_erased";

/// In the order of the keys. A row that somebody changes is read again once that is committed, so that the number is
/// the highest and none begins beside a completion. Gives the places of the rows that stand, and the numbers of those
/// that ask for such an attempt.
const BEGIN_ATTEMPT: &str = "
    with asked as (
        select * from unnest($1::text[], $2::text[], $4::bytea[], $5::bool[]) with ordinality
            as a (tenant_id, external_id, tombstone, adds, n)
    ), locked as (
        select c.id, a.adds, a.n
        from asked a
        join conversations c
            on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
        where not exists (select from erasures e where e.tenant_id = a.tenant_id and e.digest = a.tombstone)
        order by c.tenant_id, length(c.external_id), c.external_id
        for no key update of c
    ), begun as (
        update conversations c set attempt = c.attempt + 1 from locked l
        where c.id = l.id and case
            when l.adds then c.state = 'no_recording' or c.state = 'ready' and c.recordings_missing > 0
            else c.state = 'metadata_saved'
        end
        returning l.n, c.attempt
    )
    select l.n, b.attempt from locked l left join begun b on b.n = l.n";

const IS_CURRENT: &str = "
    select from conversations
    where tenant_id = $1 and integration_type = $2 and external_id = $3 and attempt = $4
        and case
            when $5 then state = 'no_recording' or state = 'ready' and recordings_missing > 0
            else state = 'metadata_saved'
        end";

const TENANTS: &str = "select tenant_id from tenants order by tenant_id";

/// Along the index of a tenant's conversations by day.
const RECORDED: &str = "
    select c.external_id, c.ended_at from conversations c
    where c.tenant_id = $1 and c.integration_type = $2 and c.state = 'ready'
        and c.ended_on >= ($3::timestamptz at time zone 'UTC')::date and c.ended_at >= $3
        and c.ended_on <= ($4::timestamptz at time zone 'UTC')::date and c.ended_at < $4
        and (c.ended_on, length(c.external_id), c.external_id) > (
            coalesce(($5::timestamptz at time zone 'UTC')::date, '-infinity'), coalesce(length($6::text), 0),
            coalesce($6, '')
        )
    order by c.ended_on, length(c.external_id), c.external_id
    limit $7";

/// The completing transaction, and that which adds recordings to a final row. Gives the places of the asks whose row
/// stands, and was not erased, and whether what they ask stands there now, by an attempt that is the latest. Who took a conversation before it had all
/// its recordings is not done with it.
const COMPLETE: &str = "
    with sent as (
        select * from unnest($6::bigint[], $7::integer[], $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[],
                $17::text[])
            as r (n, position, bucket, object_key, size_bytes, sha256, content_type, source)
    ), asked as (
        select * from unnest($1::text[], $2::text[], $4::bool[], $5::timestamptz[], $13::bytea[], $14::integer[],
                $15::bool[], $16::bigint[]) with ordinality
            as a (tenant_id, external_id, is_recorded, at, tombstone, missing, adds, attempt, n)
    ), locked as (
        select c.id, c.state, a.is_recorded, a.at, a.missing, a.adds, a.n, a.attempt,
            coalesce(a.attempt = c.attempt, true) as is_latest
        from asked a
        join conversations c
            on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
        where not exists (select from erasures e where e.tenant_id = a.tenant_id and e.digest = a.tombstone)
        order by c.tenant_id, length(c.external_id), c.external_id
        for no key update of c
    ), finished as (
        update conversations c
        set state = case when l.is_recorded then 'ready' else 'no_recording' end, recordings_missing = l.missing,
            completed_at = case when c.state = 'ready' then c.completed_at else now() end
        from locked l
        where c.id = l.id and l.is_latest and case
            when l.adds then (c.state = 'no_recording' or c.recordings_missing > 0) and exists (
                select from sent r
                where r.n = l.n and not exists (
                    select from recordings k where k.conversation_id = c.id and k.position = r.position
                )
            )
            else c.state = 'metadata_saved'
        end
        returning c.id, c.lane, l.is_recorded, l.at, l.adds, l.n
    ), stored as (
        insert into recordings (conversation_id, position, bucket, object_key, size_bytes, sha256, content_type, source)
        select f.id, r.position, r.bucket, r.object_key, r.size_bytes, r.sha256, r.content_type, r.source
        from finished f
        join sent r on r.n = f.n
        on conflict (conversation_id, position) do nothing
    ), queued as (
        insert into analysis_queue (conversation_id, enqueued_at, lane)
        select f.id, f.at, f.lane from finished f where f.is_recorded
        on conflict (conversation_id) do nothing
    ), requeued as (
        select requeue_analysis(f.id, f.at) from finished f where f.adds
    )
    select l.n, l.is_latest and (
            l.attempt is null or exists (select from finished f where f.n = l.n) or case
                when not l.is_recorded then l.state = 'no_recording'
                else not exists (
                    select from sent r
                    where r.n = l.n and not exists (
                        select from recordings k
                        where k.conversation_id = l.id and k.position = r.position and k.sha256 = r.sha256
                    )
                ) and (l.adds or (select count(*) from recordings k where k.conversation_id = l.id)
                    = (select count(*) from sent r where r.n = l.n))
            end
        ) as is_done, (select count(*) from requeued)
    from locked l";

/// In the order of the index that `conversations_by_day` is. A call ends on the day of its start or, if it is very long,
/// on one of the next.
const LACKING: &str = "
    select tenant_id, external_id, master_external_id, agent_external_id, ended_at from conversations
    where ended_on between ($3::timestamptz at time zone 'UTC')::date and ($4::timestamptz at time zone 'UTC')::date + 7
        and tenant_id = $1 and integration_type = $2 and started_at >= $3 and started_at < $4
        and (state = 'no_recording' or recordings_missing > 0)
        and (ended_on, length(external_id), external_id) > (
            coalesce(($5::timestamptz at time zone 'UTC')::date, '-infinity'), coalesce(length($6::text), 0),
            coalesce($6, ''))
    order by ended_on, length(external_id), external_id
    limit $7";

/// Reads one conversation; the columns of personal data are named by whoever asks.
macro_rules! read_conversation {
    ($personal:literal) => {
        concat!(
            "
    select c.id, c.tenant_id, c.integration_type, c.external_id, c.master_external_id, c.agent_external_id,
        c.started_at, c.ended_at, c.direction, ",
            $personal,
            ", c.state, c.source, c.recordings_missing,
        q.enqueued_at, q.claimed_at,
        r.position, r.bucket, r.object_key, r.size_bytes, r.sha256, r.content_type, r.source as recording_source
    from conversations c
    left join analysis_queue q on q.conversation_id = c.id
    left join recordings r on r.conversation_id = c.id
    where c.tenant_id = $1 and c.integration_type = $2 and c.external_id = $3
    order by r.position"
        )
    };
}

const READ: &str = read_conversation!("c.customer_number, c.metadata");

/// For a role that has no right to the customer's number and NICE's own record: the producer's.
const READ_IMPERSONAL: &str = read_conversation!("null::text as customer_number, '{}'::jsonb as metadata");

/// Looks up how it stands with conversations, by their tombstones too.
pub(super) struct Standings(pub(super) Database);

impl Work for Standings {
    type Ask = (ConversationKey, Vec<u8>);
    type Answer = Standing;

    const NAME: &'static str = "read state";

    async fn run(&self, asks: &[&Self::Ask]) -> Result<Vec<Result<Standing, CatalogError>>, DatabaseError> {
        let keys = Keys::of(asks.iter().map(|(key, _)| key));
        let tombstones: Vec<_> = asks.iter().map(|(_, tombstone)| tombstone).collect();
        let rows = self
            .0
            .query(Self::NAME, STANDINGS, &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones])
            .await?;
        let mut answers = asks.iter().map(|_| Ok(Standing::Unknown)).collect::<Vec<_>>();
        for row in rows {
            if let Some(answer) = answers.get_mut(place(&row)) {
                *answer = standing(&row);
            }
        }
        Ok(answers)
    }
}

/// A conversation whose texts the tables take.
pub(super) struct Writable {
    conversation: Conversation,
    tombstone: Vec<u8>,
    weight: usize,
}

/// What is written of a conversation.
pub(super) fn writable(conversation: &Conversation, tombstone: Vec<u8>) -> Writable {
    let metadata = text::json(&conversation.metadata);
    let weight = text::weight(&metadata);
    let customer_number = conversation.customer_number.as_deref().map(text::text);
    Writable { conversation: Conversation { metadata, customer_number, ..conversation.clone() }, tombstone, weight }
}

/// Writes rows in state `metadata_saved`.
pub(super) struct Metadata(pub(super) Database);

impl Work for Metadata {
    type Ask = Writable;
    type Answer = ();

    const NAME: &'static str = "save metadata";

    fn weight(ask: &Writable) -> usize {
        ask.weight
    }

    async fn run(&self, asks: &[&Writable]) -> Result<Vec<Result<(), CatalogError>>, DatabaseError> {
        // One statement writes a row once: of a conversation that is asked for twice, as it is asked for last.
        let asked: BTreeMap<ConversationKey, &Writable> =
            asks.iter().map(|ask| (ask.conversation.key(), *ask)).collect();
        let keys = Keys::of(asked.keys());
        let tombstones: Vec<_> = asked.values().map(|ask| &ask.tombstone).collect();
        let rows: Vec<_> = asked.values().map(|ask| &ask.conversation).collect();
        let masters: Vec<_> = rows.iter().map(|row| row.master.to_string()).collect();
        let agents: Vec<_> = rows.iter().map(|row| row.agent.to_string()).collect();
        let started: Vec<_> = rows.iter().map(|row| row.started_at).collect();
        let ended: Vec<_> = rows.iter().map(|row| row.ended_at).collect();
        let directions: Vec<_> = rows.iter().map(|row| row.direction.map(direction_name)).collect();
        let numbers: Vec<_> = rows.iter().map(|row| row.customer_number.as_deref()).collect();
        let metadata: Vec<_> = rows.iter().map(|row| &row.metadata).collect();
        let sources: Vec<_> = rows.iter().map(|row| row.source.as_str()).collect();
        let lanes: Vec<_> = rows.iter().map(|row| row.lane.as_str()).collect();
        let refused = self
            .0
            .query(
                Self::NAME,
                SAVE_METADATA,
                &[
                    &keys.tenants,
                    &keys.external_ids,
                    &INTEGRATION_TYPE,
                    &masters,
                    &agents,
                    &started,
                    &ended,
                    &directions,
                    &numbers,
                    &metadata,
                    &sources,
                    &tombstones,
                    &lanes,
                ],
            )
            .await?;
        let erased: HashSet<&ConversationKey> = refused.iter().filter_map(|row| asked.keys().nth(place(row))).collect();
        let answer = |ask: &&Writable| match erased.contains(&ask.conversation.key()) {
            true => Err(CatalogError("the conversation was erased".to_owned())),
            false => Ok(()),
        };
        Ok(asks.iter().map(answer).collect())
    }
}

/// How a conversation ends.
pub(super) struct Completion {
    key: ConversationKey,
    tombstone: Vec<u8>,
    /// None without a recording.
    enqueued_at: Option<Timestamp>,
    recordings: Vec<RecordingRow>,
    /// Recordings that NICE names besides.
    missing: i32,
    /// The row is final, and lacks recordings.
    adds: bool,
    attempt: Option<Attempt>,
}

impl Completion {
    /// With these recordings, and on to the analysis.
    pub(super) fn ready(
        key: &ConversationKey,
        tombstone: Vec<u8>,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Self {
        let recordings = recordings.iter().map(RecordingRow::from).collect();
        let missing = i32::try_from(missing).unwrap_or(i32::MAX);
        Self { key: key.clone(), tombstone, enqueued_at: Some(at), recordings, missing, adds: false, attempt }
    }

    /// With these recordings more than it had.
    pub(super) fn added(self) -> Self {
        Self { adds: true, ..self }
    }

    /// Without one.
    pub(super) fn no_recording(key: &ConversationKey, tombstone: Vec<u8>, attempt: Option<Attempt>) -> Self {
        Self {
            key: key.clone(),
            tombstone,
            enqueued_at: None,
            recordings: Vec::new(),
            missing: 0,
            adds: false,
            attempt,
        }
    }
}

/// Completes conversations: recordings, state and analysis entry in one commit.
pub(super) struct Completions(pub(super) Database);

impl Work for Completions {
    type Ask = Completion;
    type Answer = ();

    const NAME: &'static str = "complete";

    async fn run(&self, asks: &[&Completion]) -> Result<Vec<Result<(), CatalogError>>, DatabaseError> {
        let keys = Keys::of(asks.iter().map(|ask| &ask.key));
        let tombstones: Vec<_> = asks.iter().map(|ask| &ask.tombstone).collect();
        let recorded: Vec<_> = asks.iter().map(|ask| ask.enqueued_at.is_some()).collect();
        let ats: Vec<_> = asks.iter().map(|ask| ask.enqueued_at).collect();
        let missing: Vec<_> = asks.iter().map(|ask| ask.missing).collect();
        let adding: Vec<_> = asks.iter().map(|ask| ask.adds).collect();
        let recordings: Vec<(i64, &RecordingRow)> =
            (1..).zip(asks).flat_map(|(n, ask)| ask.recordings.iter().map(move |row| (n, row))).collect();
        let owners: Vec<_> = recordings.iter().map(|(n, _)| *n).collect();
        let positions: Vec<_> =
            recordings.iter().map(|(_, row)| i32::try_from(row.position).unwrap_or(i32::MAX)).collect();
        let buckets: Vec<_> = recordings.iter().map(|(_, row)| text::text(&row.bucket)).collect();
        let object_keys: Vec<_> = recordings.iter().map(|(_, row)| row.object_key.as_str()).collect();
        let sizes: Vec<_> = recordings.iter().map(|(_, row)| saturated(row.size_bytes)).collect();
        let hashes: Vec<_> = recordings.iter().map(|(_, row)| row.sha256.as_str()).collect();
        let types: Vec<_> = recordings.iter().map(|(_, row)| text::text(&row.content_type)).collect();
        let sources: Vec<_> = recordings.iter().map(|(_, row)| row.source.as_deref()).collect();
        let attempts: Vec<_> = asks.iter().map(|ask| ask.attempt.map(|attempt| attempt.number)).collect();
        let rows = self
            .0
            .query(
                Self::NAME,
                COMPLETE,
                &[
                    &keys.tenants,
                    &keys.external_ids,
                    &INTEGRATION_TYPE,
                    &recorded,
                    &ats,
                    &owners,
                    &positions,
                    &buckets,
                    &object_keys,
                    &sizes,
                    &hashes,
                    &types,
                    &tombstones,
                    &missing,
                    &adding,
                    &attempts,
                    &sources,
                ],
            )
            .await?;
        let is_done = |row| tokio_postgres::Row::try_get(row, "is_done").unwrap_or_default();
        let standing: HashMap<usize, bool> = rows.iter().map(|row| (place(row), is_done(row))).collect();
        let answer = |(place, ask): (usize, &&Completion)| match standing.get(&place) {
            Some(true) => Ok(()),
            Some(false) => Err(CatalogError::overtaken()),
            None => Err(no_row(&ask.key)),
        };
        Ok(asks.iter().enumerate().map(answer).collect())
    }
}

/// Begins attempts.
pub(super) struct Attempts(pub(super) Database);

impl Work for Attempts {
    type Ask = (ConversationKey, Vec<u8>, AttemptKind);
    type Answer = Option<Attempt>;

    const NAME: &'static str = "begin attempt";

    async fn run(&self, asks: &[&Self::Ask]) -> Result<Vec<Result<Option<Attempt>, CatalogError>>, DatabaseError> {
        // One statement changes a row once: of a conversation that is asked for twice, the last ask is the latest.
        let last: BTreeMap<&ConversationKey, usize> =
            asks.iter().enumerate().map(|(place, (key, ..))| (key, place)).collect();
        let places: Vec<usize> = last.values().copied().collect();
        let keys = Keys::of(last.into_keys());
        let asked: Vec<_> = places.iter().filter_map(|&place| asks.get(place)).collect();
        let tombstones: Vec<_> = asked.iter().map(|(_, tombstone, _)| tombstone).collect();
        let adding: Vec<_> = asked.iter().map(|(.., kind)| *kind == AttemptKind::Add).collect();
        let rows = self
            .0
            .query(
                Self::NAME,
                BEGIN_ATTEMPT,
                &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones, &adding],
            )
            .await?;
        let mut answers: Vec<_> = asks.iter().map(|(key, ..)| Err(no_row(key))).collect();
        for (place, (key, ..)) in asks.iter().enumerate() {
            if asks.iter().skip(place + 1).any(|(later, ..)| later == key) {
                answers[place] = Err(CatalogError::overtaken());
            }
        }
        for row in rows {
            let Some(&place) = places.get(place(&row)) else { continue };
            if let (Some(answer), Some((.., kind))) = (answers.get_mut(place), asks.get(place)) {
                let number: Result<Option<i64>, _> = row.try_get("attempt").map_err(unreadable);
                *answer = number.map(|number| number.map(|number| Attempt { number, kind: *kind }));
            }
        }
        Ok(answers)
    }
}

/// Whether an attempt is the latest of a row that asks for it.
pub(super) async fn is_current(
    database: &Database,
    key: &ConversationKey,
    Attempt { number, kind }: Attempt,
) -> Result<bool, CatalogError> {
    let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
    let adds = kind == AttemptKind::Add;
    let rows = database.query("read attempt", IS_CURRENT, &[&tenant, &INTEGRATION_TYPE, &id, &number, &adds]).await?;
    Ok(!rows.is_empty())
}

fn no_row(key: &ConversationKey) -> CatalogError {
    CatalogError(format!("no row of conversation {}", key.external_id))
}

/// Which of these conversations have a row, a dead letter or a tombstone.
pub(super) async fn known(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[ConversationKey],
) -> Result<Vec<bool>, CatalogError> {
    let mut known = vec![false; keys.len()];
    let tombstones: Vec<_> = keys.iter().map(|key| tombstones.of(key)).collect();
    let keys = Keys::of(keys.iter());
    let rows = database
        .query("look up conversations", KNOWN, &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones])
        .await?;
    for row in rows {
        if let Some(known) = known.get_mut(place(&row)) {
            *known = true;
        }
    }
    Ok(known)
}

/// One conversation with its recordings and its analysis entry, and with personal data where the role may see it.
pub(super) async fn read(database: &Database, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
    let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
    let rows = match database.query("read conversation", READ, &[&tenant, &INTEGRATION_TYPE, &id]).await {
        Err(DatabaseError::Refused { .. }) => {
            database.query("read conversation", READ_IMPERSONAL, &[&tenant, &INTEGRATION_TYPE, &id]).await?
        }
        read => read?,
    };
    let Some(first) = rows.first() else { return Ok(None) };
    // Without recordings there is one row, and nothing in these columns.
    let has_recordings = first.try_get::<_, Option<i32>>("position").map_err(unreadable)?.is_some();
    let recordings = if has_recordings { rows.iter().map(recording).collect::<Result<_, _>>()? } else { Vec::new() };
    Ok(Some(ConversationRow {
        id: first.try_get::<_, i64>("id").map_err(unreadable)?.to_string(),
        tenant_id: parsed(first, "tenant_id")?,
        integration_type: first.try_get("integration_type").map_err(unreadable)?,
        external_id: parsed(first, "external_id")?,
        master_external_id: parsed(first, "master_external_id")?,
        agent_external_id: parsed(first, "agent_external_id")?,
        started_at: first.try_get("started_at").map_err(unreadable)?,
        ended_at: first.try_get("ended_at").map_err(unreadable)?,
        direction: direction(first)?,
        customer_number: first.try_get("customer_number").map_err(unreadable)?,
        metadata: first.try_get("metadata").map_err(unreadable)?,
        state: state(first)?,
        source: source(first)?,
        recordings,
        recordings_missing: recordings_missing(first)?,
        enqueued_at: first.try_get("enqueued_at").map_err(unreadable)?,
        claimed_at: first.try_get("claimed_at").map_err(unreadable)?,
    }))
}

pub(super) async fn tenants(database: &Database) -> Result<Vec<TenantId>, CatalogError> {
    let rows = database.query("list tenants", TENANTS, &[]).await?;
    rows.iter().map(|row| parsed(row, "tenant_id")).collect()
}

/// The tenant's ready conversations that ended in `[from, to)`, after one of them.
pub(super) async fn recorded(
    database: &Database,
    tenant: &TenantId,
    (from, to): (Timestamp, Timestamp),
    after: Option<Recorded>,
    limit: usize,
) -> Result<Vec<Recorded>, CatalogError> {
    let (tenant, limit) = (tenant.as_str(), saturated(limit));
    let (after_end, after_id) = after.map(|after| (after.ended_at, after.external_id.to_string())).unzip();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&tenant, &INTEGRATION_TYPE, &from, &to, &after_end, &after_id, &limit];
    let rows = database.query("list recorded conversations", RECORDED, &parameters).await?;
    let read = |row| {
        let ended_at = tokio_postgres::Row::try_get(row, "ended_at").map_err(unreadable)?;
        Ok(Recorded { external_id: parsed(row, "external_id")?, ended_at })
    };
    rows.iter().map(read).collect()
}

/// The place of the ask that a row answers.
pub(super) fn place(row: &tokio_postgres::Row) -> usize {
    // From 1 in SQL; a place that does not exist answers nobody.
    row.try_get::<_, i64>("n").ok().and_then(|n| usize::try_from(n - 1).ok()).unwrap_or(usize::MAX)
}

/// How many recordings NICE names besides those that are stored.
pub(super) fn recordings_missing(row: &tokio_postgres::Row) -> Result<u32, CatalogError> {
    u32::try_from(row.try_get::<_, i32>("recordings_missing").map_err(unreadable)?).map_err(unreadable)
}

/// The tenant's conversations that lack recordings, by the day of their end and their id.
pub(super) async fn lacking(
    database: &Database,
    tenant: &TenantId,
    (from, to): (Timestamp, Timestamp),
    after: Option<&Lacking>,
    limit: usize,
) -> Result<Vec<Lacking>, CatalogError> {
    let ended_at = after.map(|after| after.ended_at);
    let id = after.map(|after| after.external_id.to_string());
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&tenant.as_str(), &INTEGRATION_TYPE, &from, &to, &ended_at, &id, &saturated(limit)];
    let rows = database.query("list conversations that lack recordings", LACKING, &parameters).await?;
    let lacking = |row: &tokio_postgres::Row| {
        Ok(Lacking {
            tenant: parsed(row, "tenant_id")?,
            external_id: parsed(row, "external_id")?,
            master: parsed(row, "master_external_id")?,
            agent: parsed(row, "agent_external_id")?,
            ended_at: row.try_get("ended_at").map_err(unreadable)?,
        })
    };
    rows.iter().map(lacking).collect()
}

fn recording(row: &tokio_postgres::Row) -> Result<RecordingRow, CatalogError> {
    Ok(RecordingRow {
        position: u32::try_from(row.try_get::<_, i32>("position").map_err(unreadable)?).map_err(unreadable)?,
        bucket: row.try_get("bucket").map_err(unreadable)?,
        object_key: row.try_get("object_key").map_err(unreadable)?,
        size_bytes: u64::try_from(row.try_get::<_, i64>("size_bytes").map_err(unreadable)?).map_err(unreadable)?,
        sha256: row.try_get("sha256").map_err(unreadable)?,
        content_type: row.try_get("content_type").map_err(unreadable)?,
        source: row.try_get("recording_source").map_err(unreadable)?,
    })
}

pub(super) fn state(row: &tokio_postgres::Row) -> Result<ConversationState, CatalogError> {
    state_of(row.try_get("state").map_err(unreadable)?)
}

/// The state of its name in a row.
pub(super) fn state_of(name: &str) -> Result<ConversationState, CatalogError> {
    let all = [ConversationState::MetadataSaved, ConversationState::Ready, ConversationState::NoRecording];
    all.into_iter().find(|state| state.as_str() == name).ok_or_else(|| unreadable("unknown state"))
}

fn source(row: &tokio_postgres::Row) -> Result<EventSource, CatalogError> {
    let all = [
        EventSource::Poll,
        EventSource::Webhook,
        EventSource::AgentSession,
        EventSource::Reconciliation,
        EventSource::Backfill,
    ];
    let name: &str = row.try_get("source").map_err(unreadable)?;
    all.into_iter().find(|source| source.as_str() == name).ok_or_else(|| unreadable("unknown source"))
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

fn direction(row: &tokio_postgres::Row) -> Result<Option<Direction>, CatalogError> {
    match row.try_get("direction").map_err(unreadable)? {
        None => Ok(None),
        Some("inbound") => Ok(Some(Direction::Inbound)),
        Some("outbound") => Ok(Some(Direction::Outbound)),
        Some(_) => Err(unreadable("unknown direction")),
    }
}
