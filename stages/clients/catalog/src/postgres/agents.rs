//! The agents of a tenant, and how its group stands beside them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Agent, AgentId, TenantId};
use tokio_postgres::types::{Json, ToSql};

use super::{
    AGENTS, AGENTS_READ_AT, GROUP_STANDING, NOTE_AGENTS_READ, PostgresCatalog, SAVE_AGENTS, SAVE_GROUP_STANDING, agent,
    text, turns, unreadable,
};
use crate::{Agents, CatalogError, GroupStanding};

#[async_trait]
impl Agents for PostgresCatalog {
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        let (tenant, any) = (tenant.as_str(), None::<String>);
        let rows = self.inner.database.query("list agents", AGENTS, &[&tenant, &any]).await?;
        rows.iter().map(agent).collect()
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        let (tenant, id) = (tenant.as_str(), Some(id.to_string()));
        let rows = self.inner.database.query("read agent", AGENTS, &[&tenant, &id]).await?;
        rows.first().map(agent).transpose()
    }

    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError> {
        // One statement writes a row once: of an agent that is named twice, as it is named last.
        let agents: BTreeMap<AgentId, &Agent> = agents.iter().map(|agent| (agent.external_id, agent)).collect();
        let ids: Vec<_> = agents.keys().map(ToString::to_string).collect();
        let agents: Vec<_> = agents.into_values().collect();
        let user_ids: Vec<_> = agents.iter().map(|agent| agent.user_id.as_deref().map(text::text)).collect();
        let user_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.user_name)).collect();
        let first_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.first_name)).collect();
        let last_names: Vec<_> = agents.iter().map(|agent| text::text(&agent.last_name)).collect();
        let active: Vec<_> = agents.iter().map(|agent| agent.is_active()).collect();
        let until: Vec<_> = agents.iter().map(|agent| agent.memberships.until()).collect();
        let memberships: Vec<_> = agents.iter().map(|agent| Json(&agent.memberships)).collect();
        let (tenant, turn) = (tenant.as_str(), self.turn.get());
        self.inner
            .database
            .execute(
                "save agents",
                SAVE_AGENTS,
                &[
                    &tenant,
                    &ids,
                    &user_ids,
                    &user_names,
                    &first_names,
                    &last_names,
                    &active,
                    &until,
                    &memberships,
                    &turns::number(turn.as_ref()),
                ],
            )
            .await
            .map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        self.inner
            .database
            .execute("note agents read", NOTE_AGENTS_READ, &[&tenant.as_str(), &at, &turns::number(turn.as_ref())])
            .await
            .map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        let rows = self.inner.database.query("agents read at", AGENTS_READ_AT, &[&tenant.as_str()]).await?;
        rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        let rows = self.inner.database.query("read group standing", GROUP_STANDING, &[&tenant.as_str()]).await?;
        let standing = rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()?;
        Ok(standing.map_or_else(GroupStanding::default, |Json(standing)| standing))
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenant.as_str(), &Json(standing), &turns::number(turn.as_ref())];
        let saved = self.inner.database.execute("save group standing", SAVE_GROUP_STANDING, &parameters).await;
        saved.map_err(|error| turns::failed(turn.as_ref(), error))?;
        Ok(())
    }
}
