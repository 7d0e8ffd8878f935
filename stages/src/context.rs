//! What sources and stages work with, whatever their own doors are.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::Catalog;
use flow::{FlowContext, Journal, JournalError, RetryPolicy};
use model::{ConversationKey, DeadLetter, Hop};
use runtime::Clock;

use crate::metrics::Metrics;

/// The machinery of the flow, and what all parts of a service share.
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

#[cfg(test)]
mod tests {
    use catalog::EmbeddedCatalog;
    use catalog::roles::*;
    use flow::testing::event;
    use state::testing::TestState;

    use super::*;

    #[tokio::test]
    async fn a_letter_that_was_taken_is_there_after_a_crash() {
        let state = TestState::new();
        let catalog: Arc<dyn Catalog> = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
        let letter = DeadLetter::of_event(&event(1), "upload", "off the list", "2026-04-01T17:00:00Z".parse().unwrap());
        assert!(journal(&catalog).add_dead_letter(letter).await.unwrap());
        let crashed = state.crashed();
        let catalog = EmbeddedCatalog::open(crashed.state.store()).unwrap();
        let letters = catalog.dead_letters(0, 9).await.unwrap();
        assert_eq!(letters.iter().map(|letter| letter.reason.as_str()).collect::<Vec<_>>(), ["off the list"]);
    }
}
