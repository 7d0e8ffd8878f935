//! Stage 1, source: where conversations that ended are found.
//!
//! - [`poll`]: NICE's completed contacts, the truth.
//! - [`webhook`]: what a Studio script posts to us, for speed.
//! - [`agent_sessions`]: the event feed of every agent who is logged in, for speed.
//! - [`roster`]: the group's agents, by which the sources filter.
//!
//! Every source emits [`Found`] into the same dedupe; nothing after it knows which one an event came from.

pub mod agent_sessions;
pub mod poll;
pub mod roster;
pub mod webhook;

use crate::model::ContactEvent;

/// An event, and the source's wish to learn that it is settled.
#[derive(Debug)]
pub struct Found {
    /// What was found.
    pub event: ContactEvent,
    /// Told once the event needs no further care of the source.
    pub receipt: Receipt,
}

/// Tells a source that its event is committed, or was known before. Dropping it says that it must come again.
#[must_use = "a receipt that is dropped makes the source repeat the event"]
pub struct Receipt(Box<dyn FnOnce() + Send + Sync>);

impl Receipt {
    /// A receipt that calls back when the event is settled.
    pub fn new(on_settled: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Box::new(on_settled))
    }

    /// The event is durable further down, or was known before.
    pub fn settled(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}
