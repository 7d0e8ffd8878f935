//! The way to the Knovvu database in PostgreSQL, for those who have SQL: a pool, TLS, bounded waits, and the repetition
//! of what a lost connection or a failover broke off.
//!
//! On [`Database`] stand [`schema`], and [`ProducerLease`], which keeps a tenant's second producer passive. The
//! catalog, the rate budgets and the settings of tenants have their own SQL.
//!
//! What holds after a crash, of this process or of the server: what was answered is there, what was not answered
//! may be there. Every write goes by key and has the effect of one however often it is repeated.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

mod connector;
mod database;
mod error;
mod lease;
pub mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod url;

pub use database::{Database, DatabaseOptions, Dedicated};
pub use error::DatabaseError;
pub use lease::{HeldLease, ProducerLease, check_session};
