//! Opens what the settings chose behind each door, once, for every command.
//!
//! - `local`: the local state, and what brings it back after it was lost.
//! - `servers`: RabbitMQ, PostgreSQL and S3.
//! - `translate`: settings as the stages take them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{System, TenantId};
use runtime::Clock;
use stages::clients::catalog::{Catalog, EmbeddedCatalog};
use stages::clients::queue::{EmbeddedQueue, Queue};
use stages::clients::recording_store::{FilesystemStore, RecordingStore};
use stages::erase::Eraser;
use stages::flow::outside::Probe;
use stages::flow::{Blame, FlowContext, Freshness, Metrics, Outside};
use stages::shelf::Shelf;
use stages::source::compare::Compare;
use stages::source::roster::Roster;
use stages::sync_agents::{HoldRules, SyncAgents};
use stages::verify::Verifier;
use state::{Opened, StateOptions};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{AgentsConfig, CatalogKind, Config, QueueKind, ReconciliationConfig, RecordingsKind};
use crate::failure::Failure;
use crate::lease::{Lease, LeaseServer};
use crate::nightly::Nightly;
use crate::service::Service;
use crate::turns::Turns;

mod lent;
mod local;
mod nice;
#[cfg(feature = "servers")]
mod servers;
#[cfg(not(feature = "servers"))]
#[path = "doors/not_built.rs"]
mod servers;
mod translate;

pub(crate) use lent::lent;
pub(crate) use local::{Local, open_state};
pub(crate) use nice::Nice;
#[cfg(feature = "servers")]
pub(crate) use servers::settings_table;
pub(crate) use servers::{Database, catalog as server_catalog, check_session, database, install_crypto};
pub(crate) use translate::{first_look, nice_settings, retention, retry_policy};

/// The folder in the state directory that tells of the uploads of this machine's processes; any number may share it.
const UPLOAD_MARKS: &str = "uploads";

/// What a process needs of the doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything that the service works with.
    Service(Service),
    /// What listings read, and what a replay writes to.
    Listing,
    /// As [`Wanted::Listing`], and the recording store.
    Erasure,
    /// As [`Wanted::Listing`], and what the agent sync works with.
    AgentSync,
    /// What a producer works with; it takes its right itself.
    Replay,
}

impl Wanted {
    /// Whether the process keeps a state of its own. A consumer on servers does not, so that many of them can share
    /// one settings file.
    pub(crate) fn local(self, config: &Config) -> bool {
        let produces = match self {
            Self::Service(service) => service.produces(),
            Self::Listing | Self::Erasure => false,
            Self::AgentSync | Self::Replay => true,
        };
        produces || config.catalog.kind == CatalogKind::Embedded || config.queue.kind == QueueKind::Embedded
    }

    /// Whether it works for so long that the way to the database is looked at first.
    fn works(self) -> bool {
        match self {
            Self::Service(_) | Self::AgentSync | Self::Replay | Self::Erasure => true,
            Self::Listing => false,
        }
    }

    fn recordings(self) -> bool {
        match self {
            Self::Service(service) => service.consumes(),
            Self::Erasure => true,
            Self::Listing | Self::AgentSync | Self::Replay => false,
        }
    }

    /// Where the marks of uploads lie, for who uploads.
    fn marks(self, config: &Config) -> Option<PathBuf> {
        matches!(self, Self::Service(_)).then(|| config.state.dir.join(UPLOAD_MARKS))
    }
}

/// The local state and the doors.
pub(crate) struct Doors {
    /// The local state, where the process keeps one.
    pub(crate) local: Option<Local>,
    /// The Knovvu database, where it is one on a server.
    pub(crate) database: Option<Database>,
    /// The catalog.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The leases, where another program lends them.
    pub(crate) leases: Option<Arc<dyn LeaseServer>>,
    /// Whether the catalog is on a server.
    pub(crate) catalog_on_server: bool,
    /// Whether the queue is on a server.
    pub(crate) queue_on_server: bool,
    /// Whether the recording store is.
    pub(crate) store_on_server: bool,
    /// The recording store, for a consumer.
    pub(crate) recordings: Option<Arc<dyn RecordingStore>>,
    /// The way to NICE of every tenant.
    pub(crate) nice: Nice,
    /// Every metric.
    pub(crate) metrics: Metrics,
    /// The time.
    pub(crate) clock: Clock,
    /// The calls that the consumer is working on.
    pub(crate) freshness: Freshness,
    /// How the systems stand that every call needs.
    pub(crate) outside: Outside,
    /// What became of calls lately.
    pub(crate) blame: Blame,
    /// Tells the producer that a replay was asked for.
    pub(crate) wake: Arc<Notify>,
}

