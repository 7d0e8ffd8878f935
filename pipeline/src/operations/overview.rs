//! Conversations for people: counted by day, and found by agent and time. NICE is not asked.

use std::str::FromStr;
use std::sync::Arc;

use catalog::{Catalog, ConversationFilter, DayCounts, FoundConversation, Recorded};
use jiff::{SignedDuration, Timestamp, civil::Date};
use model::{AgentId, ContactId, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paging::{AnswerPage, PageStart};
use super::{AdminRequest, AdminRoute, OperationError, ServedTenant};

/// Conversations in one page of a listing.
pub(crate) const PAGE: usize = 50;

/// The longest range in which conversations are looked for or counted: each of them is read.
const LONGEST_DAYS: i64 = 62;

/// What the catalog's overviews are asked with.
#[derive(Clone)]
pub(crate) struct OverviewOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Catalog>,
}

impl OverviewOperations {
    /// The tenants that there are: those of the catalog, and the one of the settings.
    pub(crate) async fn tenants(&self) -> Result<Vec<TenantId>, OperationError> {
        let mut tenants = self.catalog.tenants().await?;
        if let Ok(own) = self.tenant.get()
            && !tenants.contains(own)
        {
            tenants.push(own.clone());
        }
        Ok(tenants)
    }
}

/// What became of the calls that ended on each day, from the catalog alone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CountDays {
    /// The first UTC day.
    pub(crate) from: Date,
    /// The last one.
    pub(crate) to: Date,
}

impl AdminRequest for CountDays {
    type Answer = Vec<DayCounts>;
    type Handler = OverviewOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/days");

    async fn fulfil(self, operations: &OverviewOperations) -> Result<Vec<DayCounts>, OperationError> {
        let Self { from, to } = self;
        let days = to.since(from).map_or(i64::MAX, |span| i64::from(span.get_days()));
        if !(0..LONGEST_DAYS).contains(&days) {
            return Err(OperationError::Invalid(format!("from, to: at most {LONGEST_DAYS} days, the first one first")));
        }
        Ok(operations.catalog.days(operations.tenant.get()?, from, to).await?)
    }
}

/// Conversations that ended in a range, the last first: a page of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FindConversations {
    /// Only those of this agent.
    #[serde(default)]
    pub(crate) agent: Option<AgentId>,
    /// The first moment.
    pub(crate) from: Timestamp,
    /// The moment after the last.
    pub(crate) to: Timestamp,
    /// Only those that are not ready, or lack recordings.
    #[serde(default)]
    pub(crate) only_exceptions: bool,
    /// The last one of the page before: its id.
    #[serde(default)]
    pub(crate) before_id: Option<ContactId>,
    /// And its end.
    #[serde(default)]
    pub(crate) before_end: Option<Timestamp>,
}

impl AdminRequest for FindConversations {
    type Answer = Vec<FoundConversation>;
    type Handler = OverviewOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/conversations");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &OverviewOperations) -> Result<Vec<FoundConversation>, OperationError> {
        let before = self.before_id.zip(self.before_end);
        let before = before.map(|(external_id, ended_at)| Recorded { external_id, ended_at });
        self.found(operations, before, PAGE).await
    }

    async fn fulfil_page(
        self,
        operations: &OverviewOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<FoundConversation>>, OperationError> {
        let limit = start.limit()?;
        let before = match start.after::<PageEnd>()? {
            Some(PageEnd(last)) => Some(last),
            None => {
                self.before_id.zip(self.before_end).map(|(external_id, ended_at)| Recorded { external_id, ended_at })
            }
        };
        let found = self.found(operations, before, limit).await?;
        Ok(AnswerPage::of(found, limit, |last| format!("{} {}", last.external_id, last.ended_at)))
    }
}

/// The last conversation of a page: its id and its end.
struct PageEnd(Recorded);

impl FromStr for PageEnd {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (external_id, ended_at) = text.split_once(' ').ok_or(())?;
        let (external_id, ended_at) = (external_id.parse().map_err(drop)?, ended_at.parse().map_err(drop)?);
        Ok(Self(Recorded { external_id, ended_at }))
    }
}

impl FindConversations {
    async fn found(
        self,
        operations: &OverviewOperations,
        before: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<FoundConversation>, OperationError> {
        let Self { agent, from, to, only_exceptions, .. } = self;
        if to <= from || to.duration_since(from) > SignedDuration::from_hours(24 * LONGEST_DAYS) {
            return Err(OperationError::Invalid(format!("from, to: at most {LONGEST_DAYS} days, the first one first")));
        }
        let filter = ConversationFilter { agent, from, to, only_exceptions };
        Ok(operations.catalog.found(operations.tenant.get()?, &filter, before, limit).await?)
    }
}
