//! What is known of a tenant's group beside its agents: a reading that is held, and what was accepted.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Agent, AgentId, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CatalogError;

/// The agents of a tenant, and how its group stands beside them.
#[async_trait]
pub trait Agents: Send + Sync + 'static {
    /// Every agent of the tenant, former ones too, by external id.
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError>;

    /// One agent.
    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError>;

    /// Creates or replaces these agents; all others stay as they are.
    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError>;

    /// Notes that the agents are in step with the group as it was at `at`. Durable once it returns.
    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError>;

    /// When the group was read last; none before the first time. Who is not among the agents then was not in it.
    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError>;

    /// How the group stands beside its agents: the default before the first time.
    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError>;

    /// Replaces that. Durable once it returns.
    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError>;
}

/// How the tenant's group stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStanding {
    /// So many hidden agents NICE told of in the last reading that was believed.
    pub accepted_hidden: u64,
    /// The reading that is held, if one is.
    pub held: Option<HeldReading>,
}

/// A reading of the group that is not believed: the agents stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldReading {
    /// Since when every reading was like it.
    pub since: Timestamp,
    /// When the group was last read so.
    pub at: Timestamp,
    /// Active agents that it does not name, or names as deactivated.
    pub lost: u64,
    /// Of so many active ones.
    pub active: u64,
    /// Agents that NICE tells of without naming them, and that were not accepted before.
    pub hidden: u64,
}

impl HeldReading {
    /// How many agents it would take from the group: hidden ones may be among the lost.
    pub fn agents(&self) -> u64 {
        self.lost.max(self.hidden).max(1)
    }
}
