//! What operators did at the admin address: who, when, what.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CatalogError;

/// The list of what operators did.
#[async_trait]
pub trait Audits: Send + Sync + 'static {
    /// Adds to the list. Durable once it returns. What is older than `keep` may go.
    async fn record_act(&self, act: &OperatorAct, keep: Duration) -> Result<(), CatalogError>;

    /// What was done, newest first: at most `limit` before the one with the number `before`.
    async fn acts(&self, before: Option<u64>, limit: usize) -> Result<Vec<OperatorAct>, CatalogError>;
}

/// What an operator did, or was about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorAct {
    /// Given by the catalog, ascending; 0 before it is written.
    #[serde(default)]
    pub id: u64,
    /// When; by the catalog's own clock, where it has one.
    pub at: Timestamp,
    /// By which token or name, never the token itself.
    pub who: String,
    /// What, in a word or two.
    pub act: String,
    /// Of what: a number, a range.
    pub subject: String,
}
