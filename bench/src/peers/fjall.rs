//! fjall: an LSM tree; one batch with `SyncData` a commit.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Id, in_batches};

/// More than the whole of ten million ids: reads never go to the disk.
const CACHE_BYTES: u64 = 1024 * 1024 * 1024;

/// A keyspace of ids.
pub(crate) struct Fjall {
    database: Database,
    ids: Keyspace,
    syncs: AtomicU64,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(dir.join("fjall")).cache_size(CACHE_BYTES).open()?;
        let ids = database.keyspace("ids", KeyspaceCreateOptions::default)?;
        Ok(Self { database, ids, syncs: AtomicU64::new(0) })
    }

    fn write(&self, ids: &[Id], persist: Option<PersistMode>) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(persist);
        for id in ids {
            batch.insert(&self.ids, *id, "");
        }
        batch.commit()?;
        Ok(())
    }
}

impl Engine for Fjall {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.ids.contains_key(id)?)
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        self.write(ids, Some(PersistMode::SyncData))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn load(&self, loaded: u64) -> anyhow::Result<()> {
        in_batches(loaded, 100_000, |ids| self.write(ids, None))?;
        self.ids.rotate_memtable_and_wait()?;
        self.ids.major_compact()?;
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
