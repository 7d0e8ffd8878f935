//! What the consumer's stages hand to each other, beside the event: the tenant, then its conversation, then the
//! conversation with its recordings, then the attempt to store them.

use std::sync::Arc;

use catalog::Attempt;
use flow::Again;
use model::Conversation;
use nice::Media;

use crate::tenants::Tenant;

/// A conversation as NICE knows it.
#[derive(Debug)]
pub struct FetchedConversation {
    /// Whose NICE knows it.
    pub tenant: Arc<Tenant>,
    /// The metadata.
    pub conversation: Conversation,
}

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

/// A conversation whose row is written, and the attempt to store its recordings.
#[derive(Debug)]
pub struct AttemptedConversation {
    /// What is to be stored.
    pub recorded: RecordedConversation,
    /// By which it is known whether somebody else has begun since. None where it is worked on once more: what was sent
    /// before may still have its effect, and another attempt outranks it.
    pub attempt: Option<Attempt>,
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

impl Again for FetchedConversation {
    fn again(&self) -> Option<Self> {
        Some(Self { tenant: self.tenant.clone(), conversation: self.conversation.clone() })
    }
}

impl Again for RecordedConversation {
    fn again(&self) -> Option<Self> {
        let media = self.media.iter().map(PlacedMedia::again).collect();
        Some(Self { conversation: self.conversation.clone(), media, missing: self.missing })
    }
}

impl Again for AttemptedConversation {
    fn again(&self) -> Option<Self> {
        Some(Self { recorded: self.recorded.again()?, attempt: None })
    }
}

impl PlacedMedia {
    fn again(&self) -> Self {
        Self { position: self.position, source: self.source.clone(), media: self.media.again() }
    }
}
