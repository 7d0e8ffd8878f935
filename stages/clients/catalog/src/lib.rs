//! The door to the catalog, the Knovvu database: agents, conversations, dead letters, the timeline.
//!
//! Every write is repeatable: the same call twice has the effect of one. A call that failed may have had its
//! effect; the caller repeats it. The key is always (tenant, integration type, external id).

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Asks, DoorError, System, TenantId};

mod analysis;
mod attempts;
mod audit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod conversations;
mod dead_letters;
mod embedded;
mod erasure;
mod group;
mod lacking;
mod overview;
mod postgres;
mod readiness;
mod runs;
mod services;
mod timeline;
mod turns;

pub use analysis::{AnalysisCounts, AnalysisEntry, AnalysisQueue};
pub use attempts::{Attempt, AttemptKind};
pub use audit::{Audits, OperatorAct};
pub use conversations::{ConversationCounts, ConversationRow, Conversations, Recorded, RecordingRow};
pub use dead_letters::{DayOfLetters, DeadLetterFilter, DeadLetterGroup, DeadLetters, MOST_GROUPED, reason_shape};
pub use embedded::EmbeddedCatalog;
pub use erasure::{
    ConversationStatus, ErasedRows, Erasure, Erasures, Expired, RecordingLocation, RetentionTurn, SETTLED, Tombstone,
    TombstoneKey,
};
pub use group::{Agents, GroupStanding, HeldReading};
pub use lacking::Lacking;
pub use overview::{ConversationFilter, DayCounts, FoundConversation, Overviews};
pub use postgres::PostgresCatalog;
pub use readiness::{FirstLooks, LearnedDelay, Lessons};
pub use runs::{Fate, ReplayRun, RowCount, RunKind, RunState, Runs, Tallied};
pub use services::{FORGOTTEN_AFTER, Heartbeat, KnownService, Services};
pub use timeline::Timelines;
pub use turns::{CurrentTurn, ProducerMemory, ProducerTurn, ProducerTurns};

/// Every role, for who calls their methods on a catalog of a type of its own: a test, mostly.
pub mod roles {
    pub use crate::{
        Agents, AnalysisQueue, Audits, Catalog, Conversations, DeadLetters, Erasures, FirstLooks, Overviews,
        ProducerTurns, Runs, Services, Timelines,
    };
}

/// The catalog could not do what was asked; whether it did is unknown, and repeating is harmless.
#[derive(Debug, Clone, thiserror::Error)]
#[error("catalog: {0}")]
pub struct CatalogError(pub String);

impl DoorError for CatalogError {
    fn asks(&self) -> Asks {
        match self.is_overtaken() {
            true => Asks::Overtaken,
            false => Asks::Again { system: System::Catalog, retry_after: None },
        }
    }
}

/// The Knovvu database: all of its roles. Who needs one of them is handed that one.
#[async_trait]
pub trait Catalog:
    Agents
    + Conversations
    + DeadLetters
    + Timelines
    + AnalysisQueue
    + Runs
    + ProducerTurns
    + FirstLooks
    + Erasures
    + Services
    + Audits
    + Overviews
    + Send
    + Sync
    + 'static
{
    /// The same catalog for what works in the producer's turn that is current when it writes: agents, the reading of
    /// the group, runs, dead letters and the producer's memory. Once another turn has begun, such a write is refused.
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog>;

    /// The same catalog for work that ends with the turn of now: it does not write in a later one.
    fn pinned(&self) -> Arc<dyn Catalog>;

    /// The time by the catalog's own clock, or `now` where it has none.
    async fn clock(&self, now: Timestamp) -> Result<Timestamp, CatalogError> {
        Ok(now)
    }

    /// The tenants that the catalog knows; none where it holds no table of them.
    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        Ok(Vec::new())
    }

    /// Whether the catalog answers.
    async fn check(&self) -> Result<(), CatalogError>;
}
