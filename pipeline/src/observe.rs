//! Looks at the daemon from the side: gauges, the retention of processed ids, the health of the local state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stages::clients::catalog::Catalog;
use stages::clients::nice::ApiFamily;
use stages::clients::queue::{Backlog, Queue};
use stages::clients::quota::Budgets;
use stages::clients::recording_store::RecordingStore;
use stages::flow::{Clock, Freshness, Metrics};
use stages::model::TenantId;
use state::State;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::doors::Doors;
use crate::telemetry;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long an outside system may take to answer a look.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks between two prunings of the processed-id log: an hour.
const LOOKS_PER_PRUNING: u32 = 720;

/// What is looked at.
pub(crate) struct Observed {
    state: Option<State>,
    /// None where the process keeps no state of its own.
    state_dir: Option<PathBuf>,
    catalog: Arc<dyn Catalog>,
    queue: Arc<dyn Queue>,
    budgets: Arc<Budgets>,
    /// Whose budget is shown; none where the process serves every tenant.
    tenant: Option<TenantId>,
    freshness: Freshness,
    metrics: Metrics,
    clock: Clock,
}

impl Observed {
    /// The parts of a running daemon.
    pub(crate) fn of(doors: &Doors, tenant: Option<TenantId>, state_dir: &Path) -> Self {
        Self {
            state: doors.local.as_ref().map(|local| local.state.clone()),
            state_dir: doors.local.as_ref().map(|_| state_dir.to_owned()),
            catalog: doors.catalog.clone(),
            queue: doors.queue.clone(),
            budgets: doors.nice.budgets.clone(),
            tenant,
            freshness: doors.freshness.clone(),
            metrics: doors.metrics.clone(),
            clock: doors.clock.clone(),
        }
    }

    async fn look(&self) {
        if let Some(backlog) = self.answer("queue", self.queue.backlog()).await {
            show_backlog(&self.metrics, backlog);
        }
        if let Some(counts) = self.answer("catalog", self.catalog.counts()).await {
            self.metrics.dead_letters_shelved.set(as_gauge(counts.dead_letters));
        }
        let dropped = telemetry::dropped_lines();
        self.metrics.log_lines_dropped.inc_by(dropped.saturating_sub(self.metrics.log_lines_dropped.get()));
        self.metrics.freshness_lag.set(self.freshness.lag(self.clock.now()).as_secs_f64());
        if let Some(tenant) = &self.tenant {
            self.show_budgets(tenant).await;
        }
        self.show_disk();
        let Some(state) = &self.state else { return };
        self.metrics.processed_ids.set(as_gauge(state.processed().len() as u64));
        match state.store().size_on_disk() {
            Ok(bytes) => self.metrics.state_disk_bytes.set(as_gauge(bytes)),
            Err(error) => warn!(%error, "size of the local state not read"),
        }
    }

    /// What an outside system answers, and whether it does: silence is an answer as well.
    async fn answer<T, E: std::fmt::Display>(
        &self,
        system: &str,
        question: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let answer = match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                warn!(%error, system, "an outside system cannot be looked at");
                None
            }
            Err(_) => {
                warn!(system, "an outside system does not answer");
                None
            }
        };
        self.metrics.outside_system_up.with_label_values(&[system]).set(answer.is_some().into());
        answer
    }

    fn show_disk(&self) {
        let Some(dir) = &self.state_dir else { return };
        match rustix::fs::statvfs(dir) {
            Ok(disk) => self.metrics.state_disk_free_bytes.set(as_gauge(disk.f_bavail.saturating_mul(disk.f_frsize))),
            Err(error) => warn!(%error, "free space of the local state's disk not read"),
        }
    }

    async fn show_budgets(&self, tenant: &TenantId) {
        for family in [ApiFamily::Acd, ApiFamily::MediaPlayback] {
            match self.budgets.usage(tenant, family).await {
                Ok(usage) => {
                    self.metrics.show_quota(family.as_str(), &usage);
                }
                Err(error) => warn!(%error, "rate budget not read"),
            }
        }
    }

    async fn prune(&self) {
        let Some(state) = &self.state else { return };
        let (log, now) = (state.processed().clone(), self.clock.now());
        match tokio::task::spawn_blocking(move || log.prune(now)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(pruned)) => info!(pruned, "processed ids beyond the retention forgotten"),
            Ok(Err(error)) => warn!(%error, "processed-id log not pruned, will retry"),
            Err(error) => error!(%error, "pruning broke off"),
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
        observed.look().await;
        if looks.is_multiple_of(LOOKS_PER_PRUNING) {
            observed.prune().await;
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Removes what crashes left half written in the recording store, now and then every `interval`, until it is dropped.
pub(crate) async fn sweep(store: Arc<dyn RecordingStore>, interval: Duration) {
    loop {
        match store.sweep().await {
            Ok(0) => {}
            Ok(swept) => info!(swept, "half-written recordings of an earlier run removed"),
            Err(error) => warn!(%error, "recording store not swept, will retry"),
        }
        tokio::time::sleep(interval).await;
    }
}

fn show_backlog(metrics: &Metrics, backlog: Backlog) {
    let Backlog { live, backfill, delayed, in_flight } = backlog;
    for (lane, count) in [("live", live), ("backfill", backfill), ("delayed", delayed), ("in_flight", in_flight)] {
        metrics.queue_backlog.with_label_values(&[lane]).set(as_gauge(count));
    }
}

fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
