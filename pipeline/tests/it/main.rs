//! The daemon as a process, against a simulated NICE, judged by an oracle that reads what lies on disk.

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
