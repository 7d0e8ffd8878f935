//! Why a replay's work ends early.

use std::time::Duration;

/// Why a run stands still.
#[derive(Debug)]
pub(super) enum Stop {
    /// The service drains, or the run's state was changed by another.
    Ended,
    /// It can never go on; a person must look.
    Failed(String),
    /// The same again later.
    Troubled { why: String, delay: Duration },
}

impl Stop {
    /// The same again, after the usual delay.
    pub(super) fn troubled(why: impl ToString) -> Self {
        Self::Troubled { why: why.to_string(), delay: Duration::ZERO }
    }
}

/// What a door could not do is tried again.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::troubled(error)
    }
}