impl Doors {
    /// The machinery of a flow that ends when `stopping` is set.
    pub(crate) fn flow(&self, config: &Config, stopping: CancellationToken) -> FlowContext {
        FlowContext {
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            catalog: self.catalog.clone(),
            retry: retry_policy(config),
            outside: self.outside.clone(),
            blame: self.blame.clone(),
            freshness: self.freshness.clone(),
            concurrency: config.consumer.concurrency,
            stopping,
        }
    }

    /// What says of a listed call what became of it.
    pub(crate) fn compare(&self, config: &Config) -> Compare {
        let delays = config.retry.not_ready_delays.iter().copied();
        Compare {
            tenants: self.nice.producer.clone(),
            catalog: self.catalog.clone(),
            processed: self.local.as_ref().map(|local| local.state.processed().clone()),
            polls: config.events.poll,
            queue: self.queue.clone(),
            settle: config.reconciliation.settle,
            longest_delay: delays.chain([config.retry.error_delay_max]).max().unwrap_or_default(),
            clock: self.clock.clone(),
        }
    }

    /// The local state of a process that keeps one.
    pub(crate) fn local(&self) -> Result<&Local, Failure> {
        self.local.as_ref().ok_or_else(|| Failure::failed("this process keeps no local state"))
    }

    /// The right to be the tenant's producer, to be waited for.
    pub(crate) fn lease(&self, tenant: &TenantId) -> Lease {
        match &self.leases {
            Some(server) => Lease::Lent(server.clone(), tenant.clone()),
            None => servers::lease(self.database.as_ref(), tenant),
        }
    }

    /// The agent sync of the tenant.
    pub(crate) fn sync_agents(&self, config: &Config, turns: &Turns, roster: watch::Sender<Roster>) -> SyncAgents {
        let (tenants, catalog, tenant) = (self.nice.producer.clone(), turns.catalog(), turns.tenant().clone());
        let poll = turns.poll().clone();
        let AgentsConfig { hold_count, hold_share, hold_for, sync_interval, .. } = config.agents;
        let rules = HoldRules { count: hold_count, share: hold_share, hold_for, interval: sync_interval };
        let sync = SyncAgents::new(tenants, catalog, tenant, roster, poll, self.clock.clone(), self.metrics.clone());
        sync.with(rules, config.events.import_since)
    }

    /// The turns of the producer of the settings' tenant.
    pub(crate) fn turns(&self, config: &Config) -> Result<Turns, Failure> {
        let (catalog, state) = (self.catalog.clone(), self.local()?.state.clone());
        let (tenant, retention, hot_window) = (tenant(config)?, config.state.retention, hot_window(config));
        Ok(Turns::new(catalog, tenant, state, retention, hot_window, self.clock.clone()))
    }

