//! NICE's JSON, read by pure functions: bytes in, our types out, and no panic whatever the bytes are.
//!
//! NICE's field names changed with the API version, scalars come as texts from old versions, payloads are
//! sometimes wrapped, and anything may be absent. So nothing here is derived: each reader names the spellings it
//! knows and [`lenient`] finds them. Only what is named is unpacked; the rest of a body is skipped without
//! building it in memory, so that a body costs little more than its own length.

pub mod contact;
pub mod directory;
pub mod extraction;
pub mod identity;
pub mod lenient;
mod plain_page;
pub mod playback;
mod rows;
pub mod session;

/// Why a body cannot be read; never with a piece of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Nothing was sent.
    #[error("NICE answered an empty body instead of JSON")]
    Empty,
    /// A page for people, from a proxy or a maintenance screen.
    #[error("NICE answered HTML instead of JSON")]
    Html,
    /// Cut off, or something else entirely.
    #[error("NICE answered a body that is not JSON")]
    NotJson,
    /// JSON, but not what was asked for.
    #[error("NICE answered JSON of an unknown shape: {0}")]
    Shape(&'static str),
    /// An id that could lead elsewhere.
    #[error("NICE answered {0} that breaks the grammar")]
    Grammar(&'static str),
}
