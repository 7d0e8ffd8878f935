//! What a comparison with NICE's list asks: what is known of the calls, and how many are final.

use std::collections::HashMap;
use std::time::Duration;

use database::Database;
use deadpool_postgres::Object;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, ConversationState, INTEGRATION_TYPE, TenantId};
use tokio_postgres::{
    Row,
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

/// The conversations in ranges of ids that are final and lack nothing. NICE counts its ids upwards and lists calls by
/// their start, so the ids of a page lie close together: to read the ranges takes a tenth of looking each id up. A range
/// that holds more than twice as many rows as ids were asked for is left unfinished. The limit is a plain number: of
/// any other the planner expects a share of the table, and compiles the statement for it each time.
const COMPLETE: &str = "
    select
        array_agg(c.external_id) filter (where c.state = 'ready') as ready,
        array_agg(c.external_id) filter (where c.state = 'no_recording') as no_recording,
        exists (select from erasures e where e.tenant_id = $1) as has_erasures
    from unnest($3::text[], $4::text[]) as r (first, last)
    cross join lateral (
        select c.external_id, c.state, c.recordings_missing from conversations c
        where c.tenant_id = $1 and c.integration_type = $2 and c.external_id between r.first and r.last
        order by c.external_id
        limit 1000
    ) c
    where c.recordings_missing = 0";

const ERASED: &str = "
    select a.n
    from unnest($2::bytea[]) with ordinality as a (tombstone, n)
    join erasures e on e.tenant_id = $1 and e.digest = a.tombstone";

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

/// Conversations that one question for complete ones is about: more than a page of NICE's list has.
const COMPLETE_AT_A_TIME: usize = 10_000;

/// Ids of one range, half as many as rows are read of it. Shorter ranges are more work; in longer ones, one id that is
/// far away from the others spoils the answer for more of them.
const RANGE: usize = 500;

/// Conversations that one question for everything is about.
const FATES_AT_A_TIME: usize = 1_000;

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
///
/// The cheap question comes first, and the full one is about those that it leaves open. So each fate stood at one moment
/// of this call, which is not the same for all. What needs a message is found by the full question alone: rows, letters
/// and tombstones as they stand at one moment.
pub(super) async fn fates(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[ConversationKey],
) -> Result<Vec<Fate>, CatalogError> {
    let mut fates = vec![None; keys.len()];
    let mut order: Vec<usize> = (0..keys.len()).collect();
    let place = |place: &usize| (&keys[*place].tenant, keys[*place].external_id);
    order.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
    for of_tenant in order.chunk_by(|one, other| keys[*one].tenant == keys[*other].tenant) {
        for places in of_tenant.chunks(COMPLETE_AT_A_TIME) {
            complete(database, tombstones, keys, places, &mut fates).await?;
        }
    }
    order.retain(|place| fates[*place].is_none());
    for places in order.chunks(FATES_AT_A_TIME) {
        let open: Vec<_> = places.iter().map(|place| &keys[*place]).collect();
        for (place, fate) in places.iter().zip(full(database, tombstones, &open).await?) {
            fates[*place] = Some(fate);
        }
    }
    Ok(fates.into_iter().map(|fate| fate.unwrap_or(Fate::Unknown)).collect())
}

/// Fills in the fates of those conversations at these places that are final and lack nothing. The places are one
/// tenant's, in the order of their ids.
async fn complete(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[ConversationKey],
    places: &[usize],
    fates: &mut [Option<Fate>],
) -> Result<(), CatalogError> {
    let Some(tenant) = places.first().map(|place| keys[*place].tenant.as_str()) else { return Ok(()) };
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    let id = |place: &usize| keys[*place].external_id;
    let digits = |place: &usize| id(place).get().checked_ilog10();
    // As texts, numbers of one length have the order of numbers.
    for of_length in places.chunk_by(|one, other| digits(one) == digits(other)) {
        for range in of_length.chunks(RANGE) {
            let ends = range.first().zip(range.last());
            firsts.extend(ends.map(|(first, _)| id(first).to_string()));
            lasts.extend(ends.map(|(_, last)| id(last).to_string()));
        }
    }
    let parameters: [&(dyn ToSql + Sync); 4] = [&tenant, &INTEGRATION_TYPE, &firsts, &lasts];
    let rows = database.query("look up complete conversations", COMPLETE, &parameters).await?;
    let row = rows.first().ok_or_else(|| unreadable("no answer"))?;
    let mut states = HashMap::with_capacity(places.len());
    note(row, ConversationState::Ready, &mut states)?;
    note(row, ConversationState::NoRecording, &mut states)?;
    let found: Vec<_> = places.iter().filter_map(|place| Some((*place, *states.get(&id(place))?))).collect();
    for (place, state) in &found {
        fates[*place] = Some(Fate::Row(*state));
    }
    if row.try_get("has_erasures").map_err(unreadable)? {
        // A row stands beside its tombstone until it is erased.
        let tombstones: Vec<_> = found.iter().map(|(place, _)| tombstones.of(&keys[*place])).collect();
        for row in database.query("look up erasures", ERASED, &[&tenant, &tombstones]).await? {
            if let Some((place, _)) = found.get(index(&row)) {
                fates[*place] = Some(Fate::Erased);
            }
        }
    }
    Ok(())
}

/// Notes the conversations of a state, which are in the column of its name.
fn note(
    row: &Row,
    state: ConversationState,
    states: &mut HashMap<ContactId, ConversationState>,
) -> Result<(), CatalogError> {
    let ids: Option<Vec<&str>> = row.try_get(state.as_str()).map_err(unreadable)?;
    for id in ids.unwrap_or_default() {
        states.insert(id.parse().map_err(unreadable)?, state);
    }
    Ok(())
}

/// What is known of each of these conversations, all at one moment.
async fn full(
    database: &Database,
    tombstones: &Tombstones,
    keys: &[&ConversationKey],
) -> Result<Vec<Fate>, CatalogError> {
    let mut fates = vec![Fate::Unknown; keys.len()];
    let tombstones: Vec<_> = keys.iter().map(|key| tombstones.of(key)).collect();
    let keys = Keys::of(keys.iter().copied());
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
