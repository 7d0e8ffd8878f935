//! Why the database did not do what was asked, and whether it would the next time.

use tokio_postgres::{Error, error::SqlState};

/// What the question fails with whether a session kept what it was told.
pub(crate) const NOT_KEPT: &str = "KT002";

/// Where it did not.
const FORGETFUL: &str = "leads to a pool that does not keep what a session is set to (PgBouncer's pool_mode transaction or statement); let it \
     lead to the server itself, or to a pool with pool_mode = session";

/// What `fence_turn` fails with.
const SUPERSEDED: &str = "KT001";

/// Why the database did not do what was asked. No text repeats a password or a value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// The setting cannot be used.
    #[error("[catalog] url: {0}")]
    Settings(String),
    /// No connection, no answer in time, or a server that says "again later".
    #[error("{what}: the database cannot be reached: {cause}")]
    Unreachable {
        /// What was attempted.
        what: &'static str,
        /// What the server or the system said.
        cause: String,
    },
    /// The server is there and does not let us: password, permission, a database or table that does not exist.
    #[error("{what}: the database refuses: {cause}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// What the server said.
        cause: String,
    },
    /// The server could not do it, and would not the next time.
    #[error("{what}: the database failed: {cause}")]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// The server's code, and the constraint where one was broken.
        cause: String,
    },
    /// It was a write of a producer's turn, and another turn has begun.
    #[error("{what}: another turn of the producer has begun")]
    Superseded {
        /// What was attempted.
        what: &'static str,
    },
    /// The tables are not the ones that this executable works with; the text names the remedy.
    #[error("{0}")]
    Schema(String),
}

impl DatabaseError {
    /// Whether the same may work a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The error of one operation, by what it means for the caller.
    pub fn of(what: &'static str, error: &Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return if is_connection_error(error) {
                Self::Unreachable { what, cause: error_chain(error) }
            } else {
                Self::Failed { what, cause: error_chain(error) }
            };
        };
        let code = said.code().code();
        if code == SUPERSEDED {
            return Self::Superseded { what };
        }
        if code == NOT_KEPT {
            return Self::Settings(FORGETFUL.to_owned());
        }
        // The text of other classes may repeat a value of the statement.
        let cause = match &code[..2] {
            "08" | "25" | "28" | "3D" | "40" | "42" | "53" | "55" | "57" => format!("{} ({code})", said.message()),
            _ => match (said.table(), said.constraint()) {
                (Some(table), Some(constraint)) => format!("SQLSTATE {code}, table {table}, constraint {constraint}"),
                (Some(table), None) => format!("SQLSTATE {code}, table {table}, column {:?}", said.column()),
                _ => format!("SQLSTATE {code}"),
            },
        };
        match &code[..2] {
            // Connection, rollback (deadlock, serialisation), resources, locks.
            "08" | "40" | "53" | "55" => Self::Unreachable { what, cause },
            // Shut down, crashed, starting up, or this statement was cancelled.
            "57" => Self::Unreachable { what, cause },
            // A standby: the failover is under way.
            "25" if said.code() == &SqlState::READ_ONLY_SQL_TRANSACTION => Self::Unreachable { what, cause },
            // Its transaction was forgotten, or the plan is of an older schema: a new run is a new start.
            "25" | "26" => Self::Unreachable { what, cause },
            "0A" if said.message().contains("cached plan") => Self::Unreachable { what, cause },
            "28" | "3D" | "42" => Self::Refused { what, cause },
            _ => Self::Failed { what, cause },
        }
    }
}

/// Whether an error says something of all sessions: the server is gone, a standby now, or has other tables. Conflicts
/// and want of resources do not.
pub(crate) fn ends_sessions(error: &Error) -> bool {
    match error.as_db_error().map(|said| &said.code().code()[..2]) {
        None => is_connection_error(error),
        Some(class) => matches!(class, "08" | "0A" | "25" | "26" | "57"),
    }
}

fn is_connection_error(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    // Neither parameters nor results: these two name a column, and are our own mistakes.
    error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>() || source.is::<rustls::Error>())
}

/// An error and what lies below it; `tokio_postgres` itself says only the upper half.
pub(crate) fn error_chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(below) = source {
        let said = below.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = below.source();
    }
    text
}
