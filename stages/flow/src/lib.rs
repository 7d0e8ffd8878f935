//! The machinery of the flow, written once. A stage does not spawn tasks, sleep, count its items or own a channel.
//!
//! - [`stage`]: the [`Stage`] trait.
//! - [`run`]: [`FlowExt::through`] runs a stage over a stream of deliveries.
//! - `settle`: what becomes of an item that a stage has worked on.
//! - [`context`]: what every stage runs with.
//! - [`delivery`]: an item and the duty to settle it once.
//! - [`retry`]: intervals with jitter, and the steps of a recording that is not ready.
//! - [`blame`]: whether a failure counts against its call.
//! - [`outside`]: whether the systems that every call needs answer.
//! - [`fair_share`]: whose turn it is, among tenants.
//! - [`copies`]: only one of several copies of a message goes on.
//! - [`freshness`]: how far the consumer is behind.
//! - [`traced`]: the spans of an item.
//! - [`error`]: what an error asks for.
//! - [`journal`]: where it is written down what became of an item.
//! - [`record`]: what is written down of an item, wherever it ends.
//! - [`metrics`]: what is counted of every stage.
//!
//! It knows items and no door: an error names the system that failed by [`model::System`].

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

pub mod blame;
pub mod context;
pub mod copies;
pub mod delivery;
pub mod error;
pub mod fair_share;
pub mod freshness;
pub mod journal;
pub mod metrics;
pub mod outside;
pub mod record;
pub mod retry;
pub mod run;
mod settle;
pub mod stage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod traced;

pub use blame::Blame;
pub use context::FlowContext;
pub use copies::Copies;
pub use delivery::{Again, Deferral, Delivery, Hold};
pub use error::{Outcome, StageError};
pub use fair_share::FairShare;
pub use freshness::Freshness;
pub use journal::{Journal, JournalError};
pub use metrics::FlowMetrics;
pub use outside::Outside;
pub use record::Ending;
pub use retry::RetryPolicy;
pub use run::{Flow, FlowExt};
pub use stage::Stage;
