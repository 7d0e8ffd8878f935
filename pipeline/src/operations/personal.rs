//! What is personal of a call: the customer's number, and what was said. Only for who may act, and in the audit.

use std::sync::Arc;

use catalog::{Catalog, RecordingRow};
use model::ContactId;
use recordings::{RecordingBody, RecordingStore};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};

/// What is personal is read with.
#[derive(Clone)]
pub(crate) struct PersonalOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
    /// None: the process has no recording store.
    pub(super) recordings: Option<Arc<dyn RecordingStore>>,
}

/// The customer's number of a conversation is asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowCustomerNumber {
    /// NICE's contact id of the leg.
    pub(crate) conversation_id: ContactId,
}

/// The customer's number, where NICE told it.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct CustomerNumber {
    pub(crate) customer_number: Option<String>,
}

impl AdminRequest for ShowCustomerNumber {
    type Answer = CustomerNumber;
    type Handler = PersonalOperations;
    const ROUTE: AdminRoute = AdminRoute::post("/conversations/{conversation_id}/customer-number");

    async fn fulfil(self, operations: &PersonalOperations) -> Result<CustomerNumber, OperationError> {
        let key = operations.tenant.key(self.conversation_id)?;
        let row = operations.catalog.conversation(&key).await?;
        let row = row.ok_or_else(|| OperationError::NotFound(format!("no row of conversation {}", key.external_id)))?;
        Ok(CustomerNumber { customer_number: row.customer_number })
    }
}

impl PersonalOperations {
    /// Whether there are recordings to read here.
    pub(crate) fn has_store(&self) -> bool {
        self.recordings.is_some()
    }

    /// A recording, as it lies in the store.
    pub(crate) async fn recording(
        &self,
        conversation_id: ContactId,
        position: u32,
    ) -> Result<(RecordingRow, RecordingBody<'static>), OperationError> {
        let missing = || OperationError::NotFound(format!("no recording {position} of {conversation_id}"));
        let store = self.recordings.as_ref();
        let store = store.ok_or_else(|| OperationError::Refused("this process has no recording store".to_owned()))?;
        let row = self.catalog.conversation(&self.tenant.key(conversation_id)?).await?.ok_or_else(missing)?;
        let recording = row.recordings.into_iter().find(|row| row.position == position).ok_or_else(missing)?;
        if !store.keeps(&recording.bucket, &recording.object_key).await.map_err(store_failed)? {
            return Err(OperationError::Refused("the recording lies in another store".to_owned()));
        }
        let body = store.read(&recording.object_key).await.map_err(store_failed)?.ok_or_else(missing)?;
        Ok((recording, body))
    }
}

fn store_failed(error: impl std::fmt::Display) -> OperationError {
    OperationError::Refused(format!("the recording store did not answer: {error}"))
}
