//! The Knovvu database in PostgreSQL: everything with SQL in it lives below this module.
//!
//! [`Database`] is the way to the server: a pool, TLS, bounded waits, and the repetition of what a lost connection
//! or a failover broke off. On it stand [`schema`] and [`PostgresCatalog`], the production side of the catalog's
//! door, and [`ProducerLease`], which keeps a tenant's second producer passive; [`nice_settings`], each tenant's way
//! to its NICE, and [`rate_budget`], which all its consumers share. [`seal`] keeps secrets in columns.
//!
//! What holds after a crash, of this process or of the server: what was answered is there, what was not answered
//! may be there. Every write goes by key and has the effect of one however often it is repeated.

mod catalog;
mod database;
mod lease;
pub mod nice_settings;
pub mod rate_budget;
pub mod schema;
pub mod seal;

pub use catalog::PostgresCatalog;
pub use database::{Database, DatabaseError, DatabaseOptions, Dedicated};
pub use lease::{Held, ProducerLease, check_session};

#[cfg(test)]
pub(crate) mod test_database;
#[cfg(test)]
pub(crate) use test_database::{TestDatabase, test_database};
