//! Rechecks of calls that lack recordings, on an operator's word.

use catalog::{Lacking, Standing};
use model::{ContactId, ConversationKey, EventSource};
use serde::{Deserialize, Serialize};
use stages::recheck::{Recheck, RecheckError};

use super::replays::Range;
use super::{OperationError, Operations};

/// What was put on the queue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rechecked {
    /// Calls that lack recordings, and are on the queue now.
    pub(crate) enqueued: u64,
}

impl From<RecheckError> for OperationError {
    fn from(error: RecheckError) -> Self {
        match error {
            RecheckError::Catalog(error) => error.into(),
            RecheckError::Queue(error) => error.into(),
        }
    }
}

impl Operations {
    /// Asks for the recordings that one call lacks.
    pub(crate) async fn recheck(&self, id: &str) -> Result<Rechecked, OperationError> {
        let external_id: ContactId =
            id.parse().map_err(|error| OperationError::Refused(format!("CONVERSATION_ID: {error}")))?;
        let key = ConversationKey { tenant: self.tenant()?.clone(), external_id };
        if self.catalog.standing(&key).await? == Standing::Erased {
            return Err(OperationError::Refused(format!("conversation {external_id} was erased, and stays away")));
        }
        let row = self.catalog.conversation(&key).await?.filter(|row| row.state.is_final());
        let Some(row) = row else {
            return Err(OperationError::NotFound(format!(
                "conversation {external_id} is neither ready nor without a recording: `trace` tells how it stands, and \
                 `dead-letters replay` brings back what was set aside"
            )));
        };
        if !row.lacks_recordings() {
            return Ok(Rechecked { enqueued: 0 });
        }
        let (master, agent, ended_at) = (row.master_external_id, row.agent_external_id, row.ended_at);
        let call = Lacking { tenant: key.tenant, external_id, master, agent, ended_at };
        self.rechecks().one(&call, EventSource::Backfill).await?;
        Ok(Rechecked { enqueued: 1 })
    }

    /// Asks for the recordings that the calls of a range lack, by their start.
    pub(crate) async fn recheck_range(&self, range: Range) -> Result<Rechecked, OperationError> {
        let (tenant, now) = (self.tenant()?, self.clock.now());
        range.validate(now)?;
        let to = range.to.min(now);
        let enqueued = self.rechecks().range(tenant, range.from, to, EventSource::Backfill).await?;
        tracing::info!(from = %range.from, %to, enqueued, "calls that lack recordings are looked at once more");
        Ok(Rechecked { enqueued })
    }

    fn rechecks(&self) -> Recheck {
        Recheck { catalog: self.catalog.clone(), queue: self.queue.clone(), clock: self.clock.clone() }
    }
}
