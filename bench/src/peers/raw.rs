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

use super::{BATCH_LIMIT, Id, id};

/// The largest batch there is.
const MAX_BATCH_BYTES: u64 = (BATCH_LIMIT * size_of::<Id>()) as u64;

/// What `raw-recycled` writes in turn; as much as its file ever takes.
const RING_BYTES: u64 = 64 * 1024 * 1024;

/// A file that ids are appended to.
pub(crate) struct Raw {
    file: File,
    at: AtomicU64,
    ring: bool,
    loaded: RwLock<HashSet<Id>>,
    syncs: AtomicU64,
}

impl Raw {
    /// A file that grows, or one that begins anew in the blocks it has.
    pub(crate) fn open(dir: &Path, ring: bool) -> anyhow::Result<Self> {
        let mut file = File::create(dir.join("ids"))?;
        if ring {
            let zeros = vec![0; 1024 * 1024];
            for _ in 0..RING_BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_all()?;
        }
        Ok(Self { file, at: AtomicU64::new(0), ring, loaded: RwLock::default(), syncs: AtomicU64::new(0) })
    }

    /// Whether the id was loaded; called by many threads.
    pub(crate) fn contains(&self, id: &Id) -> bool {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Makes the ids survive a power cut before it returns; called by one thread.
    pub(crate) fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        let bytes = ids.as_flattened();
        let at = self.at.load(Ordering::Relaxed);
        self.file.write_all_at(bytes, at)?;
        self.file.sync_data()?;
        let next = at + bytes.len() as u64;
        let is_full = self.ring && next + MAX_BATCH_BYTES > RING_BYTES;
        self.at.store(if is_full { 0 } else { next }, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes in the ids of numbers below `loaded`.
    pub(crate) fn load(&self, loaded: u64) {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).extend((0..loaded).map(id));
    }

    /// How many commits synced so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
