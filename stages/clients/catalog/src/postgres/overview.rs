//! Conversations for people, along the index of a tenant's conversations by day.

use async_trait::async_trait;
use jiff::civil::Date;
use model::{INTEGRATION_TYPE, TenantId};
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresCatalog,
    conversations::direction,
    rows::{parsed, recordings_missing, saturated, state, unreadable},
};
use crate::{CatalogError, ConversationFilter, DayCounts, FoundConversation, Overviews, Recorded};

const DAYS: &str = "
    select coalesce(c.day, d.day) as day, coalesce(ready, 0) as ready, coalesce(incomplete, 0) as incomplete,
        coalesce(no_recording, 0) as no_recording, coalesce(metadata_saved, 0) as metadata_saved, coalesce(dead, 0) as dead
    from (
        select ended_on as day, count(*) filter (where state = 'ready') as ready,
            count(*) filter (where state = 'ready' and recordings_missing > 0) as incomplete,
            count(*) filter (where state = 'no_recording') as no_recording,
            count(*) filter (where state = 'metadata_saved') as metadata_saved
        from conversations
        where tenant_id = $1 and integration_type = $2 and ended_on between $3::date and $4::date
        group by ended_on
    ) c full join (
        select (at at time zone 'UTC')::date as day, count(*) as dead from dead_letters
        where tenant_id = $1 and at >= ($3::date)::timestamp at time zone 'UTC'
            and at < ($4::date + 1)::timestamp at time zone 'UTC'
        group by 1
    ) d on d.day = c.day
    order by 1";

const FOUND: &str = "
    select external_id, agent_external_id, started_at, ended_at, direction, state, recordings_missing
    from conversations
    where tenant_id = $1 and integration_type = $2
        and ended_on between ($3::timestamptz at time zone 'UTC')::date and ($4::timestamptz at time zone 'UTC')::date
        and ended_at >= $3 and ended_at < $4
        and ($5::text is null or agent_external_id = $5)
        and ($6::timestamptz is null
            or (ended_on, length(external_id), external_id) < (($6 at time zone 'UTC')::date, length($7::text), $7))
        and (not $9::boolean or state <> 'ready' or recordings_missing > 0)
    order by ended_on desc, length(external_id) desc, external_id desc
    limit $8";

#[async_trait]
impl Overviews for PostgresCatalog {
    async fn days(&self, tenant: &TenantId, from: Date, to: Date) -> Result<Vec<DayCounts>, CatalogError> {
        let bounds: [&(dyn ToSql + Sync); 4] = [&tenant.as_str(), &INTEGRATION_TYPE, &from, &to];
        let rows = self.query("count days", DAYS, &bounds).await?;
        let count = |row: &Row, column: &str| {
            u64::try_from(row.try_get::<_, i64>(column).map_err(unreadable)?).map_err(unreadable)
        };
        let day = |row: &Row| {
            Ok(DayCounts {
                day: row.try_get("day").map_err(unreadable)?,
                ready: count(row, "ready")?,
                incomplete: count(row, "incomplete")?,
                no_recording: count(row, "no_recording")?,
                metadata_saved: count(row, "metadata_saved")?,
                dead: count(row, "dead")?,
            })
        };
        rows.iter().map(day).collect()
    }

    async fn found(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        before: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<FoundConversation>, CatalogError> {
        let ConversationFilter { agent, from, to, only_exceptions } = filter;
        let (agent, limit) = (agent.map(|agent| agent.to_string()), saturated(limit));
        let (before_end, before_id) = before.map(|before| (before.ended_at, before.external_id.to_string())).unzip();
        let tenant = tenant.as_str();
        let bounds: [&(dyn ToSql + Sync); 9] =
            [&tenant, &INTEGRATION_TYPE, from, to, &agent, &before_end, &before_id, &limit, only_exceptions];
        let rows = self.query("find conversations", FOUND, &bounds).await?;
        let found = |row: &Row| {
            Ok(FoundConversation {
                external_id: parsed(row, "external_id")?,
                agent_external_id: parsed(row, "agent_external_id")?,
                started_at: row.try_get("started_at").map_err(unreadable)?,
                ended_at: row.try_get("ended_at").map_err(unreadable)?,
                direction: direction(row)?,
                state: state(row)?,
                recordings_missing: recordings_missing(row)?,
            })
        };
        rows.iter().map(found).collect()
    }
}
