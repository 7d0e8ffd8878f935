//! The producer's turns and its memory. Only one process can open the catalog; a write of a turn that is over is
//! refused all the same, for a task of it may be left in that process.

use std::sync::MutexGuard;

use async_trait::async_trait;
use jiff::Timestamp;
use model::TenantId;

use super::{EmbeddedCatalog, Inner, WriteState, kind, tenant_prefix};
use crate::{CatalogError, ProducerMemory, ProducerTurn, ProducerTurns};

#[async_trait]
impl ProducerTurns for EmbeddedCatalog {
    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError> {
        let begun = self.inner.remember(tenant, None, |memory| memory.turn += 1)?;
        self.inner.commit().await?;
        Ok(begun.turn)
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        self.inner.memory(tenant)
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            if held_back.is_none_or(|times| times == memory.held_back) {
                memory.poll_watermark = memory.poll_watermark.max(Some(to));
            }
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.poll_watermark = memory.poll_watermark.map(|at| at.min(to));
            memory.held_back += 1;
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.worked_since = Some(memory.worked_since.map_or(at, |since| since.min(at)));
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.rechecked_to = memory.rechecked_to.max(Some(to));
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }
}

impl Inner {
    /// What the producer's turns know together.
    pub(super) fn memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        Ok(self.get(&tenant_prefix(kind::TURN, tenant))?.unwrap_or_default())
    }

    /// Keeps other writers out, unless this turn is over.
    pub(super) fn fenced(&self, turn: Option<ProducerTurn>) -> Result<MutexGuard<'_, WriteState>, CatalogError> {
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
        turn: Option<ProducerTurn>,
        change: impl FnOnce(&mut ProducerMemory),
    ) -> Result<ProducerMemory, CatalogError> {
        let _writing = self.fenced(turn)?;
        let mut memory = self.memory(tenant)?;
        change(&mut memory);
        self.put(&tenant_prefix(kind::TURN, tenant), &memory)?;
        Ok(memory)
    }
}
