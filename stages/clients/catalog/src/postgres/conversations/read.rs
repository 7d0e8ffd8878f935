//! One conversation with all that is known of it.

use database::{Database, DatabaseError};
use model::{ConversationKey, Direction, EventSource, INTEGRATION_TYPE};
use tokio_postgres::Row;

use crate::{
    CatalogError, ConversationRow, RecordingRow,
    postgres::rows::{parsed, recordings_missing, state, unreadable},
};

/// Reads one conversation; the columns of personal data are named by whoever asks.
macro_rules! read_conversation {
    ($personal:literal) => {
        concat!(
            "
    select c.id, c.tenant_id, c.integration_type, c.external_id, c.master_external_id, c.agent_external_id,
        c.started_at, c.ended_at, c.direction, ",
            $personal,
            ", c.state, c.source, c.recordings_missing,
        q.enqueued_at, q.claimed_at,
        r.position, r.bucket, r.object_key, r.size_bytes, r.sha256, r.content_type, r.source as recording_source
    from conversations c
    left join analysis_queue q on q.conversation_id = c.id
    left join recordings r on r.conversation_id = c.id
    where c.tenant_id = $1 and c.integration_type = $2 and c.external_id = $3
    order by r.position"
        )
    };
}

const READ: &str = read_conversation!("c.customer_number, c.metadata");

/// For a role that has no right to the customer's number and NICE's own record: the producer's.
const READ_IMPERSONAL: &str = read_conversation!("null::text as customer_number, '{}'::jsonb as metadata");

/// One conversation with its recordings and its analysis entry, and with personal data where the role may see it.
pub(super) async fn read(database: &Database, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
    let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
    let rows = match database.query("read conversation", READ, &[&tenant, &INTEGRATION_TYPE, &id]).await {
        Err(DatabaseError::Refused { .. }) => {
            database.query("read conversation", READ_IMPERSONAL, &[&tenant, &INTEGRATION_TYPE, &id]).await?
        }
        read => read?,
    };
    let Some(first) = rows.first() else { return Ok(None) };
    // Without recordings there is one row, and nothing in these columns.
    let has_recordings = first.try_get::<_, Option<i32>>("position").map_err(unreadable)?.is_some();
    let recordings = if has_recordings { rows.iter().map(recording).collect::<Result<_, _>>()? } else { Vec::new() };
    Ok(Some(ConversationRow {
        id: first.try_get::<_, i64>("id").map_err(unreadable)?.to_string(),
        tenant_id: parsed(first, "tenant_id")?,
        integration_type: first.try_get("integration_type").map_err(unreadable)?,
        external_id: parsed(first, "external_id")?,
        master_external_id: parsed(first, "master_external_id")?,
        agent_external_id: parsed(first, "agent_external_id")?,
        started_at: first.try_get("started_at").map_err(unreadable)?,
        ended_at: first.try_get("ended_at").map_err(unreadable)?,
        direction: direction(first)?,
        customer_number: first.try_get("customer_number").map_err(unreadable)?,
        metadata: first.try_get("metadata").map_err(unreadable)?,
        state: state(first)?,
        source: source(first)?,
        recordings,
        recordings_missing: recordings_missing(first)?,
        enqueued_at: first.try_get("enqueued_at").map_err(unreadable)?,
        claimed_at: first.try_get("claimed_at").map_err(unreadable)?,
    }))
}

fn recording(row: &Row) -> Result<RecordingRow, CatalogError> {
    Ok(RecordingRow {
        position: u32::try_from(row.try_get::<_, i32>("position").map_err(unreadable)?).map_err(unreadable)?,
        bucket: row.try_get("bucket").map_err(unreadable)?,
        object_key: row.try_get("object_key").map_err(unreadable)?,
        size_bytes: u64::try_from(row.try_get::<_, i64>("size_bytes").map_err(unreadable)?).map_err(unreadable)?,
        sha256: row.try_get("sha256").map_err(unreadable)?,
        content_type: row.try_get("content_type").map_err(unreadable)?,
        source: row.try_get("recording_source").map_err(unreadable)?,
    })
}

fn source(row: &Row) -> Result<EventSource, CatalogError> {
    let all = [
        EventSource::Poll,
        EventSource::Webhook,
        EventSource::AgentSession,
        EventSource::Reconciliation,
        EventSource::Backfill,
    ];
    let name: &str = row.try_get("source").map_err(unreadable)?;
    all.into_iter().find(|source| source.as_str() == name).ok_or_else(|| unreadable("unknown source"))
}

/// The direction of its name in a row.
pub(in crate::postgres) fn direction(row: &Row) -> Result<Option<Direction>, CatalogError> {
    match row.try_get("direction").map_err(unreadable)? {
        None => Ok(None),
        Some("inbound") => Ok(Some(Direction::Inbound)),
        Some("outbound") => Ok(Some(Direction::Outbound)),
        Some(_) => Err(unreadable("unknown direction")),
    }
}
