//! The learned delay of first looks: one row for each tenant.

use std::time::Duration;

use tokio_postgres::Row;

use super::{CatalogError, Database, unreadable};
use crate::model::TenantId;

/// Locks the row, so that what several consumers learned adds up.
const NOTE: &str = "
    insert into recording_readiness as learned (tenant_id, first_look_secs) values ($1, $3)
    on conflict (tenant_id) do update set
        first_look_secs =
            least(learned.first_look_secs * $2, greatest(learned.first_look_secs, excluded.first_look_secs))
    returning first_look_secs";

const READ: &str = "select first_look_secs from recording_readiness where tenant_id = $1";

/// Changes the delay, and gives it as it is then.
pub(super) async fn note(
    database: &Database,
    tenant: &TenantId,
    factor: f64,
    first_look: Duration,
) -> Result<Duration, CatalogError> {
    let own = first_look.as_secs_f64();
    let rows = database.query("note readiness", NOTE, &[&tenant.as_str(), &factor, &own]).await?;
    rows.first().map_or_else(|| Err(unreadable("no learned delay")), duration)
}

/// The delay, if one was ever noted.
pub(super) async fn read(database: &Database, tenant: &TenantId) -> Result<Option<Duration>, CatalogError> {
    let rows = database.query("read readiness", READ, &[&tenant.as_str()]).await?;
    rows.first().map(duration).transpose()
}

fn duration(row: &Row) -> Result<Duration, CatalogError> {
    Duration::try_from_secs_f64(row.try_get(0).map_err(unreadable)?).map_err(unreadable)
}
