//! Conversations that lack recordings, and what comes to them late.

use jiff::Timestamp;
use model::{AgentId, ContactId, ConversationKey, ConversationState, StoredRecording, TenantId};
use serde::Deserialize;

use super::Inner;
use crate::{Attempt, CatalogError, Lacking, RecordingRow};

/// As much of a conversation's row as a look for what it lacks needs.
#[derive(Deserialize)]
pub(super) struct LackingRow {
    external_id: ContactId,
    master_external_id: ContactId,
    agent_external_id: AgentId,
    pub(super) started_at: Timestamp,
    ended_at: Timestamp,
    state: ConversationState,
    #[serde(default)]
    recordings_missing: u32,
}

impl LackingRow {
    pub(super) fn lacks_recordings(&self) -> bool {
        self.state == ConversationState::NoRecording || self.recordings_missing > 0
    }

    pub(super) fn listed(self, tenant: TenantId) -> Lacking {
        Lacking {
            tenant,
            external_id: self.external_id,
            master: self.master_external_id,
            agent: self.agent_external_id,
            ended_at: self.ended_at,
        }
    }
}

impl Inner {
    /// Adds recordings to a row that lacks some. Nobody claims an entry of this catalog, so one that is there waits.
    pub(super) fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let mut counters = self.lock();
        self.refuse_erased(key)?;
        let Some(mut row) = self.row(key)? else {
            return Err(CatalogError(format!("no row of conversation {}", key.external_id)));
        };
        if attempt.is_some() && counters.attempts.get(key) != attempt.as_ref() {
            return Err(CatalogError::overtaken());
        }
        let is_free = |position: u32| row.recordings.iter().all(|stored| stored.position != position);
        let new: Vec<_> =
            recordings.iter().map(RecordingRow::from).filter(|recording| is_free(recording.position)).collect();
        if !row.lacks_recordings() || new.is_empty() {
            let is_done = attempt.is_none() || row.holds(recordings);
            return if is_done { Ok(()) } else { Err(CatalogError::overtaken()) };
        }
        let before = row.state;
        row.recordings.extend(new);
        row.recordings.sort_by_key(|recording| recording.position);
        row.recordings_missing = missing;
        row.state = ConversationState::Ready;
        row.enqueued_at.get_or_insert(at);
        self.write_row(&row, Some(before), &mut counters)
    }
}
