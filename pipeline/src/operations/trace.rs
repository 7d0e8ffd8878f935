//! `trace`: everything known of one conversation, hop by hop.

use std::sync::Arc;

use catalog::{Catalog, ConversationRow, ConversationStatus};
use clap::Args;
use model::{ContactId, DeadLetter, Hop};
use serde::{Deserialize, Serialize};
use state::State;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant, SingleCommand, is_processed};
use crate::tables::{table, time};

/// What a conversation is traced with.
#[derive(Clone)]
pub(crate) struct TraceOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    /// None: the process keeps no state of its own.
    pub(super) state: Option<State>,
}

/// Everything known of one conversation is asked for.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct TraceConversation {
    /// NICE's contact id of the leg
    conversation_id: ContactId,
}

/// Everything known of one conversation. The customer's number and NICE's own record stay in the catalog.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub(crate) conversation_id: ContactId,
    /// `metadata_saved`, `ready`, `no_recording`, `dead_letter`, `erased`, `dropped` (the last hop says why), or
    /// `under_way`.
    pub(crate) state: String,
    pub(crate) conversation: Option<serde_json::Value>,
    pub(crate) dead_letter: Option<DeadLetter>,
    /// Whether the dedupe lets no further event of it through.
    pub(crate) processed: bool,
    pub(crate) hops: Vec<Hop>,
}

impl Trace {
    /// All that is known of an erased conversation.
    fn erased(conversation_id: ContactId) -> Self {
        Self {
            conversation_id,
            state: "erased".to_owned(),
            conversation: None,
            dead_letter: None,
            processed: false,
            hops: Vec::new(),
        }
    }
}

impl AdminRequest for TraceConversation {
    type Answer = Trace;
    type Handler = TraceOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/trace/{conversation_id}");

    async fn fulfil(self, operations: &TraceOperations) -> Result<Trace, OperationError> {
        let Self { conversation_id } = self;
        let key = operations.tenant.key(conversation_id)?;
        if operations.catalog.status(&key).await? == ConversationStatus::Erased {
            return Ok(Trace::erased(conversation_id));
        }
        let row = operations.catalog.conversation(&key).await?;
        let hops = operations.catalog.hops(&key).await?;
        let dead_letter = operations.catalog.dead_letter_of(&key).await?;
        let dead_letter = dead_letter.map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter });
        let processed = is_processed(operations.state.as_ref(), &key);
        if row.is_none() && hops.is_empty() && dead_letter.is_none() && !processed {
            return Err(OperationError::NotFound(format!("nothing is known of conversation {conversation_id}")));
        }
        let state = match (&row, &dead_letter) {
            (Some(row), None) => row.state.as_str(),
            (Some(row), Some(_)) if row.state.is_final() => row.state.as_str(),
            (_, Some(_)) => "dead_letter",
            (None, None) if hops.last().is_some_and(|hop| hop.outcome == "done") => "dropped",
            (None, None) => "under_way",
        };
        let state = state.to_owned();
        Ok(Trace { conversation_id, state, conversation: row.map(without_personal_data), dead_letter, processed, hops })
    }
}

impl SingleCommand for TraceConversation {
    fn table(trace: &Trace) -> String {
        let mut lines = vec![format!("conversation {}: {}", trace.conversation_id, trace.state)];
        if let Some(row) = &trace.conversation {
            for field in ["master_external_id", "agent_external_id", "direction", "started_at", "ended_at", "source"] {
                lines.push(format!("  {field:<19} {}", plain(&row[field])));
            }
            for recording in row["recordings"].as_array().into_iter().flatten() {
                lines.push(format!(
                    "  recording {}         {} bytes, sha256 {}, {}",
                    plain(&recording["position"]),
                    plain(&recording["size_bytes"]),
                    plain(&recording["sha256"]),
                    plain(&recording["object_key"])
                ));
            }
            if row["recordings_missing"].as_u64().is_some_and(|missing| missing > 0) {
                let missing = plain(&row["recordings_missing"]);
                lines
                    .push(format!("  {:<19} {missing} that NICE names; `recheck` asks for them", "recordings missing"));
            }
            lines.push(format!("  {:<19} {}", "in analysis queue", plain(&row["enqueued_at"])));
        }
        if let Some(letter) = &trace.dead_letter {
            lines.push(format!("  dead letter {}: {} ({})", letter.id, letter.reason, letter.stage));
        }
        let mut hops = table(&["at", "stage", "outcome", "attempt", "took", "detail"]);
        for hop in &trace.hops {
            hops.add_row([
                time(Some(hop.at)),
                hop.stage.clone(),
                hop.outcome.clone(),
                hop.attempt.to_string(),
                format!("{} ms", hop.took_millis),
                hop.detail.clone().unwrap_or_default(),
            ]);
        }
        lines.push(hops.to_string());
        lines.join("\n")
    }
}

fn without_personal_data(row: ConversationRow) -> serde_json::Value {
    let mut row = serde_json::to_value(row).unwrap_or_default();
    if let Some(fields) = row.as_object_mut() {
        fields.remove("customer_number");
        fields.remove("metadata");
    }
    row
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
