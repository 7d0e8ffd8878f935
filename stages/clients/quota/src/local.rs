//! A budget in the local state, for a process that has its tenant to itself.
//!
//! It lies in the tree `quota`, under `family, 0, account, 0, part`, as JSON in parts that sled keeps in its log. Under
//! `account, 0, tenant` stands whose budget a tenant draws on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::{ApiFamily, TenantId};
use runtime::Clock;
use state::{MAX_VALUE_BYTES, State, StateError, Store};

use super::{Budget, BudgetDecision, BudgetRequest, BudgetStore, Micros, StoreError, Stores, Terms, Usage};

const TREE: &str = "quota";

/// A budget in memory, and on disk before anything of it is used.
#[derive(Debug, Clone)]
pub(crate) struct LocalStore {
    budget: Arc<Mutex<Budget>>,
    disk: BudgetTree,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct BudgetTree {
    store: Store,
    tree: sled::Tree,
    prefix: Vec<u8>,
}

impl LocalStore {
    /// Reads the budget of an account and a family. One that cannot be read begins anew, and knows of no request.
    pub(crate) fn open(state: &State, account: &str, family: ApiFamily) -> Result<Self, StateError> {
        let disk = BudgetTree {
            store: state.store().clone(),
            tree: state.store().tree(TREE)?,
            prefix: [family.as_str(), "\0", account, "\0"].concat().into_bytes(),
        };
        let budget = disk.read()?;
        Ok(Self { budget: Arc::new(Mutex::new(budget)), disk, clock: state.clock().clone() })
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Micros {
        Micros::try_from(self.clock.now().as_microsecond()).unwrap_or_default()
    }

    fn decide(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StateError> {
        let mut budget = self.budget();
        let mut next = budget.clone();
        let decision = next.turn(self.now(), age(), request);
        self.disk.write(&next)?;
        *budget = next;
        Ok(decision)
    }
}

#[async_trait]
impl BudgetStore for LocalStore {
    async fn turn(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError> {
        let failed = |may_be_saved| move |error: StateError| StoreError { what: error.to_string(), may_be_saved };
        let decision = self.decide(request, age).map_err(failed(false))?;
        if decision.must_last {
            self.disk.store.commit().await.map_err(failed(true))?;
        }
        Ok(decision)
    }

    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
        Ok(self.budget().usage(self.now(), terms))
    }
}

/// The budgets in the local state.
#[derive(Debug)]
pub struct LocalStores {
    state: State,
    /// What is in memory is the truth: one for each budget, however often it is opened.
    open: Mutex<HashMap<(String, ApiFamily), LocalStore>>,
}

impl LocalStores {
    /// Opens none yet.
    pub fn new(state: State) -> Self {
        Self { state, open: Mutex::default() }
    }

    fn accounts(&self) -> Result<sled::Tree, StateError> {
        self.state.store().tree(TREE)
    }
}

fn account_key(tenant: &TenantId) -> Vec<u8> {
    ["account\0", tenant.as_str()].concat().into_bytes()
}

fn unsaved(error: &StateError) -> StoreError {
    StoreError { what: error.to_string(), may_be_saved: false }
}

#[async_trait]
impl Stores for LocalStores {
    fn open(&self, account: &str, family: ApiFamily) -> Result<Arc<dyn BudgetStore>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), family);
        if let Some(store) = open.get(&key) {
            return Ok(Arc::new(store.clone()));
        }
        let store = LocalStore::open(&self.state, account, family).map_err(|error| unsaved(&error))?;
        open.insert(key, store.clone());
        Ok(Arc::new(store))
    }

    async fn note_account(&self, tenant: &TenantId, account: &str) -> Result<(), StoreError> {
        let noted = self.accounts().and_then(|tree| Ok(tree.insert(account_key(tenant), account)?));
        // Durable with the next grant.
        noted.map(drop).map_err(|error| unsaved(&error))
    }

    async fn account(&self, tenant: &TenantId) -> Result<Option<String>, StoreError> {
        let noted = self.accounts().and_then(|tree| Ok(tree.get(account_key(tenant))?));
        let text = |account: sled::IVec| String::from_utf8_lossy(&account).into_owned();
        noted.map(|account| account.map(text)).map_err(|error| unsaved(&error))
    }
}

impl BudgetTree {
    fn read(&self) -> Result<Budget, StateError> {
        let mut text = Vec::new();
        for part in self.tree.scan_prefix(&self.prefix).values() {
            text.extend_from_slice(&part?);
        }
        if text.is_empty() {
            return Ok(Budget::default());
        }
        serde_json::from_slice(&text).or_else(|error| {
            tracing::warn!(%error, "a rate budget of the local state cannot be read, it begins anew");
            Ok(Budget::default())
        })
    }

    /// All parts at once, so that a crash leaves one whole budget.
    fn write(&self, budget: &Budget) -> Result<(), StateError> {
        let text = serde_json::to_vec(budget).expect("a budget of numbers is always JSON");
        let mut batch = sled::Batch::default();
        let mut parts = 0_u16;
        for part in text.chunks(MAX_VALUE_BYTES - 1) {
            batch.insert(self.key(parts), part);
            parts += 1;
        }
        for beyond in self.tree.range(self.key(parts)..=self.key(u16::MAX)).keys() {
            batch.remove(beyond?);
        }
        self.tree.apply_batch(batch)?;
        Ok(())
    }

    fn key(&self, part: u16) -> Vec<u8> {
        [self.prefix.as_slice(), &part.to_be_bytes()].concat()
    }
}
