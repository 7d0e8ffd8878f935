//! `trace`: everything known of one conversation, hop by hop.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, ConversationRow, ConversationStatus};
use clap::Args;
use flow::RetryPolicy;
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, DeadLetter, Hop, QuotaClass};
use nice::NiceError;
use serde::{Deserialize, Serialize};
use stages::tenants::Tenants;
use state::State;
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant, SingleCommand, is_processed};
use crate::tables::folded;

/// What a conversation is traced with.
#[derive(Clone)]
pub(crate) struct TraceOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    /// None: the process keeps no state of its own.
    pub(super) state: Option<State>,
    /// The way to NICE, for what is known nowhere else.
    pub(super) tenants: Arc<Tenants>,
    /// Delays and deadlines.
    pub(super) retry: RetryPolicy,
}

/// Everything known of one conversation is asked for.
#[derive(Debug, Args, Serialize, Deserialize, ToSchema)]
pub(crate) struct TraceConversation {
    /// NICE's contact id of the leg
    conversation_id: ContactId,
}

/// Everything known of one conversation. The customer's number and NICE's own record stay in the catalog.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Trace {
    pub(crate) conversation_id: ContactId,
    /// The id of its trace, by which a collector finds it: the same for all that is ever done for the conversation.
    #[serde(default)]
    pub(crate) trace_id: String,
    /// `metadata_saved`, `ready`, `no_recording`, `dead_letter`, `erased`, `dropped` (the last hop says why),
    /// `under_way`, or `unknown` (NICE knows it, and nothing is known here).
    pub(crate) state: String,
    /// Its row in the catalog, if there is one.
    #[schema(value_type = serde_json::Value)]
    pub(crate) conversation: Option<serde_json::Value>,
    pub(crate) dead_letter: Option<DeadLetter>,
    /// Whether the dedupe lets no further event of it through.
    pub(crate) processed: bool,
    /// When the call ended, as far as that is known.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
    /// NICE's id of its agent.
    #[serde(default)]
    pub(crate) agent_id: Option<String>,
    /// When it is looked at again: about, for it waits for its turn then. None where nothing more is to come.
    #[serde(default)]
    pub(crate) next_look_at: Option<Timestamp>,
    /// When it is given up, at the earliest, if NICE does not give its recording.
    #[serde(default)]
    pub(crate) deadline_at: Option<Timestamp>,
    /// What NICE says, where nothing or little is known here.
    #[serde(default)]
    pub(crate) nice: Option<String>,
    pub(crate) hops: Vec<Hop>,
}

impl Trace {
    /// All that is known of an erased conversation.
    fn erased(key: &ConversationKey) -> Self {
        Self {
            conversation_id: key.external_id,
            trace_id: trace_id(key),
            state: "erased".to_owned(),
            conversation: None,
            dead_letter: None,
            processed: false,
            ended_at: None,
            agent_id: None,
            next_look_at: None,
            deadline_at: None,
            nice: None,
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
            return Ok(Trace::erased(&key));
        }
        let row = operations.catalog.conversation(&key).await?;
        let hops = operations.catalog.hops(&key).await?;
        let dead_letter = operations.catalog.dead_letter_of(&key).await?;
        let dead_letter = dead_letter.map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter });
        let processed = is_processed(operations.state.as_ref(), &key);
        let is_unknown = row.is_none() && hops.is_empty() && dead_letter.is_none() && !processed;
        let (mut ended_at, mut agent_id) = match &row {
            Some(row) => (Some(row.ended_at), Some(row.agent_external_id.to_string())),
            None => (None, None),
        };
        let mut nice = None;
        if is_unknown {
            let found = operations.ask_nice(&key).await.map_err(|why| {
                OperationError::NotFound(format!("nothing is known of conversation {conversation_id}; {why}"))
            })?;
            (ended_at, agent_id, nice) = (found.ended_at, found.agent_id, Some(found.says));
        }
        let state = match (&row, &dead_letter) {
            (Some(row), None) => row.state.as_str(),
            (Some(row), Some(_)) if row.state.is_final() => row.state.as_str(),
            (_, Some(_)) => "dead_letter",
            (None, None) if hops.last().is_some_and(|hop| hop.outcome == "done") => "dropped",
            (None, None) if is_unknown => "unknown",
            (None, None) => "under_way",
        };
        let is_open = matches!(state, "under_way" | "metadata_saved");
        let next_look_at = hops.last().filter(|_| is_open).and_then(|hop| operations.next_look(hop, &hops));
        let deadline_at = ended_at.filter(|_| is_open).and_then(|ended_at| operations.deadline(ended_at));
        Ok(Trace {
            conversation_id,
            trace_id: trace_id(&key),
            state: state.to_owned(),
            conversation: row.map(without_personal_data),
            dead_letter,
            processed,
            ended_at,
            agent_id,
            next_look_at,
            deadline_at,
            nice,
            hops,
        })
    }
}

/// What NICE says of a contact.
struct FoundContact {
    says: String,
    ended_at: Option<Timestamp>,
    agent_id: Option<String>,
}

/// How long NICE may take, for a person who waits.
const PATIENCE: Duration = Duration::from_secs(10);

