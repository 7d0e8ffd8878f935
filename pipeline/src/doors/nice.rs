//! The way to NICE: settings from the file or the database, and the rate budget that all processes share.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use stages::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use stages::clients::quota::{LocalLedger, LocalQuota, Patience, Rate, Shares, Usage};
use stages::clients::tenants::{FixedSettings, QuotaOf, SettingsError, SettingsSource, TenantSettings, Tenants};
use stages::flow::Metrics;
use stages::model::TenantId;

use super::{Database, Local, nice_settings, recording_scope, retention, servers, tenant};
use crate::config::{CatalogConfig, Config, LimitsConfig};
use crate::failure::Failure;

/// Every tenant's client, once for each of the two services.
#[derive(Clone)]
pub(crate) struct Nice {
    /// The producer's, which waits in place for its turn in the rate budget.
    pub(crate) producer: Arc<Tenants>,
    /// The consumer's, which puts a call back that would have to wait long, so that other tenants' calls go on.
    pub(crate) consumer: Arc<Tenants>,
    /// How the budgets stand.
    pub(crate) budgets: Arc<dyn Budgets>,
}

impl Nice {
    /// Makes no client yet; each is made when its tenant is first asked for.
    pub(super) fn new(
        config: &Config,
        local: Option<&Local>,
        database: Option<&Database>,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let source = source(config, database)?;
        let budgets: Arc<dyn Budgets> = match (database, local) {
            (Some(database), _) => servers::budgets(config, database, metrics),
            (None, Some(local)) => Arc::new(LocalBudgets::open(local, &config.limits, metrics)?),
            (None, None) => return Err(Failure::failed("this process has no place for a rate budget")),
        };
        let tenants = |patience| {
            let budgets = budgets.clone();
            let quota: QuotaOf = Arc::new(move |tenant: &TenantId| budgets.quota(tenant, patience));
            Arc::new(Tenants::new(source.clone(), quota, metrics.clone()))
        };
        Ok(Self { producer: tenants(Patience::Endless), consumer: tenants(Patience::WORKER), budgets })
    }

    /// Clients that ask `quota` before each request.
    pub(crate) fn unmetered(
        config: &Config,
        database: Option<&Database>,
        quota: Arc<dyn Quota>,
    ) -> Result<Tenants, Failure> {
        Ok(Tenants::new(source(config, database)?, Arc::new(move |_| quota.clone()), Metrics::new()))
    }
}

/// Where the settings of tenants stand.
fn source(config: &Config, database: Option<&Database>) -> Result<Arc<dyn SettingsSource>, Failure> {
    if let Some(database) = database {
        return match &config.catalog {
            Some(CatalogConfig::Postgres { seal_key: None, .. }) => {
                Ok(Arc::new(Missing("[catalog] seal_key: missing")))
            }
            _ => Ok(servers::settings_source(config, database)),
        };
    }
    let Some(nice) = config.nice.clone() else { return Ok(Arc::new(Missing("[nice]: missing"))) };
    let scope = recording_scope(nice.recording_scope);
    let retention = retention(&nice)?;
    Ok(Arc::new(FixedSettings { tenant: tenant(config)?, nice: nice_settings(nice)?, scope, retention }))
}

/// Settings that a listing does without.
struct Missing(&'static str);

#[async_trait]
impl SettingsSource for Missing {
    async fn nice_settings(&self, _tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        Err(SettingsError::Unusable(self.0.to_owned()))
    }
}

/// The rate budgets, by tenant.
#[async_trait]
pub(crate) trait Budgets: Send + Sync + 'static {
    /// The tenant's budget, for who has so much patience.
    fn quota(&self, tenant: &TenantId, patience: Patience) -> Arc<dyn Quota>;

    /// The requests of the family a second that the class can count on, by the settings.
    fn pace(&self, family: ApiFamily, class: QuotaClass) -> f64;

    /// How the tenant's budget stands at this moment.
    async fn usage(&self, tenant: &TenantId, family: ApiFamily) -> Result<Usage, NiceError>;
}

/// Budgets in the local state, of its one tenant.
struct LocalBudgets {
    ledger: LocalLedger,
}

impl LocalBudgets {
    fn open(local: &Local, limits: &LimitsConfig, metrics: &Metrics) -> Result<Self, Failure> {
        let open = |family: ApiFamily| {
            let shares = shares(limits, family);
            let counted_for = SignedDuration::try_from(shares.rate().counted_for()).map_err(Failure::usage)?;
            Ok::<_, Failure>((local.state.rate_window(family.as_str(), shares.rate().limit, counted_for)?, shares))
        };
        let ledger = LocalLedger::new(open(ApiFamily::Acd)?, open(ApiFamily::MediaPlayback)?, metrics.clone());
        Ok(Self { ledger })
    }
}

#[async_trait]
impl Budgets for LocalBudgets {
    fn quota(&self, _tenant: &TenantId, patience: Patience) -> Arc<dyn Quota> {
        Arc::new(LocalQuota::new(self.ledger.clone(), patience))
    }

    fn pace(&self, family: ApiFamily, class: QuotaClass) -> f64 {
        self.ledger.shares(family).pace(class)
    }

    async fn usage(&self, _tenant: &TenantId, family: ApiFamily) -> Result<Usage, NiceError> {
        Ok(self.ledger.usage(family))
    }
}

/// A family's limit of the settings as the budgets take it, and how it is divided.
pub(super) fn shares(limits: &LimitsConfig, family: ApiFamily) -> Shares {
    let rate = match family {
        ApiFamily::Acd => limits.acd,
        ApiFamily::MediaPlayback => limits.media_playback,
    };
    Shares::new(Rate { limit: rate.limit, window: rate.window }, limits.live_reserve)
}
