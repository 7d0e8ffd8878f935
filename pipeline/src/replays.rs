//! The producer's replays: begins the nightly comparison when it is due, and works on every run that stands open in
//! the catalog, whoever asked for it.
//!
//! The catalog is where an operator and the producer meet: a run is asked for, paused, resumed and cancelled by its
//! row, on this machine or another. What a crash or another producer left open is taken up from there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stages::clients::catalog::{CatalogError, ReplayRun, RunKind, RunState};
use stages::flow::task;
use stages::model::TenantId;
use stages::source::replay::Replay;
use state::Watermark;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::nightly::Nightly;

/// Backfills worked on at a time; others wait, oldest first.
const BACKFILLS: usize = 4;

/// Runs of a kind that are looked through for open ones.
pub(crate) const LOOKED_THROUGH: usize = 1_000;

/// Time between two looks for what others asked for.
const LOOK: Duration = Duration::from_secs(2);

/// What the producer needs for its replays.
pub(crate) struct Replays {
    /// Works on one run.
    pub(crate) replay: Replay,
    /// Whose.
    pub(crate) tenant: TenantId,
    /// When the comparison is due; none where a command does one piece of work.
    pub(crate) nightly: Option<Nightly>,
    /// When this producer first worked: before it, nothing was due.
    pub(crate) since: Watermark,
    /// Set when something was asked for in this process.
    pub(crate) wake: Arc<Notify>,
}

impl Replays {
    /// Works until the turn is over.
    pub(crate) async fn run(self) {
        let stopping = self.replay.context.stopping.clone();
        let mut working: HashMap<(RunKind, u64), AbortOnDropHandle<()>> = HashMap::new();
        loop {
            working.retain(|_, work| !work.is_finished());
            if let Err(error) = self.look(&mut working).await {
                warn!(%error, "replays not looked through, will retry");
            }
            let woken = async {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            };
            if stopping.run_until_cancelled(woken).await.is_none() {
                return;
            }
        }
    }

    /// Begins what is due, and takes up what is open.
    async fn look(&self, working: &mut HashMap<(RunKind, u64), AbortOnDropHandle<()>>) -> Result<(), CatalogError> {
        let catalog = &self.replay.context.catalog;
        let mut reconciliations = catalog.runs(&self.tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        if let Some(run) = self.begin_due(&reconciliations).await? {
            reconciliations.insert(0, run);
        }
        self.show_last(&reconciliations);
        let backfills = catalog.runs(&self.tenant, RunKind::Backfill, LOOKED_THROUGH).await?;
        self.show_remaining(&backfills).await?;
        for (kind, runs, most) in
            [(RunKind::Reconciliation, reconciliations, 1), (RunKind::Backfill, backfills, BACKFILLS)]
        {
            for run in runs.into_iter().rev().filter(|run| run.state.is_open()) {
                let under_way = working.keys().filter(|(of, _)| *of == kind).count();
                if under_way < most && !working.contains_key(&(kind, run.id)) {
                    working.insert((kind, run.id), task::spawn("replay", self.replay.clone().run(run)));
                }
            }
        }
        Ok(())
    }

    async fn begin_due(&self, runs: &[ReplayRun]) -> Result<Option<ReplayRun>, CatalogError> {
        let Some(nightly) = &self.nightly else { return Ok(None) };
        let now = self.replay.context.clock.now();
        let since = match self.since.get() {
            Some(since) => since,
            None => {
                self.since.advance(now).await.map_err(|error| CatalogError(error.to_string()))?;
                now
            }
        };
        let Some((from, to)) = nightly.due_window(runs, since, now) else { return Ok(None) };
        let mut run = ReplayRun::new(self.tenant.clone(), RunKind::Reconciliation, from, to, now);
        run.id = self.replay.context.catalog.begin_run(&run).await?;
        info!(run = run.id, %from, %to, "the nightly comparison begins");
        Ok(Some(run))
    }

    fn show_last(&self, reconciliations: &[ReplayRun]) {
        if let Some(last) = reconciliations.iter().find(|run| run.state == RunState::Done) {
            let at = last.finished_at.unwrap_or(Timestamp::UNIX_EPOCH);
            self.replay.context.metrics.replay_finished(last.kind.as_str(), at, last.found.missing);
        }
    }

    async fn show_remaining(&self, backfills: &[ReplayRun]) -> Result<(), CatalogError> {
        let mut remaining = 0;
        for run in backfills.iter().filter(|run| run.state == RunState::Running) {
            remaining += run.plan.map_or(0, |plan| plan.missing).saturating_sub(run.published());
        }
        self.replay.context.metrics.backfill_remaining.set(i64::try_from(remaining).unwrap_or(i64::MAX));
        Ok(())
    }
}
