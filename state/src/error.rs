//! What can go wrong with the local state, and what to do about it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the local state could not be opened, read or made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// Another process has the state directory.
    #[error("{dir} is in use by another process: stop that process, or ask the running daemon instead")]
    Locked {
        /// The state directory.
        dir: PathBuf,
    },
    /// The state was written by a newer version of this program.
    #[error("the local state has format {found}, this version knows up to {ours}: run the newer version")]
    NewerFormat {
        /// The format on disk.
        found: u32,
        /// The newest format this program reads.
        ours: u32,
    },
    /// The operating system refused a file operation on the state directory.
    #[error("cannot {action} {path}: {source}; check owner, mode and free space")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The store failed while it was in use: it accepts nothing more, and nothing unacknowledged may be relied on.
    #[error("the local store failed and accepts nothing more: check the disk, then restart ({reason})")]
    Storage {
        /// What failed, without any stored content.
        reason: Arc<str>,
    },
    /// A page of the store cannot be read. The next start sets the store aside and begins with an empty one.
    #[error("the local store is damaged: restart, it will be set aside and rebuilt ({reason})")]
    Damaged {
        /// What cannot be read, without any stored content.
        reason: Arc<str>,
    },
    /// The store was closed before the call.
    #[error("the local store is closed: this call came after the shutdown")]
    Closed,
    /// A tree name that the state keeps for itself, or an empty one.
    #[error("the tree name is reserved: choose one with another first segment")]
    ReservedName,
}

impl StateError {
    /// An error of the operating system, with what was attempted.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// A failure of the store itself.
    pub(crate) fn storage(reason: impl AsRef<str>) -> Self {
        Self::Storage { reason: reason.as_ref().into() }
    }

    /// Content of the store that cannot be read.
    pub(crate) fn damaged(reason: impl AsRef<str>) -> Self {
        Self::Damaged { reason: reason.as_ref().into() }
    }
}

impl From<sled::Error> for StateError {
    fn from(error: sled::Error) -> Self {
        match &error {
            sled::Error::Io(io) if !means_damage(io.kind()) => Self::storage(error.to_string()),
            _ => Self::damaged(error.to_string()),
        }
    }
}

/// Whether an I/O error of sled speaks of the content of its files, not of the disk or the permissions.
pub(crate) fn means_damage(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | NotFound | Other | UnexpectedEof)
}

/// Why an event was not taken into the inbox.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InboxError {
    /// As many events wait as the inbox holds.
    #[error("the inbox holds {capacity} events and is full: try again later")]
    Full {
        /// How many it holds.
        capacity: usize,
    },
    /// The event is larger than any the sender is known to send.
    #[error("the event is larger than {limit} bytes")]
    TooLarge {
        /// The largest that is taken.
        limit: usize,
    },
    /// The store did not make it durable.
    #[error(transparent)]
    State(#[from] StateError),
}
