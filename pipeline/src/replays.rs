//! The producer's replays: begins the nightly comparison when it is due, and works on every run that stands open in
//! the catalog, whoever asked for it.
//!
//! The catalog is where an operator and the producer meet: a run is asked for, paused, resumed and cancelled by its
//! row, on this machine or another. What a crash or another producer left open is taken up from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{CatalogError, ReplayRun, RunKind, RunState};
use jiff::{SignedDuration, Timestamp};
use model::TenantId;
use runtime::task;
use stages::{recheck::Recheck, source::replay::ReplayWorker, watermark};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::nightly::Nightly;
use crate::proof::night::NightlyProof;

/// Backfills worked on at a time; others wait, oldest first.
const BACKFILLS: usize = 4;

/// How many of the latest comparisons are read, to find the next one and gaps; and how many open runs.
pub(crate) const LOOKED_THROUGH: usize = 100;

/// Time between two looks for what others asked for.
const LOOK: Duration = Duration::from_secs(2);

/// The schedule is looked at less often.
const LOOKS_PER_SCHEDULE: u32 = 3;

/// A comparison that began so long before the night's is what an earlier night left unfinished.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(12);

/// What the producer needs for its replays.
#[derive(Clone)]
pub(crate) struct Replays {
    /// Works on one run.
    pub(crate) replay: ReplayWorker,
    /// Whose.
    pub(crate) tenant: TenantId,
    /// When the comparison is due; none in a command.
    pub(crate) nightly: Option<Nightly>,
    /// How far the time of the tenant's first turn goes back if it cannot be true: before it, nothing was due.
    pub(crate) recovery_window: Duration,
    /// Signs each day that is over; none where the settings do not ask for it, and in a command.
    pub(crate) proof: Option<NightlyProof>,
    /// Set when something was asked for in this process.
    pub(crate) wake: Arc<Notify>,
}

impl Replays {
    /// Works until the turn is over.
    pub(crate) async fn run(self) {
        let stopping = self.replay.context.flow.stopping.clone();
        let (tenant, replay) = (self.tenant.clone(), self.replay.clone());
        let _signing = self.proof.clone().map(|proof| task::spawn("proof", proof.run(tenant, replay)));
        let mut working: BTreeMap<(RunKind, u64), AbortOnDropHandle<()>> = BTreeMap::new();
        for look in 0_u32.. {
            working.retain(|_, work| !work.is_finished());
            if look.is_multiple_of(LOOKS_PER_SCHEDULE)
                && let Err(error) = self.begin_due().await
            {
                warn!(%error, "cannot tell whether a comparison is due, will retry");
            }
            if let Err(error) = self.look(&mut working).await {
                warn!(%error, "open replays not read, will retry");
            }
            let woken = async {
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            };
            if stopping.run_until_cancelled(woken).await.is_none() {
                return;
            }
        }
    }

    /// Takes up the runs that are open.
    async fn look(&self, working: &mut BTreeMap<(RunKind, u64), AbortOnDropHandle<()>>) -> Result<(), CatalogError> {
        let catalog = &self.replay.context.catalog;
        let reconciliations = catalog.open_runs(&self.tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        let backfills = catalog.open_runs(&self.tenant, RunKind::Backfill, LOOKED_THROUGH).await?;
        self.show_remaining(&backfills);
        for (runs, most) in [(reconciliations, 1), (backfills, BACKFILLS)] {
            for run in runs {
                let under_way = working.keys().filter(|(kind, _)| *kind == run.kind).count();
                if under_way < most && !working.contains_key(&(run.kind, run.id)) {
                    working.insert((run.kind, run.id), task::spawn("replay", self.replay.clone().run(run)));
                }
            }
        }
        Ok(())
    }

    /// Begins the nightly comparison if it is due, and shows when the last one was.
    async fn begin_due(&self) -> Result<(), CatalogError> {
        let Some(nightly) = &self.nightly else { return Ok(()) };
        let (catalog, now) = (&self.replay.context.catalog, self.replay.context.flow.clock.now());
        let runs = catalog.runs(&self.tenant, RunKind::Reconciliation, LOOKED_THROUGH).await?;
        self.show_last(&runs);
        let since = watermark::worked_since(&**catalog, &self.tenant, now, self.recovery_window).await?;
        if nightly.due_window(&runs, since, now).is_none() {
            return Ok(());
        }
        // A clock that runs ahead would have a night compared that is to come.
        let now = watermark::agreed_now(&**catalog, now).await?;
        let Some((from, to)) = nightly.due_window(&runs, since, now) else { return Ok(()) };
        let is_old = |run: &&ReplayRun| run.state.is_open() && now.duration_since(run.started_at) > LEFT_BEHIND;
        let unfinished: Vec<_> = runs.iter().filter(is_old).collect();
        let from = unfinished.iter().map(|run| run.from).fold(from, Timestamp::min);
        let mut run = ReplayRun::new(self.tenant.clone(), RunKind::Reconciliation, from, to, now);
        run.id = catalog.begin_run(&run).await?;
        info!(run = run.id, %from, %to, "the nightly comparison begins");
        // Only now: a crash in between leaves two runs open, and no call without a run.
        self.end_unfinished(&unfinished, now).await?;
        self.recheck(nightly, now).await;
        Ok(())
    }

    /// Looks once more at the calls that lack recordings and have come to that age. What fails is done by the next
    /// night.
    async fn recheck(&self, nightly: &Nightly, now: Timestamp) {
        let Some(age) = nightly.recheck else { return };
        let (queue, clock) = (self.replay.queue.clone(), self.replay.context.flow.clock.clone());
        let recheck = Recheck { catalog: self.replay.context.catalog.clone(), queue, clock };
        match recheck.due(&self.tenant, age, now).await {
            Ok(0) => {}
            Ok(calls) => info!(count = calls, "calls that lack recordings are rechecked"),
            Err(error) => warn!(%error, "calls that lack recordings are not rechecked, the next night will do it"),
        }
    }

    /// Ends what earlier nights have left unfinished: the window that has begun contains theirs.
    async fn end_unfinished(&self, runs: &[&ReplayRun], now: Timestamp) -> Result<(), CatalogError> {
        for &run in runs {
            let reason = "not finished before the next night, which compares its calls again".to_owned();
            warn!(run = run.id, from = %run.from, to = %run.to, reached = %run.reached, reason, "reconciliation ended");
            let ended =
                ReplayRun { state: RunState::Failed, reason: Some(reason), finished_at: Some(now), ..run.clone() };
            self.replay.context.catalog.save_run(&ended, run.state).await?;
        }
        Ok(())
    }

    fn show_last(&self, reconciliations: &[ReplayRun]) {
        if let Some(last) = reconciliations.iter().find(|run| run.state == RunState::Done) {
            let at = last.finished_at.unwrap_or(Timestamp::UNIX_EPOCH);
            self.replay.context.metrics.replay_finished(last.kind.as_str(), at, last.found.missing, last.doubtful);
        }
    }

    fn show_remaining(&self, backfills: &[ReplayRun]) {
        let mut remaining = 0;
        for run in backfills.iter().filter(|run| run.state == RunState::Running) {
            remaining += run.plan.map_or(0, |plan| plan.missing).saturating_sub(run.published());
        }
        self.replay.context.metrics.backfill_remaining.set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }
}
