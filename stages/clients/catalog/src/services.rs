//! The services that run, and what each last said of itself.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::TenantId;
use serde::{Deserialize, Serialize};

use crate::CatalogError;

/// A service that was silent for so long is forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The services that run, and what each last said of itself.
#[async_trait]
pub trait Services: Send + Sync + 'static {
    /// Notes that a service is there, and what it says of itself. The time is that of the catalog's clock, or `now` where
    /// it has none.
    async fn enlist(&self, beat: &Heartbeat, now: Timestamp) -> Result<(), CatalogError>;

    /// The next word of a service that was noted; whether it still is. One that has retired or was forgotten is not
    /// noted again, so that a word that comes late brings nobody back.
    async fn beat(&self, beat: &Heartbeat, now: Timestamp) -> Result<bool, CatalogError>;

    /// The services that were heard of in the last day, the latest first, at most `limit`.
    async fn services(&self, now: Timestamp, limit: usize) -> Result<Vec<KnownService>, CatalogError>;

    /// A service has ended in order: nobody misses it.
    async fn retire(&self, id: &str) -> Result<(), CatalogError>;
}

/// What a service says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Chosen anew at each start.
    pub id: String,
    /// `run`, `producer` or `consumer`.
    pub service: String,
    /// Whose producer it is; none where it serves every tenant.
    pub tenant: Option<TenantId>,
    /// The machine that it runs on.
    pub host: String,
    /// Its version.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How it stands.
    pub report: serde_json::Value,
}

/// A service, and when it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownService {
    /// What it last said.
    pub beat: Heartbeat,
    /// For how long it has been silent.
    pub silent_for: Duration,
}
