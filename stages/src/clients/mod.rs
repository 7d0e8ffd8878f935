//! One narrow door for each outside system.

pub mod catalog;
pub mod nice;
pub mod postgres;
pub mod queue;
pub mod quota;
pub mod recording_store;
pub mod tenants;

#[cfg(test)]
mod test_kill;
#[cfg(test)]
pub(crate) mod test_state;
