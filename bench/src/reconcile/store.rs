//! The store, in a process of its own that answers one order at a time; and PostgreSQL.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::ensure;
use serde::Deserialize;

use super::calls::{Calls, EVERY, FIRST_ID};
use super::worker::database;
use crate::bed::connect;
use crate::lines::Lines;

/// Rows that one statement adds.
const ROWS_A_STATEMENT: u64 = 500_000;

/// One comparison of all listed ids.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Checked {
    /// How long it took.
    pub(super) seconds: f64,
    /// How many the store does not know.
    pub(super) missing: u64,
}

/// A worker of ours with one of its tasks.
pub(super) fn worker(task: &str, dir: &Path, rows: u64, calls: &Calls) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["reconcile-worker", "--task", task, "--rows", &rows.to_string(), "--dir"]).arg(dir);
    command.args(calls.arguments());
    Ok(command)
}

/// Orders a comparison.
pub(super) async fn check(store: &mut Lines, order: &str, calls: &Calls) -> anyhow::Result<Checked> {
    store.order(order)?;
    let checked: Checked = store.answer().await?;
    ensure!(
        order == "digest" || checked.missing == calls.missing(),
        "{order}: {} missing, not {}",
        checked.missing,
        calls.missing()
    );
    Ok(checked)
}

/// The tables of the product with so many rows, the newest of the known ids; returns how long it took.
pub(super) async fn fill(url: &str, rows: u64, calls: &Calls) -> anyhow::Result<f64> {
    let begun = Instant::now();
    database::schema::migrate(&database(url)?).await?;
    let client = connect(url).await?;
    // Its counters are not part of a comparison.
    client.batch_execute("set synchronous_commit = off; alter table conversations disable trigger user").await?;
    let end = FIRST_ID + calls.known;
    let listed = end - calls.listed;
    for first in (end.saturating_sub(rows)..end).step_by(ROWS_A_STATEMENT as usize) {
        let last = end.min(first + ROWS_A_STATEMENT) - 1;
        let insert = format!(
            "insert into conversations (tenant_id, integration_type, external_id, master_external_id, \
             agent_external_id, started_at, ended_at, state, source, completed_at) \
             select 'bench', 'nice-cxone', n::text, n::text, '7', '{from}', '{from}', 'ready', 'poll', '{from}' \
             from generate_series({first}::bigint, {last}) n where n < {listed} or n % {EVERY} <> {}",
            EVERY / 2,
            from = calls.from(),
        );
        client.batch_execute(&insert).await?;
    }
    client.batch_execute("alter table conversations enable trigger user").await?;
    client.batch_execute("vacuum analyze conversations").await?;
    Ok(begun.elapsed().as_secs_f64())
}
