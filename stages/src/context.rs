//! What sources and stages work with, whatever their own doors are.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::Catalog;
use flow::{FlowContext, Journal, JournalError, RetryPolicy};
use model::{ConversationKey, DeadLetter, Hop};
use runtime::Clock;

use crate::metrics::Metrics;

/// The machinery of the flow, and what all share who work for a service.
#[derive(Clone)]
pub struct Context {
    /// Runs stages.
    pub flow: FlowContext,
    /// Every metric.
    pub metrics: Metrics,
    /// The Knovvu database.
    pub catalog: Arc<dyn Catalog>,
}

impl Context {
    /// A context of its own, that knows nothing yet and runs until it is told to stop.
    pub fn new(
        clock: Clock,
        metrics: Metrics,
        catalog: Arc<dyn Catalog>,
        retry: RetryPolicy,
        concurrency: usize,
    ) -> Self {
        let flow = FlowContext::new(clock, metrics.flow.clone(), journal(&catalog), retry, concurrency);
        Self { flow, metrics, catalog }
    }

    /// The same, whose catalog is another view of it.
    #[must_use]
    pub fn with_catalog(self, catalog: Arc<dyn Catalog>) -> Self {
        let flow = FlowContext { journal: journal(&catalog), ..self.flow };
        Self { flow, catalog, ..self }
    }
}

/// The catalog, as the flow writes to it.
struct CatalogJournal(Arc<dyn Catalog>);

/// The journal that is kept in the catalog.
pub fn journal(catalog: &Arc<dyn Catalog>) -> Arc<dyn Journal> {
    Arc::new(CatalogJournal(catalog.clone()))
}

#[async_trait]
impl Journal for CatalogJournal {
    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        self.0.record_hop(key, hop).await;
    }

    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, JournalError> {
        self.0.add_dead_letter(letter).await.map_err(|error| JournalError(error.to_string()))
    }
}
