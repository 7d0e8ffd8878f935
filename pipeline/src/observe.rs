//! Watches the daemon while it runs: gauges, the retention of processed ids, the health of the local state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catalog::{AnalysisCounts, Catalog};
use flow::{Blame, Freshness};
use model::{System, TenantId};
use queue::Backlog;
use recordings::RecordingStore;
use runtime::task;
use stages::metrics::Metrics;
use state::State;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::doors::OpenDoors;
use crate::observer::Observer;
use crate::systems::SystemsView;
use crate::telemetry;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long an outside system may take to answer a look.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks between two prunings of the processed-id log: an hour.
const LOOKS_PER_PRUNING: u32 = 720;

/// Looks between two measurements of the local state, which ask for the length of each of its files: a minute.
const LOOKS_PER_MEASUREMENT: u32 = 12;

/// Looks between two lines of the log that sum up: five minutes.
const LOOKS_PER_SUMMARY: u32 = 60;

/// What is looked at.
pub(crate) struct Observed {
    state: Option<State>,
    /// None where the process keeps no state of its own.
    state_dir: Option<PathBuf>,
    observer: Observer,
    systems: SystemsView,
    freshness: Freshness,
    blame: Blame,
    metrics: Metrics,
}

impl Observed {
    /// The parts of a running daemon.
    pub(crate) fn of(doors: &OpenDoors, tenant: Option<TenantId>, state_dir: &Path) -> Self {
        Self {
            state: doors.state.clone(),
            state_dir: doors.state.as_ref().map(|_| state_dir.to_owned()),
            systems: doors.systems(tenant.clone()),
            observer: doors.observer(tenant),
            freshness: doors.monitors.freshness.clone(),
            blame: doors.monitors.blame.clone(),
            metrics: doors.metrics.clone(),
        }
    }

    /// What is known here, at once; then what the servers say, all of them at the same time.
    async fn look(&self) {
        self.look_here();
        let latest = self.observer.look(PATIENCE).await;
        let seen = latest.at.and_then(|at| latest.backlog.since(at));
        self.metrics.flow.freshness_lag.set(self.lag(seen).map(|lag| lag.as_secs_f64()));
        let Some(at) = latest.at else { return };
        if let Some(backlog) = latest.backlog.since(at) {
            show_backlog(&self.metrics, *backlog);
        }
        if let Some(counts) = latest.counts.since(at) {
            self.metrics.dead_letters_shelved.set(as_gauge(counts.dead_letters));
        }
        if let Some(Some(AnalysisCounts { waiting, claimed, failed })) = latest.analysis.since(at) {
            for (state, count) in [("waiting", waiting), ("claimed", claimed), ("failed", failed)] {
                self.metrics.analysis_entries.with_label_values(&[state]).set(as_gauge(*count));
            }
        }
        for (family, usage) in latest.budgets.since(at).into_iter().flatten() {
            self.metrics.quota.show(family.as_str(), usage);
        }
    }

    /// The age of the oldest call that is due, where it is known.
    fn lag(&self, seen: Option<&Backlog>) -> Option<Duration> {
        self.freshness.lag(self.observer.clock.now(), seen.map(|backlog| backlog.live))
    }

    fn look_here(&self) {
        let dropped = telemetry::dropped_lines();
        self.metrics.log_lines_dropped.inc_by(dropped.saturating_sub(self.metrics.log_lines_dropped.get()));
        let (exported, dropped) = telemetry::traces::counts();
        let Metrics { trace_spans_exported, trace_spans_dropped, .. } = &self.metrics;
        trace_spans_exported.inc_by(exported.saturating_sub(trace_spans_exported.get()));
        trace_spans_dropped.inc_by(dropped.saturating_sub(trace_spans_dropped.get()));
        self.show_disk();
        self.show_systems();
        let Some(state) = &self.state else { return };
        self.metrics.processed_ids.set(as_gauge(state.processed().len() as u64));
    }

    fn measure(&self) {
        let Some(state) = &self.state else { return };
        match state.store().size_on_disk() {
            Ok(bytes) => self.metrics.state_disk_bytes.set(as_gauge(bytes)),
            Err(error) => warn!(%error, "size of the local state not read"),
        }
    }

