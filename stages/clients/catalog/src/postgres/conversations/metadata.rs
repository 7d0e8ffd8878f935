//! Rows in state `metadata_saved`, many written in one statement.

use std::collections::{BTreeMap, HashSet};

use database::{Database, DatabaseError};
use model::{Conversation, ConversationKey, Direction, INTEGRATION_TYPE};

use crate::{
    CatalogError,
    postgres::{
        batch::BatchRequest,
        rows::{Keys, index},
        text,
    },
};

/// In the order of the keys. The commit waits for no disk; the setting lasts for this statement's commit only. Gives
/// the places of the rows that are not written because the conversation was erased.
const SAVE_METADATA: &str = "
    with asked as (
        select a.*, exists (select from erasures e where e.tenant_id = a.tenant_id and e.digest = a.tombstone) as is_erased
        from unnest($1::text[], $2::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[],
                $9::text[], $10::jsonb[], $11::text[], $12::bytea[], $13::text[]) with ordinality
            as a (tenant_id, external_id, master, agent, started_at, ended_at, direction, customer_number, metadata,
                source, tombstone, lane, n)
    ), saved as (
        insert into conversations as c (
            tenant_id, external_id, integration_type, master_external_id, agent_external_id, started_at, ended_at,
            direction, customer_number, metadata, source, lane, state)
        select a.tenant_id, a.external_id, $3, a.master, a.agent, a.started_at, a.ended_at,
            a.direction, a.customer_number, a.metadata, a.source, a.lane, 'metadata_saved'
        from asked a
        where not a.is_erased and (select set_config('synchronous_commit', 'off', true)) = 'off'
        order by a.n
        on conflict (tenant_id, integration_type, external_id) do update set
            master_external_id = excluded.master_external_id, agent_external_id = excluded.agent_external_id,
            started_at = excluded.started_at, ended_at = excluded.ended_at, direction = excluded.direction,
            customer_number = excluded.customer_number, metadata = excluded.metadata, source = excluded.source,
            lane = excluded.lane
        where c.state = 'metadata_saved'
    )
    select n from asked where is_erased";

/// Writes the row of a conversation whose texts the tables take.
pub(in crate::postgres) struct SaveMetadata {
    conversation: Conversation,
    tombstone: Vec<u8>,
    weight: usize,
}

impl SaveMetadata {
    pub(super) fn new(conversation: &Conversation, tombstone: Vec<u8>) -> Self {
        let metadata = text::json(&conversation.metadata);
        let weight = text::weight(&metadata);
        let customer_number = conversation.customer_number.as_deref().map(text::text);
        Self { conversation: Conversation { metadata, customer_number, ..conversation.clone() }, tombstone, weight }
    }
}

impl BatchRequest for SaveMetadata {
    type Answer = ();

    const NAME: &'static str = "save metadata";

    fn weight(&self) -> usize {
        self.weight
    }

    async fn run(database: &Database, requests: &[&Self]) -> Result<Vec<Result<(), CatalogError>>, DatabaseError> {
        // One statement writes a row once: of a conversation that is asked for twice, as it is asked for last.
        let by_key: BTreeMap<ConversationKey, &Self> =
            requests.iter().map(|request| (request.conversation.key(), *request)).collect();
        let keys = Keys::of(by_key.keys());
        let tombstones: Vec<_> = by_key.values().map(|request| &request.tombstone).collect();
        let rows: Vec<_> = by_key.values().map(|request| &request.conversation).collect();
        let masters: Vec<_> = rows.iter().map(|row| row.master.to_string()).collect();
        let agents: Vec<_> = rows.iter().map(|row| row.agent.to_string()).collect();
        let started: Vec<_> = rows.iter().map(|row| row.started_at).collect();
        let ended: Vec<_> = rows.iter().map(|row| row.ended_at).collect();
        let directions: Vec<_> = rows.iter().map(|row| row.direction.map(direction_name)).collect();
        let numbers: Vec<_> = rows.iter().map(|row| row.customer_number.as_deref()).collect();
        let metadata: Vec<_> = rows.iter().map(|row| &row.metadata).collect();
        let sources: Vec<_> = rows.iter().map(|row| row.source.as_str()).collect();
        let lanes: Vec<_> = rows.iter().map(|row| row.lane.as_str()).collect();
        #[rustfmt::skip]
        let refused = database.query(Self::NAME, SAVE_METADATA, &[
            &keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &masters, &agents, &started, &ended, &directions,
            &numbers, &metadata, &sources, &tombstones, &lanes,
        ]).await?;
        let erased: HashSet<&ConversationKey> =
            refused.iter().filter_map(|row| by_key.keys().nth(index(row))).collect();
        let answer = |request: &&Self| match erased.contains(&request.conversation.key()) {
            true => Err(CatalogError("the conversation was erased".to_owned())),
            false => Ok(()),
        };
        Ok(requests.iter().map(answer).collect())
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}
