//! What a failed call to NICE means, and what the flow makes of it.

use std::time::Duration;

use model::{Asks, DoorError, QuotaError, System};

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

/// How long an item, or the poll, waits after NICE refused us: only a person can mend it, and NICE must not be
/// hammered.
pub const REFUSED_DELAY: Duration = Duration::from_secs(60);

impl DoorError for NiceError {
    fn asks(&self) -> Asks {
        let again = |system, retry_after: &Option<Duration>| Asks::Again { system, retry_after: *retry_after };
        match self {
            Self::Transient { retry_after, .. } => again(System::Nice, retry_after),
            Self::Media { retry_after, .. } => again(System::MediaHost, retry_after),
            Self::Quota { retry_after: Some(retry_after), .. } => Asks::Turn { retry_after: *retry_after },
            // The budget is kept in the database.
            Self::Quota { retry_after: None, .. } => again(System::Catalog, &None),
            Self::NotReady { what } => Asks::Wait { what },
            // The client has raised the alarm: it knows whose NICE it is.
            Self::Refused { .. } => again(System::Nice, &Some(REFUSED_DELAY)),
            // The link was the call's own, whichever host it led to.
            Self::Odd { .. } | Self::LinkExpired => again(System::Call, &None),
            Self::TooMuch { .. } => again(System::Nice, &None),
            Self::Permanent { .. } => Asks::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_tried_again_after_a_minute() {
        let retry_after = Some(Duration::from_secs(60));
        assert_eq!(NiceError::refused("token").asks(), Asks::Again { system: System::Nice, retry_after });
    }

    #[test]
    fn a_budget_without_room_is_no_error_and_one_that_cannot_be_asked_is() {
        let quota = |retry_after| NiceError::Quota { what: "budget".to_owned(), retry_after }.asks();
        assert_eq!(quota(Some(Duration::from_secs(9))), Asks::Turn { retry_after: Duration::from_secs(9) });
        assert_eq!(quota(None), Asks::Again { system: System::Catalog, retry_after: None });
    }

    #[test]
    fn a_media_host_in_trouble_is_not_nice_in_trouble() {
        let retry_after = Some(Duration::from_secs(7));
        let error = NiceError::Media { what: "stalled".to_owned(), retry_after };
        assert_eq!(error.asks(), Asks::Again { system: System::MediaHost, retry_after });
        assert_eq!(NiceError::LinkExpired.asks(), Asks::Again { system: System::Call, retry_after: None });
        assert_eq!(NiceError::transient("a 503").asks(), Asks::Again { system: System::Nice, retry_after: None });
    }
}
