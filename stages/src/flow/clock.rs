//! The time, so that a test can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The wall clock, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    fixed_millis: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The wall clock of this machine.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is advanced.
    pub fn fixed(at: Timestamp) -> Self {
        Self { fixed_millis: Some(Arc::new(AtomicI64::new(at.as_millisecond()))) }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        match &self.fixed_millis {
            None => Timestamp::now(),
            Some(millis) => Timestamp::from_millisecond(millis.load(Ordering::Relaxed)).unwrap_or(Timestamp::MAX),
        }
    }

    /// Moves a fixed clock; the wall clock does not move.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(millis) = &self.fixed_millis {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}
