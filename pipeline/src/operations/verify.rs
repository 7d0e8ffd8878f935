//! `verify`: recordings are read back a page at a time, so that no request lasts long.

use catalog::Recorded;
use jiff::Timestamp;
use model::ContactId;
use serde::{Deserialize, Serialize};
use stages::verify::{Verified, Verifier};
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};

/// What recordings are read back with.
#[derive(Clone)]
pub(crate) struct VerifyOperations {
    pub(super) tenant: ServedTenant,
    /// None: the process has no recording store.
    pub(super) verifier: Option<Verifier>,
}

/// Conversations in one answer of a listing.
pub(crate) const LISTED: usize = 1_000;

/// Conversations that are read back in one request.
pub(crate) const VERIFIED_AT_ONCE: usize = 5;

/// The next conversations of a range that have recordings are asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListRecorded {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) after: Option<Recorded>,
}

impl AdminRequest for ListRecorded {
    type Answer = Vec<Recorded>;
    type Handler = VerifyOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/recorded");

    async fn fulfil(self, operations: &VerifyOperations) -> Result<Vec<Recorded>, OperationError> {
        let Self { from, to, after } = self;
        let listed = operations.verifier()?.list(operations.tenant.get()?, from, to, after, LISTED).await;
        listed.map_err(OperationError::Verification)
    }
}

/// The recordings of some conversations are read back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Verify(pub(crate) Vec<ContactId>);

impl AdminRequest for Verify {
    type Answer = Verified;
    type Handler = VerifyOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/verifications");

    async fn fulfil(self, operations: &VerifyOperations) -> Result<Verified, OperationError> {
        let Self(ids) = self;
        if ids.len() > VERIFIED_AT_ONCE {
            return Err(OperationError::Invalid(format!("at most {VERIFIED_AT_ONCE} conversations at a time")));
        }
        let mut verified = Verified::default();
        for external_id in ids {
            let key = operations.tenant.key(external_id)?;
            verified.add(operations.verifier()?.verify(&key).await.map_err(OperationError::Verification)?);
        }
        Ok(verified)
    }
}

impl VerifyOperations {
    fn verifier(&self) -> Result<&Verifier, OperationError> {
        self.verifier.as_ref().ok_or_else(|| {
            OperationError::Refused(
                "this process has no recording store; run `verify` with the settings of a consumer".to_owned(),
            )
        })
    }
}
