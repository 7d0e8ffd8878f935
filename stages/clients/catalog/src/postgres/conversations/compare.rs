//! What a comparison with NICE's list asks: what is known of the calls, and how many are final.

use std::time::Duration;

use database::Database;
use deadpool_postgres::Object;
use jiff::Timestamp;
use model::{ConversationKey, ConversationState, INTEGRATION_TYPE, TenantId};
use tokio_postgres::{
    error::SqlState,
    types::{Json, ToSql},
};

use crate::{
    CatalogError, Fate, RowCount,
    postgres::{
        rows::{Keys, index, recordings_missing, state_named, unreadable},
        tombstones::Tombstones,
    },
};

const KNOWN: &str = "
    select a.n
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    join conversations c on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    union all
    select a.n
    from unnest($1::text[], $2::text[]) with ordinality as a (tenant_id, external_id, n)
    join dead_letters d on d.tenant_id = a.tenant_id and d.conversation_id = a.external_id
    union all
    select a.n
    from unnest($1::text[], $4::bytea[]) with ordinality as a (tenant_id, tombstone, n)
    join erasures e on e.tenant_id = a.tenant_id and e.digest = a.tombstone";

const FATES: &str = "
    select a.n, c.state, c.recordings_missing, d.reason, e.digest is not null as is_erased
    from unnest($1::text[], $2::text[], $4::bytea[]) with ordinality as a (tenant_id, external_id, tombstone, n)
    left join conversations c
        on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    left join lateral (
        select reason from dead_letters d
        where d.tenant_id = a.tenant_id and d.conversation_id = a.external_id
        limit 1
    ) d on true
    left join erasures e on e.tenant_id = a.tenant_id and e.digest = a.tombstone
    where c.state is not null or d.reason is not null or e.digest is not null";

/// A call ends on the day of its start or, if it is very long, on one of the next.
const FINAL_BETWEEN: &str = "
    select count(*) from conversations
    where ended_on between ($2::timestamptz at time zone 'UTC')::date and ($3::timestamptz at time zone 'UTC')::date + 7
        and tenant_id = $1 and integration_type = $4
        and started_at >= $2 and started_at < $3 and state <> 'metadata_saved'";

/// Without the days: the planner takes them for a condition of its own beside the start, and expects too little.
const ABOUT_FINAL_BETWEEN: &str = "
    explain (format json) select from conversations
    where tenant_id = $1 and integration_type = $4
        and started_at >= $2 and started_at < $3 and state <> 'metadata_saved'";

/// How long the conversations of a range are counted. A million takes about a second.
pub(in crate::postgres) const COUNTING: Duration = Duration::from_secs(3);

/// Which of these conversations have a row, a dead letter or a tombstone.
pub(super) async fn known(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[ConversationKey],
) -> Result<Vec<bool>, CatalogError> {
    let mut known = vec![false; keys.len()];
    let tombstones: Vec<_> = keys.iter().map(|key| tombstones.of(key)).collect();
    let keys = Keys::of(keys.iter());
    let rows = database
        .query("look up conversations", KNOWN, &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones])
        .await?;
    for row in rows {
        if let Some(known) = known.get_mut(index(&row)) {
            *known = true;
        }
    }
    Ok(known)
}

/// What is known of each of these conversations.
pub(super) async fn fates(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[ConversationKey],
) -> Result<Vec<Fate>, CatalogError> {
    let mut fates = vec![Fate::Unknown; keys.len()];
    let tombstones: Vec<_> = keys.iter().map(|key| tombstones.of(key)).collect();
    let keys = Keys::of(keys.iter());
    let parameters: [&(dyn ToSql + Sync); 4] = [&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones];
    for row in database.query("look up conversations", FATES, &parameters).await? {
        let state: Option<&str> = row.try_get("state").map_err(unreadable)?;
        let state: Option<ConversationState> = state.map(state_named).transpose()?;
        let letter: Option<String> = row.try_get("reason").map_err(unreadable)?;
        let is_erased: bool = row.try_get("is_erased").map_err(unreadable)?;
        let fate = match (state, letter) {
            _ if is_erased => Fate::Erased,
            (Some(state), _) if state.is_final() => Fate::of_row(state, recordings_missing(&row)?),
            (_, Some(reason)) => Fate::DeadLetter(reason),
            (Some(state), None) => Fate::Row(state),
            (None, None) => Fate::Unknown,
        };
        if let Some(slot) = fates.get_mut(index(&row)) {
            *slot = fate;
        }
    }
    Ok(fates)
}

/// How many of the tenant's conversations that began in `[from, to)` are final, and after so much counting about how
/// many: what the planner expects by what it knows of the table.
pub(in crate::postgres) async fn final_between(
    database: &Database,
    tenant: &TenantId,
    from: Timestamp,
    to: Timestamp,
    patience: Duration,
) -> Result<RowCount, CatalogError> {
    let parameters: [&(dyn ToSql + Sync); 4] = [&tenant.as_str(), &from, &to, &INTEGRATION_TYPE];
    let bound = format!("set local statement_timeout = {}", patience.as_millis());
    let bound = &bound;
    let count = |mut client: Object| async move {
        let counting = client.transaction().await?;
        counting.batch_execute(bound).await?;
        match counting.query_one(FINAL_BETWEEN, &parameters).await {
            Ok(row) => return Ok((row.try_get::<_, i64>(0)?, false)),
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => counting.rollback().await?,
            Err(error) => return Err(error),
        }
        let Json(plan): Json<serde_json::Value> =
            client.query_one(ABOUT_FINAL_BETWEEN, &parameters).await?.try_get(0)?;
        let rows = plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64).unwrap_or_default();
        Ok((rows as i64, true))
    };
    let (rows, is_about) = database.run("count final conversations", count).await?;
    Ok(RowCount { rows: u64::try_from(rows).unwrap_or_default(), is_about })
}
