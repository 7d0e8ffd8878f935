//! Erasure and retention.
//!
//! The tombstone is one statement of its own, and first. Each statement that writes something of a conversation looks
//! for it in its own snapshot, so whatever begins after the tombstone's commit writes nothing. Rows go by functions
//! that delete nothing else: see `migrations/V0007__erasure.sql`.

use async_trait::async_trait;
use database::{Database, DatabaseError};
use deadpool_postgres::Object;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, INTEGRATION_TYPE, Retention, TenantId};
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresCatalog,
    rows::{key, parsed, saturated, unreadable},
    tombstones::Tombstones,
};
use crate::{
    CatalogError, ErasedRows, Erasure, Erasures, Expired, RecordingLocation, RetentionTurn, SETTLED, Timelines,
    Tombstone,
};

#[async_trait]
impl Erasures for PostgresCatalog {
    async fn begin_erasure(&self, key: &ConversationKey, _now: Timestamp) -> Result<Erasure, CatalogError> {
        let secret = self.inner.tombstones.key()?;
        let fingerprint = secret.fingerprint();
        self.inner.database.execute("note erasure key", NOTE_KEY, &[&fingerprint.as_slice()]).await?;
        check_key(&self.inner.database, &self.inner.tombstones).await?;
        let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
        let tombstone = secret.tombstone(key);
        let parameters: [&(dyn ToSql + Sync); 4] = [&tenant, &tombstone.as_bytes().as_slice(), &INTEGRATION_TYPE, &id];
        let rows = self.query("begin erasure", BEGIN, &parameters).await?;
        rows.first().map(erasure).unwrap_or_else(|| Err(unreadable("no erasure")))
    }

    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        // What was recorded here before is written, and then deleted with the rest.
        self.flush().await;
        let tombstone = self.inner.tombstones.key()?.tombstone(key);
        let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
        let rows = self
            .query("erase conversation", ERASE, &[&tenant, &INTEGRATION_TYPE, &id, &tombstone.as_bytes().as_slice()])
            .await?;
        let row = rows.first().ok_or_else(|| unreadable("no counts"))?;
        let count = |column: &str| -> Result<u64, CatalogError> {
            u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
        };
        let conversation = count("conversations")? > 0;
        Ok(ErasedRows { conversation, dead_letters: count("letters")?, hops: count("hops")? })
    }

    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError> {
        let after = after.map(|tombstone| tombstone.as_bytes().to_vec()).unwrap_or_default();
        let rows = self.query("list erasures", PENDING, &[&after, &saturated(limit)]).await?;
        rows.iter().map(erasure).collect()
    }

    async fn finish_erasure(&self, erasure: &Erasure, _now: Timestamp) -> Result<bool, CatalogError> {
        let (tenant, tombstone) = (erasure.key.tenant.as_str(), erasure.tombstone.as_bytes().as_slice());
        let settled = SETTLED.as_secs_f64();
        Ok(self
            .inner
            .database
            .execute("finish erasure", FINISH, &[&tenant, &tombstone, &erasure.asked_at, &settled])
            .await?
            > 0)
    }

    async fn expired(
        &self,
        tenant: &TenantId,
        _retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let (after_end, after_id) = after.map(|after| (after.ended_at, after.external_id.to_string())).unzip();
        let rows = self
            .query(
                "list expired conversations",
                EXPIRED,
                &[&tenant.as_str(), &INTEGRATION_TYPE, &now, &after_end, &after_id, &most],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let buckets: Vec<String> = row.try_get("buckets").map_err(unreadable)?;
                let keys: Vec<String> = row.try_get("object_keys").map_err(unreadable)?;
                let places =
                    buckets.into_iter().zip(keys).map(|(bucket, object_key)| RecordingLocation { bucket, object_key });
                Ok(Expired {
                    tenant: tenant.clone(),
                    external_id: parsed(row, "external_id")?,
                    started_at: row.try_get("started_at").map_err(unreadable)?,
                    ended_at: row.try_get("ended_at").map_err(unreadable)?,
                    recordings: places.collect(),
                })
            })
            .collect()
    }

    async fn expire_rows(
        &self,
        tenant: &TenantId,
        _retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        self.flush().await;
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let rows =
            self.query("expire conversations", EXPIRE, &[&tenant.as_str(), &INTEGRATION_TYPE, &now, &ids]).await?;
        let count: i64 = rows.first().ok_or_else(|| unreadable("no count"))?.try_get(0).map_err(unreadable)?;
        u64::try_from(count).map_err(unreadable)
    }

    async fn retention_turn(&self, tenant: &TenantId) -> Result<Option<RetentionTurn>, CatalogError> {
        let client = self.inner.database.client().await?;
        let row = client.query_one(RETENTION_TURN, &[&tenant.as_str()]).await.map_err(unreadable)?;
        let is_ours: bool = row.try_get(0).map_err(unreadable)?;
        Ok(is_ours.then(|| RetentionTurn::of(LockSession(Some(client)))))
    }
}

