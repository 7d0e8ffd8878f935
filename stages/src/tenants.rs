//! From a tenant's id to its NICE: one client for each tenant, made at first use.
//!
//! In: a tenant's id. Out: its client, whose token and connections last as long as its settings stay the same.
//! Settings are read again every few seconds of use, and soon after NICE refused the present ones; while one caller
//! reads them, the others go on. What is wrong with one tenant's settings is remembered for that tenant alone: nobody
//! waits for another tenant here. Where a tenant's NICE is silent, a few go on trying and the others are sent away, so
//! that it does not tie up every worker.
//!
//! Nothing is kept on disk: after a crash the settings are read anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow::StageError;
use model::{Quota, Retention, TenantId};
use nice::{Network, NiceClient, NiceHealthBook, Timeouts};
use tracing::{info, warn};

use crate::metrics::Metrics;

mod entry;
mod seal;
mod settings;
mod settings_table;
mod tenant;

pub use seal::{Seal, SealError};
pub use settings::{FixedSettings, RecordingScope, SettingsError, SettingsSource, TenantSettings};
pub use settings_table::{SettingsRow, SettingsTable};
pub use tenant::Tenant;

use self::entry::{SOON, TenantEntry, TenantStatus};

/// Gives each tenant its rate budget; asked once for each tenant that is kept.
pub type QuotaOf = Arc<dyn Fn(&TenantId) -> Arc<dyn Quota> + Send + Sync>;

/// How tenants are kept.
#[derive(Debug, Clone)]
pub struct TenantsOptions {
    /// A tenant's settings are read again when they are this old.
    pub reread: Duration,
    /// The most tenants that are kept; the one not used for longest gives way. Each costs its connections and some
    /// hundred KiB.
    pub kept: usize,
    /// How long the clients wait.
    pub timeouts: Timeouts,
    /// Where their requests go.
    pub network: Network,
    /// Learns what NICE answers each of them.
    pub health: NiceHealthBook,
}

impl Default for TenantsOptions {
    fn default() -> Self {
        Self {
            reread: Duration::from_secs(15),
            kept: 1024,
            timeouts: Timeouts::default(),
            network: Network::default(),
            health: NiceHealthBook::default(),
        }
    }
}

/// Settings are read within this time, or the source counts as out of reach.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// As much, where a client is there that can be used meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an unknown tenant stays unknown: short, so that an operator who adds it can replay its calls at once.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);

/// Every tenant's client, made at first use and replaced when its settings change.
pub struct Tenants {
    source: Arc<dyn SettingsSource>,
    quota: QuotaOf,
    metrics: Metrics,
    options: TenantsOptions,
    kept: Mutex<TenantCache>,
}

/// The tenants, and how often they were asked for.
#[derive(Default)]
struct TenantCache {
    entries: BTreeMap<TenantId, (Arc<TenantEntry>, u64)>,
    uses: u64,
}

impl Tenants {
    /// No tenant is known yet.
    pub fn new(source: Arc<dyn SettingsSource>, quota: QuotaOf, metrics: Metrics) -> Self {
        Self::with_options(source, quota, metrics, TenantsOptions::default())
    }

    /// As [`Tenants::new`], kept otherwise than in production.
    pub fn with_options(
        source: Arc<dyn SettingsSource>,
        quota: QuotaOf,
        metrics: Metrics,
        options: TenantsOptions,
    ) -> Self {
        Self { source, quota, metrics, options, kept: Mutex::default() }
    }

    /// The tenant's client. An unknown tenant is a permanent error; settings that cannot be read or used are not.
    pub async fn get(&self, id: &TenantId) -> Result<Arc<Tenant>, StageError> {
        let tenant = self.find(id).await?;
        tenant.responsive()?;
        Ok(tenant)
    }

