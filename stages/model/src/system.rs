//! The outside systems: every failure names the one that failed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An outside system, or the call itself. The names stand in metrics, logs, messages, dead letters and in what
/// `/readyz` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// NICE's APIs.
    Nice,
    /// The host that a recording's link leads to.
    MediaHost,
    /// The recording store: S3, or the directory.
    RecordingStore,
    /// The catalog: the Knovvu database.
    Catalog,
    /// The queue between producer and consumer.
    Queue,
    /// None of them: as far as one failure can tell, only this call is concerned.
    Call,
}

impl System {
    /// The systems that every call needs, of all tenants.
    pub const SHARED: [Self; 3] = [Self::RecordingStore, Self::Catalog, Self::Queue];

    /// The one name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nice => "nice",
            Self::MediaHost => "media_host",
            Self::RecordingStore => "recording_store",
            Self::Catalog => "catalog",
            Self::Queue => "queue",
            Self::Call => "call",
        }
    }

    /// Whether every call needs it.
    pub fn is_shared(self) -> bool {
        Self::SHARED.contains(&self)
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for System {
    type Err = UnknownSystem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Nice, Self::MediaHost, Self::RecordingStore, Self::Catalog, Self::Queue, Self::Call];
        all.into_iter().find(|system| system.as_str() == text).ok_or(UnknownSystem)
    }
}

/// A later version's word for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown system")]
pub struct UnknownSystem;
