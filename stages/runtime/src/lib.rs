//! What every layer needs and a test can move: the time, chance, and tasks.
//!
//! - [`clock`]: the wall clock, or one that a test sets.
//! - [`chance`]: chance, so that a simulation can repeat it.
//! - [`crash`]: named boundaries at which a test kills the process.
//! - [`task`]: tasks that end with their owner.
//! - [`mod@metrics`]: counters and gauges, a struct for each part of the program.
//! - [`single_flight`]: one caller fetches what many wait for.
//! - [`traces`]: spans for a collector of traces, or nothing.
//! - [`machine`]: simulated machines, which stop at once with all that runs on them.
//!
//! It knows nothing of calls, and everything else may know it.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

pub mod chance;
pub mod clock;
pub mod crash;
pub mod machine;
pub mod metrics;
pub mod outage;
pub mod single_flight;
pub mod task;
pub mod traces;

pub use clock::{Clock, ClockSkew};
pub use machine::Machine;
pub use outage::Outage;
pub use traces::TraceSpan;
