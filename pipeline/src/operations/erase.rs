//! Erasure of one conversation, on an operator's word.

use std::path::PathBuf;

use catalog::Standing;
use flow::StageError;
use model::{ContactId, ConversationKey, ConversationState};
use serde::{Deserialize, Serialize};
use stages::erase::ErasureReport;

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

/// What there is of a conversation: what an erasure would remove.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Erasable {
    pub(crate) conversation_id: ContactId,
    /// Whether anything is known of it. If not, its erasure asks for `--yes-unknown`.
    pub(crate) known: bool,
    /// It was erased before, and is not to come back.
    pub(crate) erased: bool,
    /// The state of its row, if one stands.
    pub(crate) state: Option<ConversationState>,
    /// Where its recordings lie, as its row says.
    pub(crate) recordings: Vec<String>,
    pub(crate) dead_letters: u64,
    pub(crate) hops: u64,
    /// None: the broker gives no single message out.
    pub(crate) messages: Option<u64>,
    /// Whether the dedupe lets no further event of it through.
    pub(crate) processed: bool,
}

impl Operations {
    /// What an erasure would remove. Nothing is changed.
    pub(crate) async fn erasable(&self, id: &str) -> Result<Erasable, OperationError> {
        let key = self.key_of(id)?;
        let erased = self.catalog.standing(&key).await? == Standing::Erased;
        let row = self.catalog.conversation(&key).await?;
        let (hops, messages) = (self.catalog.hops(&key).await?.len() as u64, self.queue.messages_of(&key).await?);
        let dead_letters = u64::from(self.catalog.dead_letter_of(&key).await?.is_some());
        let processed = self.local.as_ref().is_some_and(|local| local.state.processed().contains(&key.digest()));
        let known = erased || row.is_some() || processed || hops + dead_letters + messages.unwrap_or_default() > 0;
        Ok(Erasable {
            conversation_id: key.external_id,
            known,
            erased,
            state: row.as_ref().map(|row| row.state),
            recordings: row.into_iter().flat_map(|row| row.recordings).map(|one| one.object_key).collect(),
            dead_letters,
            hops,
            messages,
            processed,
        })
    }

    fn key_of(&self, id: &str) -> Result<ConversationKey, OperationError> {
        let external_id = id.parse().map_err(|error| OperationError::Refused(format!("CONVERSATION_ID: {error}")))?;
        Ok(ConversationKey { tenant: self.tenant()?.clone(), external_id })
    }

    /// Whether anything tells that the conversation exists, or existed.
    async fn is_known(&self, key: &ConversationKey) -> Result<bool, OperationError> {
        // A row, a dead letter, or a tombstone.
        Ok(self.catalog.known(std::slice::from_ref(key)).await?.contains(&true)
            || self.local.as_ref().is_some_and(|local| local.state.processed().contains(&key.digest()))
            || !self.catalog.hops(key).await?.is_empty()
            || self.queue.messages_of(key).await?.is_some_and(|messages| messages > 0))
    }

    /// Erases a conversation, and sees to it that no replay brings it back. One that is not known leaves a tombstone
    /// too, for it might come later; but only on an operator's word: of a slip of the finger nobody would know why a
    /// call is never imported.
    pub(crate) async fn erase(&self, id: &str, yes_unknown: bool) -> Result<Erased, OperationError> {
        let key = self.key_of(id)?;
        let external_id = key.external_id;
        let Some(eraser) = &self.eraser else {
            return Err(OperationError::Refused(
                "this process has no recording store, so recordings would be left; run `erase` with the settings of a \
                 consumer"
                    .to_owned(),
            ));
        };
        if !yes_unknown && !self.is_known(&key).await? {
            return Err(OperationError::Invalid(format!(
                "CONVERSATION_ID: nothing is known of {external_id}, and a call of that id would never be imported; \
                 correct the id, or say so with --yes-unknown"
            )));
        }
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
