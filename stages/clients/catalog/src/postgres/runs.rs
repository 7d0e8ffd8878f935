//! Replay runs.

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::TenantId;
use tokio_postgres::Row;

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
    turns,
};
use crate::{CatalogError, ProducerTurn, ReplayRun, RunKind, RunState, Runs};

#[async_trait]
impl Runs for PostgresCatalog {
    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        begin(&self.inner.database, self.turn.get().as_ref(), run).await
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        save(&self.inner.database, self.turn.get().as_ref(), run, before).await
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        change(&self.inner.database, run, to, at).await
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        read(&self.inner.database, tenant, kind, id).await
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        list_open(&self.inner.database, tenant, kind, limit).await
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        list(&self.inner.database, tenant, kind, limit).await
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

/// Writes a new run; the same run again is the one that stands.
pub(super) async fn begin(
    database: &Database,
    turn: Option<&ProducerTurn>,
    run: &ReplayRun,
) -> Result<u64, CatalogError> {
    let (listed, missing, replayed) = counts(run);
    let rows = database
        .query(
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
                &turns::number(turn),
            ],
        )
        .await
        .map_err(|error| turns::failed(turn, error))?;
    let id: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(unreadable)?;
    u64::try_from(id.unwrap_or_default()).map_err(unreadable)
}

/// Writes how far a run has come; the state in which it stands.
pub(super) async fn save(
    database: &Database,
    turn: Option<&ProducerTurn>,
    run: &ReplayRun,
    before: RunState,
) -> Result<RunState, CatalogError> {
    let (listed, missing, replayed) = counts(run);
    let rows = database
        .query(
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
                &turns::number(turn),
            ],
        )
        .await
        .map_err(|error| turns::failed(turn, error))?;
    match rows.first() {
        Some(row) => state(row.try_get(0).map_err(unreadable)?),
        None => Err(CatalogError(format!("no {} {}", run.kind.as_str(), run.id))),
    }
}

/// Changes the state of a run that stands as it was read.
pub(super) async fn change(
    database: &Database,
    run: &ReplayRun,
    to: RunState,
    at: Timestamp,
) -> Result<bool, CatalogError> {
    let finished_at = to.is_final().then_some(at);
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&run.tenant_id.as_str(), &saturated(run.id), &run.state.as_str(), &to.as_str(), &finished_at];
    let rows = database.query("change a replay run", statements(run.kind).change, &parameters).await?;
    Ok(!rows.is_empty())
}

/// One run.
pub(super) async fn read(
    database: &Database,
    tenant: &TenantId,
    kind: RunKind,
    id: u64,
) -> Result<Option<ReplayRun>, CatalogError> {
    let rows = database.query("read a replay run", statements(kind).read, &[&tenant.as_str(), &saturated(id)]).await?;
    rows.first().map(run).transpose()
}

/// The runs of a kind, newest first.
pub(super) async fn list(
    database: &Database,
    tenant: &TenantId,
    kind: RunKind,
    limit: usize,
) -> Result<Vec<ReplayRun>, CatalogError> {
    listed(database, statements(kind).list, tenant, limit).await
}

/// The runs of a kind that a producer works on, oldest first.
pub(super) async fn list_open(
    database: &Database,
    tenant: &TenantId,
    kind: RunKind,
    limit: usize,
) -> Result<Vec<ReplayRun>, CatalogError> {
    listed(database, statements(kind).open, tenant, limit).await
}

async fn listed(
    database: &Database,
    statement: &'static str,
    tenant: &TenantId,
    limit: usize,
) -> Result<Vec<ReplayRun>, CatalogError> {
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&tenant.as_str(), &saturated(limit)];
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
