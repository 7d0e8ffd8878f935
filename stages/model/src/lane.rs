//! Which calls go first.

use crate::{ContactEvent, EventSource};

/// Which calls go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Calls that have just ended.
    Live,
    /// Replays: taken only as far as live leaves room.
    Backfill,
}

impl Lane {
    /// The lane of an event.
    pub fn of(event: &ContactEvent) -> Self {
        match event.source {
            _ if event.late => Self::Backfill,
            EventSource::Reconciliation | EventSource::Backfill => Self::Backfill,
            EventSource::Poll | EventSource::Webhook | EventSource::AgentSession => Self::Live,
        }
    }

    /// The name in metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfill => "backfill",
        }
    }
}
