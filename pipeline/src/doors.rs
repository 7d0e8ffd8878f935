//! Opens what the settings chose behind each door, once, for every command.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stages::clients::catalog::{Catalog, EmbeddedCatalog};
use stages::clients::nice::{Auth, GroupKind, GroupSelector, NiceClient, NiceSettings};
use stages::clients::queue::{EmbeddedQueue, Queue};
use stages::clients::quota::{LocalQuota, Patience, Rate};
use stages::clients::recording_store::{FilesystemStore, RecordingStore};
use stages::clients::tenants::{FixedSettings, RecordingScope, Tenants};
use stages::flow::{Clock, Freshness, Metrics, RetryPolicy};
use stages::model::TenantId;
use stages::source::roster::Roster;
use stages::sync_agents::SyncAgents;
use state::{RateWindow, State, StateOptions, Watermark};
use tokio::sync::watch;

use crate::config::{self, CatalogConfig, Config, QueueKind, RecordingsConfig};
use crate::failure::Failure;
use crate::operations::Operations;
use crate::rebuild;

/// The local state and the three doors.
pub(crate) struct Doors {
    /// The local state.
    pub(crate) state: State,
    /// The catalog.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The recording store.
    pub(crate) recordings: Arc<dyn RecordingStore>,
    /// Every metric.
    pub(crate) metrics: Metrics,
    /// The time.
    pub(crate) clock: Clock,
    /// The calls that the consumer is working on.
    pub(crate) freshness: Freshness,
}

/// The one tenant of the embedded catalog.
pub(crate) fn tenant(config: &Config) -> Result<TenantId, Failure> {
    let id = &config.tenant.as_ref().ok_or_else(|| Failure::usage("[tenant] id: missing"))?.id;
    id.parse().map_err(|error| Failure::usage(format!("[tenant] id: {error}")))
}

/// Opens everything that the settings chose.
pub(crate) async fn open(config: &Config) -> Result<Doors, Failure> {
    let dir = built_in(config)?;
    let metrics = Metrics::new();
    let clock = Clock::system();
    let opened = open_state(config).await?;
    let state = opened.state;
    let catalog = EmbeddedCatalog::open(state.store())?;
    let queue = EmbeddedQueue::open(state.store(), clock.clone())?;
    let recordings = FilesystemStore::open(&dir).await.map_err(|error| {
        let remedy = "make it, or let this user write to it";
        Failure::failed(format!("[recordings] dir: {}: {error}; {remedy}", dir.display()))
    })?;
    let recordings: Arc<dyn RecordingStore> = Arc::new(recordings);
    let swept = recordings.sweep().await.map_err(Failure::failed)?;
    if swept > 0 {
        tracing::info!(swept, "half-written recordings of an earlier run removed");
    }
    if let Some(aside) = &opened.set_aside {
        metrics.state_set_aside.inc();
        tracing::error!(
            set_aside = %aside.display(),
            "the local state was damaged and is set aside; it is rebuilt from the recordings and from NICE"
        );
    }
    let since = clock.now().checked_sub(hot_window(config)).unwrap_or(Timestamp::MIN);
    rebuild::catalog(&state, &catalog, &dir, &state.watermark(POLL_WATERMARK)?, since).await?;
    rebuild::processed_log(&state, &catalog, tenant(config).ok().as_ref(), config.state.retention, &clock).await?;
    Ok(Doors {
        state,
        catalog: Arc::new(catalog),
        queue: Arc::new(queue),
        recordings,
        metrics,
        clock,
        freshness: Freshness::default(),
    })
}

