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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use flow::StageError;
use model::{Quota, Retention, System, TenantId};
use nice::{Network, NiceClient, NiceSettings, Timeouts};
use runtime::chance;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::metrics::Metrics;

mod seal;
mod settings_table;

pub use seal::{Seal, SealError};
pub use settings_table::{SettingsRow, SettingsTable};

/// What is imported of a call with several legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingScope {
    /// The leg's own segments.
    Leg,
    /// The whole call.
    Master,
}

impl RecordingScope {
    /// The word in settings and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leg => "leg",
            Self::Master => "master",
        }
    }
}

/// What is known of a tenant.
#[derive(Debug, Clone)]
pub struct TenantSettings {
    /// How to reach its NICE.
    pub nice: NiceSettings,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
    /// Another text whenever anything of the settings has changed.
    pub revision: String,
}

/// Where the settings of tenants stand.
#[async_trait]
pub trait SettingsSource: Send + Sync + 'static {
    /// The tenant's settings, or none if it has none.
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError>;

    /// The tenants whose conversations are not kept for ever.
    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        Ok(Vec::new())
    }
}

/// Why there are no settings. The texts hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// They cannot be read at the moment.
    #[error("the tenant's settings cannot be read: {0}")]
    Unreachable(String),
    /// They stand there and are of no use: a person must mend them.
    #[error("the tenant's settings cannot be used: {0}")]
    Unusable(String),
}

/// One tenant's settings that never change: those of the settings file.
#[derive(Debug)]
pub struct FixedSettings {
    /// The one tenant there is.
    pub tenant: TenantId,
    /// How to reach its NICE.
    pub nice: NiceSettings,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
}

#[async_trait]
impl SettingsSource for FixedSettings {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        Ok((*tenant == self.tenant).then(|| TenantSettings {
            nice: self.nice.clone(),
            scope: self.scope,
            retention: self.retention,
            revision: "fixed".to_owned(),
        }))
    }

    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        Ok(vec![(self.tenant.clone(), self.retention)])
    }
}

/// A tenant whose NICE can be asked.
#[derive(Debug)]
pub struct Tenant {
    /// Who it is.
    pub id: TenantId,
    /// The door to its NICE.
    pub nice: NiceClient,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
}

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
}

impl Default for TenantsOptions {
    fn default() -> Self {
        Self { reread: Duration::from_secs(15), kept: 1024, timeouts: Timeouts::default(), network: Network::default() }
    }
}

/// Settings are read within this time, or the source counts as out of reach.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// As much, where a client is there that can be used meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_secs(3);

/// What could not be read is asked for again after this time, and so are settings that NICE refuses.
const SOON: Duration = Duration::from_secs(2);

/// An unknown tenant is unknown for so long: an operator who adds it and replays its calls does not wait.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);

/// How long a call waits whose tenant's settings cannot be used: only a person can mend them.
const UNUSABLE_DELAY: Duration = Duration::from_secs(60);

/// How long a call waits, at least, whose tenant's NICE is silent while others try it; at most three times as long, so
/// that they do not come back together.
const SILENT_DELAY: Duration = Duration::from_secs(5);

/// The shortest time between two alarms about one tenant.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

/// Every tenant's client, made at first use and replaced when its settings change.
pub struct Tenants {
    source: Arc<dyn SettingsSource>,
    quota: QuotaOf,
    metrics: Metrics,
    options: TenantsOptions,
    kept: Mutex<Kept>,
}

/// The tenants, and how often they were asked for.
#[derive(Default)]
struct Kept {
    entries: BTreeMap<TenantId, (Arc<Entry>, u64)>,
    uses: u64,
}

/// One tenant, known or not.
struct Entry {
    id: TenantId,
    /// Outlives the clients: what it has granted counts, whatever the settings.
    quota: OnceLock<Arc<dyn Quota>>,
    state: Mutex<State>,
    /// Whoever reads the settings holds it.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    standing: Standing,
    read_again_at: Instant,
    alarmed_at: Option<Instant>,
}

/// How it stands with a tenant.
#[derive(Clone)]
enum Standing {
    /// Its settings were not read yet.
    Unread,
    /// They were, and are in use.
    Client { tenant: Arc<Tenant>, revision: String, refusals: u64 },
    /// It has none.
    Unknown,
    /// They could not be read, and there are none of before.
    Unreachable(String),
    /// They are of no use.
    Unusable(String),
}

