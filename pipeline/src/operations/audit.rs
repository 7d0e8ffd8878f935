//! What operators did at the admin address.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, OperatorAct};
use runtime::Clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::{AnswerPage, PageStart};
use super::{AdminRequest, AdminRoute, OperationError};

/// Acts in one page of the list.
pub(crate) const PAGE: usize = 100;

/// What the audit is written with.
#[derive(Clone)]
pub(crate) struct AuditOperations {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) clock: Clock,
    pub(super) keep: Duration,
}

impl AuditOperations {
    /// Writes down what is about to be done. If that fails, it must not be done.
    pub(crate) async fn record(&self, who: &str, act: &str, subject: &str) -> Result<(), OperationError> {
        let written = OperatorAct {
            id: 0,
            at: self.clock.now(),
            who: who.to_owned(),
            act: act.to_owned(),
            subject: subject.to_owned(),
        };
        Ok(self.catalog.record_act(&written, self.keep).await?)
    }
}

/// What operators did, newest first, is asked for: a page of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListActs {
    /// Only what came before the one with this number.
    #[serde(default)]
    pub(crate) before: Option<u64>,
}

impl AdminRequest for ListActs {
    type Answer = Vec<OperatorAct>;
    type Handler = AuditOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/audit");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &AuditOperations) -> Result<Vec<OperatorAct>, OperationError> {
        Ok(operations.catalog.acts(self.before, PAGE).await?)
    }

    async fn fulfil_page(
        self,
        operations: &AuditOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<OperatorAct>>, OperationError> {
        let limit = start.limit()?;
        let before = start.after()?.or(self.before);
        let acts = operations.catalog.acts(before, limit).await?;
        Ok(AnswerPage::of(acts, limit, |act| act.id.to_string()))
    }
}