/// Where the recordings lie; refuses the kinds that this executable was built without. Touches nothing.
pub(crate) fn built_in(config: &Config) -> Result<PathBuf, Failure> {
    if config.events.agent_sessions {
        return Err(Failure::usage(
            "[events] agent_sessions: this executable does not listen to agent sessions; set it to false, \
             the poll finds the same calls a little later",
        ));
    }
    match config.queue.as_ref().map(|queue| &queue.kind) {
        Some(QueueKind::Embedded) => {}
        Some(QueueKind::Rabbitmq { .. }) | None => return Err(not_built("[queue]", "rabbitmq", "embedded")),
        Some(QueueKind::Fluvio { .. }) => return Err(not_built("[queue]", "fluvio", "embedded")),
    }
    match &config.catalog {
        Some(CatalogConfig::Embedded) => {}
        Some(CatalogConfig::Postgres { .. }) | None => return Err(not_built("[catalog]", "postgres", "embedded")),
    }
    match &config.recordings {
        Some(RecordingsConfig::Filesystem { dir }) => Ok(dir.clone()),
        Some(RecordingsConfig::S3 { .. }) | None => Err(not_built("[recordings]", "s3", "filesystem")),
    }
}

/// Refuses settings of the sources that cannot work together.
pub(crate) fn sources(config: &Config) -> Result<(), Failure> {
    if !config.events.poll && config.events.webhook.is_none() {
        return Err(Failure::usage(
            "[events] poll, webhook: both are false, so no call would ever be found; set one of them to true",
        ));
    }
    if config
        .events
        .webhook
        .as_ref()
        .is_some_and(|webhook| webhook.listen == config.admin.listen && webhook.listen.port() != 0)
    {
        return Err(Failure::usage(
            "[events] webhook_listen: the same address as [admin] listen; give each a port of its own",
        ));
    }
    Ok(())
}

fn not_built(section: &str, kind: &str, instead: &str) -> Failure {
    Failure::usage(format!(
        "{section} kind: \"{kind}\" is not part of this executable; choose kind = \"{instead}\" and `nice-knovvu run`"
    ))
}

async fn open_state(config: &Config) -> Result<state::Opened, Failure> {
    let dir = config.state.dir.clone();
    let retention = SignedDuration::try_from(config.state.retention).map_err(Failure::usage)?;
    let options = StateOptions { retention, ..StateOptions::default() };
    let opened = tokio::task::spawn_blocking(move || State::open(&dir, options)).await.map_err(Failure::failed)??;
    Ok(opened)
}

/// How far back a call may have ended whose traces were only in a local state that is lost: its recording may have
/// been awaited until the deadline.
pub(crate) fn hot_window(config: &Config) -> Duration {
    config.state.retention.max(config.reconciliation.window).max(config.retry.recording_deadline)
}

/// The producer's name for its place in NICE's changes.
const POLL_WATERMARK: &str = "poll";

impl Doors {
    /// Up to where the poll has found everything.
    pub(crate) fn poll_watermark(&self) -> Result<Watermark, Failure> {
        Ok(self.state.watermark(POLL_WATERMARK)?)
    }

    /// The agent sync of the tenant.
    pub(crate) fn sync_agents(
        &self,
        nice: NiceClient,
        tenant: TenantId,
        roster: watch::Sender<Roster>,
    ) -> Result<SyncAgents, Failure> {
        let (catalog, clock, metrics) = (self.catalog.clone(), self.clock.clone(), self.metrics.clone());
        Ok(SyncAgents::new(nice, catalog, tenant, roster, self.poll_watermark()?, clock, metrics))
    }

    /// What an operator may ask or do with these doors.
    pub(crate) fn operations(
        &self,
        config: &Config,
        tenant: TenantId,
        sync: Option<Arc<SyncAgents>>,
    ) -> Result<Operations, Failure> {
        Ok(Operations {
            tenant,
            catalog: self.catalog.clone(),
            queue: self.queue.clone(),
            state: self.state.clone(),
            sync,
            poll_watermark: self.poll_watermark()?,
            quota: vec![
                ("acd", self.rate_window("acd", config.limits.acd)?),
                ("media_playback", self.rate_window("media_playback", config.limits.media_playback)?),
            ],
            freshness: self.freshness.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            started_at: None,
        })
    }

