//! A conversation whose recordings are opened: what the later stages work on.

use flow::Again;
use model::Conversation;
use nice::Media;

/// A conversation whose recordings are opened and checked, not yet read.
#[derive(Debug)]
pub struct RecordedConversation {
    /// The metadata.
    pub conversation: Conversation,
    /// The recordings by start time; empty when NICE had none until the deadline.
    pub media: Vec<PlacedMedia>,
    /// Recordings that NICE names besides, and did not give.
    pub missing: u32,
}

/// A recording that is opened, at its place among all that NICE names.
#[derive(Debug)]
pub struct PlacedMedia {
    /// From 0 by start time.
    pub position: u32,
    /// What NICE names it by, where it can be told from the others of its call.
    pub source: Option<String>,
    /// The recording.
    pub media: Media,
}

/// A conversation whose row stands in the catalog.
#[derive(Debug)]
pub struct PersistedConversation {
    /// The metadata.
    pub conversation: Conversation,
    /// The recordings by start time.
    pub media: Vec<PlacedMedia>,
    /// Recordings that NICE names besides, and did not give.
    pub missing: u32,
}

impl Again for RecordedConversation {
    fn again(&self) -> Option<Self> {
        let media = self.media.iter().map(PlacedMedia::again).collect();
        Some(Self { conversation: self.conversation.clone(), media, missing: self.missing })
    }
}

impl Again for PersistedConversation {
    fn again(&self) -> Option<Self> {
        let media = self.media.iter().map(PlacedMedia::again).collect();
        Some(Self { conversation: self.conversation.clone(), media, missing: self.missing })
    }
}

impl PlacedMedia {
    fn again(&self) -> Self {
        Self { position: self.position, source: self.source.clone(), media: self.media.again() }
    }
}
