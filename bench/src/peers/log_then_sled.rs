//! The other way to make sled durable: a small log of our own is synced first, sled follows without a flush.
//!
//! Measured against the store's way (flush, then `fdatasync` of sled's file). The log is emptied once sled itself
//! is durable; the ids stay in memory as in the store, and sled gets one block a batch as well.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::raw::Log;
use super::{Engine, Id, in_batches};

/// A log of ids with sled behind it.
pub(crate) struct LogThenSled {
    log: Log,
    database: sled::Db,
    file: File,
    ids: RwLock<HashSet<Id>>,
    blocks: AtomicU64,
    syncs: AtomicU64,
}

impl LogThenSled {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("sled");
        let config = sled::Config::new().path(&path).cache_capacity(32 * 1024 * 1024);
        let database = config.flush_every_ms(None).open()?;
        let file = File::open(path.join("db"))?;
        Ok(Self {
            log: Log::create(dir, true)?,
            database,
            file,
            ids: RwLock::default(),
            blocks: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        })
    }

    fn to_sled(&self, ids: &[Id]) -> anyhow::Result<()> {
        for block in ids.chunks(256) {
            let number = self.blocks.fetch_add(1, Ordering::Relaxed);
            self.database.insert(number.to_be_bytes(), block.as_flattened())?;
        }
        self.ids.write().unwrap_or_else(PoisonError::into_inner).extend(ids);
        Ok(())
    }

    fn checkpoint(&self) -> anyhow::Result<()> {
        self.database.flush()?;
        self.file.sync_data()?;
        Ok(())
    }
}

impl Engine for LogThenSled {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.ids.read().unwrap_or_else(PoisonError::into_inner).contains(id))
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        let full = self.log.append(ids)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.to_sled(ids)?;
        if full {
            self.checkpoint()?; // before the log begins anew
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn load(&self, loaded: u64) -> anyhow::Result<()> {
        in_batches(loaded, 65_536, |ids| self.to_sled(ids))?;
        self.checkpoint()
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
