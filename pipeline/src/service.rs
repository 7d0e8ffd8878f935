//! Starts a service, watches over it, and ends it.
//!
//! # Shutdown
//! A signal ends the sources; each stage sees its input end, finishes what it holds, and closes its output. Past
//! the grace period the rest is handed back to where it came from.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use runtime::task;
use stages::clients::quota::Rate;
use stages::flow::{self, FlowContext, serve};
use stages::prune_analysis::prune_analysis;
use stages::source::agent_sessions::{self, AgentSessions};
use stages::source::poll::Poll;
use stages::source::roster::Roster;
use stages::source::webhook::Receiver;
use stages::verify::Schedule;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::admin::{Admin, Pages, Readiness, WAITS};
use crate::config::{CatalogKind, Config};
use crate::conversation_consumer::ConversationConsumer;
use crate::doors::{self, Doors, Wanted};
use crate::failure::Failure;
use crate::nice_producer::{NiceProducer, ReplaySettings};
use crate::observe::Observed;
use crate::operations::{Operations, Running};
use crate::systemd::Notifier;
use crate::{observe, shutdown, telemetry};

/// Which of the two services a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Both.
    Run,
    /// Nice Producer.
    Producer,
    /// Conversation Consumer.
    Consumer,
}

impl Service {
    /// Whether conversations are found and enqueued here.
    pub(crate) fn produces(self) -> bool {
        matches!(self, Self::Run | Self::Producer)
    }

    /// Whether conversations are taken off the queue here.
    pub(crate) fn consumes(self) -> bool {
        matches!(self, Self::Run | Self::Consumer)
    }