    fn rate_window(&self, name: &str, rate: config::Rate) -> Result<RateWindow, Failure> {
        let counted_for = SignedDuration::try_from(as_rate(rate).counted_for()).map_err(Failure::usage)?;
        Ok(self.state.rate_window(name, rate.limit, counted_for)?)
    }

    /// The tenant's rate budget, for whoever waits this long.
    fn quota(&self, config: &Config, patience: Patience) -> Result<LocalQuota, Failure> {
        let limits = &config.limits;
        let acd = (self.rate_window("acd", limits.acd)?, as_rate(limits.acd));
        let media_playback =
            (self.rate_window("media_playback", limits.media_playback)?, as_rate(limits.media_playback));
        Ok(LocalQuota::new(acd, media_playback, patience, self.clock.clone(), self.metrics.clone()))
    }
}

fn as_rate(rate: config::Rate) -> Rate {
    Rate { limit: rate.limit, window: rate.window }
}

/// The tenants of the consumer: the one of the settings.
pub(crate) fn tenants(config: &Config, doors: &Doors) -> Result<Arc<Tenants>, Failure> {
    let settings =
        FixedSettings { tenant: tenant(config)?, nice: nice_settings(config)?, scope: recording_scope(config) };
    let quota = Arc::new(doors.quota(config, Patience::WORKER)?);
    Ok(Arc::new(Tenants::new(Arc::new(settings), Arc::new(move |_| quota.clone()), doors.metrics.clone())))
}

/// The producer's client of the tenant's NICE, within the tenant's rate budget.
pub(crate) fn nice(config: &Config, doors: &Doors) -> Result<NiceClient, Failure> {
    let quota = doors.quota(config, Patience::Endless)?;
    NiceClient::new(nice_settings(config)?, Arc::new(quota), doors.metrics.clone())
        .map_err(|error| Failure::usage(format!("[nice]: {error}")))
}

/// The settings `[nice]` as the client takes them.
pub(crate) fn nice_settings(config: &Config) -> Result<NiceSettings, Failure> {
    let nice = config.nice.clone().ok_or_else(|| Failure::usage("[nice]: missing"))?;
    let auth = match nice.auth_flow {
        config::AuthFlow::Oauth { client_id, client_secret } => Auth::OAuth {
            client_id,
            client_secret,
            access_key_id: nice.access_key_id,
            access_key_secret: nice.access_key_secret,
        },
        config::AuthFlow::AccessKey => {
            Auth::AccessKey { access_key_id: nice.access_key_id, access_key_secret: nice.access_key_secret }
        }
    };
    let kind = match nice.group_kind {
        config::GroupKind::AcdGroup => GroupKind::AcdGroup,
        config::GroupKind::Team => GroupKind::Team,
    };
    let media_hosts = nice.media_hosts.iter().map(|host| host.to_string().parse()).collect::<Result<_, _>>();
    Ok(NiceSettings {
        issuer: nice.issuer,
        auth,
        api_version: nice.api_version,
        group: GroupSelector { kind, id_or_name: nice.group },
        acd_url: nice.acd_url,
        facade_url: nice.facade_url,
        auth_url: nice.auth_url,
        media_hosts: media_hosts.map_err(|error| Failure::usage(format!("[nice] media_hosts: {error}")))?,
    })
}

/// What of a transferred call is imported.
pub(crate) fn recording_scope(config: &Config) -> RecordingScope {
    match config.nice.as_ref().map(|nice| nice.recording_scope) {
        Some(config::RecordingScope::Master) => RecordingScope::Master,
        Some(config::RecordingScope::Leg) | None => RecordingScope::Leg,
    }
}

/// The settings `[retry]` as the flow takes them.
pub(crate) fn retry_policy(config: &Config) -> RetryPolicy {
    RetryPolicy {
        not_ready_delays: config.retry.not_ready_delays.clone(),
        recording_deadline: config.retry.recording_deadline,
        error_delay_min: config.retry.error_delay_min,
        error_delay_max: config.retry.error_delay_max,
    }
}

/// Where a running daemon of this state tells its address and token.
pub(crate) fn admin_file(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.json")
}
