//! The outside systems: every failure names the one that failed.

/// An outside system. The names stand in metrics, logs, dead letters and in what `/readyz` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl System {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Nice, Self::MediaHost, Self::RecordingStore, Self::Catalog, Self::Queue];

    /// The one name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nice => "nice",
            Self::MediaHost => "media_host",
            Self::RecordingStore => "recording_store",
            Self::Catalog => "catalog",
            Self::Queue => "queue",
        }
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
