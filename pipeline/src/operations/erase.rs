//! Erasure of one conversation, on an operator's word.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stages::erase::ErasureReport;
use stages::flow::StageError;
use stages::model::{ContactId, ConversationKey};

use super::{OperationError, Operations};
use crate::rebuild;

/// What was erased, and what is left to others.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Erased {
    pub(crate) conversation_id: ContactId,
    /// The first digits of what is left of it: the log names it by them.
    pub(crate) tombstone: String,
    /// Whether anything was there.
    pub(crate) found: bool,
    /// Versions of objects, or files.
    pub(crate) objects: u64,
    /// False: no row told where recordings would lie, and none were looked for.
    pub(crate) recordings_looked_for: bool,
    pub(crate) dead_letters: u64,
    pub(crate) hops: u64,
    /// None: the broker gives no single message out; the consumer drops it when it comes up.
    pub(crate) messages: Option<u64>,
    /// Damaged stores that lie in the state directory for a person to look at; they may still hold it.
    pub(crate) set_aside: Vec<PathBuf>,
}

impl Operations {
    /// Erases a conversation, and sees to it that no replay brings it back. One that is not known leaves a tombstone
    /// too: it might come later.
    pub(crate) async fn erase(&self, id: &str) -> Result<Erased, OperationError> {
        let external_id: ContactId =
            id.parse().map_err(|error| OperationError::Refused(format!("CONVERSATION_ID: {error}")))?;
        let Some(eraser) = &self.eraser else {
            return Err(OperationError::Refused(
                "this process has no recording store, so recordings would be left; run `erase` with the settings of a \
                 consumer"
                    .to_owned(),
            ));
        };
        let key = ConversationKey { tenant: self.tenant()?.clone(), external_id };
        let ErasureReport { tombstone, rows, objects, messages } = match eraser.erase(&key).await {
            // To run it again as it is would not help.
            Err(StageError::Permanent { reason }) => {
                return Err(OperationError::Refused(format!("it stays away, but is not erased: {reason}")));
            }
            erased => erased?,
        };
        let recordings_looked_for = objects.is_some();
        let objects = objects.unwrap_or_default();
        let set_aside = self.local.as_ref().map(|local| rebuild::set_aside(local.state.store().dir()));
        Ok(Erased {
            conversation_id: external_id,
            tombstone: tombstone.to_string(),
            found: rows.conversation || objects + rows.dead_letters + rows.hops + messages.unwrap_or_default() > 0,
            objects,
            recordings_looked_for,
            dead_letters: rows.dead_letters,
            hops: rows.hops,
            messages,
            set_aside: set_aside.unwrap_or_default(),
        })
    }
}
