//! Stage 8, persist: the conversation's row, in state `metadata_saved`, and an attempt to store its recordings.
//!
//! # After a crash
//! The row is written again with the same content, and another attempt begins; a row that is final stays as it is, and
//! its conversation is done. That of a recheck is final, and is not made again where it is gone meanwhile.

use std::sync::Arc;

use catalog::{AttemptKind, Conversations};
use flow::{Outcome, Stage, StageError};
use model::ContactEvent;
use runtime::crash;

use crate::items::{AttemptedConversation, RecordedConversation};
use crate::recheck::NOTHING_NEW;

/// Writes rows.
pub struct Persist {
    /// The catalog.
    pub catalog: Arc<dyn Conversations>,
}

impl Stage<RecordedConversation> for Persist {
    const NAME: &'static str = "persist";
    type Out = AttemptedConversation;

    async fn process(
        &self,
        event: &ContactEvent,
        recorded: RecordedConversation,
    ) -> Result<Outcome<AttemptedConversation>, StageError> {
        let (begun, no_attempt) = match event.recheck {
            false => (self.catalog.save_metadata(&recorded.conversation).await?, "already_final"),
            true => {
                let key = recorded.conversation.key();
                (self.catalog.begin_attempt(&key, AttemptKind::Add).await?, NOTHING_NEW)
            }
        };
        crash::point("row_saved");
        Ok(match begun {
            Some(attempt) => Outcome::Next(AttemptedConversation { recorded, attempt: Some(attempt) }),
            None => Outcome::Done(no_attempt),
        })
    }
}
