//! Attempts, many begun in one statement, and many looked at in one.

use std::collections::BTreeMap;

use database::{Database, DatabaseError};
use model::{ConversationKey, INTEGRATION_TYPE};
use tokio_postgres::types::ToSql;

use super::no_row;
use crate::{
    Attempt, AttemptKind, CatalogError,
    postgres::{
        batch::BatchRequest,
        rows::{Keys, index, unreadable},
    },
};

/// In the order of the keys. A row that somebody changes is read again once that is committed, so that the number is
/// the highest and none begins beside a completion. Gives the places of the rows that stand, and the numbers of those
/// that ask for such an attempt.
const BEGIN_ATTEMPT: &str = "
    with asked as (
        select * from unnest($1::text[], $2::text[], $4::bytea[], $5::bool[]) with ordinality
            as a (tenant_id, external_id, tombstone, adds, n)
    ), locked as (
        select c.id, a.adds, a.n
        from asked a
        join conversations c
            on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
        where not exists (select from erasures e where e.tenant_id = a.tenant_id and e.digest = a.tombstone)
        order by c.tenant_id, length(c.external_id), c.external_id
        for no key update of c
    ), begun as (
        update conversations c set attempt = c.attempt + 1 from locked l
        where c.id = l.id and case
            when l.adds then c.state = 'no_recording' or c.state = 'ready' and c.recordings_missing > 0
            else c.state = 'metadata_saved'
        end
        returning l.n, c.attempt
    )
    select l.n, b.attempt from locked l left join begun b on b.n = l.n";

/// Gives the places of the attempts that are still the latest, and whose row still waits for them.
const IS_CURRENT: &str = "
    select a.n
    from unnest($1::text[], $2::text[], $4::bigint[], $5::bool[]) with ordinality
        as a (tenant_id, external_id, attempt, adds, n)
    join conversations c
        on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    where c.attempt = a.attempt and case
        when a.adds then c.state = 'no_recording' or c.state = 'ready' and c.recordings_missing > 0
        else c.state = 'metadata_saved'
    end";

/// Asks whether an attempt is still the latest one.
pub(in crate::postgres) struct AttemptLook {
    pub(super) key: ConversationKey,
    pub(super) attempt: Attempt,
}

impl BatchRequest for AttemptLook {
    type Answer = bool;

    const NAME: &'static str = "read attempt";

    async fn run(database: &Database, requests: &[&Self]) -> Result<Vec<Result<bool, CatalogError>>, DatabaseError> {
        let keys = Keys::of(requests.iter().map(|request| &request.key));
        let numbers: Vec<_> = requests.iter().map(|request| request.attempt.number).collect();
        let adding: Vec<_> = requests.iter().map(|request| request.attempt.kind == AttemptKind::Add).collect();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &numbers, &adding];
        let mut answers = requests.iter().map(|_| Ok(false)).collect::<Vec<_>>();
        for row in database.query(Self::NAME, IS_CURRENT, &parameters).await? {
            if let Some(answer) = answers.get_mut(index(&row)) {
                *answer = Ok(true);
            }
        }
        Ok(answers)
    }
}

/// Begins an attempt.
pub(in crate::postgres) struct BeginAttempt {
    pub(super) key: ConversationKey,
    pub(super) tombstone: Vec<u8>,
    pub(super) kind: AttemptKind,
}

impl BatchRequest for BeginAttempt {
    type Answer = Option<Attempt>;

    const NAME: &'static str = "begin attempt";

    async fn run(
        database: &Database,
        requests: &[&Self],
    ) -> Result<Vec<Result<Option<Attempt>, CatalogError>>, DatabaseError> {
        // One statement changes a row once: of a conversation that is asked for twice, the last request is the latest.
        let last: BTreeMap<&ConversationKey, usize> =
            requests.iter().enumerate().map(|(place, request)| (&request.key, place)).collect();
        let places: Vec<usize> = last.values().copied().collect();
        let asked: Vec<_> = places.iter().map(|&place| requests[place]).collect();
        let tombstones: Vec<_> = asked.iter().map(|request| &request.tombstone).collect();
        let adding: Vec<_> = asked.iter().map(|request| request.kind == AttemptKind::Add).collect();
        let keys = Keys::of(last.keys().copied());
        let rows = database
            .query(
                Self::NAME,
                BEGIN_ATTEMPT,
                &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones, &adding],
            )
            .await?;
        let answer = |(place, request): (usize, &&Self)| match last.get(&request.key) {
            Some(latest) if *latest == place => Err(no_row(&request.key)),
            _ => Err(CatalogError::overtaken()),
        };
        let mut answers: Vec<_> = requests.iter().enumerate().map(answer).collect();
        for row in rows {
            let Some(&place) = places.get(index(&row)) else { continue };
            let number: Result<Option<i64>, _> = row.try_get("attempt").map_err(unreadable);
            let kind = requests[place].kind;
            answers[place] = number.map(|number| number.map(|number| Attempt { number, kind, is_first: false }));
        }
        Ok(answers)
    }
}
