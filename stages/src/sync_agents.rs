//! Agent sync: the group's users become Knovvu agents, and stay in step.
//!
//! # Contract
//! Joiners, leavers, deactivated and renamed agents are written; the sources' filter follows at once. Who left or
//! was deactivated keeps its row, inactive, with the times at which it was in the group.
//!
//! A group that cannot be read changes nothing. One that reads empty, or looks wrong otherwise, is read again before
//! anything is made of it.
//!
//! # Held readings
//! A reading that loses many agents at once, or tells of hidden ones, is no fact: it is held (`judgement`). Nothing is
//! written but that, the agents stay as they are, and the time of the last reading stands still: what is filtered out
//! meanwhile is found later. An operator accepts it, or it is believed once it has stayed the same for long enough; a
//! reading in between that looks right ends the hold.
//!
//! # Joiners
//! An agent joins at an unknown moment between two readings, and the poll filtered out its calls of that time. So its
//! calls count from the last reading on, and the poll's watermark is held back to there before the joiner is written,
//! and until the filter knows it. As long as no agent was ever read they count from `[events] import_since`, or from
//! where the poll begins, if that is earlier: after a lost state it goes back further.
//!
//! # Turns
//! A sync writes in the turn in which it began: one that outlives it is refused once another turn has begun.
//!
//! # After a crash
//! The joiner is either not written and joins again, or written and the watermark stands back already. An end of a hold
//! is written last: where it is missing, the next reading writes it.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use catalog::{Catalog, CatalogError, GroupStanding, HeldReading};
use flow::StageError;
use jiff::{SignedDuration, Timestamp};
use judgement::{Judgement, Look};
use model::{Agent, ImportSince, QuotaClass, TenantId};
use nice::{GroupReading, NiceClient, NiceError, REFUSED_DELAY};
use runtime::Clock;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::source::roster::Roster;
use crate::tenants::Tenants;
use crate::watermark::{HeldBack, Watermark, is_beyond};

mod changes;
mod judgement;

pub use judgement::HoldRules;

/// The pause before a group that looks wrong is read again.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// A hold that lasts is told so often.
const TOLD_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// What an operator does about a held reading.
pub const REMEDY: &str = "see what has changed in NICE (the group, the service user's role); if the reading is right, run \
                          `nice-knovvu agents sync --accept`";

/// How much further back the poll goes for joiners: our clock and NICE's may differ by so much.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// Why the agents could not be brought in step. Nothing was changed, or it is changed again next time.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The group could not be read whole.
    #[error("the group could not be read: {0}")]
    Nice(#[from] NiceError),
    /// The tenant's settings cannot be had.
    #[error("the group could not be read: {0}")]
    Settings(StageError),
    /// The agents could not be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What one sync changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Agents in the group now.
    pub members: usize,
    /// New in the group, or back.
    pub joined: usize,
    /// No longer in the group.
    pub left: usize,
    /// Still in the group, deactivated.
    pub deactivated: usize,
    /// With another name or login.
    pub renamed: usize,
    /// Agents that NICE counts beyond those that it names.
    #[serde(default)]
    pub missing: u64,
    /// The reading was held, and nothing was changed.
    #[serde(default)]
    pub held: Option<HeldReading>,
}

/// Reads the group and writes agents.
pub struct SyncAgents {
    tenants: Arc<Tenants>,
    catalog: Arc<dyn Catalog>,
    tenant: TenantId,
    roster: watch::Sender<Roster>,
    poll: Watermark,
    clock: Clock,
    metrics: Metrics,
    rules: HoldRules,
    import_since: ImportSince,
    /// Agents that NICE counted beyond those that it named, at the last reading that was believed.
    missing: AtomicU64,
    /// One sync at a time: the timer's and an operator's do not interleave. When a hold was last told.
    running: Mutex<Option<Instant>>,
}

/// The doors of one sync. It writes in the turn in which it began, and in no later one.
struct Doors {
    catalog: Arc<dyn Catalog>,
    poll: Watermark,
}

impl SyncAgents {
    /// A sync that tells `roster` of every change. `poll` is the watermark that goes back when agents join.
    pub fn new(
        tenants: Arc<Tenants>,
        catalog: Arc<dyn Catalog>,
        tenant: TenantId,
        roster: watch::Sender<Roster>,
        poll: Watermark,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let (rules, import_since) = (HoldRules::default(), ImportSince::Before(Duration::from_secs(3600)));
        let (missing, running) = (AtomicU64::default(), Mutex::default());
        Self { tenants, catalog, tenant, roster, poll, clock, metrics, rules, import_since, missing, running }
    }

    /// With the settings `[agents] hold_…` and `[events] import_since`.
    pub fn with(self, rules: HoldRules, import_since: ImportSince) -> Self {
        Self { rules, import_since, ..self }
    }

