//! The servers that the simulated machines share, and each machine's link to them.
//!
//! ```text
//!  machine 1 ─ link ─┐                     catalog, budgets, settings, lease: one database
//!  machine 2 ─ link ─┼─► weather ─► server   queue: one broker
//!  machine 3 ─ link ─┘                     recording store: one store
//! ```
//!
//! A server never fails by itself and never forgets. All that goes wrong goes wrong on the link: a request is refused,
//! unheard, slow, or done without an answer, as the server's [`Weather`] is for that machine.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod budgets;
pub mod catalog;
pub mod lease;
pub mod link;
pub mod queue;
pub mod recording_store;
pub mod room;
pub mod session;
pub mod settings;
pub mod weather;

pub use link::{Kind, Link, LinkOptions, Unanswered};
pub use room::{Doors, Life, Patience, ServerRoom};
pub use weather::{Condition, Sky, Spell, Weather};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
