//! What a caller should do after a door's error.

use std::time::Duration;

use crate::System;

/// What a caller should do now. Each door says it of its own errors; the flow decides what a stage does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// An outside system has trouble: try again later.
    Again {
        /// Where it failed.
        system: System,
        /// The least delay that the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Not an error: the rate budget has no room, or others go first.
    Turn {
        /// When there may be room.
        retry_after: Duration,
    },
    /// Not an error: a later delivery of the same call has taken the work over. It brings the call to its end, or the
    /// message comes again.
    Overtaken,
    /// Not an error: NICE has not processed the call yet.
    Wait {
        /// What is awaited.
        what: &'static str,
    },
    /// It will never work.
    Never,
}

/// An error of a door to an outside system. Its text reaches logs and dead letters.
pub trait DoorError: std::error::Error + Send + Sync + 'static {
    /// What it asks for.
    fn asks(&self) -> Asks;
}

impl<E: DoorError> From<E> for Box<dyn DoorError> {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}
