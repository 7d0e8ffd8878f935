//! What happens to a conversation, one file per step, in the order of the flow.
//!
//! ```text
//!  source ─► dedupe ─► enqueue ─► (queue) ─► dequeue ─► await_recording ─► fetch_metadata
//!         ─► download_recording ─► persist ─► upload
//! ```
//!
//! A stage is one asynchronous function of one item. Tasks, channels, concurrency, retry, spans and dead letters are
//! written once, in [`flow`]. Every outside system stands behind a door of its own: [`nice`], [`queue`], [`catalog`],
//! [`recordings`], [`quota`].
//!
//! - The flow: [`source`], [`dedupe`], [`enqueue`], [`dequeue`], [`await_recording`], [`fetch_metadata`],
//!   [`download_recording`], [`persist`], [`upload`].
//! - Beside it: [`sync_agents`] keeps the agents in step, [`recheck`] brings in what comes late, [`shelf`] sends letters
//!   of passing causes back, [`erase`] and [`prune_analysis`] remove, [`verify`] reads back what is stored.
//! - What they share: [`Context`], [`items`], [`tenants`], [`readiness`], [`watermark`], [`completeness`], [`metrics`].

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

pub mod source;

pub mod dedupe;

pub mod enqueue;

pub mod dequeue;

pub mod await_recording;

pub mod fetch_metadata;

pub mod download_recording;

pub mod persist;

pub mod upload;

// Beside the flow.

pub mod erase;
pub mod prune_analysis;
pub mod recheck;
pub mod shelf;
pub mod sync_agents;
pub mod verify;

// What they share.

pub mod completeness;
mod context;
pub mod items;
pub mod metrics;
pub mod readiness;
pub mod serve;
pub mod tenants;
pub mod watermark;

#[cfg(test)]
mod test_kill;
#[cfg(test)]
pub(crate) mod testing;

pub use context::{Context, journal};
