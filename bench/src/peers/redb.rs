//! redb: a copy-on-write B-tree; one durable transaction a batch.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Engine, Id, in_batches};

const IDS: TableDefinition<'_, Id, ()> = TableDefinition::new("ids");

/// More than the whole of ten million ids: reads never go to the disk.
const CACHE_BYTES: usize = 1024 * 1024 * 1024;

/// A table of ids.
pub(crate) struct Redb {
    database: Database,
    syncs: AtomicU64,
}

impl Redb {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb"))?;
        let redb = Self { database, syncs: AtomicU64::new(0) };
        redb.write(&[], Durability::Immediate)?;
        Ok(redb)
    }

    fn write(&self, ids: &[Id], durability: Durability) -> anyhow::Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        let mut table = transaction.open_table(IDS)?;
        for id in ids {
            table.insert(id, ())?;
        }
        drop(table);
        transaction.commit()?;
        Ok(())
    }
}

impl Engine for Redb {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.database.begin_read()?.open_table(IDS)?.get(id)?.is_some())
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        // In order, neighbours share pages.
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        self.write(&ids, Durability::Immediate)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn load(&self, loaded: u64) -> anyhow::Result<()> {
        in_batches(loaded, 1_000_000, |ids| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            self.write(&ids, Durability::Immediate)
        })
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
