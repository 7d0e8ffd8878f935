//! Conversations listed page by page.

use database::Database;
use jiff::Timestamp;
use model::{INTEGRATION_TYPE, TenantId};
use tokio_postgres::{Row, types::ToSql};

use crate::{
    CatalogError, Lacking, Recorded,
    postgres::rows::{parsed, saturated, unreadable},
};

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

/// In the order of the index that `conversations_by_day` is. A call ends on the day of its start or, if it is very
/// long, on one of the next.
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
    let parameters: [&(dyn ToSql + Sync); 7] = [&tenant, &INTEGRATION_TYPE, &from, &to, &after_end, &after_id, &limit];
    let rows = database.query("list recorded conversations", RECORDED, &parameters).await?;
    let read = |row| {
        let ended_at = Row::try_get(row, "ended_at").map_err(unreadable)?;
        Ok(Recorded { external_id: parsed(row, "external_id")?, ended_at })
    };
    rows.iter().map(read).collect()
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
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&tenant.as_str(), &INTEGRATION_TYPE, &from, &to, &ended_at, &id, &saturated(limit)];
    let rows = database.query("list conversations that lack recordings", LACKING, &parameters).await?;
    let lacking = |row: &Row| {
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
