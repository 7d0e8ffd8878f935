//! What tests of stages share: a context on a local state of its own.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::{Catalog, EmbeddedCatalog};
use flow::{
    Delivery,
    testing::{Fates, Shelf, clock, retry_policy},
};
use model::ContactEvent;
use state::testing::TestState;

use crate::Context;
use crate::metrics::Metrics;

/// A context, and the state under its catalog.
pub(crate) struct TestFlow {
    pub(crate) state: TestState,
    pub(crate) context: Context,
}

impl TestFlow {
    /// With this many items at a time in each stage.
    pub(crate) fn new(concurrency: usize) -> Self {
        let state = TestState::new();
        let catalog = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
        let context = Context::new(clock(), Metrics::new(), catalog, retry_policy(), concurrency);
        Self { state, context }
    }

    /// How many items a stage has finished with in this way.
    pub(crate) fn finished(&self, stage: &str, outcome: &str) -> u64 {
        self.context.metrics.flow.stage_items.with_label_values(&[stage, outcome]).get()
    }

    /// A delivery that tells its fate. At its acknowledgement it notes how many dead letters stand by then.
    pub(crate) fn delivery(&self, fates: &Fates, event: ContactEvent) -> Delivery {
        fates.delivery(event, &Arc::new(CatalogShelf(self.context.catalog.clone())))
    }
}

struct CatalogShelf(Arc<dyn Catalog>);

#[async_trait]
impl Shelf for CatalogShelf {
    async fn shelved(&self) -> usize {
        self.0.dead_letters(0, usize::MAX).await.unwrap().len()
    }
}
