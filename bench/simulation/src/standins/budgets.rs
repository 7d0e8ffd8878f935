//! The rate budgets that all machines share, as rows of one database: a turn locks the row, and goes by the database's
//! clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use model::{ApiFamily, TenantId};
use quota::{Budget, BudgetDecision, BudgetRequest, BudgetStore, StoreError, Stores, Terms, Usage};
use runtime::Clock;

use super::{Kind, Link, Unanswered, lock};

/// The budgets of all NICE tenants; clones share them.
#[derive(Debug, Clone)]
pub struct SharedBudgets {
    clock: Clock,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Debug, Default)]
struct Rows {
    budgets: BTreeMap<(String, &'static str), Budget>,
    accounts: BTreeMap<TenantId, String>,
}

impl SharedBudgets {
    /// None yet, by the database's clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, rows: Arc::default() }
    }

    /// A machine's way to them.
    pub fn through(&self, link: Link) -> LinkedBudgets {
        LinkedBudgets { budgets: self.clone(), link }
    }

    /// The accounts that were drawn on, with their families.
    pub fn drawn_on(&self) -> Vec<(String, &'static str)> {
        lock(&self.rows).budgets.keys().cloned().collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_microsecond()).unwrap_or_default()
    }
}

/// A machine's way to the budgets.
#[derive(Debug, Clone)]
pub struct LinkedBudgets {
    budgets: SharedBudgets,
    link: Link,
}

/// A machine's way to one budget.
#[derive(Debug, Clone)]
struct LinkedBudget {
    budgets: SharedBudgets,
    key: (String, &'static str),
    link: Link,
}

#[async_trait]
impl Stores for LinkedBudgets {
    fn open(&self, account: &str, family: ApiFamily) -> Result<Arc<dyn BudgetStore>, StoreError> {
        let key = (account.to_owned(), family.as_str());
        Ok(Arc::new(LinkedBudget { budgets: self.budgets.clone(), key, link: self.link.clone() }))
    }

    async fn note_account(&self, tenant: &TenantId, account: &str) -> Result<(), StoreError> {
        let note = async { drop(lock(&self.budgets.rows).accounts.insert(tenant.clone(), account.to_owned())) };
        self.link.call(Kind::Write, note).await.map_err(failed)
    }

    async fn account(&self, tenant: &TenantId) -> Result<Option<String>, StoreError> {
        let account = async { lock(&self.budgets.rows).accounts.get(tenant).cloned() };
        self.link.call(Kind::Read, account).await.map_err(failed)
    }
}

#[async_trait]
impl BudgetStore for LinkedBudget {
    async fn turn(
        &self,
        ask: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError> {
        let turn = async {
            let mut rows = lock(&self.budgets.rows);
            rows.budgets.entry(self.key.clone()).or_default().turn(self.budgets.now(), age(), ask)
        };
        self.link.call(Kind::Write, turn).await.map_err(failed)
    }

    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
        let usage = async {
            let rows = lock(&self.budgets.rows);
            rows.budgets.get(&self.key).cloned().unwrap_or_default().usage(self.budgets.now(), terms)
        };
        self.link.call(Kind::Read, usage).await.map_err(failed)
    }
}

fn failed(unanswered: Unanswered) -> StoreError {
    StoreError { what: unanswered.to_string(), may_be_saved: unanswered.may_be_done }
}

#[cfg(test)]
mod tests {
    use model::QuotaClass;
    use quota::Rate;

    use super::*;
    use crate::standins::{Condition, LinkOptions, Weather};

    fn ask(wanted: u32) -> BudgetRequest {
        let rate = Rate { limit: 10, window: Duration::from_secs(300) };
        let mut of_class = [0; QuotaClass::ALL.len()];
        of_class[QuotaClass::Live as usize] = wanted;
        BudgetRequest { terms: Terms::new(rate, 0.5), witness: None, reports: Vec::new(), wanted: of_class }
    }

    async fn granted(store: &Arc<dyn BudgetStore>, wanted: u32) -> Result<u32, StoreError> {
        let verdict = store.turn(&ask(wanted), &|| Duration::from_secs(1)).await?;
        Ok(verdict.grants.iter().map(|grant| grant.count).sum())
    }

    #[tokio::test(start_paused = true)]
    async fn machines_draw_on_one_budget_and_a_lost_answer_has_cost_its_places() {
        let weather = Weather::clear();
        let budgets = SharedBudgets::new(Clock::fixed("2026-04-01T00:00:00Z".parse().unwrap()));
        let link = |machine| Link::new(weather.clone(), machine, 5, LinkOptions::default(), || false);
        let ways = [1, 2].map(|machine| budgets.through(link(machine)));
        let [one, other] = [0, 1].map(|at: usize| ways[at].open("nice/1", ApiFamily::Acd).unwrap());
        assert_eq!(granted(&one, 4).await.unwrap(), 4);
        assert_eq!(granted(&ways[1].open("nice/2", ApiFamily::Acd).unwrap(), 9).await.unwrap(), 9);
        let away = weather.begin_for(2, Condition::Away);
        assert!(!granted(&other, 1).await.unwrap_err().may_be_saved);
        drop(away);
        let silent = weather.begin_for(2, Condition::Silent);
        for _ in 0..20 {
            assert!(granted(&other, 1).await.unwrap_err().may_be_saved);
        }
        drop(silent);
        assert_eq!(granted(&other, 10).await.unwrap(), 0, "some of those that had no answer were granted");
        assert_eq!(granted(&one, 10).await.unwrap(), 0);
        assert_eq!(one.usage(&ask(0).terms).await.unwrap(), other.usage(&ask(0).terms).await.unwrap());
        let acme = "acme".parse().unwrap();
        ways[0].note_account(&acme, "nice/1").await.unwrap();
        assert_eq!(ways[1].account(&acme).await.unwrap().as_deref(), Some("nice/1"));
        assert_eq!(budgets.drawn_on().len(), 2);
    }
}
