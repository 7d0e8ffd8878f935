//! Producer and consumers as processes of their own on real servers: PostgreSQL, RabbitMQ or Fluvio, and an S3 store.
//!
//! The sizes are those of a short run; `SOAK=1` makes them those of a long one.

mod bed;
mod calls;
mod faults;
mod machines;
mod oracle;
mod status;
mod store;
mod watch;

mod analysis;
mod budget;
mod chaos;
mod commands;
mod dashboards;
mod erase;
mod flow;
mod fluvio;
mod lease;
mod outages;
mod poison;
mod replays;
mod secrets;
mod tenants;
mod traces;

use crate::harness::sized;
