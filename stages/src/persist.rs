//! Stage 8, persist: the conversation's row, in state `metadata_saved`.
//!
//! # After a crash
//! The row is written again with the same content; a row that is final stays as it is. That of a recheck is final, and
//! is not made again where it is gone meanwhile.

use std::sync::Arc;

use catalog::Conversations;
use flow::{Outcome, Stage, StageError};
use model::ContactEvent;
use runtime::crash;

use crate::items::RecordedConversation;

/// Writes rows.
pub struct Persist {
    /// The catalog.
    pub catalog: Arc<dyn Conversations>,
}

impl Stage<RecordedConversation> for Persist {
    const NAME: &'static str = "persist";
    type Out = RecordedConversation;

    async fn process(
        &self,
        event: &ContactEvent,
        recorded: RecordedConversation,
    ) -> Result<Outcome<RecordedConversation>, StageError> {
        if !event.recheck {
            self.catalog.save_metadata(&recorded.conversation).await?;
        }
        crash::point("row_saved");
        Ok(Outcome::Next(recorded))
    }
}
