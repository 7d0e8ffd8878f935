//! The denominator: append the ids, `fdatasync`, done. What was loaded is in memory only.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Engine, Id, id};

/// A file of ids.
pub(crate) struct Raw {
    file: File,
    loaded: RwLock<HashSet<Id>>,
    syncs: AtomicU64,
}

impl Raw {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(dir.join("ids"))?;
        Ok(Self { file, loaded: RwLock::default(), syncs: AtomicU64::new(0) })
    }
}

impl Engine for Raw {
    fn contains(&self, id: &Id) -> anyhow::Result<bool> {
        Ok(self.loaded.read().unwrap_or_else(PoisonError::into_inner).contains(id))
    }

    fn commit(&self, ids: &[Id]) -> anyhow::Result<()> {
        (&self.file).write_all(ids.as_flattened())?;
        self.file.sync_data()?;
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
