//! What is known of one tenant's settings, and until when that is believed.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use flow::StageError;
use model::{Quota, System, TenantId};
use runtime::single_flight::{Lookup, SingleFlight};
use tokio::time::Instant;
use tracing::error;

use super::settings::SettingsError;
use super::tenant::Tenant;

/// What could not be read is asked for again after this time, and so are settings that NICE refuses.
pub(super) const SOON: Duration = Duration::from_secs(2);

/// How long a call waits whose tenant's settings cannot be used: only a person can mend them.
pub(super) const UNUSABLE_DELAY: Duration = Duration::from_secs(60);

/// The shortest time between two alarms about one tenant.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

/// One tenant, known or not.
pub(super) struct TenantEntry {
    pub(super) id: TenantId,
    /// Outlives the clients: what it has granted counts, whatever the settings.
    pub(super) quota: OnceLock<Arc<dyn Quota>>,
    pub(super) state: Mutex<TenantState>,
    /// Reads the settings.
    pub(super) flight: SingleFlight,
}

pub(super) struct TenantState {
    pub(super) status: TenantStatus,
    pub(super) read_again_at: Instant,
    pub(super) alarmed_at: Option<Instant>,
}

/// What is known of a tenant's settings.
#[derive(Clone)]
pub(super) enum TenantStatus {
    /// Its settings were not read yet.
    Unread,
    /// They were, and are in use.
    Client { tenant: Arc<Tenant>, revision: String, refusals: u64 },
    /// It has none.
    Unknown,
    /// They could not be read, and there are no earlier ones.
    Unreachable(String),
    /// They are of no use.
    Unusable(String),
}

impl TenantEntry {
    pub(super) fn new(id: TenantId) -> Self {
        let state = TenantState { status: TenantStatus::Unread, read_again_at: Instant::now(), alarmed_at: None };
        Self { id, quota: OnceLock::new(), state: Mutex::new(state), flight: SingleFlight::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, TenantState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_client(&self) -> bool {
        matches!(self.state().status, TenantStatus::Client { .. })
    }

    pub(super) fn lookup(&self) -> Lookup<Result<Arc<Tenant>, StageError>> {
        let mut state = self.state();
        let now = Instant::now();
        if let TenantStatus::Client { tenant, refusals, .. } = &mut state.status {
            let tenant = tenant.clone();
            // Somebody may have renewed the key already; each refusal is a reason to look once, and not at once.
            if tenant.nice.refusals() > *refusals {
                *refusals = tenant.nice.refusals();
                state.read_again_at = state.read_again_at.min(now + SOON);
            }
            return match now < state.read_again_at {
                true => Lookup::Use(Ok(tenant)),
                false => Lookup::Renew(Ok(tenant)),
            };
        }
        match now < state.read_again_at {
            true => Lookup::Use(state.status.answer()),
            false => Lookup::Fetch,
        }
    }

    pub(super) fn keep(&self, status: TenantStatus, good_for: Duration) -> Result<Arc<Tenant>, StageError> {
        let mut state = self.state();
        let now = Instant::now();
        if let TenantStatus::Unusable(reason) = &status
            && state.alarmed_at.is_none_or(|at| now.saturating_duration_since(at) >= ALARM_INTERVAL)
        {
            error!(tenant = %self.id, reason, "the NICE settings cannot be used, a person must mend them");
            state.alarmed_at = Some(now);
        }
        state.status = status;
        state.read_again_at = now + good_for;
        state.status.answer()
    }
}

impl TenantStatus {
    pub(super) fn answer(&self) -> Result<Arc<Tenant>, StageError> {
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
