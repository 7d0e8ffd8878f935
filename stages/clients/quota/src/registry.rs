//! Every budget that this process draws on: one gate for each account and family, whoever asks.
//!
//! An account is a NICE tenant as its token names it: two Knovvu tenants on one NICE tenant have one budget. Where the
//! token names none, the Knovvu tenant stands in for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use model::{ApiFamily, Permit, Quota, QuotaClass, QuotaError, TenantId};
use tracing::warn;

use super::{BudgetStore, Patience, QuotaGate, StoreError, Terms, Usage};
use crate::QuotaMetrics;

/// Where budgets are kept.
#[async_trait]
pub trait Stores: Send + Sync + 'static {
    /// The budget of an account and a family; made at its first turn.
    fn open(&self, account: &str, family: ApiFamily) -> Result<Arc<dyn BudgetStore>, StoreError>;

    /// Notes whose budget a tenant draws on, for those who ask without a token.
    async fn note_account(&self, tenant: &TenantId, account: &str) -> Result<(), StoreError>;

    /// Whose budget a tenant drew on last.
    async fn account(&self, tenant: &TenantId) -> Result<Option<String>, StoreError>;
}

/// More accounts than a process keeps tenants; from then on those that nobody uses are forgotten.
const MOST_GATES: usize = 4096;

/// The budgets of all tenants.
pub struct Budgets {
    stores: Arc<dyn Stores>,
    acd: Terms,
    media_playback: Terms,
    metrics: QuotaMetrics,
    gates: Mutex<HashMap<(String, ApiFamily), Weak<QuotaGate>>>,
}

impl Budgets {
    /// Opens none yet; each is opened when its tenant first asks NICE.
    pub fn new(stores: Arc<dyn Stores>, acd: Terms, media_playback: Terms, metrics: QuotaMetrics) -> Self {
        Self { stores, acd, media_playback, metrics, gates: Mutex::default() }
    }

    /// The limit of a family, and how it is divided.
    pub fn terms(&self, family: ApiFamily) -> Terms {
        match family {
            ApiFamily::Acd => self.acd,
            ApiFamily::MediaPlayback => self.media_playback,
        }
    }

    /// How the budget stands that the tenant drew on last; an unused one where it has not drawn on any.
    pub async fn usage(&self, tenant: &TenantId, family: ApiFamily) -> Result<Usage, StoreError> {
        let terms = self.terms(family);
        match self.stores.account(tenant).await? {
            Some(account) => self.stores.open(&account, family)?.usage(&terms).await,
            None => {
                Ok(Usage { limit: terms.rate.limit, limit_now: terms.rate.limit, by_class: Vec::new(), refused: None })
            }
        }
    }

    fn gate(&self, account: &str, family: ApiFamily) -> Result<Arc<QuotaGate>, StoreError> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), family);
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return Ok(gate);
        }
        if gates.len() >= MOST_GATES {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let store = self.stores.open(account, family)?;
        let gate = Arc::new(QuotaGate::new(store, family, self.terms(family), self.metrics.clone()));
        gates.insert(key, Arc::downgrade(&gate));
        Ok(gate)
    }
}

/// A Knovvu tenant's way to its budgets, for those who have so much patience.
pub struct TenantQuota {
    budgets: Arc<Budgets>,
    tenant: TenantId,
    patience: Patience,
    ways: Mutex<Option<Ways>>,
}

/// The ways to one account.
#[derive(Clone)]
struct Ways {
    account: String,
    acd: Arc<QuotaGate>,
    media_playback: Arc<QuotaGate>,
}

impl TenantQuota {
    /// The tenant's way; which account it is for tells its token.
    pub fn new(budgets: Arc<Budgets>, tenant: TenantId, patience: Patience) -> Self {
        Self { budgets, tenant, patience, ways: Mutex::default() }
    }

    async fn ways(&self, account: Option<&str>) -> Result<Ways, StoreError> {
        let account = account.map_or_else(|| format!("knovvu/{}", self.tenant), str::to_owned);
        let known = self.ways.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(ways) = known.filter(|ways| ways.account == account) {
            return Ok(ways);
        }
        let gate = |family| self.budgets.gate(&account, family);
        let (acd, media_playback) = (gate(ApiFamily::Acd)?, gate(ApiFamily::MediaPlayback)?);
        let ways = Ways { account, acd, media_playback };
        *self.ways.lock().unwrap_or_else(PoisonError::into_inner) = Some(ways.clone());
        if let Err(error) = self.budgets.stores.note_account(&self.tenant, &ways.account).await {
            warn!(%error, tenant = %self.tenant, "status will not show the rate budget of this tenant");
        }
        Ok(ways)
    }
}

#[async_trait]
impl Quota for TenantQuota {
    async fn admit(
        &self,
        account: Option<&str>,
        family: ApiFamily,
        class: QuotaClass,
    ) -> Result<Box<dyn Permit>, QuotaError> {
        let failed = |error: StoreError| QuotaError { what: error.to_string(), retry_after: None };
        let ways = self.ways(account).await.map_err(failed)?;
        let gate = match family {
            ApiFamily::Acd => ways.acd,
            ApiFamily::MediaPlayback => ways.media_playback,
        };
        let _waits = self.budgets.metrics.waits(&self.tenant, family, class);
        gate.admit(class, self.patience).await
    }
}
