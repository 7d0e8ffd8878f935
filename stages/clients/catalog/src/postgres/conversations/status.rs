//! The status of a conversation, looked up for many in one statement.

use database::{Database, DatabaseError};
use model::{ConversationKey, INTEGRATION_TYPE};
use tokio_postgres::Row;

use crate::{
    CatalogError, ConversationStatus,
    postgres::{
        batch::BatchRequest,
        rows::{Keys, index, state, unreadable},
    },
};

const STATUS: &str = "
    select a.n, c.state, e.digest is not null as is_erased
    from unnest($1::text[], $2::text[], $4::bytea[]) with ordinality as a (tenant_id, external_id, tombstone, n)
    left join conversations c on c.tenant_id = a.tenant_id and c.integration_type = $3 and c.external_id = a.external_id
    left join erasures e on e.tenant_id = a.tenant_id and e.digest = a.tombstone
    where c.state is not null or e.digest is not null";

/// Asks for the status of a conversation, by its tombstone too.
pub(in crate::postgres) struct StatusRequest {
    pub(super) key: ConversationKey,
    pub(super) tombstone: Vec<u8>,
}

impl BatchRequest for StatusRequest {
    type Answer = ConversationStatus;

    const NAME: &'static str = "read state";

    async fn run(
        database: &Database,
        requests: &[&Self],
    ) -> Result<Vec<Result<ConversationStatus, CatalogError>>, DatabaseError> {
        let keys = Keys::of(requests.iter().map(|request| &request.key));
        let tombstones: Vec<_> = requests.iter().map(|request| &request.tombstone).collect();
        let rows = database
            .query(Self::NAME, STATUS, &[&keys.tenants, &keys.external_ids, &INTEGRATION_TYPE, &tombstones])
            .await?;
        let mut answers = requests.iter().map(|_| Ok(ConversationStatus::Unknown)).collect::<Vec<_>>();
        for row in rows {
            if let Some(answer) = answers.get_mut(index(&row)) {
                *answer = status(&row);
            }
        }
        Ok(answers)
    }
}

fn status(row: &Row) -> Result<ConversationStatus, CatalogError> {
    match row.try_get("is_erased").map_err(unreadable)? {
        true => Ok(ConversationStatus::Erased),
        false => state(row).map(ConversationStatus::Saved),
    }
}
