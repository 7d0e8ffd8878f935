//! Replay runs.

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::TenantId;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
    turns,
};
use crate::{CatalogError, ReplayRun, RunKind, RunState, Runs};

#[async_trait]
impl Runs for PostgresCatalog {
    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        let turn = self.turn.get();
        let (listed, missing, replayed) = counts(run);
        let rows = self
            .query_in(
                turn.as_ref(),
                "begin a replay run",
                statements(run.kind).begin,
                &[
                    &run.tenant_id.as_str(),
                    &run.from,
                    &run.to,
                    &listed,
                    &missing,
                    &replayed,
                    &run.started_at,
                    &run.finished_at,
                    &run.state.as_str(),
                    &detail(run)?,
                    &turns::number(turn.as_ref()),
                ],
            )
            .await?;
        let id: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(unreadable)?;
        u64::try_from(id.unwrap_or_default()).map_err(unreadable)
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        let turn = self.turn.get();
        let (listed, missing, replayed) = counts(run);
        let rows = self
            .query_in(
                turn.as_ref(),
                "save a replay run",
                statements(run.kind).save,
                &[
                    &run.tenant_id.as_str(),
                    &saturated(run.id),
                    &run.from,
                    &run.to,
                    &listed,
                    &missing,
                    &replayed,
                    &before.as_str(),
                    &run.finished_at,
                    &detail(run)?,
                    &run.state.as_str(),
                    &turns::number(turn.as_ref()),
                ],
            )
            .await?;
        match rows.first() {
            Some(row) => state(row.try_get(0).map_err(unreadable)?),
            None => Err(CatalogError(format!("no {} {}", run.kind.as_str(), run.id))),
        }
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        let finished_at = to.is_final().then_some(at);
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&run.tenant_id.as_str(), &saturated(run.id), &run.state.as_str(), &to.as_str(), &finished_at];
        let rows = self.query("change a replay run", statements(run.kind).change, &parameters).await?;
        Ok(!rows.is_empty())
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&tenant.as_str(), &saturated(id)];
        let rows = self.query("read a replay run", statements(kind).read, &parameters).await?;
        rows.first().map(run).transpose()
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        listed(&self.inner.database, statements(kind).open, tenant, limit).await
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        listed(&self.inner.database, statements(kind).list, tenant, limit).await
    }
}

/// The statements about one of the two tables.
struct Statements {
    begin: &'static str,
    save: &'static str,
    change: &'static str,
    read: &'static str,
    list: &'static str,
    open: &'static str,
}

macro_rules! statements {
    ($table:literal) => {
        Statements {
            begin: concat!(
                "insert into ",
                $table,
                " as r (tenant_id, window_from, window_to, listed, missing, replayed, ",
                "started_at, finished_at, state, detail) select $1::text, $2::timestamptz, $3::timestamptz, $4::bigint, ",
                "$5::bigint, $6::bigint, $7::timestamptz, $8::timestamptz, $9::text, $10::jsonb ",
                "where fence_turn($1, $11) ",
                "on conflict (tenant_id, started_at) do update set state = r.state returning id"
            ),
            save: concat!(
                "update ",
                $table,
                " set window_from = $3, window_to = $4, listed = $5, missing = $6, replayed = $7, ",
                "finished_at = case when state = $8 then $9 else finished_at end, detail = $10, ",
                "state = case when state = $8 then $11 else state end where tenant_id = $1 and id = $2 ",
                "and fence_turn($1, $12) returning state"
            ),
            change: concat!(
                "update ",
                $table,
                " set state = $4, finished_at = $5 where tenant_id = $1 and id = $2 and state = $3 ",
                "returning state"
            ),
            read: concat!("select id, state, finished_at, detail from ", $table, " where tenant_id = $1 and id = $2"),
            list: concat!(
                "select id, state, finished_at, detail from ",
                $table,
                " where tenant_id = $1 and detail <> '{}' ",
                "order by id desc limit $2"
            ),
            open: concat!(
                "select id, state, finished_at, detail from ",
                $table,
                " where tenant_id = $1 ",
                "and state in ('planning', 'running') and detail <> '{}' order by id limit $2"
            ),
        }
    };
}

const RECONCILIATIONS: Statements = statements!("reconciliation_runs");
const BACKFILLS: Statements = statements!("backfills");

fn statements(kind: RunKind) -> &'static Statements {
    match kind {
        RunKind::Reconciliation => &RECONCILIATIONS,
        RunKind::Backfill => &BACKFILLS,
    }
}

async fn listed(
    database: &Database,
    statement: &'static str,
    tenant: &TenantId,
    limit: usize,
) -> Result<Vec<ReplayRun>, CatalogError> {
    let parameters: [&(dyn ToSql + Sync); 2] = [&tenant.as_str(), &saturated(limit)];
    let rows = match database.query("list replay runs", statement, &parameters).await {
        // A role that has nothing to do with them sees none.
        Err(DatabaseError::Refused { .. }) => return Ok(Vec::new()),
        rows => rows?,
    };
    rows.iter().map(run).collect()
}

fn counts(run: &ReplayRun) -> (i64, i64, i64) {
    (saturated(run.found.listed), saturated(run.found.missing), saturated(run.found.replayed))
}

fn detail(run: &ReplayRun) -> Result<serde_json::Value, CatalogError> {
    serde_json::to_value(run).map_err(|error| CatalogError(format!("unwritable run: {error}")))
}

/// The columns that others may change count more than the detail.
fn run(row: &Row) -> Result<ReplayRun, CatalogError> {
    let detail: serde_json::Value = row.try_get("detail").map_err(unreadable)?;
    let run: ReplayRun = serde_json::from_value(detail).map_err(unreadable)?;
    Ok(ReplayRun {
        id: u64::try_from(row.try_get::<_, i64>("id").map_err(unreadable)?).map_err(unreadable)?,
        state: state(row.try_get("state").map_err(unreadable)?)?,
        finished_at: row.try_get("finished_at").map_err(unreadable)?,
        ..run
    })
}

fn state(word: &str) -> Result<RunState, CatalogError> {
    serde_json::from_value(word.into()).map_err(unreadable)
}
