//! Where the flow writes down what became of an item.

use async_trait::async_trait;
use model::{ConversationKey, DeadLetter, Hop};

/// The timelines of conversations, and the shelf of dead letters.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Adds to the timeline of a conversation. A failure is logged, never passed on: the timeline is for people.
    async fn record_hop(&self, key: &ConversationKey, hop: Hop);

    /// Sets a delivery aside. Durable once it returns; the same letter twice is one letter. False if an older letter
    /// stays, or if the conversation was erased.
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, JournalError>;
}

/// The letter may not be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);
