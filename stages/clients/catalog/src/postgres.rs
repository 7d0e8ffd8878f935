//! The catalog in PostgreSQL.
//!
//! Every call is one statement, and so one commit: all of it is there or nothing. What many conversations need at
//! once ([`conversations`]: state, metadata, completion) goes in batches that share it. Timestamps keep the
//! microseconds that the database has.
//!
//! Two of a conversation's commits wait for the disk: the one of its metadata, since the attempt that it begins must not
//! be forgotten, and the completing one. That of the timeline does not.

use std::sync::Arc;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::{ConversationKey, TenantId};
use tokio_postgres::{Row, types::ToSql};

use self::{
    batch::Batcher,
    conversations::{AttemptLook, BeginAttempt, Completion, SaveMetadata, StatusRequest},
    rows::parsed,
    timeline::Timeline,
    tombstones::Tombstones,
};
use crate::{Catalog, CatalogError, CurrentTurn, ProducerTurn, TombstoneKey};

mod agents;
mod analysis;
mod audit;
mod batch;
mod conversations;
mod dead_letters;
mod erasure;
mod overview;
mod readiness;
mod rows;
mod runs;
mod services;
mod text;
mod timeline;
mod tombstones;
mod turns;

impl From<DatabaseError> for CatalogError {
    fn from(error: DatabaseError) -> Self {
        Self(error.to_string())
    }
}

const TENANTS: &str = "select tenant_id from tenants order by tenant_id";

/// The Knovvu database in PostgreSQL.
#[derive(Clone)]
pub struct PostgresCatalog {
    inner: Arc<Inner>,
    /// Whose writes go through this handle.
    turn: CurrentTurn,
}

struct Inner {
    database: Database,
    tombstones: Arc<Tombstones>,
    statuses: Batcher<StatusRequest>,
    metadata: Batcher<SaveMetadata>,
    attempts: Batcher<BeginAttempt>,
    looks: Batcher<AttemptLook>,
    completions: Batcher<Completion>,
    timeline: Timeline,
}

impl PostgresCatalog {
    /// The catalog in a database whose tables are those of this executable; starts the tasks that write. Without a key
    /// of tombstones nothing can be erased, and what was is not known.
    pub fn new(database: Database, key: Option<TombstoneKey>) -> Self {
        let tombstones = Arc::new(Tombstones(key));
        let inner = Inner {
            statuses: Batcher::start(&database),
            metadata: Batcher::start(&database),
            attempts: Batcher::start(&database),
            looks: Batcher::start(&database),
            completions: Batcher::start(&database),
            timeline: Timeline::start(&database, tombstones.clone()),
            tombstones,
            database,
        };
        Self { inner: Arc::new(inner), turn: CurrentTurn::default() }
    }

    /// Fails where something was erased with another key: it would come back.
    pub async fn check_key(&self) -> Result<(), DatabaseError> {
        erasure::check_key(&self.inner.database, &self.inner.tombstones).await
    }

    /// The rows of one statement.
    async fn query(
        &self,
        what: &'static str,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, CatalogError> {
        Ok(self.inner.database.query(what, statement, parameters).await?)
    }

    /// The same of a statement that writes in a turn, which may be over.
    async fn query_in(
        &self,
        turn: Option<&ProducerTurn>,
        what: &'static str,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, CatalogError> {
        let rows = self.inner.database.query(what, statement, parameters).await;
        rows.map_err(|error| turns::failed(turn, error))
    }

    /// How many rows such a statement wrote.
    async fn execute_in(
        &self,
        turn: Option<&ProducerTurn>,
        what: &'static str,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, CatalogError> {
        let rows = self.inner.database.execute(what, statement, parameters).await;
        rows.map_err(|error| turns::failed(turn, error))
    }

    fn tombstone(&self, key: &ConversationKey) -> Vec<u8> {
        self.inner.tombstones.of(key)
    }
}

#[async_trait]
impl Catalog for PostgresCatalog {
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        Arc::new(Self { inner: self.inner.clone(), turn })
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.in_turn(self.turn.pinned())
    }

    async fn clock(&self, _now: Timestamp) -> Result<Timestamp, CatalogError> {
        erasure::clock(&self.inner.database).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        let rows = self.query("list tenants", TENANTS, &[]).await?;
        rows.iter().map(|row| parsed(row, "tenant_id")).collect()
    }

    async fn check(&self) -> Result<(), CatalogError> {
        if self.inner.database.is_at_work() {
            return Ok(());
        }
        let rows = self.query("check", "select pg_is_in_recovery()", &[]).await?;
        if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Err(CatalogError("the database is a standby and takes no writes".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
