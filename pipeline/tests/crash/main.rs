//! The daemon is killed: at each named boundary, and at random moments. Nothing is lost, nothing is doubled.
//!
//! The boundaries are in the executable only with the feature `crash-points`, which this target requires.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a step that fails ends the test, and its tasks")]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/harness.rs"]
mod harness;
#[path = "../it/history.rs"]
mod history;
#[path = "../it/oracle.rs"]
mod oracle;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/watch.rs"]
mod watch;

mod boundaries;
mod erase;
mod proof;
mod replays;
mod servers;

/// The signal with which a boundary ends its process.
const SIGKILL: i32 = 9;
