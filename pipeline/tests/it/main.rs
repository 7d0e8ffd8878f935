//! The daemon as a process, against a simulated NICE, judged by an oracle that reads what lies on disk.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a step that fails ends the test, and its tasks")]

mod collector;
mod harness;
mod history;
mod oracle;
mod watch;

mod agent_sessions;
mod agents;
mod api;
mod bad_nice;
mod bad_settings;
mod bad_webhook;
mod commands;
mod dashboards;
mod deployment;
mod erase;
mod flow;
mod metrics_page;
mod page;
mod proof;
mod recheck;
mod replays;
mod secrets;
mod servers;
mod systemd;
mod traces;
mod webhook_sender;
