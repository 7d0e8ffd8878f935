//! The embedded catalog passes the door's suite.

use super::*;
use crate::clients::catalog::conformance::{Subject, catalog_checks};
use crate::clients::test_state::TestState;

struct Embedded {
    state: TestState,
    catalog: EmbeddedCatalog,
}

impl Embedded {
    fn open(state: TestState) -> Self {
        let catalog = EmbeddedCatalog::open(state.state.store()).unwrap();
        Self { state, catalog }
    }
}

impl Subject for Embedded {
    async fn fresh() -> Self {
        Self::open(TestState::new())
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.catalog.clone())
    }

    async fn crash(self) -> Self {
        Self::open(self.state.crashed())
    }
}

catalog_checks!(Embedded);
