//! The turns of a tenant's producers, and what they know together.
//!
//! One producer of a tenant works at a time. Each begins its turn in the catalog, and what it writes carries the turn's
//! number: once another turn has begun, a write of the one before is refused, however long it was on its way. A handle
//! of the catalog says whose writes go through it ([`Catalog::in_turn`](super::Catalog::in_turn)), so that nobody who
//! works in a turn can forget it. An operator's handle has no turn, and is never refused.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use model::TenantId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::CatalogError;

/// The turns of a tenant's producers, and what they know together.
#[async_trait]
pub trait ProducerTurns: Send + Sync + 'static {
    /// Begins a turn of the tenant's producer, and returns its number: higher than that of every turn before. Durable
    /// once it returns; what a turn before still writes is refused from then on.
    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError>;

    /// What the tenant's producers know together. Reading it needs no turn.
    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError>;

    /// Moves the poll's watermark forward, if it was held back `held_back` times so far, or whatever was with none;
    /// and returns what is known then. An earlier time than it has moves nothing. A catalog with a clock of its own
    /// never moves it beyond that. Durable once it returns.
    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError>;

    /// Holds the poll's watermark back: moves it to `to` if it stands behind that, and counts. One that was never moved
    /// is only counted. Durable once it returns.
    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError>;

    /// Notes since when the tenant is worked for. The earliest time counts; one beyond the catalog's own clock is
    /// never noted. Durable once it returns.
    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError>;

    /// Notes up to which start of a call the nightly run has looked once more at those that lack recordings. An earlier
    /// time than it is noted changes nothing. Durable once it returns.
    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError>;
}

/// A producer's turn; clones share whether it was refused.
#[derive(Debug, Clone)]
pub struct ProducerTurn {
    /// Whose calls are found.
    pub tenant: TenantId,
    /// Higher than that of every turn before.
    pub number: u64,
    refused: CancellationToken,
}

impl ProducerTurn {
    /// The turn of this number.
    pub fn new(tenant: TenantId, number: u64) -> Self {
        Self { tenant, number, refused: CancellationToken::new() }
    }

    /// Resolves once a write of this turn was refused, for another turn has begun.
    pub async fn refused(&self) {
        self.refused.cancelled().await;
    }

    /// Notes that a write was refused, and says so the first time.
    pub(crate) fn refuse(&self) -> CatalogError {
        if !self.refused.is_cancelled() {
            self.refused.cancel();
            tracing::warn!(
                tenant = %self.tenant,
                turn = self.number,
                "another producer has begun a turn of the tenant, what this one writes is refused from now on"
            );
        }
        CatalogError(format!("turn {} of the producer is over: another one has begun", self.number))
    }
}

/// The turn in which a part of the process works at present; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CurrentTurn(Arc<Mutex<Option<ProducerTurn>>>);

impl CurrentTurn {
    /// For what works in one turn and no other.
    pub fn only(turn: &ProducerTurn) -> Self {
        let current = Self::default();
        current.set(Some(turn.clone()));
        current
    }

    /// Begins a turn. One that is over stays until the next: its late writes are refused once another has begun.
    pub fn set(&self, turn: Option<ProducerTurn>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }

    /// For what works in the turn of now, and in no later one.
    pub fn pinned(&self) -> Self {
        Self(Arc::new(Mutex::new(self.get())))
    }

    /// The turn; none where an operator works.
    pub fn get(&self) -> Option<ProducerTurn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the tenant's producers know together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerMemory {
    /// The number of the last turn that was begun; 0 before the first.
    pub turn: u64,
    /// Up to where the poll has found everything; none before it was first moved.
    pub poll_watermark: Option<Timestamp>,
    /// How often the watermark was held back.
    pub held_back: u64,
    /// When the tenant was first worked for.
    pub worked_since: Option<Timestamp>,
    /// Calls that began before lack recordings that the nightly run has looked for once more.
    #[serde(default)]
    pub rechecked_to: Option<Timestamp>,
}
