//! Attempts: who may complete a conversation.
//!
//! The broker may hand a call out again while somebody still works on it. Both would store the recordings, and the
//! bytes that NICE gives twice need not be the same. So that the row describes the object that lies under the key:
//!
//! 1. Begin an attempt: its number is the highest, and none begins once the row is final. The commit that saves the
//!    metadata begins one. One that adds begins only where the row is final and lacks recordings, and reads only then
//!    what the row holds: nobody else adds from then on.
//! 2. Look at what lies under the keys. The first attempt of a row does not look: nobody has written anything before it.
//! 3. Ask whether the attempt is still the latest, when the body has ended.
//! 4. Write each object only in place of what was seen in step 2; the first one only where nothing lies.
//! 5. Complete, which is refused unless the attempt is still the latest, and changes the row or finds there just what it
//!    brings.
//!
//! Whoever completes has begun last, and so after step 3 of each attempt that still writes. Such a one has looked before,
//! so what it saw is gone, and it can replace nothing. Where the first one finds something all the same, left from a
//! catalog that was lost, it is refused, and the next one looks. Whoever works on a call once more in place begins another
//! attempt: a completion that was sent before may still be under way.
//!
//! A store that names objects by their content tells two of the same bytes not apart: between step 3 and 4 is a moment
//! that is left to chance there.

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
    pub(crate) is_first: bool,
}

impl Attempt {
    /// Whether nobody has begun to store recordings of the conversation before, as far as the catalog knows for certain.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// What it is to do.
    pub fn kind(&self) -> AttemptKind {
        self.kind
    }
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
