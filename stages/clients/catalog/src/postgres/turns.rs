//! The producer's turns and its memory: one row for each tenant.
//!
//! A statement that writes in a turn asks `fence_turn` (see `migrations/V0010__producer_turns.sql`), or, where it
//! writes to that row itself, writes only while the row has the turn's number. No time is stored beyond the server's
//! clock.

use async_trait::async_trait;
use database::DatabaseError;
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
        let rows = self.query("begin a turn", BEGIN, &[&tenant.as_str()]).await?;
        let number: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(unreadable)?;
        u64::try_from(number.unwrap_or_default()).map_err(unreadable)
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        let rows = self.query("read the producer's memory", READ, &[&tenant.as_str()]).await?;
        Ok(rows.first().map(memory).transpose()?.unwrap_or_default())
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        let held_back: Option<i64> = held_back.map(saturated);
        self.remember("move the poll's watermark", ADVANCE, tenant, &[&to, &held_back]).await
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.remember("hold the poll back", HOLD_BACK, tenant, &[&to]).await
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.remember("note the first turn", WORKED_SINCE, tenant, &[&at]).await
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.remember("note the rechecks", RECHECKED, tenant, &[&to]).await
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

impl PostgresCatalog {
    /// Writes to the producer's memory in the turn of this handle: the tenant and the turn's number stand before
    /// `values`.
    async fn remember(
        &self,
        what: &'static str,
        statement: &'static str,
        tenant: &TenantId,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<ProducerMemory, CatalogError> {
        let (tenant, turn) = (tenant.as_str(), self.turn.get());
        let number = number(turn.as_ref());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&tenant, &number];
        parameters.extend(values);
        match (self.query(what, statement, &parameters).await?.first(), turn) {
            (Some(row), _) => memory(row),
            (None, Some(turn)) => Err(turn.refuse()),
            (None, None) => Err(CatalogError(format!("{what}: nothing was written"))),
        }
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
