//! What the service remembers of its clients and of its own answers.

pub(crate) mod extractions;
pub(crate) mod media;
pub(crate) mod rows;
pub(crate) mod sessions;
pub(crate) mod tokens;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of an earlier holder: no value here is left half-changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
