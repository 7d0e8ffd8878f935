//! Why a command ended without success: one line for a person, one exit code for a script.

use std::process::ExitCode;

use crate::output;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    message: String,
    locked: bool,
}

impl CommandError {
    /// Exit code 1: it failed.
    pub(crate) fn failed(message: impl ToString) -> Self {
        Self { code: 1, message: message.to_string(), locked: false }
    }

    /// Exit code 2: the command line or the settings are wrong; nothing was touched.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { code: 2, message: message.to_string(), locked: false }
    }

    /// Exit code 3: an outside system cannot be reached.
    pub(crate) fn unreachable(message: impl ToString) -> Self {
        Self { code: 3, message: message.to_string(), locked: false }
    }

    /// Exit code 4: done in part, some conversations are dead letters.
    pub(crate) fn partly(message: impl ToString) -> Self {
        Self { code: 4, message: message.to_string(), locked: false }
    }

    /// Whether another process has the local state: it may be gone in a moment, or turn out to be the daemon.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether an outside system did not answer: it may in a moment.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.code == 3
    }

    /// Why, for a person.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says why on stderr.
    pub(crate) fn report(self) -> ExitCode {
        output::last_word(format!("nice-knovvu: {}", self.message));
        ExitCode::from(self.code)
    }
}

impl From<state::StateError> for CommandError {
    fn from(error: state::StateError) -> Self {
        let locked = matches!(error, state::StateError::Locked { .. });
        Self { locked, ..Self::failed(error) }
    }
}