/// What is to be done for a tenant.
enum Look {
    Use(Result<Arc<Tenant>, StageError>),
    Renew(Arc<Tenant>),
    Read,
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
        match tenant.nice.is_stuck() {
            true => Err(StageError::Busy {
                reason: "the tenant's NICE does not answer, and others are trying it".to_owned(),
                retry_after: SILENT_DELAY.mul_f64(chance::range(1.0..3.0)),
            }),
            false => Ok(tenant),
        }
    }

    /// The tenants whose conversations are not kept for ever.
    pub async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        let read = tokio::time::timeout(READ_TIMEOUT, self.source.retentions()).await;
        read.unwrap_or_else(|_| Err(SettingsError::Unreachable("no answer in time".to_owned())))
    }

    async fn find(&self, id: &TenantId) -> Result<Arc<Tenant>, StageError> {
        let entry = self.entry(id);
        let (_turn, timeout) = match entry.look() {
            Look::Use(answer) => return answer,
            Look::Renew(tenant) => match entry.turn.try_lock() {
                Ok(turn) => (turn, RENEW_TIMEOUT),
                Err(_) => return Ok(tenant),
            },
            Look::Read => (entry.turn.lock().await, READ_TIMEOUT),
        };
        // Another may have read them while this one waited for its turn.
        if let Look::Use(answer) = entry.look() {
            return answer;
        }
        let read = tokio::time::timeout(timeout, self.source.nice_settings(id)).await;
        let read = read.unwrap_or_else(|_| Err(SettingsError::Unreachable("no answer in time".to_owned())));
        self.note(&entry, read)
    }

    /// The tenant's entry, made if need be; the one that is worth least gives way to it.
    fn entry(&self, id: &TenantId) -> Arc<Entry> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some((entry, used)) = kept.entries.get_mut(id) {
            *used = now;
            return entry.clone();
        }
        if kept.entries.len() >= self.options.kept.max(1) {
            // Names that stand for no tenant go first, or a flood of them would cost every real one its token.
            let worth = |(_, (entry, used)): &(&TenantId, &(Arc<Entry>, u64))| (entry.has_client(), *used);
            if let Some(id) = kept.entries.iter().min_by_key(worth).map(|(id, _)| id.clone()) {
                kept.entries.remove(&id);
            }
        }
        let entry = Arc::new(Entry::new(id.clone()));
        kept.entries.insert(id.clone(), (entry.clone(), now));
        entry
    }

    /// Draws the conclusions of what was read.
    fn note(
        &self,
        entry: &Entry,
        read: Result<Option<TenantSettings>, SettingsError>,
    ) -> Result<Arc<Tenant>, StageError> {
        let before = entry.state().standing.clone();
        let (standing, good_for) = match (read, before) {
            (Ok(Some(settings)), Standing::Client { tenant, revision, .. }) if settings.revision == revision => {
                let refusals = tenant.nice.refusals();
                (Standing::Client { tenant, revision, refusals }, self.options.reread)
            }
            (Ok(Some(settings)), before) => {
                if !matches!(before, Standing::Unread) {
                    info!(tenant = %entry.id, "NICE settings changed");
                }
                (self.client(entry, settings), self.options.reread)
            }
            (Ok(None), _) => (Standing::Unknown, UNKNOWN_FOR.min(self.options.reread)),
            (Err(SettingsError::Unusable(reason)), _) => (Standing::Unusable(reason), self.options.reread),
            (Err(error @ SettingsError::Unreachable(_)), client @ Standing::Client { .. }) => {
                warn!(tenant = %entry.id, %error, "the client made before goes on being used");
                (client, self.options.reread)
            }
            (Err(error @ SettingsError::Unreachable(_)), _) => {
                (Standing::Unreachable(error.to_string()), SOON.min(self.options.reread))
            }
        };
        entry.keep(standing, good_for)
    }

    /// Makes a client; settings that allow none are for a person to mend.
    fn client(&self, entry: &Entry, settings: TenantSettings) -> Standing {
        let TenantSettings { nice, scope, retention, revision } = settings;
        let id = &entry.id;
        let quota = entry.quota.get_or_init(|| (self.quota)(id)).clone();
        let TenantsOptions { timeouts, network, .. } = self.options.clone();
        match NiceClient::with_network(nice, network, quota, self.metrics.nice.clone(), timeouts) {
            Ok(nice) => {
                nice.belongs_to(id);
                let tenant = Arc::new(Tenant { id: id.clone(), nice, scope, retention });
                Standing::Client { tenant, revision, refusals: 0 }
            }
            Err(error) => Standing::Unusable(error.to_string()),
        }
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Entry {
    fn new(id: TenantId) -> Self {
        let state = State { standing: Standing::Unread, read_again_at: Instant::now(), alarmed_at: None };
        Self { id, quota: OnceLock::new(), state: Mutex::new(state), turn: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_client(&self) -> bool {
        matches!(self.state().standing, Standing::Client { .. })
    }

    fn look(&self) -> Look {
        let mut state = self.state();
        let now = Instant::now();
        if let Standing::Client { tenant, refusals, .. } = &mut state.standing {
            let tenant = tenant.clone();
            // Somebody may have renewed the key already; each refusal is a reason to look once, and not at once.
            if tenant.nice.refusals() > *refusals {
                *refusals = tenant.nice.refusals();
                state.read_again_at = state.read_again_at.min(now + SOON);
            }
            return match now < state.read_again_at {
                true => Look::Use(Ok(tenant)),
                false => Look::Renew(tenant),
            };
        }
        match now < state.read_again_at {
            true => Look::Use(state.standing.answer()),
            false => Look::Read,
        }
    }

    fn keep(&self, standing: Standing, good_for: Duration) -> Result<Arc<Tenant>, StageError> {
        let mut state = self.state();
        let now = Instant::now();
        if let Standing::Unusable(reason) = &standing
            && state.alarmed_at.is_none_or(|at| now.saturating_duration_since(at) >= ALARM_INTERVAL)
        {
            error!(tenant = %self.id, reason, "the NICE settings cannot be used, a person must mend them");
            state.alarmed_at = Some(now);
        }
        state.standing = standing;
        state.read_again_at = now + good_for;
        state.standing.answer()
    }
}

impl Standing {
    fn answer(&self) -> Result<Arc<Tenant>, StageError> {
        match self {
            Self::Client { tenant, .. } => Ok(tenant.clone()),
            Self::Unread => Err(StageError::transient(System::Catalog, "the tenant's settings were not read yet")),
            Self::Unknown => Err(StageError::permanent("unknown tenant: no NICE settings are known for it")),
            Self::Unreachable(reason) => Err(StageError::transient(System::Catalog, reason.clone())),
            // One tenant's own: no other waits for it.
            Self::Unusable(reason) => Err(StageError::Transient {
                system: System::Nice,
                reason: SettingsError::Unusable(reason.clone()).to_string(),
                retry_after: Some(UNUSABLE_DELAY),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
