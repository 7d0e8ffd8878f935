//! `erase`: one conversation is erased for good, on an operator's word.
//!
//! Where all is on servers the command does it itself, beside whatever runs: it needs no state of this machine, and
//! the producer, whose daemon would be found here, has no recording store.

use std::path::PathBuf;
use std::sync::Arc;

use catalog::{Catalog, ConversationStatus};
use flow::StageError;
use model::{ContactId, ConversationKey, ConversationState};
use queue::Queue;
use serde::{Deserialize, Serialize};
use stages::erase::{Eraser, ErasureReport};
use state::State;
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant, SingleCommand, is_processed};
use crate::config::Need;
use crate::doors::Wanted;
use crate::rebuild;

/// What is asked of the erasure of a conversation.
#[derive(Clone)]
pub(crate) struct ErasureOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) queue: Arc<dyn Queue>,
    /// None: the process keeps no state of its own.
    pub(super) state: Option<State>,
    /// None: the process has no recording store.
    pub(super) eraser: Option<Eraser>,
}

/// What was erased, and what is left to others.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErasureAnswer {
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
    #[schema(value_type = Vec<String>)]
    pub(crate) set_aside: Vec<PathBuf>,
}

/// What there is of a conversation: what an erasure would remove.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Erasable {
    pub(crate) conversation_id: ContactId,
    /// Whether anything is known of it. If not, its erasure asks for `--yes-unknown`.
    pub(crate) known: bool,
    /// It was erased before, and is not to come back.
    pub(crate) erased: bool,
    /// The state of its row, if there is one.
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

/// What an erasure would remove is asked for. Nothing is changed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowErasable {
    pub(crate) conversation_id: ContactId,
}

impl AdminRequest for ShowErasable {
    type Answer = Erasable;
    type Handler = ErasureOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/conversations/{conversation_id}/erasure");

    async fn fulfil(self, operations: &ErasureOperations) -> Result<Erasable, OperationError> {
        let key = operations.tenant.key(self.conversation_id)?;
        let erased = operations.catalog.status(&key).await? == ConversationStatus::Erased;
        let row = operations.catalog.conversation(&key).await?;
        let (hops, messages) =
            (operations.catalog.hops(&key).await?.len() as u64, operations.queue.messages_of(&key).await?);
        let dead_letters = u64::from(operations.catalog.dead_letter_of(&key).await?.is_some());
        let processed = is_processed(operations.state.as_ref(), &key);
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
}

impl SingleCommand for ShowErasable {
    const NEED: Need = EraseConversation::NEED;
    const WANTED: Wanted = EraseConversation::WANTED;

    fn table(erasable: &Erasable) -> String {
        let Erasable { conversation_id, known, recordings, dead_letters, hops, messages, .. } = erasable;
        if !known {
            return format!("nothing is known of conversation {conversation_id}: `erase` would ask for --yes-unknown");
        }
        let mut lines = vec![format!("nothing is erased; of conversation {conversation_id} there is")];
        if erasable.erased {
            lines.push("  tombstone    it was erased before, and stays away".to_owned());
        }
        lines.push(match erasable.state {
            Some(state) => format!("  catalog      its row ({})", state.as_str()),
            None => "  catalog      no row".to_owned(),
        });
        lines.push(format!("               {dead_letters} dead letters, {hops} lines of its timeline"));
        lines.push(format!("  recordings   {} as its row says", recordings.len()));
        lines.extend(recordings.iter().map(|key| format!("               {key}")));
        lines.push(match messages {
            Some(messages) => format!("  queue        {messages} messages"),
            None => "  queue        the broker does not tell".to_owned(),
        });
        lines.join("\n")
    }
}

/// A conversation is erased, so that no replay brings it back. One that is not known leaves a tombstone too, for it
/// might come later; but only on an operator's word: of a slip of the finger nobody would know why a call is never
/// imported.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct EraseConversation {
    pub(crate) conversation_id: ContactId,
    /// Also where nothing is known of it.
    #[serde(default)]
    pub(crate) yes_unknown: bool,
}

impl AdminRequest for EraseConversation {
    type Answer = ErasureAnswer;
    type Handler = ErasureOperations;
    const ROUTE: AdminRoute = AdminRoute::delete("/conversations/{conversation_id}");

    async fn fulfil(self, operations: &ErasureOperations) -> Result<ErasureAnswer, OperationError> {
        let key = operations.tenant.key(self.conversation_id)?;
        let external_id = key.external_id;
        let Some(eraser) = &operations.eraser else {
            return Err(OperationError::Refused(
                "this process has no recording store, so recordings would be left; run `erase` with the settings of a \
                 consumer"
                    .to_owned(),
            ));
        };
        if !self.yes_unknown && !operations.is_known(&key).await? {
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
        let set_aside = operations.state.as_ref().map(|state| rebuild::set_aside(state.store().dir()));
        Ok(ErasureAnswer {
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

impl SingleCommand for EraseConversation {
    const NEED: Need = Need::Erasure;
    const WANTED: Wanted = Wanted::Erasure;

    fn table(erased: &ErasureAnswer) -> String {
        let ErasureAnswer {
            conversation_id, tombstone, found, objects, dead_letters, hops, messages, set_aside, ..
        } = erased;
        let mut lines = vec![match found {
            _ if !erased.recordings_looked_for => format!(
                "conversation {conversation_id} stays away, but its recordings were not looked for (tombstone {tombstone})"
            ),
            true => format!("conversation {conversation_id} is erased (tombstone {tombstone})"),
            false => format!(
                "nothing was found of conversation {conversation_id}; should it turn up, it is dropped (tombstone {tombstone})"
            ),
        }];
        lines.push(match erased.recordings_looked_for {
            true => format!("  recordings   {objects} files or versions of objects deleted"),
            false => format!(
                "  recordings   none were looked for, since no row says where they would lie; delete what is in the bucket \
                 under TENANT/YEAR/MONTH/DAY/{conversation_id}/"
            ),
        });
        lines
            .push(format!("  catalog      its row, {dead_letters} dead letters, {hops} lines of its timeline deleted"));
        lines.push(match messages {
            Some(messages) => format!("  queue        {messages} messages deleted"),
            None => {
                "  queue        a message that is still on the broker holds the id, and is dropped when it comes up"
                    .to_owned()
            }
        });
        lines.push("  pending      consumers look again for 6 hours, and keep its id until then".to_owned());
        for store in set_aside {
            lines.push(format!("  set aside    {} may still hold it: delete it", store.display()));
        }
        lines.push("  yours        backups, and what the analysis has copied".to_owned());
        lines.join("\n")
    }
}

impl ErasureOperations {
    /// Whether anything tells that the conversation exists, or existed.
    async fn is_known(&self, key: &ConversationKey) -> Result<bool, OperationError> {
        // A row, a dead letter, or a tombstone.
        Ok(self.catalog.known(std::slice::from_ref(key)).await?.contains(&true)
            || is_processed(self.state.as_ref(), key)
            || !self.catalog.hops(key).await?.is_empty()
            || self.queue.messages_of(key).await?.is_some_and(|messages| messages > 0))
    }
}
