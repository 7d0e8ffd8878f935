//! That the servers keep what tests rely on: they answer, come back with their data, and leave nothing behind.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the test")]

mod end;
mod fluvio;
mod postgres;
mod proxy;
mod rabbitmq;
mod s3;
