//! What happens to a conversation, one file per step, in the order of the flow.
//!
//! ```text
//!  source ─► dedupe ─► enqueue ─► (queue) ─► dequeue ─► await_recording ─► fetch_metadata
//!         ─► download_recording ─► persist ─► upload
//! ```
//!
//! A stage is one asynchronous function of one item. Tasks, channels, concurrency, retry, spans, metrics and
//! dead letters are written once, in [`flow`]. Every outside system stands behind a narrow door in [`clients`].

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

pub mod source;

pub mod dedupe;

pub mod enqueue;

pub mod dequeue;

pub mod await_recording;

pub mod fetch_metadata;

pub mod download_recording;

pub mod recorded;

pub mod persist;

pub mod upload;

pub mod sync_agents;

pub mod watermark;

pub mod erase;

pub mod shelf;

pub mod recheck;

pub mod prune_analysis;

pub mod verify;

pub mod completeness;
mod context;
pub mod metrics;
pub mod readiness;
pub mod serve;
pub mod tenants;
#[cfg(test)]
mod test_kill;
#[cfg(test)]
pub(crate) mod testing;

pub use context::{Context, journal};
