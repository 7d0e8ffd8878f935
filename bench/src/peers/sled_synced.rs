//! sled as most people use it: a key an id; flush and a real `fdatasync` a batch.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Engine, Id, in_batches};

/// A tree of ids.
pub(crate) struct SledSynced {
    database: sled::Db,
    file: File,
    syncs: AtomicU64,
}

impl SledSynced {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("sled");
        let config = sled::Config::new().path(&path).cache_capacity(1024 * 1024 * 1024);
        let database = config.flush_every_ms(None).open()?;
        let file = File::open(path.join("db"))?;
        Ok(Self { database, file, syncs: AtomicU64::new(0) })
    }
}

impl Engine for SledSynced {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.database.contains_key(id)?)
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        for id in ids {
            self.database.insert(id, &[])?;
        }
        self.database.flush()?;
        self.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn load(&self, loaded: u64) -> anyhow::Result<()> {
        in_batches(loaded, 100_000, |ids| self.commit(ids))
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
