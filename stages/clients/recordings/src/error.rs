//! Why a recording could not be stored, found or read.

use std::time::Duration;

use model::{Asks, DoorError, System};

/// Why a recording could not be stored, found or read. Its text names no key and no byte of a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingStoreError {
    /// The body ended in an error of its own, which is passed on as it is.
    #[error("{0}")]
    Body(BodyError),
    /// The body comes so slowly that an upload would be taken for nobody's.
    #[error("the recording arrives too slowly to be stored")]
    SlowBody,
    /// Another recording was stored there meanwhile: nothing was changed, and it is no fault of the store's.
    #[error("{0}")]
    Overtaken(String),
    /// The store is troubled, or only a person can mend it: a call is never given up because of that.
    #[error("{reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// The least time to wait.
        retry_after: Option<Duration>,
    },
    /// No store can hold it.
    #[error("{0}")]
    TooLarge(String),
}

/// Why a body ended before it was whole.
pub type BodyError = Box<dyn DoorError>;

impl RecordingStoreError {
    /// The store is troubled; nothing is known of how long.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }
}

impl From<BodyError> for RecordingStoreError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl DoorError for RecordingStoreError {
    fn asks(&self) -> Asks {
        match self {
            Self::Body(error) => error.asks(),
            Self::SlowBody => Asks::Again { system: System::MediaHost, retry_after: None },
            Self::Overtaken(_) => Asks::Overtaken,
            Self::Unavailable { retry_after, .. } => {
                Asks::Again { system: System::RecordingStore, retry_after: *retry_after }
            }
            Self::TooLarge(_) => Asks::Never,
        }
    }
}
