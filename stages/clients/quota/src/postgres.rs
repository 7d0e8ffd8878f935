//! The rate budgets that all processes share: a row of `quota_budgets` for each NICE tenant and API family.
//!
//! A turn locks the row, has the budget decide by the database's clock, and saves it, all in one transaction. The clock
//! is read after the lock is there: read before, it would be older than what another process saw meanwhile.
//!
//! # After a crash
//! A grant is committed before it is used. A process that dies in its turn has changed nothing; one that hangs in it
//! lets go of the row after two seconds.
//!
//! # Without the database
//! Nothing is sent without a grant: the wish fails within seconds, and is repeated like any request that failed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use model::{ApiFamily, TenantId};
use tokio_postgres::{IsolationLevel, types::ToSql};

use crate::{Budget, BudgetDecision, BudgetRequest, BudgetStore, StoreError, Stores, Terms, Usage};

const LIMITS: &str = "
    select set_config('lock_timeout', '4s', true), set_config('idle_in_transaction_session_timeout', '2s', true)";

/// The clock is read once the row is locked.
const LOAD: &str = "
    with locked as materialized (
        select state from quota_budgets where account = $1 and family = $2 for update
    )
    select state, (extract(epoch from clock_timestamp()) * 1000000)::bigint from locked";

const CREATE: &str = "
    insert into quota_budgets (account, family, state) values ($1, $2, '{}') on conflict do nothing";

/// What must last is on disk when the transaction ends, however the server is set; all else soon after.
const SAVE: &str = "
    update quota_budgets set state = $3, updated_at = clock_timestamp() where account = $1 and family = $2
    returning set_config('synchronous_commit', case
        when not $4 then 'off'
        when current_setting('synchronous_commit') in ('off', 'local') then 'on'
        else current_setting('synchronous_commit') end, true)";

const LOOK: &str = "
    select state, (extract(epoch from clock_timestamp()) * 1000000)::bigint
    from quota_budgets where account = $1 and family = $2";

const NOTE_ACCOUNT: &str = "
    insert into quota_accounts as known (tenant_id, account) values ($1, $2)
    on conflict (tenant_id) do update set account = excluded.account where known.account <> excluded.account";

const ACCOUNT: &str = "select account from quota_accounts where tenant_id = $1";

/// The budgets in the database.
#[derive(Debug, Clone)]
pub struct SharedStores {
    database: Database,
}

impl SharedStores {
    /// Asks the database nothing yet.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Stores for SharedStores {
    fn open(&self, account: &str, family: ApiFamily) -> Result<Arc<dyn BudgetStore>, StoreError> {
        Ok(Arc::new(SharedStore { database: self.database.clone(), account: account.to_owned(), family }))
    }

    async fn note_account(&self, tenant: &TenantId, account: &str) -> Result<(), StoreError> {
        let noted = self.database.execute("note of an account", NOTE_ACCOUNT, &[&tenant.as_str(), &account]).await;
        noted.map(drop).map_err(unsaved)
    }

    async fn account(&self, tenant: &TenantId) -> Result<Option<String>, StoreError> {
        let rows = self.database.query("look for an account", ACCOUNT, &[&tenant.as_str()]).await.map_err(unsaved)?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}

/// One account's budget of one family.
#[derive(Debug, Clone)]
pub(crate) struct SharedStore {
    database: Database,
    account: String,
    family: ApiFamily,
}

#[async_trait]
impl BudgetStore for SharedStore {
    async fn turn(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError> {
        let may_be_saved = &AtomicBool::new(false);
        let once_more = &request.once_more();
        let turn = self.database.run("turn of the rate budget", |mut client| async move {
            // A run of which the answer was lost may have been saved.
            let request = if may_be_saved.load(Ordering::Relaxed) { once_more } else { request };
            let turn = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
            let (mut budget, clock) = self.load(&turn).await?;
            let decision = budget.turn(clock, age(), request);
            let state = serde_json::to_string(&budget).expect("a budget of numbers is always JSON");
            let save = turn.prepare_cached(SAVE).await?;
            let values: [&(dyn ToSql + Sync); 4] = [&self.account, &self.family.as_str(), &state, &decision.must_last];
            turn.query(&save, &values).await?;
            may_be_saved.store(true, Ordering::Relaxed);
            turn.commit().await?;
            Ok(decision)
        });
        let failed =
            |error: DatabaseError| StoreError { may_be_saved: may_be_saved.load(Ordering::Relaxed), ..unsaved(error) };
        turn.await.map_err(failed)
    }

    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
        let key: [&(dyn ToSql + Sync); 2] = [&self.account, &self.family.as_str()];
        let rows = self.database.query("look at the rate budget", LOOK, &key).await.map_err(unsaved)?;
        let (budget, clock) = rows.first().map_or_else(|| (Budget::default(), 0), |row| read(row.get(0), row.get(1)));
        Ok(budget.usage(clock, terms))
    }
}

impl SharedStore {
    /// Locks the row, which is made if need be.
    async fn load(&self, turn: &deadpool_postgres::Transaction<'_>) -> Result<(Budget, u64), tokio_postgres::Error> {
        let key: [&(dyn ToSql + Sync); 2] = [&self.account, &self.family.as_str()];
        let limits = turn.prepare_cached(LIMITS).await?;
        let load = turn.prepare_cached(LOAD).await?;
        // Sent together: the row is locked for as short as possible.
        let (_, row) = futures::try_join!(turn.query_one(&limits, &[]), turn.query_opt(&load, &key))?;
        let row = match row {
            Some(row) => row,
            None => {
                turn.execute(CREATE, &key).await?;
                turn.query_one(&load, &key).await?
            }
        };
        Ok(read(row.get(0), row.get(1)))
    }
}

/// A budget that cannot be read begins anew; what it had granted a moment ago may be granted twice.
fn read(state: &str, clock: i64) -> (Budget, u64) {
    let budget = serde_json::from_str(state).unwrap_or_else(|error| {
        tracing::warn!(%error, "a rate budget of the database cannot be read, it begins anew");
        Budget::default()
    });
    (budget, u64::try_from(clock).unwrap_or_default())
}

fn unsaved(error: DatabaseError) -> StoreError {
    StoreError { what: error.to_string(), may_be_saved: false }
}

#[cfg(test)]
mod tests;
