//! Begins the two services and what goes on beside them, and waits for an end.

use std::time::Duration;

use runtime::task;
use stages::prune_analysis::prune_analysis;
use stages::verify::Schedule;
use state::State;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use crate::admin::ServiceReadiness;
use crate::config::{CatalogKind, Config};
use crate::conversation_consumer::ConversationConsumer;
use crate::doors::{self, OpenDoors, Service};
use crate::heartbeat::{Identity, Telling};
use crate::nice_producer::NiceProducer;
use crate::observe::{self, Observed};
use crate::systemd::Notifier;

/// Time between two sweeps of what crashes left half written in the recording store.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Everything that runs.
pub(super) struct ServiceTasks {
    pub(super) producing: ServiceTask,
    pub(super) consuming: ServiceTask,
    /// Looks at the daemon, and asks the systems on servers whether they answer.
    pub(super) looking: Vec<AbortOnDropHandle<()>>,
    /// Tells that the service lives until the end of the drain: who drains is not missed.
    pub(super) telling: Telling,
    /// Keeps the stores in order; begins nothing more once the service ends.
    pub(super) upkeep: Vec<AbortOnDropHandle<()>>,
    /// Set when the local state takes no more writes.
    pub(super) broken: CancellationToken,
    /// Set when the queue failed.
    pub(super) queue_broken: CancellationToken,
    /// What ended though nobody asked it to.
    pub(super) ended_alone: Option<&'static str>,
    pub(super) observing: AbortOnDropHandle<()>,
}

impl ServiceTasks {
    /// Begins all of it.
    pub(super) fn begin(
        config: &Config,
        service: Service,
        identity: &Identity,
        doors: &OpenDoors,
        producer: Option<NiceProducer>,
        consumer: Option<ConversationConsumer>,
    ) -> Self {
        let (broken, queue_broken) = (CancellationToken::new(), CancellationToken::new());
        let observed = Observed::of(doors, doors::tenant(config).ok(), &config.state.dir);
        let observing = task::spawn("observe", observe::run(observed, broken.clone()));
        let reporter = doors.reporter(doors::tenant(config).ok(), producer.as_ref().map(|it| it.working.subscribe()));
        let producing = part("producer", producer.map(NiceProducer::run));
        let upkeep = upkeep(config, service, doors);
        let asking = doors.probes().into_iter();
        let looking = asking
            .map(|(system, probe)| task::spawn("outside", doors.monitors.outside.clone().watch(system, probe)))
            .collect();
        let telling = Telling::begin(identity.clone(), reporter, doors.shared.catalog.clone());
        let failed = queue_broken.clone();
        let consuming = part(
            "consumer",
            consumer.map(|consumer| {
                consumer.run(move |error| {
                    error!(%error, "the queue failed");
                    failed.cancel();
                })
            }),
        );
        Self { producing, consuming, looking, telling, upkeep, broken, queue_broken, ended_alone: None, observing }
    }

    /// Waits until the service is to end, or cannot go on.
    pub(super) async fn watch(&mut self, stopping: &CancellationToken) {
        self.ended_alone = tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            () = self.broken.cancelled() => None,
            () = self.queue_broken.cancelled() => None,
            // Without one of these the service would go on in half, with old agents, or blind for a broken disk.
            () = ended(&mut self.producing) => Some("the producer"),
            () = ended(&mut self.consuming) => Some("the consumer"),
            _ = &mut self.observing => Some("the observation"),
        };
    }
}

fn upkeep(config: &Config, service: Service, doors: &OpenDoors) -> Vec<AbortOnDropHandle<()>> {
    let mut upkeep = Vec::new();
    if let Some(store) = doors.shared.recordings.clone() {
        upkeep.push(task::spawn("sweep", observe::sweep(store, doors.shared.catalog.clone(), SWEEP_INTERVAL)));
    }
    if let Some(eraser) = doors.eraser() {
        upkeep.push(task::spawn("erase", eraser.run()));
    }
    if !service.consumes() {
        return upkeep;
    }
    upkeep.push(task::spawn("shelf", doors.shelf(config).run()));
    if let (Some(every), Some(verifier)) = (config.recordings.verify_every, doors.verifier(config)) {
        let schedule = Schedule { every, sample: config.recordings.verify_sample };
        upkeep.push(task::spawn("verify", verifier.run(schedule)));
    }
    if config.catalog.kind == CatalogKind::Postgres {
        let pruning = prune_analysis(doors.shared.catalog.clone(), config.catalog.analysis_retention);
        upkeep.push(task::spawn("prune analysis", pruning));
    }
    upkeep
}

/// Tells systemd that the service is ready, whether the producer works, and that the process is alive.
pub(super) fn tell(
    notifier: Notifier,
    readiness: &ServiceReadiness,
    state: Option<State>,
) -> Vec<AbortOnDropHandle<()>> {
    notifier.ready();
    let announcing = readiness.producing().map(|producing| {
        let readiness = readiness.clone();
        task::spawn("announce", announce(notifier, producing, readiness))
    });
    let alive = move || state.as_ref().is_none_or(|state| state.store().check().is_ok());
    announcing.into_iter().chain(notifier.watchdog(alive)).collect()
}

/// Shows in `systemctl status` whether the producer works or waits.
async fn announce(notifier: Notifier, mut producing: watch::Receiver<bool>, readiness: ServiceReadiness) {
    loop {
        producing.borrow_and_update();
        if let Some(state) = readiness.producer() {
            notifier.status(state.as_str());
        }
        if producing.changed().await.is_err() {
            return;
        }
    }
}

/// One of the two services, where the process runs it.
pub(super) type ServiceTask = Option<AbortOnDropHandle<()>>;

fn part(name: &'static str, work: Option<impl Future<Output = ()> + Send + 'static>) -> ServiceTask {
    work.map(|work| task::spawn(name, work))
}

/// Resolves when the part ends; never where there is none.
async fn ended(part: &mut ServiceTask) {
    match part {
        Some(part) => drop(part.await),
        None => std::future::pending().await,
    }
}
