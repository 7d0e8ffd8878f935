//! What an error of a door asks of who meets it.

use std::time::Duration;

use crate::System;

/// What now? Each door says it of its own errors; what a stage does about it is the flow's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The outside is troubled: again later.
    Again {
        /// Where it failed.
        system: System,
        /// The least delay that the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Not an error: it was not its turn.
    Turn {
        /// When there may be room.
        retry_after: Duration,
    },
    /// Not an error: another delivery of the same call goes on in its place, and brings it to its end, or the message
    /// comes again.
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
