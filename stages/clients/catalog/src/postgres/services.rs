//! The services that run: a row each.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
    text,
};
use crate::{CatalogError, FORGOTTEN_AFTER, Heartbeat, KnownService, Services};

const ENLIST: &str = "
    with forgotten as (delete from services where seen_at < clock_timestamp() - make_interval(secs => $8))
    insert into services (service_id, service, tenant_id, host, version, started_at, report)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (service_id) do update set seen_at = clock_timestamp(), report = excluded.report";

const BEAT: &str = "
    with forgotten as (
        delete from services where service_id <> $1 and seen_at < clock_timestamp() - make_interval(secs => $3)
    )
    update services set seen_at = clock_timestamp(), report = $2 where service_id = $1";

const SERVICES: &str = "
    select service_id, service, tenant_id, host, version, started_at, report,
        greatest(extract(epoch from clock_timestamp() - seen_at), 0)::float8
    from services where seen_at >= clock_timestamp() - make_interval(secs => $1)
    order by seen_at desc, service_id limit $2";

const RETIRE: &str = "delete from services where service_id = $1";

#[async_trait]
impl Services for PostgresCatalog {
    async fn enlist(&self, beat: &Heartbeat, _now: Timestamp) -> Result<(), CatalogError> {
        let Heartbeat { id, service, tenant, host, version, started_at, report } = beat;
        let tenant = tenant.as_ref().map(|tenant| tenant.as_str());
        let (report, forgotten) = (text::json(report), FORGOTTEN_AFTER.as_secs_f64());
        let database = &self.inner.database;
        database
            .execute("note a service", ENLIST, &[id, service, &tenant, host, version, started_at, &report, &forgotten])
            .await?;
        Ok(())
    }

    async fn beat(&self, beat: &Heartbeat, _now: Timestamp) -> Result<bool, CatalogError> {
        let (report, forgotten) = (text::json(&beat.report), FORGOTTEN_AFTER.as_secs_f64());
        let database = &self.inner.database;
        let noted = database.execute("note that a service lives", BEAT, &[&beat.id, &report, &forgotten]).await?;
        Ok(noted > 0)
    }

    async fn services(&self, _now: Timestamp, limit: usize) -> Result<Vec<KnownService>, CatalogError> {
        let forgotten = FORGOTTEN_AFTER.as_secs_f64();
        let rows = self.query("list services", SERVICES, &[&forgotten, &saturated(limit)]).await?;
        rows.iter().map(known).collect()
    }

    async fn retire(&self, id: &str) -> Result<(), CatalogError> {
        self.inner.database.execute("retire a service", RETIRE, &[&id]).await?;
        Ok(())
    }
}

fn known(row: &Row) -> Result<KnownService, CatalogError> {
    let tenant: Option<&str> = row.try_get(2).map_err(unreadable)?;
    let silent: f64 = row.try_get(7).map_err(unreadable)?;
    Ok(KnownService {
        beat: Heartbeat {
            id: row.try_get(0).map_err(unreadable)?,
            service: row.try_get(1).map_err(unreadable)?,
            tenant: tenant.map(str::parse).transpose().map_err(unreadable)?,
            host: row.try_get(3).map_err(unreadable)?,
            version: row.try_get(4).map_err(unreadable)?,
            started_at: row.try_get(5).map_err(unreadable)?,
            report: row.try_get(6).map_err(unreadable)?,
        },
        silent_for: Duration::try_from_secs_f64(silent).map_err(unreadable)?,
    })
}
