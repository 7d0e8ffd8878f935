//! The denominators: append the ids, `fdatasync`, done. What was loaded is in memory only.
//!
//! `raw` appends to a file that grows. `raw-recycled` overwrites blocks that the file has already, which spares the
//! file system its journal: the fastest way there is to make bytes durable in a file, and what a write-ahead log in
//! its steady state does.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Engine, Id, id};
use crate::callers::BATCH_LIMIT;

/// The largest batch there is.
const MAX_BATCH_BYTES: u64 = (BATCH_LIMIT * size_of::<Id>()) as u64;

/// What `raw-recycled` writes in turn; as much as its file ever takes.
const RING_BYTES: u64 = 64 * 1024 * 1024;

/// A file of ids.
pub(crate) struct Raw {
    log: Log,
    loaded: RwLock<HashSet<Id>>,
    syncs: AtomicU64,
}

/// A file that ids are appended to.
pub(super) struct Log {
    file: File,
    at: AtomicU64,
    ring: bool,
}

impl Log {
    /// A log that grows, or one that begins anew in the blocks it has.
    pub(super) fn create(dir: &Path, ring: bool) -> anyhow::Result<Self> {
        let mut file = File::create(dir.join("ids"))?;
        if ring {
            let zeros = vec![0; 1024 * 1024];
            for _ in 0..RING_BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_all()?;
        }
        Ok(Self { file, at: AtomicU64::new(0), ring })
    }

    /// Appends and syncs; called by one thread. True when a ring is full and the next append begins anew.
    pub(super) fn append(&self, ids: &[Id]) -> anyhow::Result<bool> {
        let bytes = ids.as_flattened();
        let at = self.at.load(Ordering::Relaxed);
        self.file.write_all_at(bytes, at)?;
        self.file.sync_data()?;
        let next = at + bytes.len() as u64;
        let full = self.ring && next + MAX_BATCH_BYTES > RING_BYTES;
        self.at.store(if full { 0 } else { next }, Ordering::Relaxed);
        Ok(full)
    }
}

impl Raw {
    pub(crate) fn open(dir: &Path, ring: bool) -> anyhow::Result<Self> {
        Ok(Self { log: Log::create(dir, ring)?, loaded: RwLock::default(), syncs: AtomicU64::new(0) })
    }
}

impl Engine for Raw {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.loaded.read().unwrap_or_else(PoisonError::into_inner).contains(id))
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        self.log.append(ids)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn load(&self, loaded: u64) -> anyhow::Result<()> {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).extend((0..loaded).map(id));
        Ok(())
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
