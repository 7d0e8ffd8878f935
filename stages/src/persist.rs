//! Stage 8, persist: the conversation's row, in state `metadata_saved`.
//!
//! # After a crash
//! The row is written again with the same content; a row that is final stays as it is. That of a recheck is final, and
//! is not made again where it is gone meanwhile.

use std::sync::Arc;

use catalog::Conversations;
use flow::{Outcome, Stage, StageError};
use runtime::crash;

use crate::recorded::{PersistedConversation, RecordedConversation};

/// Writes rows.
pub struct Persist {
    /// The catalog.
    pub catalog: Arc<dyn Conversations>,
}

impl Stage<RecordedConversation> for Persist {
    const NAME: &'static str = "persist";
    type Out = PersistedConversation;

    async fn process(&self, recorded: RecordedConversation) -> Result<Outcome<PersistedConversation>, StageError> {
        let RecordedConversation { conversation, media, missing } = recorded;
        if !conversation.event.recheck {
            self.catalog.save_metadata(&conversation).await?;
        }
        crash::point("row_saved");
        Ok(Outcome::Next(PersistedConversation { conversation, media, missing }))
    }
}
