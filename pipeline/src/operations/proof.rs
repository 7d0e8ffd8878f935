//! The chain of signed days, as the page shows it.

use std::path::PathBuf;

use runtime::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};
use crate::proof::chain::{ChainExpectation, ProofChain};
use crate::proof::folder::ProofFolder;

/// The newest days that are listed; all of them are checked.
const LISTED: usize = 400;

/// What the chain is read with.
#[derive(Clone)]
pub(crate) struct ProofOperations {
    pub(super) tenant: ServedTenant,
    /// The directory of the settings.
    pub(super) dir: Option<PathBuf>,
}

impl ProofOperations {
    /// Whether days are signed here at all.
    pub(crate) fn is_set(&self) -> bool {
        self.dir.is_some()
    }
}

/// The signed days of the tenant are asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListSignedDays {}

impl AdminRequest for ListSignedDays {
    type Answer = ProofChain;
    type Handler = ProofOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/proof");

    async fn fulfil(self, operations: &ProofOperations) -> Result<ProofChain, OperationError> {
        let tenant = operations.tenant.get()?;
        let Some(dir) = &operations.dir else {
            return Err(OperationError::Refused("[proof] dir: missing, so no day is signed here".to_owned()));
        };
        let folder = ProofFolder::of(dir, tenant);
        let read = task::blocking(move || match folder.path().exists() {
            true => ProofChain::of(folder.path(), &ChainExpectation::default()),
            false => Ok(ProofChain::default()),
        });
        let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
        let mut chain = read.map_err(OperationError::Refused)?;
        let older = chain.days.len().saturating_sub(LISTED);
        chain.days.drain(..older);
        Ok(chain)
    }
}
