//! Replay runs.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use model::TenantId;
use serde::Deserialize;
use state::StateError;

use super::{EmbeddedCatalog, Inner, kind, tenant_prefix};
use crate::{CatalogError, ProducerTurn, ReplayRun, RunKind, RunState, Runs};

#[async_trait]
impl Runs for EmbeddedCatalog {
    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        let id = self.inner.begin_run(run, self.turn.get())?;
        self.inner.commit().await?;
        Ok(id)
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        let state = self.inner.save_run(run, before, self.turn.get())?;
        self.inner.commit().await?;
        Ok(state)
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        let changed = self.inner.change_run(run, to, at)?;
        self.inner.commit().await?;
        Ok(changed)
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        self.inner.run(tenant, kind, id)
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        let first = runs_of(tenant, kind);
        let of_them = |key: &&Vec<u8>| key.starts_with(&first);
        let keys: Vec<_> = self.inner.open().range(first.clone()..).take_while(of_them).cloned().collect();
        let mut open = Vec::new();
        for key in keys {
            if open.len() >= limit {
                break;
            }
            // One that ends meanwhile is listed here for a moment.
            open.extend(self.inner.get::<ReplayRun>(&key)?.filter(|run| run.state.is_open()));
        }
        Ok(open)
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.inner.runs(tenant, kind, limit)
    }
}

impl Inner {
    fn begin_run(&self, run: &ReplayRun, turn: Option<ProducerTurn>) -> Result<u64, CatalogError> {
        let _writing = self.fenced(turn)?;
        let newest = self.runs(&run.tenant_id, run.kind, usize::MAX)?;
        if let Some(same) = newest.iter().find(|other| other.started_at == run.started_at) {
            return Ok(same.id);
        }
        let id = newest.first().map_or(0, |newest| newest.id) + 1;
        self.write_run(&ReplayRun { id, ..run.clone() })?;
        Ok(id)
    }

    fn save_run(
        &self,
        run: &ReplayRun,
        before: RunState,
        turn: Option<ProducerTurn>,
    ) -> Result<RunState, CatalogError> {
        let _writing = self.fenced(turn)?;
        let Some(standing) = self.run(&run.tenant_id, run.kind, run.id)? else {
            return Err(CatalogError(format!("no {} {}", run.kind.as_str(), run.id)));
        };
        let (state, finished_at) = match standing.state == before {
            true => (run.state, run.finished_at),
            false => (standing.state, standing.finished_at),
        };
        self.write_run(&ReplayRun { state, finished_at, ..run.clone() })?;
        Ok(state)
    }

    fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        let _writing = self.lock();
        let standing = self.run(&run.tenant_id, run.kind, run.id)?;
        let Some(standing) = standing.filter(|standing| standing.state == run.state) else { return Ok(false) };
        let finished_at = to.is_final().then_some(at);
        self.write_run(&ReplayRun { state: to, finished_at, ..standing })?;
        Ok(true)
    }

    fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        let mut key = runs_of(tenant, kind);
        key.extend_from_slice(&id.to_be_bytes());
        self.get(&key)
    }

    fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        let newest_first = self.tree.scan_prefix(runs_of(tenant, kind)).values().rev().take(limit);
        self.read_all(newest_first).collect()
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.open_runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_run(&self, run: &ReplayRun) -> Result<(), CatalogError> {
        let mut key = runs_of(&run.tenant_id, run.kind);
        key.extend_from_slice(&run.id.to_be_bytes());
        // Never missing here while it stands open in the tree.
        if run.state.is_open() {
            self.open().insert(key.clone());
        }
        self.put(&key, run)?;
        if !run.state.is_open() {
            self.open().remove(&key);
        }
        Ok(())
    }
}

/// As much of a run as its being open needs.
#[derive(Deserialize)]
struct RunRow {
    state: RunState,
}

/// The keys of the runs that are open. One that cannot be read counts as open, so that whoever looks for them is told.
pub(super) fn open_in(tree: &sled::Tree) -> Result<BTreeSet<Vec<u8>>, StateError> {
    let mut open = BTreeSet::new();
    for entry in tree.scan_prefix([kind::RUN]) {
        let (key, value) = entry?;
        if serde_json::from_slice::<RunRow>(&value).map_or(true, |row| row.state.is_open()) {
            open.insert(key.to_vec());
        }
    }
    Ok(open)
}

fn runs_of(tenant: &TenantId, run: RunKind) -> Vec<u8> {
    let mut key = tenant_prefix(kind::RUN, tenant);
    key.push(match run {
        RunKind::Reconciliation => b'r',
        RunKind::Backfill => b'b',
    });
    key
}
