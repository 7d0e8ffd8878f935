//! Which of the two services a process runs, and what it needs of the doors.

use std::path::PathBuf;

use crate::config::{CatalogKind, Config, QueueKind};

/// Which of the two services a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Both.
    Run,
    /// Nice Producer.
    Producer,
    /// Conversation Consumer.
    Consumer,
}

impl Service {
    /// Whether conversations are found and enqueued here.
    pub(crate) fn produces(self) -> bool {
        matches!(self, Self::Run | Self::Producer)
    }

    /// Whether conversations are taken off the queue here.
    pub(crate) fn consumes(self) -> bool {
        matches!(self, Self::Run | Self::Consumer)
    }

    /// The subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// The folder in the state directory that tells of the uploads of this machine's processes; any number may share it.
const UPLOAD_MARKS: &str = "uploads";

/// What a process needs of the doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything that the service works with.
    Service(Service),
    /// What listings read, and what a replay writes to.
    Listing,
    /// As [`Wanted::Listing`], and the recording store.
    Erasure,
    /// As [`Wanted::Listing`], and what the agent sync works with.
    AgentSync,
    /// What a producer works with; it takes its right itself.
    Replay,
}

impl Wanted {
    /// Whether the process keeps a state of its own. A consumer on servers does not, so that many of them can share
    /// one settings file.
    pub(crate) fn local(self, config: &Config) -> bool {
        let produces = match self {
            Self::Service(service) => service.produces(),
            Self::Listing | Self::Erasure => false,
            Self::AgentSync | Self::Replay => true,
        };
        produces || config.catalog.kind == CatalogKind::Embedded || config.queue.kind == QueueKind::Embedded
    }

    /// Whether it works for so long that the connection to the database is checked first.
    pub(super) fn works(self) -> bool {
        match self {
            Self::Service(_) | Self::AgentSync | Self::Replay | Self::Erasure => true,
            Self::Listing => false,
        }
    }

    pub(super) fn recordings(self) -> bool {
        match self {
            Self::Service(service) => service.consumes(),
            Self::Erasure => true,
            Self::Listing | Self::AgentSync | Self::Replay => false,
        }
    }

    /// Where the marks of uploads lie, for who uploads.
    pub(super) fn marks(self, config: &Config) -> Option<PathBuf> {
        matches!(self, Self::Service(_)).then(|| config.state.dir.join(UPLOAD_MARKS))
    }
}