    /// A system works that answers, and does not fail for many calls all the same.
    fn show_systems(&self) {
        let now = self.observer.clock.now();
        for system in System::SHARED {
            let is_up = !self.observer.outside.is_down(system) && !self.blame.fails_for_some(system, now);
            self.metrics.flow.outside_system_up.with_label_values(&[system.as_str()]).set(is_up.into());
        }
        self.blame.show(self.observer.tenant.as_ref(), now);
    }

    /// One line of the log says how it stands, so that a log alone tells of a night.
    fn sum_up(&self) {
        let latest = self.observer.seen.latest();
        // What was not seen lately is left out.
        let Some(at) = latest.at else { return };
        let (backlog, counts) = (latest.backlog.since(at), latest.counts.since(at));
        let troubled = self.systems.list().into_iter().filter(|system| system.state.is_away());
        let troubled: Vec<_> = troubled.map(|system| format!("{} {}", system.name(), system.state.as_str())).collect();
        info!(
            lag_secs = self.lag(backlog).map(|lag| lag.as_secs_f64().round()),
            live = backlog.map(|backlog| backlog.live),
            backfill = backlog.map(|backlog| backlog.backfill),
            delayed = backlog.map(|backlog| backlog.delayed),
            in_flight = backlog.map(|backlog| backlog.in_flight),
            ready = counts.map(|counts| counts.ready),
            dead_letters = counts.map(|counts| counts.dead_letters),
            system = (!troubled.is_empty()).then(|| troubled.join(", ")),
            "how it stands"
        );
    }

    fn show_disk(&self) {
        let Some(dir) = &self.state_dir else { return };
        let disk = rustix::fs::statvfs(dir).inspect_err(|error| {
            warn!(%error, "free space of the local state's disk not read");
        });
        let free = disk.ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) as f64);
        self.metrics.state_disk_free_bytes.set(free);
    }

    async fn prune(&self) {
        let Some(state) = &self.state else { return };
        let (log, now) = (state.processed().clone(), self.observer.clock.now());
        match task::blocking(move || log.prune(now)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(pruned)) => info!(count = pruned, "processed ids beyond the retention forgotten"),
            Ok(Err(error)) => warn!(%error, "processed-id log not pruned, will retry"),
            Err(error) => error!(%error, "pruning failed"),
        }
    }
}

/// Looks until it is dropped. Sets `broken` when the local state takes no more writes: the service must end.
pub(crate) async fn run(observed: Observed, broken: CancellationToken) {
    let mut looks = 0_u32;
    loop {
        if let Some(Err(error)) = observed.state.as_ref().map(|state| state.store().check()) {
            error!(%error, "the local state takes no more writes");
            broken.cancel();
        }
        if looks.is_multiple_of(LOOKS_PER_MEASUREMENT) {
            observed.measure();
        }
        observed.look().await;
        if looks.is_multiple_of(LOOKS_PER_PRUNING) {
            observed.prune().await;
        }
        if looks > 0 && looks.is_multiple_of(LOOKS_PER_SUMMARY) {
            observed.sum_up();
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Removes half-written recordings that crashes have left, at once and then every `interval`, until it is dropped.
pub(crate) async fn sweep(store: Arc<dyn RecordingStore>, catalog: Arc<dyn Catalog>, interval: Duration) {
    loop {
        match catalog.tenants().await {
            Ok(tenants) => store.learn(&tenants),
            Err(error) => warn!(%error, "tenants not listed, sweeping those known before"),
        }
        match store.sweep().await {
            Ok(0) => {}
            Ok(swept) => info!(count = swept, "half-written recordings of an earlier run removed"),
            Err(error) => warn!(%error, "recording store not swept, will retry"),
        }
        tokio::time::sleep(interval).await;
    }
}

fn show_backlog(metrics: &Metrics, backlog: Backlog) {
    let Backlog { live, backfill, delayed, in_flight } = backlog;
    for (lane, count) in [("live", live), ("backfill", backfill), ("delayed", delayed), ("in_flight", in_flight)] {
        metrics.queue.backlog.with_label_values(&[lane]).set(as_gauge(count));
    }
}

fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
