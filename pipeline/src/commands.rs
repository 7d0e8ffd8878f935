//! The commands of an operator that are more than one request, and those that ask no daemon.

mod agents;
mod check;
mod config;
mod database;
mod dead_letters;
mod man;
mod queue;
mod replays;
mod report;
mod status;
mod verify;

pub(crate) use agents::agents;
pub(crate) use check::check;
pub(crate) use config::config;
pub(crate) use database::{migrate, settings};
pub(crate) use dead_letters::dead_letters;
pub(crate) use man::man;
pub(crate) use queue::queue;
pub(crate) use replays::{backfill, reconcile};
pub(crate) use report::report;
pub(crate) use status::status;
pub(crate) use verify::verify;
