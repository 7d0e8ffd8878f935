//! What `dedupe` measures: the pipeline's own log of ids, and a bare file.

mod ours;
mod raw;

pub(crate) use ours::Ours;
pub(crate) use raw::Raw;

/// The first 16 bytes of a SHA-256, as the pipeline makes them.
pub(crate) type Id = [u8; 16];

/// The id of a number.
pub(crate) fn id(number: u64) -> Id {
    *model::Key::of(&["bench", &number.to_string()]).as_bytes()
}
