//! The agents of a tenant, and how its group stands beside them.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Agent, AgentId, TenantId};

use super::{EmbeddedCatalog, keyed, kind, tenant_prefix, write};
use crate::{Agents, CatalogError, GroupStanding};

#[async_trait]
impl Agents for EmbeddedCatalog {
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        let prefix = tenant_prefix(kind::AGENT, tenant);
        self.inner.read_all(self.inner.tree.scan_prefix(prefix).values()).collect()
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        self.inner.get(&keyed(kind::AGENT, tenant, id.get()))
    }

    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError> {
        let mut batch = sled::Batch::default();
        for agent in agents {
            batch.insert(keyed(kind::AGENT, tenant, agent.external_id.get()), write(agent)?);
        }
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            self.inner.apply(batch)?;
        }
        self.inner.commit().await
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            self.inner.put(&tenant_prefix(kind::AGENTS_READ, tenant), &at)?;
        }
        self.inner.commit().await
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        self.inner.get(&tenant_prefix(kind::AGENTS_READ, tenant))
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        Ok(self.inner.get(&tenant_prefix(kind::GROUP, tenant))?.unwrap_or_default())
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            self.inner.put(&tenant_prefix(kind::GROUP, tenant), standing)?;
        }
        self.inner.commit().await
    }
}
