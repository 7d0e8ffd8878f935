//! The daemon as a process, against a simulated NICE, judged by an oracle that reads what lies on disk.

#![allow(clippy::unwrap_used, reason = "a test may panic, helpers of tests too")]

mod harness;
mod oracle;

mod agents;
mod bad_nice;
mod bad_settings;
mod bad_webhook;
mod commands;
mod crash;
mod flow;
mod secrets;
