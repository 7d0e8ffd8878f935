//! Opens what the settings chose behind each door, once, for every command.
//!
//! - `wanted`: which service runs, and what a command needs.
//! - `local`: the local state, and what brings it back after it was lost.
//! - `servers`: RabbitMQ, PostgreSQL and S3; `fluvio`: Fluvio, in an executable that is built with it.
//! - `nice`: the way to NICE.
//! - `lent`: doors of another program, in its own process.
//! - `translate`: settings as the stages take them; `validate`: settings that are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::{Catalog, EmbeddedCatalog};
use flow::{Blame, FlowContext, Freshness, Outside, outside::Probe};
use futures::future::BoxFuture;
use model::{System, TenantId};
use queue::{EmbeddedQueue, Queue};
use recordings::{FilesystemStore, RecordingStore};
use runtime::Clock;
use stages::{
    Context,
    erase::Eraser,
    journal,
    metrics::Metrics,
    shelf::DeadLetterReplayer,
    source::{compare::Compare, roster::Roster},
    sync_agents::{HoldRules, SyncAgents},
    verify::Verifier,
};
use state::{State, StateOptions, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::command_error::CommandError;
use crate::config::{AgentsConfig, Config, QueueKind, RecordingsKind, word_of};
use crate::heartbeat::Reporter;
use crate::lease::{Lease, LeaseServer};
use crate::observer::{Observer, Sightings};
use crate::systems::SystemsView;
use crate::turns::Turns;

mod fluvio;
pub(crate) mod lent;
mod local;
mod nice;
mod servers;
mod translate;
mod validate;
mod wanted;

pub(crate) use local::open_state;
pub(crate) use nice::Nice;
pub(crate) use servers::settings_table;
pub(crate) use servers::{Database, catalog as server_catalog, check_session, database, install_crypto};
pub(crate) use translate::{first_look, nightly, recovery_window, retry_policy, tenant};
pub(crate) use translate::{nice_settings, retention};
pub(crate) use validate::validate;
pub use wanted::Service;
pub(crate) use wanted::Wanted;

/// What `--version` tells.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who keeps the leases of tenants.
pub(crate) enum Leases {
    /// The Knovvu database; an embedded catalog is one process's alone.
    Catalog(Option<Database>),
    /// Another program.
    Lent(Arc<dyn LeaseServer>),
}

/// The local state and the doors.
pub(crate) struct OpenDoors {
    /// The local state, where the process keeps one.
    pub(crate) state: Option<State>,
    /// What the tenant's processes share.
    pub(crate) shared: SharedDoors,
    /// Who keeps the leases.
    pub(crate) leases: Leases,
    /// The way to NICE of every tenant.
    pub(crate) nice: Nice,
    /// Every metric.
    pub(crate) metrics: Metrics,
    /// The time.
    pub(crate) clock: Clock,
    /// What is known of the flow and of the systems around it.
    pub(crate) monitors: Monitors,
    /// Tells the producer that a replay was asked for.
    pub(crate) wake: Arc<Notify>,
}

/// The doors that the tenant's processes share; built in, they are one process's alone.
pub(crate) struct SharedDoors {
    /// The catalog.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// The recording store, for a consumer.
    pub(crate) recordings: Option<Arc<dyn RecordingStore>>,
    /// Which of them are on a server.
    pub(crate) on_server: Vec<System>,
}

/// What is known of the flow and of the systems around it; clones share it.
#[derive(Clone)]
pub(crate) struct Monitors {
    /// The calls that the consumer is working on.
    pub(crate) freshness: Freshness,
    /// Which of the systems that every call needs are away.
    pub(crate) outside: Outside,
    /// What became of calls lately.
    pub(crate) blame: Blame,
    /// What was last seen of queue and catalog.
    pub(crate) seen: Sightings,
}

impl Monitors {
    fn new(clock: &Clock, metrics: &Metrics) -> Self {
        let (outside, blame) = (Outside::new(clock.clone()), Blame::new(metrics.flow.clone()));
        Self { freshness: Freshness::default(), outside, blame, seen: Sightings::default() }
    }
}

impl OpenDoors {
    /// The machinery of a flow that ends when `stopping` is set.
    pub(crate) fn flow(&self, config: &Config, stopping: CancellationToken) -> Context {
        let flow = FlowContext {
            clock: self.clock.clone(),
            metrics: self.metrics.flow.clone(),
            journal: journal(&self.shared.catalog),
            retry: retry_policy(config),
            outside: self.monitors.outside.clone(),
            blame: self.monitors.blame.clone(),
            freshness: self.monitors.freshness.clone(),
            concurrency: config.consumer.concurrency,
            stopping,
        };
        Context { flow, metrics: self.metrics.clone(), catalog: self.shared.catalog.clone() }
    }

    /// Finds out what became of a listed call.
    pub(crate) fn compare(&self, config: &Config) -> Compare {
        let delays = config.retry.not_ready_delays.iter().copied();
        Compare {
            tenants: self.nice.producer.clone(),
            catalog: self.shared.catalog.clone(),
            processed: self.state.as_ref().map(|state| state.processed().clone()),
            polls: config.events.poll,
            queue: self.shared.queue.clone(),
            settle: config.reconciliation.settle,
            longest_delay: delays.chain([config.retry.error_delay_max]).max().unwrap_or_default(),
            clock: self.clock.clone(),
        }
    }

    /// Looks at the queue and the catalog, for the figures of this tenant too.
    pub(crate) fn observer(&self, tenant: Option<TenantId>) -> Observer {
        Observer {
            catalog: self.shared.catalog.clone(),
            queue: self.shared.queue.clone(),
            budgets: self.nice.budgets.clone(),
            outside: self.monitors.outside.clone(),
            tenant,
            clock: self.clock.clone(),
            seen: self.monitors.seen.clone(),
        }
    }

    /// How each outside system stands.
    pub(crate) fn systems(&self, tenant: Option<TenantId>) -> SystemsView {
        SystemsView {
            outside: self.monitors.outside.clone(),
            blame: self.monitors.blame.clone(),
            freshness: self.monitors.freshness.clone(),
            nice: self.nice.health.clone(),
            on_server: self.shared.on_server.clone(),
            tenant,
            clock: self.clock.clone(),
        }
    }

    /// What this process can say of itself.
    pub(crate) fn reporter(&self, tenant: Option<TenantId>, producing: Option<watch::Receiver<bool>>) -> Reporter {
        Reporter { systems: self.systems(tenant), metrics: self.metrics.clone(), producing, clock: self.clock.clone() }
    }

    /// The local state of a process that keeps one.
    pub(crate) fn state(&self) -> Result<&State, CommandError> {
        self.state.as_ref().ok_or_else(|| CommandError::failed("this process keeps no local state"))
    }

    /// The lease of the tenant's producer, not held yet.
    pub(crate) fn lease(&self, tenant: &TenantId) -> Lease {
        match &self.leases {
            Leases::Lent(server) => Lease::Lent(server.clone(), tenant.clone()),
            Leases::Catalog(database) => servers::lease(database.as_ref(), tenant),
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
    pub(crate) fn turns(&self, config: &Config) -> Result<Turns, CommandError> {
        let (catalog, state) = (self.shared.catalog.clone(), self.state()?.clone());
        let (tenant, retention, recovery_window) = (tenant(config)?, config.state.retention, recovery_window(config));
        Ok(Turns::new(catalog, tenant, state, retention, recovery_window, self.clock.clone()))
    }

    /// Erases conversations; none where there is no recording store.
    pub(crate) fn eraser(&self) -> Option<Eraser> {
        Some(Eraser {
            catalog: self.shared.catalog.clone(),
            recordings: self.shared.recordings.clone()?,
            queue: self.shared.queue.clone(),
            tenants: self.nice.consumer.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// How to ask each system on a server whether it answers.
    pub(crate) fn probes(&self) -> Vec<(System, Probe)> {
        let store = self.shared.recordings.as_ref();
        let probes = [
            Some((System::Catalog, probe(&self.shared.catalog, |catalog| catalog.check()))),
            Some((System::Queue, probe(&self.shared.queue, |queue| queue.check()))),
            store.map(|store| (System::RecordingStore, probe(store, |store| store.answers()))),
        ];
        probes.into_iter().flatten().filter(|(system, _)| self.shared.on_server.contains(system)).collect()
    }

    /// Replays and drops dead letters.
    pub(crate) fn shelf(&self, config: &Config) -> DeadLetterReplayer {
        DeadLetterReplayer {
            letters: self.shared.catalog.clone(),
            timelines: self.shared.catalog.clone(),
            queue: self.shared.queue.clone(),
            outside: self.monitors.outside.clone(),
            blame: self.monitors.blame.clone(),
            longest: config.retry.dead_letter_age,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Reads recordings back; none where there is no recording store.
    pub(crate) fn verifier(&self, config: &Config) -> Option<Verifier> {
        Some(Verifier {
            catalog: self.shared.catalog.clone(),
            recordings: self.shared.recordings.clone()?,
            tenant: tenant(config).ok(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Flushes and closes everything.
    pub(crate) async fn close(&self) -> Result<(), CommandError> {
        self.shared.catalog.flush().await;
        self.shared.queue.close().await;
        match &self.state {
            Some(state) => Ok(state.store().close().await?),
            None => Ok(()),
        }
    }
}

fn probe<Door, E>(door: &Arc<Door>, ask: for<'a> fn(&'a Door) -> BoxFuture<'a, Result<(), E>>) -> Probe
where
    Door: ?Sized + Send + Sync + 'static,
    E: std::fmt::Display + 'static,
{
    let door = door.clone();
    Arc::new(move || {
        let door = door.clone();
        Box::pin(async move { ask(&door).await.map_err(|error| error.to_string()) })
    })
}

/// The metrics of a process: those of its producer with their tenant, and what it is.
fn metrics(config: &Config, wanted: Wanted) -> Metrics {
    let Wanted::Service(service) = wanted else { return Metrics::new() };
    let metrics = Metrics::of(tenant(config).ok().filter(|_| service.produces()).as_ref());
    metrics.freshness_goal.set(config.flow.freshness_goal.as_secs_f64());
    let (queue, catalog) = (word_of(config.queue.kind), word_of(config.catalog.kind));
    let labels = [VERSION, service.name(), queue, catalog, word_of(config.recordings.kind)];
    metrics.build_info.with_label_values(&labels).set(1);
    metrics
}

/// Opens everything that is wanted.
pub(crate) async fn open(config: &Config, wanted: Wanted) -> Result<OpenDoors, CommandError> {
    let metrics = metrics(config, wanted);
    let clock = Clock::system();
    let opened = match wanted.local(config) {
        true => Some(local::open_state(config, StateOptions::default(), &metrics).await?),
        false => None,
    };
    let database = servers::database(config)?;
    if let (Some(database), true) = (&database, wanted.works()) {
        servers::check_session(database).await?;
    }
    let place = QueuePlace { state: opened.as_ref().map(|opened| opened.state.store()), database: database.as_ref() };
    let queue = queue(config, config.queue.kind, place, &clock, &metrics).await?;
    let recordings = match wanted.recordings() {
        true => Some(recordings(config, wanted.marks(config), &metrics).await?),
        false => None,
    };
    let (catalog, state) = match (&database, opened) {
        (Some(database), opened) => (servers::catalog(config, database).await?, opened.map(|opened| opened.state)),
        (None, Some(opened)) => {
            let catalog = EmbeddedCatalog::open(opened.state.store())?;
            let state = local::embedded(config, opened, &catalog, &clock).await?;
            (Arc::new(catalog) as Arc<dyn Catalog>, Some(state))
        }
        (None, None) => return Err(CommandError::usage("[catalog] kind: not chosen")),
    };
    let nice = Nice::new(config, state.as_ref(), database.as_ref(), &metrics)?;
    let on_server = [
        (System::Catalog, database.is_some()),
        (System::Queue, config.queue.kind != QueueKind::Embedded),
        (System::RecordingStore, config.recordings.kind == RecordingsKind::S3),
    ];
    let on_server = on_server.into_iter().filter(|(_, is_there)| *is_there).map(|(system, _)| system).collect();
    Ok(OpenDoors {
        state,
        shared: SharedDoors { catalog, queue, recordings, on_server },
        leases: Leases::Catalog(database),
        nice,
        monitors: Monitors::new(&clock, &metrics),
        metrics,
        clock,
        wake: Arc::default(),
    })
}

/// Where a queue keeps what is not on its server.
#[derive(Clone, Copy)]
pub(crate) struct QueuePlace<'a> {
    /// The local state, where the process keeps one.
    pub(crate) state: Option<&'a Store>,
    /// The Knovvu database, where it is on a server.
    #[cfg_attr(not(feature = "fluvio"), allow(dead_code, reason = "no other queue needs it"))]
    pub(crate) database: Option<&'a Database>,
}

/// Opens the queue of this kind.
pub(crate) async fn queue(
    config: &Config,
    kind: QueueKind,
    place: QueuePlace<'_>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Arc<dyn Queue>, CommandError> {
    match (kind, place.state) {
        (QueueKind::Embedded, Some(store)) => Ok(Arc::new(EmbeddedQueue::open(store, clock.clone())?)),
        (QueueKind::Embedded, None) => Err(CommandError::failed("this process keeps no local state for its queue")),
        (QueueKind::Rabbitmq, _) => servers::rabbit_queue(config, metrics).await,
        (QueueKind::Fluvio, _) => fluvio::open(config, place, clock, metrics).await,
    }
}

/// Lets the client of this queue check its settings; touches no server.
pub(crate) fn validate_queue(config: &Config, kind: QueueKind) -> Result<(), CommandError> {
    match kind {
        QueueKind::Embedded => Ok(()),
        QueueKind::Rabbitmq => servers::validate_rabbit(config),
        QueueKind::Fluvio => fluvio::validate(config),
    }
}

/// Opens the recording store. What an earlier run left half written is swept by the service.
/// Only a service has a folder for the marks of its uploads.
pub(crate) async fn recordings(
    config: &Config,
    marks: Option<PathBuf>,
    metrics: &Metrics,
) -> Result<Arc<dyn RecordingStore>, CommandError> {
    match config.recordings.kind {
        RecordingsKind::Filesystem => {
            let dir = config.recordings.dir(&config.state);
            let store = FilesystemStore::open(&dir).await.map_err(|error| {
                let remedy = "make it, or let this user write to it";
                CommandError::failed(format!("[recordings] dir: {}: {error}; {remedy}", dir.display()))
            })?;
            Ok(Arc::new(store))
        }
        RecordingsKind::S3 => servers::recordings(config, marks, metrics).await,
    }
}

/// Where a running daemon of this state tells its address and token.
pub(crate) fn admin_file(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.json")
}