impl TraceOperations {
    /// Asks NICE for the contact; the error says what NICE answered, or why it was not asked.
    async fn ask_nice(&self, key: &ConversationKey) -> Result<FoundContact, String> {
        let asked = async {
            let tenant = self.tenants.get(&key.tenant).await.map_err(|error| format!("NICE was not asked: {error}"))?;
            let contact = tenant.nice.for_class(QuotaClass::Backfill).contact(key.external_id).await;
            contact.map_err(|error| match error {
                NiceError::NotReady { .. } => "NICE does not know it either".to_owned(),
                error => format!("NICE did not say: {error}"),
            })
        };
        let late = |_| Err("NICE did not answer in time".to_owned());
        let contact = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)?;
        let length = contact.total_duration.and_then(|length| SignedDuration::try_from(length).ok());
        let ended_at = contact.started_at.zip(length).and_then(|(began, length)| began.checked_add(length).ok());
        let ended_at = ended_at.filter(|_| contact.is_active != Some(true));
        let says = match (contact.agent_id, ended_at) {
            (None, _) => "no agent took this call, so that it is not imported",
            (_, None) => "the call has not ended; it is found when it has",
            (Some(_), Some(_)) => {
                "NICE knows this call. It is imported if its agent was in the group when it ended, and the filter of the \
                 settings takes it: see `agents list`. `reconcile` or `backfill` brings in what is missing"
            }
        };
        let agent_id = contact.agent_id.map(|agent| agent.to_string());
        Ok(FoundContact { says: says.to_owned(), ended_at, agent_id })
    }

    /// When a call whose last hop this is comes again, about.
    fn next_look(&self, hop: &Hop, hops: &[Hop]) -> Option<Timestamp> {
        let looks = hops.iter().filter(|hop| hop.outcome == "not_ready" && hop.stage != "await_recording").count();
        let step = match hop.outcome.as_str() {
            "not_ready" => self.retry.not_ready_step(u32::try_from(looks.saturating_sub(1)).unwrap_or(u32::MAX)),
            "retry" | "busy" => self.retry.error_delay_max,
            _ => return None,
        };
        hop.at.checked_add(step).ok()
    }

    /// When a call that ended then is given up, if NICE gives no recording.
    fn deadline(&self, ended_at: Timestamp) -> Option<Timestamp> {
        ended_at.checked_add(self.retry.recording_deadline).ok()
    }
}

impl SingleCommand for TraceConversation {
    fn table(trace: &Trace) -> String {
        let mut lines = vec![format!("conversation {}: {}", trace.conversation_id, trace.state)];
        let field = |lines: &mut Vec<String>, name: &str, text: &str| {
            lines.push(folded(&format!("  {name:<19} "), text));
        };
        let mut hashes = Vec::new();
        let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        field(&mut lines, "ended at", &moment(trace.ended_at));
        field(&mut lines, "trace id", &trace.trace_id);
        field(&mut lines, "agent", trace.agent_id.as_deref().unwrap_or("-"));
        if trace.next_look_at.is_some() {
            field(&mut lines, "next look", &format!("{}, about", moment(trace.next_look_at)));
        }
        if trace.deadline_at.is_some() {
            field(&mut lines, "given up", &format!("{}, at the earliest", moment(trace.deadline_at)));
        }
        if let Some(says) = &trace.nice {
            field(&mut lines, "NICE", says);
        }
        if let Some(row) = &trace.conversation {
            for name in ["master_external_id", "direction", "started_at", "source"] {
                field(&mut lines, &name.replace('_', " "), &plain(&row[name]));
            }
            for recording in row["recordings"].as_array().into_iter().flatten() {
                let (position, size) = (plain(&recording["position"]), plain(&recording["size_bytes"]));
                field(
                    &mut lines,
                    &format!("recording {position}"),
                    &format!("{size} bytes, {}", plain(&recording["object_key"])),
                );
                hashes.push((position, plain(&recording["sha256"])));
            }
            if row["recordings_missing"].as_u64().is_some_and(|missing| missing > 0) {
                let missing = plain(&row["recordings_missing"]);
                field(&mut lines, "recordings missing", &format!("{missing} that NICE names; `recheck` asks for them"));
            }
            field(&mut lines, "in analysis queue", &plain(&row["enqueued_at"]));
            // As long as a line, nearly.
            lines.extend(hashes.iter().map(|(position, hash)| format!("  sha256 of {position}: {hash}")));
        }
        if let Some(letter) = &trace.dead_letter {
            field(&mut lines, &format!("dead letter {}", letter.id), &format!("{} ({})", letter.reason, letter.stage));
        }
        for hop in &trace.hops {
            let (stage, outcome) = (hop.stage.replace('_', " "), hop.outcome.replace('_', " "));
            let Hop { at, attempt, took_millis, .. } = hop;
            lines.push(format!("{at:.3}  {stage:<19} {outcome:<12} attempt {attempt:<3} {took_millis:>7} ms"));
            if let Some(detail) = &hop.detail {
                lines.push(folded("                          ", detail));
            }
        }
        lines.join("\n")
    }
}

/// As a collector of traces writes it.
fn trace_id(key: &ConversationKey) -> String {
    format!("{:032x}", key.trace_id())
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
