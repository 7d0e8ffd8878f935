//! Producer and consumers as processes of their own on real servers: PostgreSQL, RabbitMQ and an S3 store.
//!
//! The sizes are those of a short run; `SOAK=1` makes them those of a long one.

mod bed;
mod calls;
mod machines;
mod oracle;
mod store;
mod watch;

mod analysis;
mod budget;
mod chaos;
mod commands;
mod crash;
mod erase;
mod flow;
mod lease;
mod outages;
mod poison;
mod replays;
mod secrets;
mod tenants;

/// The size of a test: `short`, or `long` where `SOAK` is set.
fn sized(short: usize, long: usize) -> usize {
    if std::env::var_os("SOAK").is_some() { long } else { short }
}
