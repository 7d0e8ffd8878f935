//! Starts a service, watches over it, and ends it.
//!
//! # Shutdown
//! A signal ends the sources; each stage sees its input end, finishes what it holds, and closes its output. Past
//! the grace period the rest is handed back to where it came from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use stages::clients::nice::NiceClient;
use stages::flow::{FlowContext, serve, task};
use stages::source::poll::Poll;
use stages::source::roster::Roster;
use stages::source::webhook::Receiver;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::Admin;
use crate::config::{Config, QueueKind};
use crate::conversation_consumer::ConversationConsumer;
use crate::doors::{self, Doors};
use crate::failure::Failure;
use crate::nice_producer::NiceProducer;
use crate::observe;
use crate::{shutdown, telemetry};

/// How long the daemon waits for the local state while a command has it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command `run`: both services until a signal.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start(&config.log)?;
    doors::built_in(&config)?;
    doors::sources(&config)?;
    let (stopping, _signals) = shutdown::on_signal().map_err(Failure::failed)?;
    // Reading a large state or rebuilding a lost one takes a while; the next start does what is left undone.
    let Some(doors) = stopping.run_until_cancelled(open_patiently(&config)).await else { return Ok(()) };
    let doors = doors?;
    let nice = doors::nice(&config, &doors)?;
    serve_until(&config, doors, nice, stopping).await
}

/// `producer` and `consumer` on a queue that only one process can open.
pub(crate) fn separate(service: &str, config: &Config) -> Result<(), Failure> {
    match config.queue.as_ref().map(|queue| &queue.kind) {
        Some(QueueKind::Embedded) => Err(Failure::usage(format!(
            "[queue] kind: the embedded queue is open to one process only, so `{service}` alone would reach nobody; \
             use `nice-knovvu run`, or choose kind = \"rabbitmq\" with a url"
        ))),
        _ => Err(Failure::usage(format!(
            "[queue] kind: `{service}` needs a queue client that this executable was built without; \
             use `nice-knovvu run` with kind = \"embedded\""
        ))),
    }
}

/// Opens the doors. A command may have the local state for a moment: that must not keep the daemon from starting.
async fn open_patiently(config: &Config) -> Result<Doors, Failure> {
    let begun = Instant::now();
    loop {
        match doors::open(config).await {
            Err(failure) if failure.is_locked() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            opened => return opened,
        }
    }
}

/// Runs both services on opened doors until `stopping` is set.
pub(crate) async fn serve_until(
    config: &Config,
    doors: Doors,
    nice: NiceClient,
    stopping: CancellationToken,
) -> Result<(), Failure> {
    let context = FlowContext {
        clock: doors.clock.clone(),
        metrics: doors.metrics.clone(),
        catalog: doors.catalog.clone(),
        retry: doors::retry_policy(config),
        freshness: doors.freshness.clone(),
        concurrency: config.consumer.concurrency,
        stopping: stopping.clone(),
    };
    let (roster, roster_reader) = watch::channel(Roster::default());
    let sync = Arc::new(doors.sync_agents(nice.clone(), doors::tenant(config)?, roster)?);
    sync.restore().await.map_err(Failure::failed)?;

    let admin_listener = bind("[admin] listen", config.admin.listen).await?;
    let mut operations = doors.operations(config, doors::tenant(config)?, Some(sync.clone()))?;
    operations.started_at = Some(doors.clock.now());
    let admin = Admin::start(admin_listener, &config.state.dir, operations, doors.metrics.clone())?;
    let receiver = webhook_receiver(config, &doors, &stopping).await?;

    let producer = NiceProducer {
        poll: poll(config, &doors, &nice, roster_reader, &context)?,
        inbox: doors.state.inbox().clone(),
        processed: doors.state.processed().clone(),
        retention: config.state.retention,
        queue: doors.queue.clone(),
        context: context.clone(),
    };
    let consumer = ConversationConsumer {
        tenants: doors::tenants(config, &doors)?,
        queue: doors.queue.clone(),
        recordings: doors.recordings.clone(),
        context: context.clone(),
    };

    let broken = CancellationToken::new();
    let failed = broken.clone();
    let mut agents = task::spawn("sync_agents", {
        let (sync, interval, retry) = (sync.clone(), config.agents.sync_interval, context.retry.clone());
        async move { sync.run(interval, retry).await }
    });
    let mut observing = task::spawn("observe", observe::run(observe::Observed::of(&doors), broken.clone()));
    let mut flows = task::spawn("flows", async move {
        let queue_failed = move |error| {
            error!(%error, "the queue failed");
            failed.cancel();
        };
        tokio::join!(producer.run(), consumer.run(queue_failed));
    });

    admin.set_ready(true);
    info!(admin = %admin.address(), "running");
    let ended_alone = tokio::select! {
        biased;
        () = stopping.cancelled() => None,
        () = broken.cancelled() => None,
        _ = &mut flows => Some("the flow"),
        // Without these two the service would go on with old agents, or blind for a broken disk.
        _ = &mut agents => Some("the agent sync"),
        _ = &mut observing => Some("the observation"),
    };
    admin.set_ready(false);
    stopping.cancel();
    drop(agents);
    if !flows.is_finished() {
        drain(config.flow.grace, flows).await;
    }
    drop((receiver, observing));
    admin.stop();
    let closed = doors.state.store().close().await;
    if broken.is_cancelled() {
        return Err(Failure::failed("the local state failed: check the disk, then start again; nothing is lost"));
    }
    closed?;
    if let Some(what) = ended_alone {
        return Err(Failure::failed(format!("{what} ended by itself: start again; nothing is lost")));
    }
    info!("ended");
    Ok(())
}

/// Waits for the flows, but not longer than the grace period; what they still hold is handed back.
async fn drain(grace: Duration, flows: tokio_util::task::AbortOnDropHandle<()>) {
    if tokio::time::timeout(grace, flows).await.is_err() {
        warn!(grace_secs = grace.as_secs_f64(), "grace period over, unfinished conversations are handed back");
        // Aborted tasks drop their deliveries at their next turn.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn poll(
    config: &Config,
    doors: &Doors,
    nice: &NiceClient,
    roster: watch::Receiver<Roster>,
    context: &FlowContext,
) -> Result<Option<Poll>, Failure> {
    if !config.events.poll {
        return Ok(None);
    }
    Ok(Some(Poll {
        nice: nice.clone(),
        tenant: doors::tenant(config)?,
        watermark: doors.poll_watermark()?,
        roster,
        interval: config.events.poll_interval,
        overlap: config.events.poll_overlap,
        first_window: doors::hot_window(config),
        context: context.clone(),
    }))
}

async fn webhook_receiver(
    config: &Config,
    doors: &Doors,
    stopping: &CancellationToken,
) -> Result<Option<tokio_util::task::AbortOnDropHandle<()>>, Failure> {
    let Some(webhook) = &config.events.webhook else { return Ok(None) };
    let listener = bind("[events] webhook_listen", webhook.listen).await?;
    info!(listen = %listener.local_addr().map_err(Failure::failed)?, "webhook receiver listens");
    let secret: &SecretString = &webhook.token;
    let inbox = doors.state.inbox().clone();
    let receiver = Receiver::new(inbox, doors::tenant(config)?, secret, doors.metrics.clone());
    Ok(Some(task::spawn("webhook", serve::serve(listener, receiver.router(), stopping.clone()))))
}

async fn bind(key: &str, address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::failed(format!("{key}: cannot listen on {address}: {error}; choose a free address")))
}