    /// The tenants whose conversations are not kept for ever.
    pub async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        let read = tokio::time::timeout(READ_TIMEOUT, self.source.retentions()).await;
        read.unwrap_or_else(|_| Err(SettingsError::Unreachable("no answer in time".to_owned())))
    }

    async fn find(&self, id: &TenantId) -> Result<Arc<Tenant>, StageError> {
        let entry = self.entry(id);
        let read = async |is_renewal: bool| {
            let timeout = if is_renewal { RENEW_TIMEOUT } else { READ_TIMEOUT };
            let read = tokio::time::timeout(timeout, self.source.nice_settings(id)).await;
            let read = read.unwrap_or_else(|_| Err(SettingsError::Unreachable("no answer in time".to_owned())));
            self.note(&entry, read)
        };
        entry.flight.get(|| entry.lookup(), read).await
    }

    /// The tenant's entry, made if need be; the one that is worth least gives way to it.
    fn entry(&self, id: &TenantId) -> Arc<TenantEntry> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some((entry, used)) = kept.entries.get_mut(id) {
            *used = now;
            return entry.clone();
        }
        if kept.entries.len() >= self.options.kept.max(1) {
            // Names that stand for no tenant go first, or a flood of them would cost every real one its token.
            let worth = |(_, (entry, used)): &(&TenantId, &(Arc<TenantEntry>, u64))| (entry.has_client(), *used);
            if let Some(id) = kept.entries.iter().min_by_key(worth).map(|(id, _)| id.clone()) {
                kept.entries.remove(&id);
            }
        }
        let entry = Arc::new(TenantEntry::new(id.clone()));
        kept.entries.insert(id.clone(), (entry.clone(), now));
        entry
    }

    /// Draws the conclusions of what was read.
    fn note(
        &self,
        entry: &TenantEntry,
        read: Result<Option<TenantSettings>, SettingsError>,
    ) -> Result<Arc<Tenant>, StageError> {
        let before = entry.state().status.clone();
        let (status, good_for) = match (read, before) {
            (Ok(Some(settings)), TenantStatus::Client { tenant, revision, .. }) if settings.revision == revision => {
                let refusals = tenant.nice.refusals();
                (TenantStatus::Client { tenant, revision, refusals }, self.options.reread)
            }
            (Ok(Some(settings)), before) => {
                if !matches!(before, TenantStatus::Unread) {
                    info!(tenant = %entry.id, "NICE settings changed");
                }
                (self.client(entry, settings), self.options.reread)
            }
            (Ok(None), _) => (TenantStatus::Unknown, UNKNOWN_FOR.min(self.options.reread)),
            (Err(SettingsError::Unusable(reason)), _) => (TenantStatus::Unusable(reason), self.options.reread),
            (Err(error @ SettingsError::Unreachable(_)), client @ TenantStatus::Client { .. }) => {
                warn!(tenant = %entry.id, %error, "the client made before goes on being used");
                (client, self.options.reread)
            }
            (Err(error @ SettingsError::Unreachable(_)), _) => {
                (TenantStatus::Unreachable(error.to_string()), SOON.min(self.options.reread))
            }
        };
        entry.keep(status, good_for)
    }

    /// Makes a client; settings that allow none are for a person to mend.
    fn client(&self, entry: &TenantEntry, settings: TenantSettings) -> TenantStatus {
        let TenantSettings { nice, scope, retention, revision } = settings;
        let id = &entry.id;
        let quota = entry.quota.get_or_init(|| (self.quota)(id)).clone();
        let TenantsOptions { timeouts, network, .. } = self.options.clone();
        self.metrics.meet(id);
        let health = self.options.health.of(id);
        match NiceClient::new(nice, network, quota, self.metrics.nice.belonging_to(id), health, timeouts) {
            Ok(nice) => {
                let tenant = Arc::new(Tenant { id: id.clone(), nice, scope, retention });
                TenantStatus::Client { tenant, revision, refusals: 0 }
            }
            Err(error) => TenantStatus::Unusable(error.to_string()),
        }
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
