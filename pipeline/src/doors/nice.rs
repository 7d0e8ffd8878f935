//! The way to NICE: settings from the file or the database, and the rate budget that all processes share.

use std::sync::Arc;

use async_trait::async_trait;
use model::{ApiFamily, Quota, TenantId};
use nice::{Network, NiceHealthBook, Timeouts};
use quota::{Budgets, LocalStores, Patience, Stores, TenantQuota, Terms};
use runtime::Clock;
use stages::{
    metrics::Metrics,
    tenants::{FixedSettings, QuotaOf, SettingsError, SettingsSource, TenantSettings, Tenants, TenantsOptions},
};
use state::State;

use super::servers;
use super::servers::Database;
use super::translate::{nice_settings, retention, tenant};
use crate::command_error::CommandError;
use crate::config::{Config, LimitsConfig};

/// Every tenant's client, once for each of the two services.
#[derive(Clone)]
pub(crate) struct Nice {
    /// The producer's, which waits in place for its turn in the rate budget.
    pub(crate) producer: Arc<Tenants>,
    /// The consumer's, which puts a call back that would have to wait long, so that other tenants' calls go on.
    pub(crate) consumer: Arc<Tenants>,
    /// The request budgets.
    pub(crate) budgets: Arc<Budgets>,
    /// What NICE last answered each tenant.
    pub(crate) health: NiceHealthBook,
}

impl Nice {
    /// Makes no client yet; each is made when its tenant is first asked for.
    pub(super) fn new(
        config: &Config,
        state: Option<&State>,
        database: Option<&Database>,
        metrics: &Metrics,
    ) -> Result<Self, CommandError> {
        let stores: Arc<dyn Stores> = match (database, state) {
            (Some(database), _) => servers::budgets(database),
            (None, Some(state)) => Arc::new(LocalStores::new(state.clone())),
            (None, None) => return Err(CommandError::failed("this process has no place for a rate budget")),
        };
        let source = source(config, database)?;
        Ok(Self::asking(config, source, stores, Network::Internet, &Clock::system(), metrics))
    }

    /// Clients with these settings and budgets, whose requests go through this network.
    pub(super) fn asking(
        config: &Config,
        source: Arc<dyn SettingsSource>,
        stores: Arc<dyn Stores>,
        network: Network,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Self {
        let [acd, playback] = [ApiFamily::Acd, ApiFamily::MediaPlayback].map(|family| terms(&config.limits, family));
        let budgets = Arc::new(Budgets::new(stores, acd, playback, metrics.quota.clone()));
        let health = NiceHealthBook::default();
        let tenants = |patience| {
            let budgets = budgets.clone();
            let quota: QuotaOf = Arc::new(move |tenant: &TenantId| {
                Arc::new(TenantQuota::new(budgets.clone(), tenant.clone(), patience)) as Arc<dyn Quota>
            });
            let mut options = TenantsOptions { network: network.clone(), health: health.clone(), ..options(config) };
            options.timeouts.clock = clock.clone();
            Arc::new(Tenants::with_options(source.clone(), quota, metrics.clone(), options))
        };
        Self { producer: tenants(Patience::Endless), consumer: tenants(Patience::WORKER), budgets, health }
    }

    /// Clients that ask `quota` before each request.
    pub(crate) fn unmetered(
        config: &Config,
        database: Option<&Database>,
        quota: Arc<dyn Quota>,
    ) -> Result<Tenants, CommandError> {
        let (source, options) = (source(config, database)?, options(config));
        Ok(Tenants::with_options(source, Arc::new(move |_| quota.clone()), Metrics::new(), options))
    }
}

/// Where the settings of tenants are.
fn source(config: &Config, database: Option<&Database>) -> Result<Arc<dyn SettingsSource>, CommandError> {
    if let Some(database) = database {
        return match config.catalog.seal_key {
            None => Ok(Arc::new(Missing("[catalog] seal_key: missing"))),
            Some(_) => Ok(servers::settings_source(config, database)),
        };
    }
    let Some(nice) = nice_settings(&config.nice) else { return Ok(Arc::new(Missing("[nice]: missing"))) };
    let (scope, retention) = (config.nice.recording_scope, retention(&config.nice)?);
    Ok(Arc::new(FixedSettings { tenant: tenant(config)?, nice, scope, retention }))
}

/// Settings that are missing, and that a listing does not need.
struct Missing(&'static str);

#[async_trait]
impl SettingsSource for Missing {
    async fn nice_settings(&self, _tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        Err(SettingsError::Unusable(self.0.to_owned()))
    }
}

/// How NICE is asked.
fn options(config: &Config) -> TenantsOptions {
    let timeouts = Timeouts {
        api: config.limits.timeout,
        page_size: config.limits.page_size,
        media_min_rate: config.recordings.min_rate,
        ..Timeouts::default()
    };
    TenantsOptions { timeouts, ..TenantsOptions::default() }
}

/// A family's limit of the settings as the budgets take it, and how it is divided.
fn terms(limits: &LimitsConfig, family: ApiFamily) -> Terms {
    let rate = match family {
        ApiFamily::Acd => limits.acd,
        ApiFamily::MediaPlayback => limits.media_playback,
    };
    Terms::new(rate, limits.live_reserve)
}
