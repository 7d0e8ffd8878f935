//! The shelf of what was set aside.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ConversationKey, DeadLetter};

use crate::CatalogError;

/// The shelf of what was set aside.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Sets a delivery aside. Durable once it returns. The same letter twice is one letter: that of a conversation is
    /// written anew, that of an unreadable body stays as it is. False if it stayed, or if the conversation was erased.
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError>;

    /// Dead letters by id: at most `limit` after `after`.
    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError>;

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

    /// One dead letter.
    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError>;

    /// The newest dead letter of a conversation.
    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError>;

    /// Takes a dead letter off the shelf; false if it is no longer there as it was read, because it was removed or
    /// written anew meanwhile.
    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError>;
}
