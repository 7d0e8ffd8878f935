//! Starts a service (`start`), watches over it (`watch`), and ends it (`end`).
//!
//! # Shutdown
//! A signal ends the sources; each stage sees its input end, finishes what it holds, and closes its output. Past
//! the grace period the rest is handed back to where it came from.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::command_error::CommandError;
use crate::config::Config;
use crate::conversation_consumer::ConversationConsumer;
use crate::doors::{self, OpenDoors, Service};
use crate::heartbeat::Identity;
use crate::nice_producer::{NiceProducer, Sources};
use crate::systemd::Notifier;
use crate::{shutdown, telemetry};

mod end;
mod start;
mod watch;

pub(crate) use start::Front;
pub use start::ServiceRoutes;

/// The commands `run`, `producer` and `consumer`: until a signal.
pub(crate) async fn run(config: Config, service: Service) -> Result<(), CommandError> {
    let _log = telemetry::start_service(&config.log)?;
    for line in config.unusable() {
        warn!(error = line, "a variable of OpenTelemetry cannot be used, and counts as not given");
    }
    doors::validate(&config, service)?;
    let (stopping, _signals) = shutdown::on_signal().map_err(CommandError::failed)?;
    let traces = telemetry::traces::start(&config.traces, service.name())?;
    // Reading a large state or rebuilding a lost one takes a while; the next start does what is left undone.
    let opened = stopping.run_until_cancelled(start::open_patiently(&config, service)).await;
    let served = match opened {
        Some(Ok(doors)) => serve_until(&config, service, doors, Front::Listens, stopping).await,
        Some(Err(failure)) => Err(failure),
        None => Ok(()),
    };
    if let Some(traces) = traces {
        traces.end().await;
    }
    served
}

/// Runs the service on opened doors until `stopping` is set.
pub(crate) async fn serve_until(
    config: &Config,
    service: Service,
    doors: OpenDoors,
    front: Front,
    stopping: CancellationToken,
) -> Result<(), CommandError> {
    let context = doors.flow(config, stopping.clone());
    // First, so that an address that is taken ends the start before anything has begun.
    let listener = start::admin_listener(config, &front).await?;
    let producer = match service.produces() {
        true => Some(NiceProducer::new(config, &doors, &context, Sources::All)?),
        false => None,
    };
    let identity =
        Identity::new(service.name(), doors::tenant(config).ok().filter(|_| service.produces()), doors.clock.now());
    let front = start::answer(config, &doors, &identity, producer.as_ref(), listener, front, &stopping).await?;
    let consumer = ConversationConsumer::new(config, &doors, &context);
    let mut work = watch::ServiceTasks::begin(config, service, &identity, &doors, producer, consumer);

    front.readiness.set_serving(true);
    let notifier = Notifier::from_environment();
    let _told = watch::tell(notifier, &front.readiness, doors.state.clone());
    info!(admin = front.address().map(tracing::field::display), service = service.name(), "running");
    work.watch(&stopping).await;
    front.readiness.set_serving(false);
    notifier.stopping();
    stopping.cancel();
    end::end(config, doors, front, work).await
}

#[cfg(test)]
mod tests;
