//! The agents of a tenant, and how its group stands beside them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{Agent, AgentId, Memberships, TenantId};
use tokio_postgres::{
    Row,
    types::{Json, ToSql},
};

use super::{
    PostgresCatalog,
    rows::{parsed, unreadable},
    text, turns,
};
use crate::{Agents, CatalogError, GroupStanding};

const AGENTS: &str = "
    select external_id, user_id, user_name, first_name, last_name, is_active, member_until, memberships from agents
    where tenant_id = $1 and ($2::text is null or external_id = $2)
    order by length(external_id), external_id";

const SAVE_AGENTS: &str = "
    insert into agents (tenant_id, external_id, user_id, user_name, first_name, last_name, is_active, member_until,
        memberships)
    select $1, a.* from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[],
        $8::timestamptz[], $9::jsonb[]) a
    where fence_turn($1, $10)
    on conflict (tenant_id, external_id) do update set
        user_id = excluded.user_id, user_name = excluded.user_name, first_name = excluded.first_name,
        last_name = excluded.last_name, is_active = excluded.is_active, member_until = excluded.member_until,
        memberships = excluded.memberships";

const NOTE_AGENTS_READ: &str = "
    insert into agents_read (tenant_id, read_at) select $1::text, $2::timestamptz where fence_turn($1, $3)
    on conflict (tenant_id) do update set read_at = excluded.read_at";

const AGENTS_READ_AT: &str = "select read_at from agents_read where tenant_id = $1 and read_at is not null";

const GROUP_STANDING: &str = "select standing from agents_read where tenant_id = $1 and standing is not null";

const SAVE_GROUP_STANDING: &str = "
    insert into agents_read (tenant_id, standing) select $1::text, $2::jsonb where fence_turn($1, $3)
    on conflict (tenant_id) do update set standing = excluded.standing";

#[async_trait]
impl Agents for PostgresCatalog {
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        let (tenant, any) = (tenant.as_str(), None::<String>);
        let rows = self.query("list agents", AGENTS, &[&tenant, &any]).await?;
        rows.iter().map(agent).collect()
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        let (tenant, id) = (tenant.as_str(), Some(id.to_string()));
        let rows = self.query("read agent", AGENTS, &[&tenant, &id]).await?;
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
        self.execute_in(
            turn.as_ref(),
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
        .await?;
        Ok(())
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        self.execute_in(
            turn.as_ref(),
            "note agents read",
            NOTE_AGENTS_READ,
            &[&tenant.as_str(), &at, &turns::number(turn.as_ref())],
        )
        .await?;
        Ok(())
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        let rows = self.query("agents read at", AGENTS_READ_AT, &[&tenant.as_str()]).await?;
        rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        let rows = self.query("read group standing", GROUP_STANDING, &[&tenant.as_str()]).await?;
        let standing = rows.first().map(|row| row.try_get(0).map_err(unreadable)).transpose()?;
        Ok(standing.map_or_else(GroupStanding::default, |Json(standing)| standing))
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        let turn = self.turn.get();
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenant.as_str(), &Json(standing), &turns::number(turn.as_ref())];
        self.execute_in(turn.as_ref(), "save group standing", SAVE_GROUP_STANDING, &parameters).await?;
        Ok(())
    }
}

fn agent(row: &Row) -> Result<Agent, CatalogError> {
    // None: written by a program of before.
    let memberships: Option<Json<Memberships>> = row.try_get("memberships").map_err(unreadable)?;
    let is_active = row.try_get("is_active").map_err(unreadable)?;
    let until = row.try_get("member_until").map_err(unreadable)?;
    Ok(Agent {
        external_id: parsed(row, "external_id")?,
        user_id: row.try_get("user_id").map_err(unreadable)?,
        user_name: row.try_get("user_name").map_err(unreadable)?,
        first_name: row.try_get("first_name").map_err(unreadable)?,
        last_name: row.try_get("last_name").map_err(unreadable)?,
        memberships: memberships.map(|Json(all)| all).unwrap_or_default().agreeing_with(is_active, until),
    })
}
