//! The learned delay of first looks: one row for each tenant.

use std::time::Duration;

use async_trait::async_trait;
use model::TenantId;
use tokio_postgres::Row;

use super::{PostgresCatalog, rows::unreadable};
use crate::{CatalogError, FirstLooks, LearnedDelay, Lessons};

#[async_trait]
impl FirstLooks for PostgresCatalog {
    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError> {
        let Lessons { factor, shortened, own } = lessons;
        let [first_look, usual, learned_for] =
            [own.first_look, own.usual, own.learned_for].map(|duration| duration.as_secs_f64());
        let found = i64::try_from(own.found).unwrap_or(i64::MAX);
        let rows = self
            .query(
                "note readiness",
                NOTE,
                &[&tenant.as_str(), &factor, &shortened, &first_look, &usual, &learned_for, &found],
            )
            .await?;
        rows.first().map_or_else(|| Err(unreadable("no learned delay")), known)
    }

    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError> {
        let rows = self.query("read readiness", READ, &[&tenant.as_str()]).await?;
        rows.first().map(known).transpose()
    }
}

/// Locks the row, so that what several consumers learned adds up.
const NOTE: &str = "
    insert into recording_readiness as learned (tenant_id, first_look_secs, usual_secs, learned_secs, found)
    values ($1, $4, $5, $6, $7)
    on conflict (tenant_id) do update set
        first_look_secs = case when $3
            then least(learned.first_look_secs, excluded.first_look_secs)
            else least(learned.first_look_secs * $2, greatest(learned.first_look_secs, excluded.first_look_secs)) end,
        usual_secs = excluded.usual_secs,
        learned_secs = excluded.learned_secs,
        found = greatest(learned.found, excluded.found)
    returning first_look_secs, usual_secs, learned_secs, found";

const READ: &str = "
    select first_look_secs, usual_secs, learned_secs, found from recording_readiness where tenant_id = $1";

fn known(row: &Row) -> Result<LearnedDelay, CatalogError> {
    let first_look = duration(row.try_get(0).map_err(unreadable)?)?;
    let of_before = LearnedDelay::of_before(first_look);
    let secs = |index: usize| row.try_get::<_, Option<f64>>(index).map_err(unreadable);
    let found = row.try_get::<_, Option<i64>>(3).map_err(unreadable)?;
    Ok(LearnedDelay {
        first_look,
        usual: secs(1)?.map_or(Ok(of_before.usual), duration)?,
        learned_for: secs(2)?.map_or(Ok(of_before.learned_for), duration)?,
        found: found.map_or(of_before.found, |found| u64::try_from(found).unwrap_or_default()),
    })
}

fn duration(secs: f64) -> Result<Duration, CatalogError> {
    Duration::try_from_secs_f64(secs).map_err(unreadable)
}
