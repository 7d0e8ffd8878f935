//! The catalog passes the door's suite on a real server, as the roles of the services.

use super::*;
use crate::clients::catalog::conformance::{Subject, catalog_checks};
use crate::clients::postgres::test_database::TestDatabase;

mod analysis;
mod faults;
mod roles;
mod sample;

/// The catalog as a service has it.
fn catalog_of(database: Database) -> PostgresCatalog {
    PostgresCatalog::new(database, Some(TombstoneKey::derived(&[7; 32])))
}

struct Postgres {
    database: Database,
    catalog: PostgresCatalog,
}

impl Subject for Postgres {
    async fn fresh() -> Self {
        let database = TestDatabase::on(test_servers::postgres().await).await.member("test_services");
        Self { catalog: catalog_of(database.clone()), database }
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.catalog.clone())
    }

    /// What the process had in memory is gone.
    async fn crash(self) -> Self {
        let Self { database, catalog } = self;
        assert_eq!(Arc::strong_count(&catalog.inner), 1, "no caller holds on to the dead process");
        drop(catalog);
        Self { catalog: catalog_of(database.clone()), database }
    }

    async fn settle(&self) {
        let age = "update erasures set asked_at = asked_at - interval '7 hours' where done_at is null";
        self.database.client().await.unwrap().batch_execute(age).await.unwrap();
    }
}

catalog_checks!(Postgres);
