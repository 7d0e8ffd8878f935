//! The embedded catalog passes the door's suite.

use jiff::Timestamp;
use state::testing::TestState;

use super::*;
use crate::{
    ReplayRun, RunKind, RunState,
    conformance::{Subject, catalog_checks},
    roles::*,
};

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

#[tokio::test]
async fn open_runs_are_known_again_after_a_start() {
    let (at, tenant): (Timestamp, TenantId) = ("2026-04-01T12:00:00Z".parse().unwrap(), "acme".parse().unwrap());
    let embedded = Embedded::fresh().await;
    let mut runs = Vec::new();
    for minutes in 0..3 {
        let at = at + jiff::SignedDuration::from_mins(minutes);
        let run = ReplayRun::new(tenant.clone(), RunKind::Backfill, at, at + jiff::SignedDuration::from_hours(1), at);
        let id = embedded.catalog.begin_run(&run).await.unwrap();
        runs.push(ReplayRun { id, ..run });
    }
    let done = ReplayRun { state: RunState::Done, ..runs[1].clone() };
    embedded.catalog.save_run(&done, runs[1].state).await.unwrap();
    let again = embedded.crash().await;
    for catalog in [&again.catalog, &again.catalog.clone()] {
        let open = |kind, limit| catalog.open_runs(&tenant, kind, limit);
        assert_eq!(open(RunKind::Backfill, 9).await.unwrap(), [runs[0].clone(), runs[2].clone()]);
        assert_eq!(open(RunKind::Backfill, 1).await.unwrap(), [runs[0].clone()]);
        assert_eq!(open(RunKind::Reconciliation, 9).await.unwrap(), []);
    }
}