    /// Lets the sources go on with the agents of the last run, until the group is read.
    pub async fn restore(&self) -> Result<(), CatalogError> {
        let agents = self.catalog.agents(&self.tenant).await?;
        if !agents.is_empty() {
            self.announce(&agents);
        }
        let standing = self.catalog.group_standing(&self.tenant).await?;
        self.show_hold(standing.held.as_ref());
        let last = self.catalog.agents_read_at(&self.tenant).await?;
        // A clock that ran ahead once may have written a time to come.
        if let Some(last) = last.filter(|last| !is_beyond(*last, self.clock.now())) {
            self.show_reading(last);
        }
        Ok(())
    }

    /// How many agents NICE counted beyond those that it named, at the last reading that was believed.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Lets the sources wait for [`Self::restore`] or a reading of the group: another process may have kept the agents
    /// in step meanwhile.
    pub fn forget(&self) {
        self.roster.send_replace(Roster::default());
    }

    /// Reads the group once.
    pub async fn run_once(&self) -> Result<SyncReport, SyncError> {
        self.run_and_tell(false).await
    }

    /// Reads the group once, and believes what it reads.
    pub async fn accept(&self) -> Result<SyncReport, SyncError> {
        self.run_and_tell(true).await
    }

    async fn run_and_tell(&self, accept: bool) -> Result<SyncReport, SyncError> {
        let mut told = self.running.lock().await;
        let since = Instant::now();
        match self.sync(accept).await {
            Ok(report) => {
                let outcome = if report.held.is_some() { "not_ready" } else { "ok" };
                self.metrics.flow.stage_finished("sync_agents", outcome, since.elapsed());
                match report.held {
                    Some(held) if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) => {
                        let HeldReading { since, lost, active, hidden, .. } = held;
                        warn!(from = %since, lost, active, hidden, remedy = REMEDY, "the reading of the group is held");
                        *told = Some(Instant::now());
                    }
                    Some(_) => debug!("the reading of the group is held still"),
                    None => {
                        *told = None;
                        info!(?report, "agents in step");
                    }
                }
                Ok(report)
            }
            Err(error) => {
                self.metrics.flow.stage_finished("sync_agents", "retry", since.elapsed());
                Err(error)
            }
        }
    }

    /// Reads the group now and then every `interval`, until it is dropped. After a failure it tries again sooner.
    pub async fn run(&self, interval: Duration, retry: flow::RetryPolicy) {
        let mut intervals = retry.intervals();
        loop {
            let pause = match self.run_once().await {
                Ok(_) => {
                    backoff::backoff::Backoff::reset(&mut intervals);
                    interval
                }
                Err(error) => {
                    let delay = backoff::backoff::Backoff::next_backoff(&mut intervals).unwrap_or(interval);
                    warn!(%error, delay_secs = delay.as_secs_f64(), "agents stay as they are, will retry");
                    // A key that was mended is noticed within the minute.
                    delay.min(interval).min(REFUSED_DELAY)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn sync(&self, accept: bool) -> Result<SyncReport, SyncError> {
        let doors = Doors { catalog: self.catalog.pinned(), poll: self.poll.pinned() };
        let begun = self.clock.now();
        let before = doors.catalog.agents(&self.tenant).await?;
        let standing = doors.catalog.group_standing(&self.tenant).await?;
        let read_at = doors.catalog.agents_read_at(&self.tenant).await?;
        let is_first = before.is_empty() && read_at.is_none();
        let nice =
            self.tenants.get(&self.tenant).await.map_err(SyncError::Settings)?.nice.for_class(QuotaClass::Agents);
        let reading = match accept {
            true => nice.group_agents().await?,
            false => self.read(&nice, &before, &standing).await?,
        };
        let look = Look::of(&before, &reading);
        // There are no agents yet that could be lost. What is hidden is told at the next reading.
        if !accept
            && !is_first
            && let Judgement::Held(held) = judgement::judge(&look, &standing, &self.rules, begun)
        {
            return self.hold(&doors, &before, standing, held).await;
        }
        self.count_missing(reading.missing);
        let last = self.joiners_since(&doors, &before, &standing, read_at, begun).await?;
        let (changed, report) = changes::compare(&before, reading.agents, last, begun);
        let agents = with(before, &changed);
        // Before the first reading the poll has not begun.
        let joins = read_at.is_some() && (report.joined > 0 || self.is_news(&agents));
        let _held_back = if joins { Some(hold_back(&doors.poll, last).await?) } else { None };
        if !changed.is_empty() {
            doors.catalog.save_agents(&self.tenant, &changed).await?;
            // While the poll is held back: whatever fails from here on, it goes on with the joiners.
            self.announce(&agents);
        }
        doors.catalog.note_agents_read(&self.tenant, begun).await?;
        if changed.is_empty() {
            // Not before: one that was overtaken by another turn does not tell its agents.
            self.announce(&agents);
        }
        self.show_reading(begun);
        let accepted_hidden = if is_first && !accept { 0 } else { reading.hidden };
        self.stand(&doors, standing, GroupStanding { accepted_hidden, held: None }).await?;
        Ok(SyncReport { missing: reading.missing, ..report })
    }

    /// Reads the group, and again where it looks wrong.
    async fn read(
        &self,
        nice: &NiceClient,
        before: &[Agent],
        standing: &GroupStanding,
    ) -> Result<GroupReading, SyncError> {
        let reading = nice.group_agents().await?;
        if !Look::of(before, &reading).wants_a_second(standing, &self.rules) {
            return Ok(reading);
        }
        debug!("the reading of the group looks wrong; it is read again before anything is made of it");
        tokio::time::sleep(SECOND_LOOK).await;
        Ok(nice.group_agents().await?)
    }

    /// Leaves the agents as they are.
    async fn hold(
        &self,
        doors: &Doors,
        before: &[Agent],
        standing: GroupStanding,
        held: HeldReading,
    ) -> Result<SyncReport, SyncError> {
        self.stand(doors, standing, GroupStanding { held: Some(held), ..standing }).await?;
        if !before.is_empty() {
            self.announce(before);
        }
        let members = before.iter().filter(|agent| agent.is_active()).count();
        Ok(SyncReport { members, held: Some(held), ..SyncReport::default() })
    }

    async fn stand(&self, doors: &Doors, before: GroupStanding, now: GroupStanding) -> Result<(), SyncError> {
        if before != now {
            doors.catalog.save_group_standing(&self.tenant, &now).await?;
        }
        self.show_hold(now.held.as_ref());
        Ok(())
    }

    /// From when on the calls of joiners count: since the last reading. Where its time cannot be true, since the one
    /// before this, by the interval.
    async fn joiners_since(
        &self,
        doors: &Doors,
        before: &[Agent],
        standing: &GroupStanding,
        read_at: Option<Timestamp>,
        begun: Timestamp,
    ) -> Result<Timestamp, CatalogError> {
        let first_held = standing.held.map(|held| held.since.min(begun));
        if !before.is_empty() {
            let believed = read_at.filter(|last| !is_beyond(*last, begun)).map(|last| last.min(begun));
            let by_interval = || back(begun, SignedDuration::try_from(self.rules.interval).unwrap_or_default());
            return Ok(believed.unwrap_or_else(|| by_interval().min(first_held.unwrap_or(begun))));
        }
        // No agent was ever read: the installation's rule holds, however long nothing could be read.
        let known = doors.catalog.producer_memory(&self.tenant).await?;
        let seen = [known.worked_since, read_at, first_held].into_iter().flatten().min();
        let mut installed_at = seen.unwrap_or(begun).min(begun);
        if read_at.is_some() {
            // The group was read, and was empty: for as long as a hold lasts that may have been a mistake, before then not.
            installed_at =
                installed_at.max(back(begun, SignedDuration::try_from(self.rules.hold_for).unwrap_or_default()));
        }
        let since = self.import_since.of(installed_at);
        // After a lost state the poll goes back further, and what it finds is not to be filtered out.
        Ok(known.poll_watermark.map_or(since, |poll| poll.min(since)))
    }

    /// Whether somebody is a member of whom the sources do not know: a sync before this one may have failed half way.
    fn is_news(&self, agents: &[Agent]) -> bool {
        let roster = self.roster.borrow();
        roster.is_known() && agents.iter().any(|agent| agent.is_active() && !roster.is_active(agent.external_id))
    }

    /// NICE's count is a hint; that it is not met is told when it begins.
    fn count_missing(&self, missing: u64) {
        if self.missing.swap(missing, Ordering::Relaxed) == 0 && missing > 0 {
            warn!(missing, "NICE counts more agents in the group than it names; the names are believed");
        }
    }

    fn show_hold(&self, held: Option<&HeldReading>) {
        let agents = held.map_or(0, HeldReading::agents);
        self.metrics.agents_held.set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    fn show_reading(&self, at: Timestamp) {
        self.metrics.agents_last_sync.set(at.as_millisecond() as f64 / 1e3);
    }

    fn announce(&self, agents: &[Agent]) {
        let active = agents.iter().filter(|agent| agent.is_active()).count();
        let gauge = |state: &str, count: usize| {
            self.metrics.agents.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        gauge("active", active);
        gauge("inactive", agents.len() - active);
        Roster::replace(&self.roster, agents);
    }
}

/// Sends the poll back to the last reading, for agents have joined since.
async fn hold_back(poll: &Watermark, last: Timestamp) -> Result<HeldBack, CatalogError> {
    poll.hold_back(back(last, CLOCK_MARGIN)).await
}

fn back(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// The agents after a change.
fn with(before: Vec<Agent>, changed: &[Agent]) -> Vec<Agent> {
    let mut agents: BTreeMap<_, _> = before.into_iter().map(|agent| (agent.external_id, agent)).collect();
    agents.extend(changed.iter().map(|agent| (agent.external_id, agent.clone())));
    agents.into_values().collect()
}

#[cfg(test)]
mod tests;