    /// Erases conversations; none where there is no recording store.
    pub(crate) fn eraser(&self) -> Option<Eraser> {
        Some(Eraser {
            catalog: self.catalog.clone(),
            recordings: self.recordings.clone()?,
            queue: self.queue.clone(),
            tenants: self.nice.consumer.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// How to ask each system on a server whether it answers.
    pub(crate) fn probes(&self) -> Vec<(System, Probe)> {
        let mut probes: Vec<(System, Probe)> = Vec::new();
        if self.catalog_on_server {
            let catalog = self.catalog.clone();
            probes.push((
                System::Catalog,
                probe(move || {
                    let catalog = catalog.clone();
                    async move { catalog.check().await }
                }),
            ));
        }
        if self.queue_on_server {
            let queue = self.queue.clone();
            probes.push((
                System::Queue,
                probe(move || {
                    let queue = queue.clone();
                    async move { queue.check().await }
                }),
            ));
        }
        if let Some(store) = self.recordings.clone().filter(|_| self.store_on_server) {
            probes.push((
                System::RecordingStore,
                probe(move || {
                    let store = store.clone();
                    async move { store.answers().await }
                }),
            ));
        }
        probes
    }

    /// Looks after the dead letters.
    pub(crate) fn shelf(&self, config: &Config) -> Shelf {
        Shelf {
            catalog: self.catalog.clone(),
            queue: self.queue.clone(),
            outside: self.outside.clone(),
            blame: self.blame.clone(),
            longest: config.retry.dead_letter_age,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// What reads recordings back, where there is a recording store.
    pub(crate) fn verifier(&self, config: &Config) -> Option<Verifier> {
        Some(Verifier {
            catalog: self.catalog.clone(),
            recordings: self.recordings.clone()?,
            tenant: tenant(config).ok(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Leaves everything in order.
    pub(crate) async fn close(&self) -> Result<(), Failure> {
        self.catalog.flush().await;
        self.queue.close().await;
        match &self.local {
            Some(local) => Ok(local.state.store().close().await?),
            None => Ok(()),
        }
    }
}

fn probe<E: std::fmt::Display, Asking>(ask: impl Fn() -> Asking + Send + Sync + 'static) -> Probe
where
    Asking: Future<Output = Result<(), E>> + Send + 'static,
{
    Arc::new(move || {
        let asking = ask();
        Box::pin(async move { asking.await.map_err(|error| error.to_string()) })
    })
}

/// The tenant of the settings.
pub(crate) fn tenant(config: &Config) -> Result<TenantId, Failure> {
    config.tenant.id.clone().ok_or_else(|| Failure::usage("[tenant] id: missing"))
}

/// Opens everything that is wanted.
pub(crate) async fn open(config: &Config, wanted: Wanted) -> Result<Doors, Failure> {
    let metrics = Metrics::new();
    let clock = Clock::system();
    let state = match wanted.local(config) {
        true => Some(local::open_state(config, StateOptions::default(), &metrics).await?),
        false => None,
    };
    let database = servers::database(config)?;
    if let (Some(database), true) = (&database, wanted.works()) {
        servers::check_session(database).await?;
    }
    let queue = queue(config, state.as_ref(), &clock, &metrics).await?;
    let recordings = match wanted.recordings() {
        true => Some(recordings(config, wanted.marks(config), &metrics).await?),
        false => None,
    };
    let (catalog, local) = match (&database, state) {
        (Some(database), state) => {
            let catalog = servers::catalog(config, database).await?;
            let local = match state {
                Some(opened) => Some(Local { state: opened.state }),
                None => None,
            };
            (catalog, local)
        }
        (None, Some(opened)) => {
            let catalog = EmbeddedCatalog::open(opened.state.store())?;
            let local = local::embedded(config, opened, &catalog, &clock).await?;
            (Arc::new(catalog) as Arc<dyn Catalog>, Some(local))
        }
        (None, None) => return Err(Failure::usage("[catalog] kind: not chosen")),
    };
    let nice = Nice::new(config, local.as_ref(), database.as_ref(), &metrics)?;
    let (freshness, wake) = (Freshness::default(), Arc::default());
    let (outside, blame) = (Outside::new(clock.clone()), Blame::new(metrics.clone()));
    let queue_on_server = config.queue.kind != QueueKind::Embedded;
    let store_on_server = config.recordings.kind == RecordingsKind::S3;
    Ok(Doors {
        local,
        leases: None,
        catalog_on_server: database.is_some(),
        database,
        catalog,
        queue,
        queue_on_server,
        store_on_server,
        recordings,
        nice,
        metrics,
        clock,
        freshness,
        outside,
        blame,
        wake,
    })
}

/// Opens the queue; the embedded one lies in the local state.
pub(crate) async fn queue(
    config: &Config,
    state: Option<&Opened>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Arc<dyn Queue>, Failure> {
    match (config.queue.kind, state) {
        (QueueKind::Embedded, Some(opened)) => Ok(Arc::new(EmbeddedQueue::open(opened.state.store(), clock.clone())?)),
        (QueueKind::Rabbitmq, _) if config.queue.url.is_none() => {
            Err(Failure::usage("[queue] url: missing, but needed for [queue] kind = \"rabbitmq\""))
        }
        _ => servers::queue(config, metrics).await,
    }
}

/// Opens the recording store. What an earlier run left half written is swept by the service.
/// Where its marks of uploads lie is known to a service only.
pub(crate) async fn recordings(
    config: &Config,
    marks: Option<PathBuf>,
    metrics: &Metrics,
) -> Result<Arc<dyn RecordingStore>, Failure> {
    match config.recordings.kind {
        RecordingsKind::Filesystem => {
            let dir = config.recordings.dir(&config.state);
            let store = FilesystemStore::open(&dir).await.map_err(|error| {
                let remedy = "make it, or let this user write to it";
                Failure::failed(format!("[recordings] dir: {}: {error}; {remedy}", dir.display()))
            })?;
            Ok(Arc::new(store))
        }
        RecordingsKind::S3 => servers::recordings(config, marks, metrics).await,
    }
}

/// Refuses what this executable was built without, and settings that cannot work together. Touches nothing.
pub(crate) fn validate(config: &Config, service: Service) -> Result<(), Failure> {
    if config.queue.kind == QueueKind::Fluvio {
        return Err(Failure::usage(
            "[queue] kind: \"fluvio\" is not part of this executable; choose kind = \"rabbitmq\" or \"embedded\"",
        ));
    }
    servers::built(config)?;
    if service != Service::Run {
        shared(config, service)?;
    }
    if service.produces() {
        sources(config)?;
    }
    Ok(())
}

/// `producer` and `consumer` alone need doors that more than one process can open.
fn shared(config: &Config, service: Service) -> Result<(), Failure> {
    let refuse = |section: &str, server: &str| {
        let service = service.name();
        Err(Failure::usage(format!(
            "[{section}] kind: the embedded {section} is open to one process only, so `{service}` alone would reach \
             nobody; use `nice-knovvu run`, or choose kind = \"{server}\" with a url"
        )))
    };
    if config.queue.kind == QueueKind::Embedded {
        return refuse("queue", "rabbitmq");
    }
    if config.catalog.kind == CatalogKind::Embedded {
        return refuse("catalog", "postgres");
    }
    Ok(())
}

/// Refuses settings of the sources that cannot work together.
fn sources(config: &Config) -> Result<(), Failure> {
    if !config.events.poll && !config.events.webhook && !config.events.agent_sessions {
        return Err(Failure::usage(
            "[events] poll, webhook, agent_sessions: all are false, so no call would ever be found; set one of them \
             to true",
        ));
    }
    if config.events.agent_sessions && !config.events.poll {
        warn!(
            "[events] poll is off: a call that ends while its agent's session is not joined, or while we are down, is \
             not found by agent_sessions; set poll = true"
        );
    }
    let listen = config.events.webhook_listen;
    if config.events.webhook && listen == config.admin.listen && listen.port() != 0 {
        return Err(Failure::usage(
            "[events] webhook_listen: the same address as [admin] listen; give each a port of its own",
        ));
    }
    Ok(())
}

/// When the nightly comparison is due.
pub(crate) fn nightly(config: &Config) -> Nightly {
    let ReconciliationConfig { at, timezone, window, lateness, longest_call, recheck, .. } =
        config.reconciliation.clone();
    let recheck = (!recheck.is_zero()).then_some(recheck);
    Nightly { at, timezone, window, longest_call, lateness, recheck }
}

/// How far back a call may have ended whose traces were only in a local state that is lost: its recording may have
/// been awaited until the deadline.
pub(crate) fn hot_window(config: &Config) -> Duration {
    config.state.retention.max(config.reconciliation.window).max(config.retry.recording_deadline)
}

/// Where a running daemon of this state tells its address and token.
pub(crate) fn admin_file(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.json")
}
