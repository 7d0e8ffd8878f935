//! Rows in state `metadata_saved`, many written in one statement, which begins an attempt of each.

use std::collections::BTreeMap;

use database::{Database, DatabaseError};
use model::{Conversation, ConversationKey, Direction, INTEGRATION_TYPE};

use crate::{
    Attempt, AttemptKind, CatalogError,
    postgres::{
        batch::BatchRequest,
        rows::{Keys, index, unreadable},
        text,
    },
};

/// In the order of the keys. A row that somebody changes is read again once that is committed, so that the number of the
/// attempt is the highest. Gives the places of those that were erased, of which nothing is written, and of those that
/// were written, with their attempts: a final row is neither.
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
            direction, customer_number, metadata, source, lane, state, attempt)
        select a.tenant_id, a.external_id, $3, a.master, a.agent, a.started_at, a.ended_at,
            a.direction, a.customer_number, a.metadata, a.source, a.lane, 'metadata_saved', 1
        from asked a
        where not a.is_erased
        order by a.n
        on conflict (tenant_id, integration_type, external_id) do update set
            master_external_id = excluded.master_external_id, agent_external_id = excluded.agent_external_id,
            started_at = excluded.started_at, ended_at = excluded.ended_at, direction = excluded.direction,
            customer_number = excluded.customer_number, metadata = excluded.metadata, source = excluded.source,
            lane = excluded.lane, attempt = c.attempt + 1
        where c.state = 'metadata_saved'
        returning c.tenant_id, c.external_id, c.attempt
    )
    select a.n, s.attempt
    from asked a
    left join saved s on s.tenant_id = a.tenant_id and s.external_id = a.external_id
    where a.is_erased or s.attempt is not null";

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
    type Answer = Option<Attempt>;

    const NAME: &'static str = "save metadata";

    fn weight(&self) -> usize {
        self.weight
    }

    async fn run(
        database: &Database,
        requests: &[&Self],
    ) -> Result<Vec<Result<Option<Attempt>, CatalogError>>, DatabaseError> {
        // One statement writes a row once: of a conversation that is asked for twice, the last request is the latest.
        let last: BTreeMap<ConversationKey, usize> =
            requests.iter().enumerate().map(|(place, request)| (request.conversation.key(), place)).collect();
        let places: Vec<usize> = last.values().copied().collect();
        let keys = Keys::of(last.keys());
        let tombstones: Vec<_> = places.iter().map(|&place| &requests[place].tombstone).collect();
        let rows: Vec<_> = places.iter().map(|&place| &requests[place].conversation).collect();
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
        let answered = database.query(Self::NAME, SAVE_METADATA, &[
            &keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &masters, &agents, &started, &ended, &directions,
            &numbers, &metadata, &sources, &tombstones, &lanes,
        ]).await?;
        let mut answers: Vec<_> = requests.iter().map(|_| Err(CatalogError::overtaken())).collect();
        for &place in &places {
            answers[place] = Ok(None);
        }
        for row in answered {
            let Some(&place) = places.get(index(&row)) else { continue };
            let number: Result<Option<i64>, _> = row.try_get("attempt").map_err(unreadable);
            answers[place] = number.and_then(|number| {
                let number = number.ok_or_else(|| CatalogError("the conversation was erased".to_owned()))?;
                Ok(Some(Attempt { number, kind: AttemptKind::Complete, is_first: number == 1 }))
            });
        }
        Ok(answers)
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}
