//! Why a list of NICE could not be read, and how long to wait before it is read again.

use std::time::Duration;

use flow::{RetryPolicy, StageError, retry::MAX_RETRY_AFTER};
use nice::NiceError;

/// Why NICE's list could not be read; it is read again.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// NICE did not answer as it should.
    #[error(transparent)]
    Nice(#[from] NiceError),
    /// The tenant's settings cannot be had.
    #[error("{0}")]
    Settings(StageError),
}

impl ListError {
    /// How long to wait at least.
    pub(super) fn asks_for(&self, retry: &RetryPolicy) -> Duration {
        match self {
            Self::Nice(error) => wait_asked(&flow::error::of(error)),
            Self::Settings(error @ StageError::Transient { .. }) => wait_asked(error),
            Self::Settings(_) => retry.error_delay_max.min(MAX_RETRY_AFTER),
        }
    }
}

/// What NICE, or the way to it, asks to wait.
pub(super) fn wait_asked(error: &StageError) -> Duration {
    match error {
        StageError::Transient { retry_after, .. } => retry_after.unwrap_or_default(),
        StageError::Busy { retry_after, .. } | StageError::Early { retry_after, .. } => *retry_after,
        StageError::NotReady { .. }
        | StageError::Unknown { .. }
        | StageError::SetAside { .. }
        | StageError::Permanent { .. } => Duration::ZERO,
    }
}
