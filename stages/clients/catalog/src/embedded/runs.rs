//! Replay runs, and what is known of the conversations that they list.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ConversationKey, ConversationState, DeadLetter, Hop, TenantId};
use runtime::task;
use serde::Deserialize;
use state::StateError;

use super::{EmbeddedCatalog, Inner, keyed, kind, read, tail_number, tenant_prefix, write};
use crate::{CatalogError, Fate, ProducerTurn, ReplayRun, RunKind, RunState, Runs};

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
        self.inner.open_runs(tenant, kind, limit)
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.inner.runs(tenant, kind, limit)
    }
}

/// As much of a conversation's row as its fate needs.
#[derive(Deserialize)]
struct FateRow {
    state: ConversationState,
    #[serde(default)]
    recordings_missing: u32,
}

/// As much of a conversation's row as a count by its start needs.
#[derive(Deserialize)]
struct StartedRow {
    started_at: Timestamp,
    state: ConversationState,
}

impl Inner {
    pub(super) fn fate(&self, key: &ConversationKey) -> Result<Fate, CatalogError> {
        if self.is_erased(key) {
            return Ok(Fate::Erased);
        }
        let row: Option<FateRow> = self.get(&keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()))?;
        if let Some(FateRow { state, recordings_missing }) = &row
            && state.is_final()
        {
            return Ok(Fate::of_row(*state, *recordings_missing));
        }
        if let Some(letter) = self.letter_of(key)? {
            return Ok(Fate::DeadLetter(letter.reason));
        }
        Ok(row.map_or(Fate::Unknown, |row| Fate::Row(row.state)))
    }

    /// The dead letter of a conversation.
    pub(super) fn letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        let letter = model::Key::of(&["conversation", key.tenant.as_str(), &key.external_id.to_string()]);
        let letter = [&[kind::DEAD_LETTER_OF], letter.as_bytes().as_slice()].concat();
        let id = self.tree.get(letter).map_err(|error| self.broken(error))?.and_then(|id| tail_number(&id));
        id.map_or(Ok(None), |id| self.get(&super::numbered(kind::DEAD_LETTER, id)))
    }

    pub(super) fn last_hop(&self, key: &ConversationKey) -> Result<Option<Hop>, CatalogError> {
        let prefix = keyed(kind::HOP, &key.tenant, key.external_id.get());
        let last = self.tree.scan_prefix(prefix).values().next_back();
        last.map(|value| read(&value.map_err(|error| self.broken(error))?)).transpose()
    }

    pub(super) async fn final_between(
        self: Arc<Self>,
        tenant: TenantId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<u64, CatalogError> {
        // Reads every row of the tenant.
        let count = task::blocking(move || {
            let mut count = 0;
            for value in self.tree.scan_prefix(tenant_prefix(kind::CONVERSATION, &tenant)).values() {
                let row: StartedRow = read(&value.map_err(|error| self.broken(error))?)?;
                count += u64::from(row.state.is_final() && row.started_at >= from && row.started_at < to);
            }
            Ok(count)
        });
        count.await.map_err(|error| CatalogError(error.to_string()))?
    }

    pub(super) fn begin_run(&self, run: &ReplayRun, turn: Option<ProducerTurn>) -> Result<u64, CatalogError> {
        let _writing = self.fenced(turn)?;
        let newest = self.runs(&run.tenant_id, run.kind, usize::MAX)?;
        if let Some(same) = newest.iter().find(|other| other.started_at == run.started_at) {
            return Ok(same.id);
        }
        let id = newest.first().map_or(0, |newest| newest.id) + 1;
        self.write_run(&ReplayRun { id, ..run.clone() })?;
        Ok(id)
    }

    pub(super) fn save_run(
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

    pub(super) fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        let _writing = self.lock();
        let standing = self.run(&run.tenant_id, run.kind, run.id)?;
        let Some(standing) = standing.filter(|standing| standing.state == run.state) else { return Ok(false) };
        let finished_at = to.is_final().then_some(at);
        self.write_run(&ReplayRun { state: to, finished_at, ..standing })?;
        Ok(true)
    }

    pub(super) fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        let mut key = runs_of(tenant, kind);
        key.extend_from_slice(&id.to_be_bytes());
        self.get(&key)
    }

    pub(super) fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        let newest_first = self.tree.scan_prefix(runs_of(tenant, kind)).values().rev().take(limit);
        newest_first.map(|value| read(&value.map_err(|error| self.broken(error))?)).collect()
    }

    pub(super) fn open_runs(
        &self,
        tenant: &TenantId,
        kind: RunKind,
        limit: usize,
    ) -> Result<Vec<ReplayRun>, CatalogError> {
        let first = runs_of(tenant, kind);
        let of_them = |key: &&Vec<u8>| key.starts_with(&first);
        let keys: Vec<_> = self.open().range(first.clone()..).take_while(of_them).cloned().collect();
        let mut open = Vec::new();
        for key in keys {
            if open.len() >= limit {
                break;
            }
            // One that ends meanwhile is listed here for a moment.
            open.extend(self.get::<ReplayRun>(&key)?.filter(|run| run.state.is_open()));
        }
        Ok(open)
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.open_runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_run(&self, run: &ReplayRun) -> Result<(), CatalogError> {
        let mut key = runs_of(&run.tenant_id, run.kind);
        key.extend_from_slice(&run.id.to_be_bytes());
        let value = write(run)?;
        // Never missing here while it stands open in the tree.
        if run.state.is_open() {
            self.open().insert(key.clone());
        }
        self.tree.insert(&key, value).map_err(|error| self.broken(error))?;
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
