//! The chain of signed days, as the page shows it.

use std::path::PathBuf;

use runtime::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};
use crate::proof::chain::ProofChain;
use crate::proof::folder::ProofFolder;

/// The newest days that are listed; all of them are checked.
const LISTED: usize = 400;

/// What the chain is read with.
#[derive(Clone)]
pub(crate) struct ProofOperations {
    pub(super) tenant: ServedTenant,
    /// The directory of the settings.
    pub(super) dir: Option<PathBuf>,
    /// The public half of the key of the settings, if there is one.
    pub(super) public_key: Option<String>,
}

impl ProofOperations {
    /// Whether days are signed here at all.
    pub(crate) fn is_set(&self) -> bool {
        self.dir.is_some()
    }

    /// The key with which this process would sign, if it has one.
    pub(crate) fn public_key(&self) -> Option<&str> {
        self.public_key.as_deref()
    }

    /// The folder of the tenant.
    pub(crate) fn folder(&self) -> Result<ProofFolder, OperationError> {
        let tenant = self.tenant.get()?;
        let off = || OperationError::Refused("[proof] dir: missing, so no day is signed here".to_owned());
        Ok(ProofFolder::of(self.dir.as_ref().ok_or_else(off)?, tenant))
    }

    /// The whole chain, whoever has signed.
    pub(crate) async fn chain(&self) -> Result<ProofChain, OperationError> {
        let folder = self.folder()?;
        let read = task::blocking(move || folder.chain()).await;
        read.unwrap_or_else(|error| Err(error.to_string())).map_err(OperationError::Refused)
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
        let mut chain = operations.chain().await?;
        let older = chain.days.len().saturating_sub(LISTED);
        chain.days.drain(..older);
        Ok(chain)
    }
}
