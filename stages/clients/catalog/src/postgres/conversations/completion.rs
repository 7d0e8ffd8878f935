//! Completions: recordings, state and analysis entry in one commit, many conversations in one statement.

use std::collections::HashMap;

use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::{ConversationKey, INTEGRATION_TYPE, StoredRecording};
use tokio_postgres::Row;

use super::no_row;
use crate::{
    Attempt, CatalogError, RecordingRow,
    postgres::{
        batch::BatchRequest,
        rows::{Keys, index, saturated},
        text,
    },
};

/// The completing transaction, and that which adds recordings to a final row. Gives the places of the asks whose row
/// stands, and was not erased, and whether what they ask stands there now, by an attempt that is the latest. Who took a
/// conversation before it had all its recordings is not done with it.
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

/// How a conversation ends.
pub(in crate::postgres) struct Completion {
    pub(super) key: ConversationKey,
    pub(super) tombstone: Vec<u8>,
    /// None without a recording.
    pub(super) enqueued_at: Option<Timestamp>,
    pub(super) recordings: Vec<RecordingRow>,
    /// Recordings that NICE names besides.
    pub(super) missing: i32,
    /// The row is final, and lacks recordings.
    pub(super) adds: bool,
    pub(super) attempt: Option<Attempt>,
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
}

impl BatchRequest for Completion {
    type Answer = ();

    const NAME: &'static str = "complete";

    async fn run(database: &Database, requests: &[&Self]) -> Result<Vec<Result<(), CatalogError>>, DatabaseError> {
        let keys = Keys::of(requests.iter().map(|request| &request.key));
        let tombstones: Vec<_> = requests.iter().map(|request| &request.tombstone).collect();
        let recorded: Vec<_> = requests.iter().map(|request| request.enqueued_at.is_some()).collect();
        let ats: Vec<_> = requests.iter().map(|request| request.enqueued_at).collect();
        let missing: Vec<_> = requests.iter().map(|request| request.missing).collect();
        let adding: Vec<_> = requests.iter().map(|request| request.adds).collect();
        let attempts: Vec<_> = requests.iter().map(|request| request.attempt.map(|attempt| attempt.number)).collect();
        let recordings = Recordings::of(requests);
        #[rustfmt::skip]
        let rows = database.query(Self::NAME, COMPLETE, &[
            &keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &recorded, &ats, &recordings.owners,
            &recordings.positions, &recordings.buckets, &recordings.object_keys, &recordings.sizes, &recordings.hashes,
            &recordings.types, &tombstones, &missing, &adding, &attempts, &recordings.sources,
        ]).await?;
        let is_done = |row| Row::try_get(row, "is_done").unwrap_or_default();
        let done: HashMap<usize, bool> = rows.iter().map(|row| (index(row), is_done(row))).collect();
        let answer = |(place, request): (usize, &&Self)| match done.get(&place) {
            Some(true) => Ok(()),
            Some(false) => Err(CatalogError::overtaken()),
            None => Err(no_row(&request.key)),
        };
        Ok(requests.iter().enumerate().map(answer).collect())
    }
}

/// The recordings of all requests, as parameters.
struct Recordings<'a> {
    /// The number of the request, from 1.
    owners: Vec<i64>,
    positions: Vec<i32>,
    buckets: Vec<String>,
    object_keys: Vec<&'a str>,
    sizes: Vec<i64>,
    hashes: Vec<&'a str>,
    types: Vec<String>,
    sources: Vec<Option<&'a str>>,
}

impl<'a> Recordings<'a> {
    fn of(requests: &[&'a Completion]) -> Self {
        let all: Vec<(i64, &RecordingRow)> =
            (1..).zip(requests).flat_map(|(n, request)| request.recordings.iter().map(move |row| (n, row))).collect();
        Self {
            owners: all.iter().map(|(n, _)| *n).collect(),
            positions: all.iter().map(|(_, row)| i32::try_from(row.position).unwrap_or(i32::MAX)).collect(),
            buckets: all.iter().map(|(_, row)| text::text(&row.bucket)).collect(),
            object_keys: all.iter().map(|(_, row)| row.object_key.as_str()).collect(),
            sizes: all.iter().map(|(_, row)| saturated(row.size_bytes)).collect(),
            hashes: all.iter().map(|(_, row)| row.sha256.as_str()).collect(),
            types: all.iter().map(|(_, row)| text::text(&row.content_type)).collect(),
            sources: all.iter().map(|(_, row)| row.source.as_deref()).collect(),
        }
    }
}