    /// The subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// How long the daemon waits for the local state while a command has it.
const STATE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a start waits for a server that does not answer: all of them may be starting with us.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// The pause before a server is tried again.
const SERVER_PAUSE: Duration = Duration::from_secs(1);

/// Time between two sweeps of what crashes left half written in the recording store.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The commands `run`, `producer` and `consumer`: until a signal.
pub(crate) async fn run(config: Config, service: Service) -> Result<(), Failure> {
    let _log = telemetry::start_service(&config.log)?;
    doors::validate(&config, service)?;
    let (stopping, _signals) = shutdown::on_signal().map_err(Failure::failed)?;
    // Reading a large state or rebuilding a lost one takes a while; the next start does what is left undone.
    let opened = stopping.run_until_cancelled(open_patiently(&config, service)).await;
    match opened {
        Some(doors) => serve_until(&config, service, doors?, Front::Listens, stopping).await,
        None => Ok(()),
    }
}

/// Opens the doors. A command may have the local state for a moment, and the servers may be starting like us.
async fn open_patiently(config: &Config, service: Service) -> Result<Doors, Failure> {
    let begun = Instant::now();
    loop {
        match doors::open(config, Wanted::Service(service)).await {
            Err(failure) if failure.is_locked() && begun.elapsed() < STATE_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(failure) if failure.is_unreachable() && begun.elapsed() < SERVER_PATIENCE => {
                warn!(reason = failure.message(), "a server does not answer, will retry");
                tokio::time::sleep(SERVER_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// How a service is reached.
pub(crate) enum Front {
    /// At `[admin] listen`, and at `[events] webhook_listen`.
    Listens,
    /// Through the program that it runs in.
    Hands(oneshot::Sender<Handed>),
}

/// What would listen otherwise.
pub(crate) struct Handed {
    /// The admin pages.
    pub(crate) pages: Pages,
    /// The webhook receiver, where the settings switch it on.
    pub(crate) webhook: Option<Router>,
}

/// Runs the service on opened doors until `stopping` is set.
pub(crate) async fn serve_until(
    config: &Config,
    service: Service,
    doors: Doors,
    front: Front,
    stopping: CancellationToken,
) -> Result<(), Failure> {
    let context = doors.flow(config, stopping.clone());
    // First, so that an address that is taken ends the start before anything has begun.
    let admin_listener = match front {
        Front::Listens => Some(bind("[admin] listen", config.admin.listen).await?),
        Front::Hands(_) => None,
    };
    let producer = match service.produces() {
        true => Some(producer(config, &doors, &context, Sources::All)?),
        false => None,
    };
    let running = Running {
        sync: producer.as_ref().map(|producer| producer.sync.clone()),
        producing: producer.as_ref().map(|producer| producer.working.subscribe()),
        since: Some(doors.clock.now()),
    };
    let readiness = Readiness::new(running.producing.clone());
    let operations = Operations::new(config, &doors, running);
    let file = doors.local.as_ref().map(|_| doors::admin_file(&config.state.dir));
    let (outside, blame) = (doors.outside.clone(), doors.blame.clone());
    let pages = Pages::new(operations, doors.metrics.clone(), readiness.clone(), outside, blame);
    let webhook = match &producer {
        Some(producer) => webhook_receiver(config, &doors, producer)?,
        None => None,
    };
    let (admin, receiver) = match (admin_listener, front) {
        (Some(listener), _) => {
            (Some(Admin::start(listener, file, pages)?), listen_for_events(config, webhook, &stopping).await?)
        }
        // Who does not want them has dropped the other end.
        (None, Front::Hands(asked)) => {
            drop(asked.send(Handed { pages, webhook }));
            (None, None)
        }
        (None, Front::Listens) => (None, None),
    };

    let (broken, queue_broken) = (CancellationToken::new(), CancellationToken::new());
    let mut observing = task::spawn(
        "observe",
        observe::run(Observed::of(&doors, doors::tenant(config).ok(), &config.state.dir), broken.clone()),
    );
    let mut producing = part("producer", producer.map(NiceProducer::run));
    let sweeping = doors.recordings.clone().map(|store| {
        let catalog = doors.catalog.clone();
        task::spawn("sweep", observe::sweep(store, catalog, SWEEP_INTERVAL))
    });
    let verifying = config.recordings.verify_every.filter(|_| service.consumes()).and_then(|every| {
        let verifier = doors.verifier(config)?;
        let schedule = Schedule { every, sample: config.recordings.verify_sample };
        Some(task::spawn("verify", verifier.run(schedule)))
    });
    let asking = doors
        .probes()
        .into_iter()
        .map(|(system, probe)| task::spawn("outside", doors.outside.clone().watch(system, probe)));
    let asking: Vec<_> = asking.collect();
    let shelving = service.consumes().then(|| task::spawn("shelf", doors.shelf(config).run()));
    let erasing = doors.eraser().map(|eraser| task::spawn("erase", eraser.run()));
    let pruning = (service.consumes() && config.catalog.kind == CatalogKind::Postgres).then(|| {
        task::spawn("prune analysis", prune_analysis(doors.catalog.clone(), config.catalog.analysis_retention))
    });
    let mut consuming = part(
        "consumer",
        consumer(config, &doors, &context).map(|consumer| {
            let failed = queue_broken.clone();
            consumer.run(move |error| {
                error!(%error, "the queue failed");
                failed.cancel();
            })
        }),
    );

    readiness.set_serving(true);
    let notifier = Notifier::from_environment();
    notifier.ready();
    let _announcing = readiness.producing().map(|producing| task::spawn("announce", announce(notifier, producing)));
    let _watchdog = notifier.watchdog({
        let local = doors.local.clone();
        move || local.as_ref().is_none_or(|local| local.state.store().check().is_ok())
    });
    let address = admin.as_ref().map(|admin| tracing::field::display(admin.address()));
    info!(admin = address, service = service.name(), "running");
    let ended_alone = tokio::select! {
        biased;
        () = stopping.cancelled() => None,
        () = broken.cancelled() => None,
        () = queue_broken.cancelled() => None,
        // Without one of these the service would go on in half, with old agents, or blind for a broken disk.
        () = ended(&mut producing) => Some("the producer"),
        () = ended(&mut consuming) => Some("the consumer"),
        _ = &mut observing => Some("the observation"),
    };
    readiness.set_serving(false);
    notifier.stopping();
    stopping.cancel();
    drop((sweeping, erasing, shelving, pruning, verifying));
    drain(config.flow.grace, [producing, consuming]).await;
    drop((receiver, observing, asking));
    if let Some(admin) = admin {
        admin.stop();
    }
    // Whoever meets the full disk first ends the service: the embedded queue lies on it as well.
    let state_failed = doors.local.as_ref().is_some_and(|local| local.state.store().check().is_err());
    let closed = doors.close().await;
    if broken.is_cancelled() || state_failed {
        return Err(Failure::failed("the local state failed: check the disk, then start again; nothing is lost"));
    }
    if queue_broken.is_cancelled() {
        return Err(Failure::failed("the queue failed: the log says why; then start again; nothing is lost"));
    }
    closed?;
    if let Some(what) = ended_alone {
        return Err(Failure::failed(format!("{what} ended by itself: start again; nothing is lost")));
    }
    info!("ended");
    Ok(())
}

/// Shows in `systemctl status` whether the producer works or waits.
async fn announce(notifier: Notifier, mut producing: watch::Receiver<bool>) {
    loop {
        let works = *producing.borrow_and_update();
        notifier.status(if works { "the producer works" } else { WAITS });
        if producing.changed().await.is_err() {
            return;
        }
    }
}

/// One of the two services, where the process runs it.
type Part = Option<AbortOnDropHandle<()>>;

fn part(name: &'static str, work: Option<impl Future<Output = ()> + Send + 'static>) -> Part {
    work.map(|work| task::spawn(name, work))
}

/// Resolves when the part ends; never where there is none.
async fn ended(part: &mut Part) {
    match part {
        Some(part) => drop(part.await),
        None => std::future::pending().await,
    }
}

/// Waits for the parts, but not longer than the grace period; what they still hold is handed back.
async fn drain(grace: Duration, parts: [Part; 2]) {
    let running = parts.into_iter().flatten().filter(|part| !part.is_finished());
    if tokio::time::timeout(grace, futures::future::join_all(running)).await.is_err() {
        warn!(grace_secs = grace.as_secs_f64(), "grace period over, unfinished conversations are handed back");
        // Aborted tasks drop their deliveries at their next turn.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Which sources a producer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// All that the settings name.
    All,
    /// Replays alone: of a command that does one piece of work where no daemon runs.
    Replays,
}

/// The producer of the settings' tenant on opened doors.
pub(crate) fn producer(
    config: &Config,
    doors: &Doors,
    context: &FlowContext,
    sources: Sources,
) -> Result<NiceProducer, Failure> {
    let local = doors.local()?;
    let tenant = doors::tenant(config)?;
    let turns = doors.turns(config)?;
    let (roster, roster_reader) = watch::channel(Roster::default());
    let has_poll = config.events.poll && sources == Sources::All;
    let poll = has_poll.then(|| Poll {
        tenants: doors.nice.producer.clone(),
        tenant: tenant.clone(),
        watermark: turns.poll().clone(),
        roster: roster_reader.clone(),
        interval: config.events.poll_interval,
        overlap: config.events.poll_overlap,
        import_since: config.events.import_since,
        hot_window: doors::hot_window(config),
        context: context.clone(),
    });
    let replays = ReplaySettings {
        tenant: tenant.clone(),
        tenants: doors.nice.producer.clone(),
        roster: roster_reader.clone(),
        compare: doors.compare(config),
        longest_call: config.reconciliation.longest_call,
        // A command on embedded doors is alone with them.
        has_consumers: sources == Sources::All || doors.catalog_on_server,
        nightly: (sources == Sources::All).then(|| doors::nightly(config)),
        hot_window: doors::hot_window(config),
        wake: doors.wake.clone(),
    };
    let listens = config.events.agent_sessions && sources == Sources::All;
    let agent_sessions = listens.then(|| AgentSessions {
        tenants: doors.nice.producer.clone(),
        tenant: tenant.clone(),
        roster: roster_reader,
        join_interval: join_interval(config.limits.acd),
        most: agent_sessions::most_listeners(),
        waits: agent_sessions::Waits::default(),
        context: context.clone(),
    });
    Ok(NiceProducer {
        lease: doors.lease(&tenant),
        sync: Arc::new(doors.sync_agents(config, &turns, roster)),
        turns,
        sync_interval: config.agents.sync_interval,
        poll,
        agent_sessions,
        inbox: local.state.inbox().clone(),
        replays,
        processed: local.state.processed().clone(),
        retention: config.state.retention,
        queue: doors.queue.clone(),
        fresh: config.events.fresh,
        grace: config.flow.grace,
        working: watch::Sender::new(false),
        context: context.clone(),
    })
}

/// The time between two joins of agents' sessions: half of the budget is the poll's and the agent sync's.
fn join_interval(acd: Rate) -> Duration {
    2 * acd.window / acd.limit.max(1)
}

fn consumer(config: &Config, doors: &Doors, context: &FlowContext) -> Option<ConversationConsumer> {
    let (catalog, clock) = (doors.catalog.clone(), doors.clock.clone());
    let readiness = flow::Readiness::new(doors::first_look(config), catalog, clock, doors.metrics.clone());
    Some(ConversationConsumer {
        tenants: doors.nice.consumer.clone(),
        queue: doors.queue.clone(),
        recordings: doors.recordings.clone()?,
        readiness,
        context: context.clone(),
    })
}

/// What answers the webhook, where it is switched on.
fn webhook_receiver(config: &Config, doors: &Doors, producer: &NiceProducer) -> Result<Option<Router>, Failure> {
    let Some(token) = config.events.webhook_token.as_ref().filter(|_| config.events.webhook) else { return Ok(None) };
    let (inbox, working) = (producer.inbox.clone(), producer.working.clone());
    let receiver = Receiver::new(inbox, doors::tenant(config)?, token, doors.metrics.clone());
    // A producer that waits for the lease would keep the event to itself until it takes over.
    Ok(Some(receiver.only_while(move || *working.borrow()).router()))
}

async fn listen_for_events(
    config: &Config,
    receiver: Option<Router>,
    stopping: &CancellationToken,
) -> Result<Option<AbortOnDropHandle<()>>, Failure> {
    let Some(receiver) = receiver else { return Ok(None) };
    let listener = bind("[events] webhook_listen", config.events.webhook_listen).await?;
    info!(listen = %listener.local_addr().map_err(Failure::failed)?, "webhook receiver listens");
    Ok(Some(task::spawn("webhook", serve::serve(listener, receiver, stopping.clone()))))
}

async fn bind(key: &str, address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::failed(format!("{key}: cannot listen on {address}: {error}; choose a free address")))
}

#[cfg(test)]
mod tests;
