//! Attempts: who may complete a conversation.
//!
//! The broker may hand a call out again while somebody still works on it. Both would store the recordings, and the
//! bytes that NICE gives twice need not be the same. So that the row describes the object that lies under the key:
//!
//! 1. Look at what lies under the keys.
//! 2. Begin an attempt: its number is the highest, and none begins once the row is final. One that adds begins only
//!    where the row is final and lacks recordings, and reads only then what the row holds: nobody else adds from then on.
//! 3. Write each object only in place of what was seen in step 1.
//! 4. Complete, which is refused unless the attempt is still the latest, and changes the row or finds there just what it
//!    brings.
//!
//! Whoever completes has begun last. Each other attempt looked before that one wrote, so what it saw is gone: it can
//! replace nothing. A store that names objects by their content tells two of the same bytes not apart; that nobody has
//! begun after is therefore looked up once more, when the body has ended.

use super::CatalogError;

/// What an attempt is to do: it begins, and may complete, only where the row asks for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKind {
    /// Completes a row that is not final.
    Complete,
    /// Adds to a final row that lacks recordings.
    Add,
}

/// An attempt. The catalog knows by its number whether it is the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub(crate) number: i64,
    pub(crate) kind: AttemptKind,
}

const OVERTAKEN: &str = "another attempt has begun to store the recordings, or has completed the conversation";

impl CatalogError {
    /// What an attempt is told that may not complete any more.
    pub fn overtaken() -> Self {
        Self(OVERTAKEN.to_owned())
    }

    /// Whether it is that.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.0 == OVERTAKEN
    }
}
