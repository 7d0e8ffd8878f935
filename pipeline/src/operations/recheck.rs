//! `recheck`: NICE is asked once more for the recordings that calls lack.

use catalog::{ConversationStatus, Lacking};
use jiff::Timestamp;
use model::{ContactId, EventSource};
use serde::{Deserialize, Serialize};
use stages::recheck::{Recheck, RecheckError};
use utoipa::ToSchema;

use super::range::check_range;
use super::{AdminRequest, AdminRoute, OperationError, ServedTenant, SingleCommand};

/// What is asked of calls that lack recordings.
#[derive(Clone)]
pub(crate) struct RecheckOperations {
    pub(super) tenant: ServedTenant,
    pub(super) recheck: Recheck,
}

/// What was put on the queue.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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

/// The recordings that one call lacks are asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RecheckConversation {
    pub(crate) conversation_id: ContactId,
}

impl AdminRequest for RecheckConversation {
    type Answer = Rechecked;
    type Handler = RecheckOperations;
    const ROUTE: AdminRoute = AdminRoute::post("/conversations/{conversation_id}/recheck");

    async fn fulfil(self, operations: &RecheckOperations) -> Result<Rechecked, OperationError> {
        let key = operations.tenant.key(self.conversation_id)?;
        let external_id = key.external_id;
        if operations.recheck.catalog.status(&key).await? == ConversationStatus::Erased {
            return Err(OperationError::Refused(format!("conversation {external_id} was erased, and stays away")));
        }
        let row = operations.recheck.catalog.conversation(&key).await?.filter(|row| row.state.is_final());
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
        operations.recheck.one(&call, EventSource::Backfill).await?;
        Ok(Rechecked { enqueued: 1 })
    }
}

impl SingleCommand for RecheckConversation {
    fn table(rechecked: &Rechecked) -> String {
        match rechecked.enqueued {
            0 => "nothing lacks recordings: there is nothing to ask NICE for".to_owned(),
            calls => format!("{calls} calls are on the queue; a consumer asks NICE for what they lack"),
        }
    }
}

/// The recordings that the calls of a range lack are asked for, by their start.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RecheckRange {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl AdminRequest for RecheckRange {
    type Answer = Rechecked;
    type Handler = RecheckOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/rechecks");

    async fn fulfil(self, operations: &RecheckOperations) -> Result<Rechecked, OperationError> {
        let (tenant, now) = (operations.tenant.get()?, operations.recheck.clock.now());
        self.check(now)?;
        let (from, to) = (self.from, self.to.min(now));
        let enqueued = operations.recheck.range(tenant, from, to, EventSource::Backfill).await?;
        tracing::info!(%from, %to, count = enqueued, "calls that lack recordings are rechecked");
        Ok(Rechecked { enqueued })
    }
}

impl SingleCommand for RecheckRange {
    fn check(&self, now: Timestamp) -> Result<(), OperationError> {
        check_range(self.from, self.to, now)
    }

    fn table(rechecked: &Rechecked) -> String {
        RecheckConversation::table(rechecked)
    }
}
