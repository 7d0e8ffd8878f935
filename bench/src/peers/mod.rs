//! The engines that are measured, each behind the same three calls.

mod fjall;
mod log_then_sled;
mod ours;
mod raw;
mod redb;
mod sled_synced;

use std::path::Path;
use std::sync::Arc;

pub(crate) use ours::Ours;
pub(crate) use sled_synced::SledSynced;

/// The first 16 bytes of a SHA-256, as the pipeline makes them.
pub(crate) type Id = [u8; 16];

/// The id of a number.
pub(crate) fn id(number: u64) -> Id {
    *model::Key::of(&["bench", &number.to_string()]).as_bytes()
}

/// A store of ids whose commits are made by one thread.
pub(crate) trait Engine: Send + Sync {
    /// Whether the id was committed; called by many threads.
    fn contains(&self, id: &Id) -> anyhow::Result<bool>;

    /// Makes the ids survive a power cut before it returns.
    fn commit(&self, ids: &[Id]) -> anyhow::Result<()>;

    /// Takes in the ids of numbers below `loaded`, as fast as it can.
    fn load(&self, loaded: u64) -> anyhow::Result<()>;

    /// How many commits synced so far.
    fn syncs(&self) -> u64;
}

/// Opens a peer by its name.
pub(crate) fn open(name: &str, dir: &Path) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(match name {
        "raw" => Arc::new(raw::Raw::open(dir, false)?),
        "raw-recycled" => Arc::new(raw::Raw::open(dir, true)?),
        "redb" => Arc::new(redb::Redb::open(dir)?),
        "fjall" => Arc::new(fjall::Fjall::open(dir)?),
        "sled" => Arc::new(sled_synced::SledSynced::open(dir)?),
        "log-then-sled" => Arc::new(log_then_sled::LogThenSled::open(dir)?),
        other => anyhow::bail!("no engine is called {other}"),
    })
}

/// Calls `each` with the ids of all numbers below `loaded`, `size` at a time.
pub(crate) fn in_batches(
    loaded: u64,
    size: u64,
    mut each: impl FnMut(&[Id]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    for first in (0..loaded).step_by(size as usize) {
        batch.clear();
        batch.extend((first..loaded.min(first + size)).map(id));
        each(&batch)?;
    }
    Ok(())
}
