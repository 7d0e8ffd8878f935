//! The rate budget towards NICE: written once, kept in the local state or in PostgreSQL.
//!
//! ```text
//! who asks NICE ─► Gate ─► Store ─► Budget::turn(clock, …) ─► granted | not before T
//!                  one a process   sled, or one row          pure: no I/O, no clock, no chance
//! ```
//!
//! A limit of `150/5m` means: never more than 150 requests in any 5 minutes. A request counts from the moment its
//! grant is saved, before it leaves, until a whole window after its answer; so neither a crash nor a slow connection
//! spends the window twice. There is one budget for each NICE tenant and API family, whatever the number of Knovvu
//! tenants and processes that draw on it.
//!
//! - [`terms`](Terms): the limit, and what each class may count on.
//! - [`request`](BudgetRequest): what a process asks, and what it is told.
//! - [`budget`](Budget): who is granted what, and when the others may ask again.
//! - `restraint`: what a refusal (429) teaches, and how it is forgotten.
//! - [`gate`](QuotaGate): the line of those who wait in this process, and the task that asks for them.
//! - [`store`](BudgetStore): load, let the budget decide, save.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

mod budget;
mod gate;
mod keeper;
mod local;
mod metrics;
mod permit;
mod postgres;
mod registry;
mod request;
mod restraint;
mod store;
mod terms;
mod usage;
mod window;

pub use budget::Budget;
pub use gate::QuotaGate;
pub use local::LocalStores;
pub use metrics::QuotaMetrics;
pub use permit::Patience;
pub use postgres::SharedStores;
pub use registry::{Budgets, Stores, TenantQuota};
pub use request::{BudgetDecision, BudgetRequest, Grant, GrantOutcome, GrantReport, Witness};
pub use store::{BudgetStore, StoreError};
pub use terms::{Rate, Terms};
pub use usage::{Refused, Usage};

/// A point in the budget's own time, or a span of it, in microseconds.
pub type Micros = u64;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
