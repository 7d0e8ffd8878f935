//! The learned delay of first looks, as the consumers share it.

use std::time::Duration;

use async_trait::async_trait;
use model::TenantId;

use crate::CatalogError;

/// What was learned of the first look for a recording.
#[async_trait]
pub trait FirstLooks: Send + Sync + 'static {
    /// Adds what a consumer learned of the tenant's first looks since it wrote last ([`Lessons`]), and gives what is
    /// known then. A hint, not durable at once: a call that is repeated counts twice.
    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError>;

    /// The learned delay of the tenant's first looks; none before the first time.
    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError>;
}

/// What the consumers know together of a tenant's recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedDelay {
    /// How long after its end a call is looked at first.
    pub first_look: Duration,
    /// The same as it stood for days.
    pub usual: Duration,
    /// The time in which recordings were found.
    pub learned_for: Duration,
    /// Recordings that were found, roughly.
    pub found: u64,
}

impl LearnedDelay {
    /// Of a catalog that knew nothing but the delay: it stood for days.
    pub fn of_before(first_look: Duration) -> Self {
        Self { first_look, usual: first_look, learned_for: Duration::from_secs(72 * 3600), found: 1000 }
    }
}

/// What a consumer learned since it wrote last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lessons {
    /// By what the delay is multiplied. It becomes longer only up to the consumer's own, for what several learned of
    /// the same calls is one thing.
    pub factor: f64,
    /// Whether early looks showed that it may be as short as the consumer's own: then it becomes no longer than that,
    /// and the factor does not count.
    pub shortened: bool,
    /// What the consumer knows.
    pub own: LearnedDelay,
}
