//! The producer's turns and its memory: one row for each tenant.
//!
//! A statement that writes in a turn asks `fence_turn` (see `migrations/V0010__producer_turns.sql`), or, where it writes
//! to that row itself, writes only while the row has the turn's number. No time is stored beyond the server's clock.

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::TenantId;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
};
use crate::{CatalogError, ProducerMemory, ProducerTurn, ProducerTurns};

#[async_trait]
impl ProducerTurns for PostgresCatalog {
    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError> {
        begin(&self.inner.database, tenant).await
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        read(&self.inner.database, tenant).await
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        advance(&self.inner.database, tenant, self.turn.get().as_ref(), to, held_back).await
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        hold_back(&self.inner.database, tenant, self.turn.get().as_ref(), to).await
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        worked_since(&self.inner.database, tenant, self.turn.get().as_ref(), at).await
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        rechecked(&self.inner.database, tenant, self.turn.get().as_ref(), to).await
    }
}

const BEGIN: &str = "
    insert into producer_turns as t (tenant_id, turn, begun_at) values ($1, 1, clock_timestamp())
    on conflict (tenant_id) do update set turn = t.turn + 1, begun_at = excluded.begun_at
    returning turn";

const READ: &str = "
    select turn, poll_watermark, held_back, worked_since, rechecked_to from producer_turns where tenant_id = $1";

const ADVANCE: &str = "
    insert into producer_turns as t (tenant_id, poll_watermark)
    select $1::text, least($3::timestamptz, clock_timestamp())
    where $2::bigint is null or exists (select from producer_turns where tenant_id = $1 and turn = $2)
    on conflict (tenant_id) do update set poll_watermark = case
        when $4::bigint is null or t.held_back = $4 then greatest(t.poll_watermark, excluded.poll_watermark)
        else t.poll_watermark
    end
    where $2 is null or t.turn = $2
    returning turn, poll_watermark, held_back, worked_since, rechecked_to";

const HOLD_BACK: &str = "
    insert into producer_turns as t (tenant_id, held_back)
    select $1::text, 1
    where $2::bigint is null or exists (select from producer_turns where tenant_id = $1 and turn = $2)
    on conflict (tenant_id) do update set
        poll_watermark = case when t.poll_watermark > $3::timestamptz then $3 else t.poll_watermark end,
        held_back = t.held_back + 1
    where $2 is null or t.turn = $2
    returning turn, poll_watermark, held_back, worked_since, rechecked_to";

const WORKED_SINCE: &str = "
    insert into producer_turns as t (tenant_id, worked_since)
    select $1::text, least($3::timestamptz, clock_timestamp())
    where $2::bigint is null or exists (select from producer_turns where tenant_id = $1 and turn = $2)
    on conflict (tenant_id) do update set worked_since = least(t.worked_since, excluded.worked_since)
    where $2 is null or t.turn = $2
    returning turn, poll_watermark, held_back, worked_since, rechecked_to";

const RECHECKED: &str = "
    insert into producer_turns as t (tenant_id, rechecked_to)
    select $1::text, least($3::timestamptz, clock_timestamp())
    where $2::bigint is null or exists (select from producer_turns where tenant_id = $1 and turn = $2)
    on conflict (tenant_id) do update set rechecked_to = greatest(t.rechecked_to, excluded.rechecked_to)
    where $2 is null or t.turn = $2
    returning turn, poll_watermark, held_back, worked_since, rechecked_to";

/// The turn's number as `fence_turn` takes it.
pub(super) fn number(turn: Option<&ProducerTurn>) -> Option<i64> {
    turn.map(|turn| saturated(turn.number))
}

/// The error of a statement of a turn, which may be over.
pub(super) fn failed(turn: Option<&ProducerTurn>, error: DatabaseError) -> CatalogError {
    match (turn, error) {
        (Some(turn), DatabaseError::Superseded { .. }) => turn.refuse(),
        (_, error) => error.into(),
    }
}

/// Begins a turn. One whose answer was lost is followed by another, which does no harm.
pub(super) async fn begin(database: &Database, tenant: &TenantId) -> Result<u64, CatalogError> {
    let rows = database.query("begin a turn", BEGIN, &[&tenant.as_str()]).await?;
    let number: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(unreadable)?;
    u64::try_from(number.unwrap_or_default()).map_err(unreadable)
}

/// What the tenant's producers know together.
pub(super) async fn read(database: &Database, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
    let rows = database.query("read the producer's memory", READ, &[&tenant.as_str()]).await?;
    Ok(rows.first().map(memory).transpose()?.unwrap_or_default())
}

/// Moves the poll's watermark forward.
pub(super) async fn advance(
    database: &Database,
    tenant: &TenantId,
    turn: Option<&ProducerTurn>,
    to: Timestamp,
    held_back: Option<u64>,
) -> Result<ProducerMemory, CatalogError> {
    let held_back: Option<i64> = held_back.map(saturated);
    write(database, "move the poll's watermark", ADVANCE, turn, &[&tenant.as_str(), &number(turn), &to, &held_back])
        .await
}

/// Holds the poll's watermark back.
pub(super) async fn hold_back(
    database: &Database,
    tenant: &TenantId,
    turn: Option<&ProducerTurn>,
    to: Timestamp,
) -> Result<ProducerMemory, CatalogError> {
    write(database, "hold the poll back", HOLD_BACK, turn, &[&tenant.as_str(), &number(turn), &to]).await
}

/// Notes since when the tenant is worked for.
pub(super) async fn worked_since(
    database: &Database,
    tenant: &TenantId,
    turn: Option<&ProducerTurn>,
    at: Timestamp,
) -> Result<ProducerMemory, CatalogError> {
    write(database, "note the first turn", WORKED_SINCE, turn, &[&tenant.as_str(), &number(turn), &at]).await
}

/// Notes how far the nightly run has looked once more at calls that lack recordings.
pub(super) async fn rechecked(
    database: &Database,
    tenant: &TenantId,
    turn: Option<&ProducerTurn>,
    to: Timestamp,
) -> Result<ProducerMemory, CatalogError> {
    write(database, "note the rechecks", RECHECKED, turn, &[&tenant.as_str(), &number(turn), &to]).await
}

async fn write(
    database: &Database,
    what: &'static str,
    statement: &'static str,
    turn: Option<&ProducerTurn>,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<ProducerMemory, CatalogError> {
    match (database.query(what, statement, parameters).await?.first(), turn) {
        (Some(row), _) => memory(row),
        (None, Some(turn)) => Err(turn.refuse()),
        (None, None) => Err(CatalogError(format!("{what}: nothing was written"))),
    }
}

fn memory(row: &Row) -> Result<ProducerMemory, CatalogError> {
    let whole = |column: &str| -> Result<u64, CatalogError> {
        u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
    };
    Ok(ProducerMemory {
        turn: whole("turn")?,
        poll_watermark: row.try_get("poll_watermark").map_err(unreadable)?,
        held_back: whole("held_back")?,
        worked_since: row.try_get("worked_since").map_err(unreadable)?,
        rechecked_to: row.try_get("rechecked_to").map_err(unreadable)?,
    })
}