/// The first erasure of all says which key is used.
const NOTE_KEY: &str = "insert into erasure_key (fingerprint) values ($1) on conflict do nothing";

const KEY: &str = "select fingerprint from erasure_key";

/// The first known start of the conversation stays: an earlier attempt may have deleted the row since.
const BEGIN: &str = "
    insert into erasures as e (tenant_id, digest, asked_at, external_id, started_at)
    select $1::text, $2::bytea, clock_timestamp(), $4::text, (
        select c.started_at from conversations c
        where c.tenant_id = $1 and c.integration_type = $3 and c.external_id = $4
    )
    on conflict (tenant_id, digest) do update set
        asked_at = excluded.asked_at, external_id = excluded.external_id,
        started_at = coalesce(e.started_at, excluded.started_at), done_at = null
    returning tenant_id, digest, external_id, asked_at, started_at";

const ERASE: &str = "select conversations, letters, hops from erase_conversation($1, $2, $3, $4)";

const PENDING: &str = "
    select tenant_id, digest, external_id, asked_at, started_at from erasures
    where done_at is null and digest > $1 order by digest limit $2";

const FINISH: &str = "
    update erasures set done_at = clock_timestamp(), external_id = null, started_at = null
    where tenant_id = $1 and digest = $2 and asked_at = $3 and done_at is null
        and asked_at <= clock_timestamp() - make_interval(secs => $4::float8)";

const CLOCK: &str = "select clock_timestamp()";

const EXPIRED: &str = "
    select external_id, started_at, ended_at, buckets, object_keys
    from expired_conversations($1, $2, $3, $4, $5, $6)";

const EXPIRE: &str = "select expired from expire_conversations($1, $2, $3, $4)";

/// Fails where the tombstones that stand were made with another key: this process would bring back what was erased.
pub(super) async fn check_key(database: &Database, tombstones: &Tombstones) -> Result<(), DatabaseError> {
    let Some(key) = &tombstones.0 else { return Ok(()) };
    let rows = database.query("read erasure key", KEY, &[]).await?;
    match rows.first().and_then(|row| row.try_get::<_, Vec<u8>>(0).ok()) {
        Some(fingerprint) if fingerprint != key.fingerprint() => Err(DatabaseError::Schema(other_key())),
        _ => Ok(()),
    }
}

fn other_key() -> String {
    "[catalog] erasure_key: what was erased from this database is known by another key, and would come back; set it to \
     the seal_key of the first erasure, which was replaced since"
        .to_owned()
}

pub(super) async fn clock(database: &Database) -> Result<Timestamp, CatalogError> {
    let rows = database.query("read clock", CLOCK, &[]).await?;
    rows.first().ok_or_else(|| unreadable("no time"))?.try_get(0).map_err(unreadable)
}

fn erasure(row: &Row) -> Result<Erasure, CatalogError> {
    let digest: Vec<u8> = row.try_get("digest").map_err(unreadable)?;
    let digest = digest.try_into().map_err(|_| unreadable("a digest of another length"))?;
    Ok(Erasure {
        tombstone: Tombstone::from_bytes(digest),
        key: key(row)?,
        asked_at: row.try_get("asked_at").map_err(unreadable)?,
        started_at: row.try_get("started_at").map_err(unreadable)?,
    })
}

/// One process at a time erases what is beyond a tenant's retention. The lock is the session's: it ends with the
/// process.
const RETENTION_TURN: &str = "select pg_try_advisory_lock(hashtextextended('nice-knovvu retention ' || $1, 0))";

/// A session that holds a lock. It is not given back to the pool, where it would keep the lock.
struct LockSession(Option<Object>);

impl Drop for LockSession {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}
