//! Opens the doors, and answers at the admin address and the webhook.

use std::time::Duration;

use axum::Router;
use runtime::task;
use stages::{serve, source::webhook::Receiver};
use tokio::{net::TcpListener, sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::admin::{Admin, AdminPages, ReadinessCheck, ServiceReadiness};
use crate::command_error::CommandError;
use crate::config::Config;
use crate::doors;
use crate::doors::{OpenDoors, Service, Wanted};
use crate::heartbeat::Identity;
use crate::nice_producer::NiceProducer;
use crate::operations::{Operations, Running};

/// How long the daemon waits for the local state while a command has it.
const STATE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a start waits for a server that does not answer: all of them may be starting with us.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// The pause before a server is tried again.
const SERVER_PAUSE: Duration = Duration::from_secs(1);

/// Opens the doors. A command may have the local state for a moment, and the servers may be starting like us.
pub(super) async fn open_patiently(config: &Config, service: Service) -> Result<OpenDoors, CommandError> {
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
    Hands(oneshot::Sender<ServiceRoutes>),
}

/// What a running service answers, in the program that it runs in.
pub struct ServiceRoutes {
    /// The admin pages.
    pub admin: AdminPages,
    /// The webhook, as `[events] webhook_listen` would serve it; none where the settings do not switch it on.
    pub webhook: Option<Router>,
}

/// What answers while the service runs.
pub(super) struct Answering {
    pub(super) admin: Option<Admin>,
    pub(super) webhook: Option<AbortOnDropHandle<()>>,
    pub(super) readiness: ServiceReadiness,
}

impl Answering {
    /// Where the admin pages are, where they listen.
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }
}

/// The listener at `[admin] listen`, where the service listens.
pub(super) async fn admin_listener(config: &Config, front: &Front) -> Result<Option<TcpListener>, CommandError> {
    match front {
        Front::Listens => Ok(Some(bind("[admin] listen", config.admin.listen).await?)),
        Front::Hands(_) => Ok(None),
    }
}

/// Answers, or hands over what would.
pub(super) async fn answer(
    config: &Config,
    doors: &OpenDoors,
    identity: &Identity,
    producer: Option<&NiceProducer>,
    listener: Option<TcpListener>,
    front: Front,
    stopping: &CancellationToken,
) -> Result<Answering, CommandError> {
    let running = Running {
        sync: producer.map(|producer| producer.sync.clone()),
        producing: producer.map(|producer| producer.working.subscribe()),
        identity: Some(identity.clone()),
    };
    let readiness = ServiceReadiness::new(running.producing.clone(), doors.monitors.outside.clone());
    let file = doors.state.as_ref().map(|_| doors::admin_file(&config.state.dir));
    let operations = Operations::new(config, doors, running);
    let check = ReadinessCheck {
        service: readiness.clone(),
        state: doors.state.clone(),
        outside: doors.monitors.outside.clone(),
        blame: doors.monitors.blame.clone(),
        clock: doors.clock.clone(),
    };
    let pages = AdminPages::new(config, operations, doors.metrics.clone(), check);
    let receiver = match producer {
        Some(producer) => webhook_receiver(config, doors, producer)?,
        None => None,
    };
    let (admin, webhook) = match (listener, front) {
        (Some(listener), _) => {
            (Some(Admin::start(listener, file, pages)?), listen_for_events(config, receiver, stopping).await?)
        }
        (None, Front::Hands(asked)) => {
            // Who does not want them has dropped the other end.
            drop(asked.send(ServiceRoutes { admin: pages, webhook: receiver }));
            (None, None)
        }
        (None, Front::Listens) => (None, None),
    };
    Ok(Answering { admin, webhook, readiness })
}

/// What answers the webhook, where it is switched on.
fn webhook_receiver(
    config: &Config,
    doors: &OpenDoors,
    producer: &NiceProducer,
) -> Result<Option<Router>, CommandError> {
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
) -> Result<Option<AbortOnDropHandle<()>>, CommandError> {
    let Some(receiver) = receiver else { return Ok(None) };
    let listener = bind("[events] webhook_listen", config.events.webhook_listen).await?;
    info!(listen = %listener.local_addr().map_err(CommandError::failed)?, "webhook receiver listens");
    Ok(Some(task::spawn("webhook", serve::serve(listener, receiver, stopping.clone()))))
}

async fn bind(key: &str, address: std::net::SocketAddr) -> Result<TcpListener, CommandError> {
    TcpListener::bind(address).await.map_err(|error| {
        CommandError::failed(format!("{key}: cannot listen on {address}: {error}; choose a free address"))
    })
}
