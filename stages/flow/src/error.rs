//! An error answers one question: what now?

use std::time::Duration;

use model::{Asks, DoorError, System};
use runtime::chance;

/// What became of an item that a stage worked on without an error.
#[derive(Debug)]
pub enum Outcome<T> {
    /// On to the next stage.
    Next(T),
    /// Nothing remains to be done: acknowledge it. The word says why, and is counted.
    Done(&'static str),
}

/// Why a stage could not finish an item.
///
/// The texts reach logs and dead letters: they name what was attempted, never a body, a link, a number or a name.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StageError {
    /// The outside is troubled: again later, with growing delays.
    #[error("{reason}")]
    Transient {
        /// Where it failed.
        system: System,
        /// What failed.
        reason: String,
        /// The least delay that the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Not an error: the tenant's rate budget has no room, or enough others wait for its NICE. The message waits,
    /// however long that lasts.
    #[error("{reason}")]
    Busy {
        /// What is awaited.
        reason: String,
        /// The system that fails for others of the tenant, where that is why.
        waits_for: Option<System>,
        /// When there may be room.
        retry_after: Duration,
    },
    /// Not an error: NICE is not asked yet, for what is awaited takes longer by all experience. The message waits.
    #[error("{reason}")]
    Early {
        /// What is awaited.
        reason: &'static str,
        /// When to look again whether it is time.
        retry_after: Duration,
    },
    /// Not an error: NICE has not processed the call yet. The message waits in a delay step.
    #[error("{reason}")]
    NotReady {
        /// What is awaited.
        reason: &'static str,
    },
    /// The same, and NICE does not even know the contact.
    #[error("{reason}")]
    Unknown {
        /// What is awaited.
        reason: &'static str,
    },
    /// It does not work as things are outside: a dead letter, now, which goes back by itself some times.
    #[error("{reason}")]
    SetAside {
        /// Whose state it is.
        system: System,
        /// What is wrong.
        reason: String,
    },
    /// It will never work: a dead letter, now.
    #[error("{reason}")]
    Permanent {
        /// What is wrong.
        reason: String,
    },
}

impl StageError {
    /// The outside is troubled; nothing is known of how long.
    pub fn transient(system: System, reason: impl Into<String>) -> Self {
        Self::Transient { system, reason: reason.into(), retry_after: None }
    }

    /// It will never work.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent { reason: reason.into() }
    }
}

/// How long a delivery waits, about, whose attempt another delivery's has overtaken.
const OVERTAKEN_DELAY: Duration = Duration::from_secs(10);

/// A stage that meets a door's error asks for what the error asks for.
impl<E: DoorError> From<E> for StageError {
    fn from(error: E) -> Self {
        of(&error)
    }
}

/// The same, of an error that is known only by what it asks for.
pub fn of(error: &dyn DoorError) -> StageError {
    let reason = error.to_string();
    match error.asks() {
        Asks::Again { system, retry_after } => StageError::Transient { system, reason, retry_after },
        Asks::Turn { retry_after } => StageError::Busy { reason, waits_for: None, retry_after },
        Asks::Overtaken => {
            let retry_after = OVERTAKEN_DELAY.mul_f64(chance::range(0.5..1.5));
            StageError::Busy { reason, waits_for: None, retry_after }
        }
        Asks::Wait { what } => StageError::NotReady { reason: what },
        Asks::Never => StageError::Permanent { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("what failed")]
    struct Failed(Asks);

    impl DoorError for Failed {
        fn asks(&self) -> Asks {
            self.0
        }
    }

    #[test]
    fn a_stage_asks_for_what_the_error_asks_for() {
        let wait = Duration::from_secs(7);
        let again = StageError::from(Failed(Asks::Again { system: System::MediaHost, retry_after: Some(wait) }));
        let StageError::Transient { system, reason, retry_after } = again else { panic!("{again:?}") };
        assert_eq!((system, reason.as_str(), retry_after), (System::MediaHost, "what failed", Some(wait)));
        let turn = StageError::from(Failed(Asks::Turn { retry_after: wait }));
        assert!(
            matches!(&turn, StageError::Busy { reason, retry_after, .. } if reason == "what failed" && *retry_after == wait)
        );
        let late = StageError::from(Failed(Asks::Wait { what: "the recording" }));
        assert!(matches!(late, StageError::NotReady { reason: "the recording" }));
        let never = StageError::from(Failed(Asks::Never));
        assert!(matches!(never, StageError::Permanent { reason } if reason == "what failed"));
    }

    #[test]
    fn who_was_overtaken_comes_again_in_some_seconds_and_not_together() {
        let delay = || match StageError::from(Failed(Asks::Overtaken)) {
            StageError::Busy { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        let delays: Vec<_> = (0..100).map(|_| delay()).collect();
        let (least, most) = (OVERTAKEN_DELAY / 2, OVERTAKEN_DELAY * 3 / 2);
        assert!(delays.iter().all(|delay| (least..=most).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
