//! What became of conversations, hop by hop: for people.

use async_trait::async_trait;
use model::{ConversationKey, Hop};

use crate::CatalogError;

/// What became of conversations, hop by hop: for people.
#[async_trait]
pub trait Timelines: Send + Sync + 'static {
    /// Adds to the timeline of a conversation, unless it was erased. A failure is logged, never passed on: the timeline
    /// is for people.
    async fn record_hop(&self, key: &ConversationKey, hop: Hop);

    /// The timeline of a conversation, oldest first.
    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError>;

    /// The last hop of each of these conversations' timelines.
    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError>;

    /// Writes what is left of timelines: at the end of the process.
    async fn flush(&self) {}
}
