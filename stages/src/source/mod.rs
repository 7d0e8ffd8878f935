//! Stage 1, source: where conversations that ended are found.
//!
//! - [`poll`]: NICE's completed contacts, the truth.
//! - [`webhook`]: what a Studio script posts to us, for speed.
//! - [`replay`]: a range that is listed again: what the catalog does not have of it.
//! - [`agent_sessions`]: the event feed of every agent who is logged in, for speed.
//! - [`roster`]: the group's agents, by which the sources filter.
//!
//! [`listing`] reads a range of NICE's calls, [`compare`] says what became of each; the completeness report stands on
//! the same two. `changes` reads what has changed since a time, and `pages` a single list of NICE's.
//!
//! Each source makes its event once (`event`: of a listed call) and hands it as a [`FoundEvent`] to the one dedupe;
//! nothing after it knows which source an event came from.

pub mod agent_sessions;
mod changes;
pub mod compare;
mod event;
mod found;
mod list_error;
pub mod listing;
mod pages;
pub mod poll;
pub mod replay;
pub mod roster;
#[cfg(test)]
pub(crate) mod test_nice;
pub mod webhook;

use jiff::{SignedDuration, Timestamp};

pub(crate) use self::event::{event_of, event_of_bad_row};
pub use self::{
    found::{FoundEvent, Receipt},
    list_error::ListError,
    pages::ListDoubt,
};

/// NICE's completed contacts reach back this far.
pub const REACH: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The earliest time of which NICE lists completed contacts now.
pub(crate) fn earliest_listed(now: Timestamp) -> Timestamp {
    now.checked_sub(REACH).unwrap_or(Timestamp::MIN)
}
