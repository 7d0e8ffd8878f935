//! What a failed call to NICE means, and what the flow makes of it.

use std::time::Duration;

use model::{QuotaError, System};

use crate::flow::StageError;

/// Why a call to NICE did not give what was asked for.
///
/// The texts reach logs and dead letters: they name what was attempted, never a body, a link, a number or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NiceError {
    /// NICE or the network is troubled: again later.
    #[error("{what}")]
    Transient {
        /// What failed.
        what: String,
        /// The least delay that NICE asked for, at most five minutes.
        retry_after: Option<Duration>,
    },
    /// The host of a recording is troubled: again later.
    #[error("{what}")]
    Media {
        /// What failed.
        what: String,
        /// The least delay that the host asked for, at most five minutes.
        retry_after: Option<Duration>,
    },
    /// NICE does not have it yet; it cannot be told from "never".
    #[error("{what}")]
    NotReady {
        /// What is awaited.
        what: &'static str,
    },
    /// 401 with a fresh token, or 403: a permission, a licence or a key is missing, and a person must look.
    #[error("{what}")]
    Refused {
        /// What was refused.
        what: String,
    },
    /// The same call can never succeed.
    #[error("{what}")]
    Permanent {
        /// What is wrong.
        what: String,
    },
    /// An answer that no such call should get. Once it says little: a proxy in between may be ill, or NICE.
    #[error("{what}")]
    Odd {
        /// What came instead.
        what: String,
    },
    /// NICE did not give so much at a time, or not in time: less may be asked for.
    #[error("{what}")]
    TooMuch {
        /// What was asked for.
        what: String,
        /// How it went wrong.
        why: Excess,
    },
    /// The recording's link is no longer valid: ask NICE for a fresh one.
    #[error("the link of the recording has expired")]
    LinkExpired,
    /// The rate budget could not be asked, or has no room.
    #[error("{what}")]
    Quota {
        /// What is wrong with the budget.
        what: String,
        /// When there may be room; none where the budget could not be asked.
        retry_after: Option<Duration>,
    },
}

impl From<QuotaError> for NiceError {
    fn from(QuotaError { what, retry_after }: QuotaError) -> Self {
        Self::Quota { what, retry_after }
    }
}

/// How it shows that so much at a time cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// NICE refused the question, so it may be something else in it.
    Refused,
    /// The answer did not come in time, or is longer than any.
    Length,
    /// The answer is no JSON: something in it is damaged.
    Damage,
}

impl NiceError {
    /// Again later; nothing is known of how long.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::Transient { what: what.into(), retry_after: None }
    }

    /// Again later; the host of a recording is troubled.
    pub fn media(what: impl Into<String>) -> Self {
        Self::Media { what: what.into(), retry_after: None }
    }

    /// Never again.
    pub fn permanent(what: impl Into<String>) -> Self {
        Self::Permanent { what: what.into() }
    }

    /// A person must look.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into() }
    }
}

/// How long an item, or the poll, waits after NICE refused us: only a person can mend it, and NICE must not be hammered.
pub const REFUSED_DELAY: Duration = Duration::from_secs(60);

impl From<NiceError> for StageError {
    fn from(error: NiceError) -> Self {
        match error {
            NiceError::Transient { what, retry_after } => {
                Self::Transient { system: System::Nice, reason: what, retry_after }
            }
            NiceError::Media { what, retry_after } => {
                Self::Transient { system: System::MediaHost, reason: what, retry_after }
            }
            NiceError::Quota { what, retry_after: Some(retry_after) } => Self::Busy { reason: what, retry_after },
            // The budget is kept in the database.
            NiceError::Quota { what, retry_after: None } => Self::transient(System::Catalog, what),
            NiceError::NotReady { what } => Self::NotReady { reason: what },
            // The client has raised the alarm: it knows whose NICE it is.
            NiceError::Refused { what } => {
                Self::Transient { system: System::Nice, reason: what, retry_after: Some(REFUSED_DELAY) }
            }
            NiceError::Odd { what } => Self::transient(System::Call, what),
            NiceError::TooMuch { what, .. } => Self::transient(System::Nice, what),
            NiceError::Permanent { what } => Self::Permanent { reason: what },
            NiceError::LinkExpired => Self::transient(System::Call, NiceError::LinkExpired.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_tried_again_after_a_minute() {
        let error = StageError::from(NiceError::refused("token"));
        assert!(
            matches!(error, StageError::Transient { retry_after: Some(wait), .. } if wait == Duration::from_secs(60))
        );
    }

    #[test]
    fn a_budget_without_room_is_no_error_and_one_that_cannot_be_asked_is() {
        let quota = |retry_after| StageError::from(NiceError::Quota { what: "budget".to_owned(), retry_after });
        assert!(matches!(quota(Some(Duration::from_secs(9))), StageError::Busy { .. }));
        assert!(matches!(quota(None), StageError::Transient { retry_after: None, .. }));
    }

    #[test]
    fn a_media_host_in_trouble_is_not_nice_in_trouble() {
        let wait = Some(Duration::from_secs(7));
        let error = StageError::from(NiceError::Media { what: "stalled".to_owned(), retry_after: wait });
        let StageError::Transient { system, reason, retry_after } = error else { panic!("{error}") };
        assert_eq!((system, reason.as_str(), retry_after), (System::MediaHost, "stalled", wait));
        let error = StageError::from(NiceError::LinkExpired);
        // The link was the call's own, whichever host it led to.
        assert!(matches!(error, StageError::Transient { system: System::Call, .. }));
        let error = StageError::from(NiceError::transient("a 503"));
        assert!(matches!(error, StageError::Transient { system: System::Nice, .. }));
    }

    #[test]
    fn an_expired_link_is_transient() {
        assert!(matches!(StageError::from(NiceError::LinkExpired), StageError::Transient { retry_after: None, .. }));
    }
}
