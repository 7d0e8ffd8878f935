//! The way to NICE: settings from the file or the database, and the rate budget that all processes share.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use stages::clients::nice::{ApiFamily, NiceError, Quota, QuotaClass};
use stages::clients::quota::{LocalQuota, Patience, Rate};
use stages::clients::tenants::{FixedSettings, QuotaOf, SettingsError, SettingsSource, TenantSettings, Tenants};
use stages::flow::{Clock, Metrics};
use stages::model::TenantId;
use state::RateWindow;

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
    /// What is left of the budgets.
    pub(crate) budgets: Arc<dyn Budgets>,
}

impl Nice {
    /// Makes no client yet; each is made when its tenant is first asked for.
    pub(super) fn new(
        config: &Config,
        local: Option<&Local>,
        database: Option<&Database>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let source = source(config, database)?;
        let budgets: Arc<dyn Budgets> = match (database, local) {
            (Some(database), _) => servers::budgets(config, database, metrics),
            (None, Some(local)) => Arc::new(LocalBudgets::open(local, &config.limits, clock, metrics)?),
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

    /// Requests a second that the class can count on.
    fn pace(&self, family: ApiFamily, class: QuotaClass) -> f64;

    /// The most requests of the family in its span.
    fn limit(&self, family: ApiFamily) -> usize;

    /// How many requests of the family are left at this moment.
    async fn available(&self, tenant: &TenantId, family: ApiFamily) -> Result<usize, NiceError>;
}

/// Budgets in the local state, of its one tenant.
struct LocalBudgets {
    acd: (RateWindow, Rate),
    media_playback: (RateWindow, Rate),
    clock: Clock,
    metrics: Metrics,
}

impl LocalBudgets {
    fn open(local: &Local, limits: &LimitsConfig, clock: &Clock, metrics: &Metrics) -> Result<Self, Failure> {
        let open = |family: ApiFamily, rate: Rate| {
            let counted_for = SignedDuration::try_from(rate.counted_for()).map_err(Failure::usage)?;
            Ok::<_, Failure>((local.state.rate_window(family.as_str(), rate.limit, counted_for)?, rate))
        };
        Ok(Self {
            acd: open(ApiFamily::Acd, rate(limits.acd))?,
            media_playback: open(ApiFamily::MediaPlayback, rate(limits.media_playback))?,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }
}

#[async_trait]
impl Budgets for LocalBudgets {
    fn quota(&self, _tenant: &TenantId, patience: Patience) -> Arc<dyn Quota> {
        let (acd, media_playback) = (self.acd.clone(), self.media_playback.clone());
        Arc::new(LocalQuota::new(acd, media_playback, patience, self.clock.clone(), self.metrics.clone()))
    }

    fn pace(&self, family: ApiFamily, _class: QuotaClass) -> f64 {
        let rate = match family {
            ApiFamily::Acd => self.acd.1,
            ApiFamily::MediaPlayback => self.media_playback.1,
        };
        f64::from(rate.limit) * 0.5 / rate.counted_for().as_secs_f64()
    }

    fn limit(&self, family: ApiFamily) -> usize {
        match family {
            ApiFamily::Acd => self.acd.1.limit as usize,
            ApiFamily::MediaPlayback => self.media_playback.1.limit as usize,
        }
    }

    async fn available(&self, _tenant: &TenantId, family: ApiFamily) -> Result<usize, NiceError> {
        Ok(match family {
            ApiFamily::Acd => self.acd.0.available(),
            ApiFamily::MediaPlayback => self.media_playback.0.available(),
        })
    }
}

/// A limit of the settings as the budgets take it.
pub(super) fn rate(rate: crate::config::Rate) -> Rate {
    Rate { limit: rate.limit, window: rate.window }
}
