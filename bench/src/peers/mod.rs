//! What `dedupe` measures: the pipeline's own log of ids, and a bare file.

mod grouped;
mod ours;
mod raw;

pub(crate) use grouped::Grouped;
pub(crate) use ours::Ours;
pub(crate) use raw::Raw;

/// The first 16 bytes of a SHA-256, as the pipeline makes them.
pub(crate) type Id = [u8; 16];

/// The id of a number.
pub(crate) fn id(number: u64) -> Id {
    *model::Key::of(&["bench", &number.to_string()]).as_bytes()
}

/// As many as a caller may find in line; as in the store itself.
pub(crate) const BATCH_LIMIT: usize = 8192;

/// Something that ids can be claimed from, by any number of callers at once.
pub(crate) trait Target: Clone + Send + Sync + 'static {
    /// Whether the id was seen before; if not, makes it durable first. Measures nothing itself.
    fn claim(&self, id: Id) -> impl Future<Output = anyhow::Result<bool>> + Send;

    /// How many syncs there were so far.
    fn syncs(&self) -> u64;
}
