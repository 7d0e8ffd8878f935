//! The producer's turns and its memory. Only one process can open the catalog; a write of a turn that is over is refused
//! all the same, for a task of it may be left in that process.

use std::sync::MutexGuard;

use model::TenantId;
use serde::{Deserialize, Serialize};

use super::{CatalogError, Counters, Inner, kind, tenant_prefix, write};
use crate::{ProducerMemory, Turn};

/// A memory on disk.
#[derive(Default, Serialize, Deserialize)]
struct Value {
    turn: u64,
    poll_watermark: Option<jiff::Timestamp>,
    held_back: u64,
    worked_since: Option<jiff::Timestamp>,
    #[serde(default)]
    rechecked_to: Option<jiff::Timestamp>,
}

impl Inner {
    /// What the producer's turns know together.
    pub(super) fn memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        let Value { turn, poll_watermark, held_back, worked_since, rechecked_to } =
            self.get(&tenant_prefix(kind::TURN, tenant))?.unwrap_or_default();
        Ok(ProducerMemory { turn, poll_watermark, held_back, worked_since, rechecked_to })
    }

    /// Keeps other writers out, unless this turn is over.
    pub(super) fn fenced(&self, turn: Option<Turn>) -> Result<MutexGuard<'_, Counters>, CatalogError> {
        let writing = self.lock();
        match turn {
            Some(turn) if self.memory(&turn.tenant)?.turn != turn.number => Err(turn.refuse()),
            _ => Ok(writing),
        }
    }

    /// Changes the memory. The next commit makes it durable.
    pub(super) fn remember(
        &self,
        tenant: &TenantId,
        turn: Option<Turn>,
        change: impl FnOnce(&mut ProducerMemory),
    ) -> Result<ProducerMemory, CatalogError> {
        let _writing = self.fenced(turn)?;
        let mut memory = self.memory(tenant)?;
        change(&mut memory);
        let ProducerMemory { turn, poll_watermark, held_back, worked_since, rechecked_to } = memory;
        let value = write(&Value { turn, poll_watermark, held_back, worked_since, rechecked_to })?;
        self.tree.insert(tenant_prefix(kind::TURN, tenant), value).map_err(|error| self.broken(error))?;
        Ok(memory)
    }
}
