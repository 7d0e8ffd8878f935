//! The shelf of what was set aside.

use async_trait::async_trait;
use jiff::{Timestamp, civil::Date};
use model::{ConversationKey, DeadLetter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CatalogError;

/// The shelf of what was set aside.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Sets a delivery aside. Durable once it returns. The same letter twice is one letter: that of a conversation is
    /// written anew, that of an unreadable body stays as it is. False if it stayed, or if the conversation was erased.
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError>;

    /// Dead letters by id: at most `limit` after `after`.
    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Those that are selected, by id: at most `limit` after `after`.
    async fn dead_letters_of(
        &self,
        selected: &DeadLetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Dead letters of passing causes that were to go back by `now`, the earliest first, at most `limit` after the one
    /// that was to go back at `after` and has that id.
    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError>;

    /// Takes the dead letters off the shelf that were set aside before `before`, and counts them. Durable once it
    /// returns.
    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError>;

    /// How many there are.
    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError>;

    /// The shelf by stage and shape of reason ([`reason_shape`]), the largest group first, at most `limit`: of the newest
    /// [`MOST_GROUPED`] letters, where there are more.
    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>, CatalogError>;

    /// One dead letter.
    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError>;

    /// The newest dead letter of a conversation.
    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError>;

    /// Takes a dead letter off the shelf; false if it is no longer there as it was read, because it was removed or
    /// written anew meanwhile.
    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError>;
}

/// Letters that are counted for an answer in groups; a larger shelf has been left alone for long.
pub const MOST_GROUPED: usize = 20_000;

/// Days of which a group tells how many letters they brought.
pub(crate) const MOST_DAYS: usize = 14;

/// Which dead letters; every condition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Where they were set aside.
    pub stage: Option<String>,
    /// The shape of their reason ([`reason_shape`]).
    pub shape: Option<String>,
    /// The first moment at which they were set aside.
    pub from: Option<Timestamp>,
    /// The moment after the last.
    pub to: Option<Timestamp>,
}

impl DeadLetterFilter {
    /// Whether a letter is one of them.
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        self.stage.as_ref().is_none_or(|stage| letter.stage == *stage)
            && self.shape.as_ref().is_none_or(|shape| reason_shape(&letter.reason) == *shape)
            && self.from.is_none_or(|from| letter.at >= from)
            && self.to.is_none_or(|to| letter.at < to)
    }
}

/// Dead letters of one stage whose reasons differ by numbers only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterGroup {
    /// Where the calls were set aside.
    pub stage: String,
    /// Why, with an `N` in place of each number.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// When the first one was set aside.
    pub first_at: Timestamp,
    /// And the last.
    pub last_at: Timestamp,
    /// When the first of them goes back by itself; none where none does.
    #[serde(default)]
    pub replay_at: Option<Timestamp>,
    /// How many each day brought, the newest first: of the newest 14 days that brought any.
    #[serde(default)]
    pub days: Vec<DayOfLetters>,
}

/// How many letters of a group a day brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayOfLetters {
    /// The UTC day.
    pub day: Date,
    /// How many.
    pub count: u64,
}

/// A reason with an `N` in place of each number, so that the same trouble of many calls is one.
pub fn reason_shape(reason: &str) -> String {
    let mut shape = String::with_capacity(reason.len());
    for letter in reason.chars() {
        match letter {
            '0'..='9' if shape.ends_with('\0') => {}
            '0'..='9' => shape.push('\0'),
            other => shape.push(other),
        }
    }
    shape.replace('\0', "N")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_a_shape_without_its_numbers() {
        assert_eq!(
            reason_shape("gave up after 12 attempts: NICE answered 503"),
            "gave up after N attempts: NICE answered N"
        );
        assert_eq!(reason_shape("no link"), "no link");
    }
}
