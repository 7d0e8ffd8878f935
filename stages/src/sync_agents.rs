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

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use backoff::backoff::Backoff;
use catalog::{Agents, Catalog, CatalogError, GroupStanding, HeldReading};
use flow::RetryPolicy;
use jiff::Timestamp;
use model::{Agent, ImportSince, QuotaClass, TenantId};
use nice::{GroupAgent, GroupReading, NiceClient, NiceError, REFUSED_DELAY};
use runtime::Clock;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use self::judgement::{Judgement, ReadingComparison};
use crate::metrics::Metrics;
use crate::source::roster::Roster;
use crate::tenants::Tenants;
use crate::watermark::{Watermark, is_beyond};

mod announce;
mod changes;
mod joiners;
mod judgement;
mod report;

pub use self::{
    judgement::HoldRules,
    report::{REMEDY, SyncError, SyncReport},
};

/// The pause before a group that looks wrong is read again.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// A hold that lasts is told so often.
const TOLD_AGAIN: Duration = Duration::from_secs(6 * 3600);

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

/// The group as the catalog knows it when a sync begins.
struct KnownGroup {
    agents: Vec<Agent>,
    standing: GroupStanding,
    /// When it was last read.
    read_at: Option<Timestamp>,
}

impl KnownGroup {
    async fn load(catalog: &dyn Agents, tenant: &TenantId) -> Result<Self, CatalogError> {
        Ok(Self {
            agents: catalog.agents(tenant).await?,
            standing: catalog.group_standing(tenant).await?,
            read_at: catalog.agents_read_at(tenant).await?,
        })
    }

    /// Whether it was never read.
    fn is_new(&self) -> bool {
        self.agents.is_empty() && self.read_at.is_none()
    }
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
        let synced = self.sync(accept).await;
        let outcome = match &synced {
            Ok(SyncReport { held: Some(_), .. }) => "not_ready",
            Ok(_) => "ok",
            Err(_) => "retry",
        };
        self.metrics.flow.stage_finished("sync_agents", outcome, since.elapsed());
        let report = synced?;
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

    /// Reads the group now and then every `interval`, until it is dropped. After a failure it tries again sooner.
    pub async fn run(&self, interval: Duration, retry: RetryPolicy) {
        let mut intervals = retry.intervals();
        loop {
            let pause = match self.run_once().await {
                Ok(_) => {
                    intervals.reset();
                    interval
                }
                Err(error) => {
                    let delay = retry.next(&mut intervals);
                    warn!(%error, delay_secs = delay.as_secs_f64(), "agents stay as they are, will retry");
                    // A key that was mended is noticed within the minute.
                    delay.min(interval).min(REFUSED_DELAY)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn sync(&self, accept: bool) -> Result<SyncReport, SyncError> {
        let (catalog, poll) = (self.catalog.pinned(), self.poll.pinned());
        let begun = self.clock.now();
        let before = KnownGroup::load(&*catalog, &self.tenant).await?;
        let tenant = self.tenants.get(&self.tenant).await.map_err(SyncError::Settings)?;
        let nice = tenant.nice.for_class(QuotaClass::Agents);
        let reading = match accept {
            true => nice.group_agents().await?,
            false => self.read(&nice, &before).await?,
        };
        let comparison = ReadingComparison::of(&before.agents, &reading);
        // There are no agents yet that could be lost. What is hidden is told at the next reading.
        let may_be_held = !accept && !before.is_new();
        if may_be_held
            && let Judgement::Held(held) = judgement::judge(&comparison, &before.standing, &self.rules, begun)
        {
            return self.hold(&*catalog, &before, held).await;
        }
        self.count_missing(reading.missing);
        let report = self.follow(&*catalog, &poll, &before, reading.agents, begun).await?;
        let accepted_hidden = if before.is_new() && !accept { 0 } else { reading.hidden };
        self.stand(&*catalog, before.standing, GroupStanding { accepted_hidden, held: None }).await?;
        Ok(SyncReport { missing: reading.missing, ..report })
    }

    /// Reads the group, and again where it looks wrong.
    async fn read(&self, nice: &NiceClient, before: &KnownGroup) -> Result<GroupReading, NiceError> {
        let reading = nice.group_agents().await?;
        if !ReadingComparison::of(&before.agents, &reading).wants_a_second(&before.standing, &self.rules) {
            return Ok(reading);
        }
        debug!("the reading of the group looks wrong; it is read again before anything is made of it");
        tokio::time::sleep(SECOND_LOOK).await;
        nice.group_agents().await
    }

    /// Writes what a reading changes of the agents, and tells it.
    async fn follow(
        &self,
        catalog: &dyn Catalog,
        poll: &Watermark,
        before: &KnownGroup,
        group: Vec<GroupAgent>,
        begun: Timestamp,
    ) -> Result<SyncReport, SyncError> {
        let last = self.joiners_since(catalog, before, begun).await?;
        let (changed, report) = changes::compare(&before.agents, group, last, begun);
        let agents = changes::applied(&before.agents, &changed);
        // Before the first reading the poll has not begun.
        let joins = before.read_at.is_some() && (report.joined > 0 || self.is_news(&agents));
        let _held_back = if joins { Some(joiners::hold_back(poll, last).await?) } else { None };
        if !changed.is_empty() {
            catalog.save_agents(&self.tenant, &changed).await?;
            // While the poll is held back: whatever fails from here on, it goes on with the joiners.
            self.announce(&agents);
        }
        catalog.note_agents_read(&self.tenant, begun).await?;
        if changed.is_empty() {
            // Not before: one that was overtaken by another turn does not tell its agents.
            self.announce(&agents);
        }
        self.show_reading(begun);
        Ok(report)
    }

    /// Leaves the agents as they are.
    async fn hold(
        &self,
        catalog: &dyn Agents,
        before: &KnownGroup,
        held: HeldReading,
    ) -> Result<SyncReport, SyncError> {
        let standing = GroupStanding { held: Some(held), ..before.standing };
        self.stand(catalog, before.standing, standing).await?;
        if !before.agents.is_empty() {
            self.announce(&before.agents);
        }
        let members = before.agents.iter().filter(|agent| agent.is_active()).count();
        Ok(SyncReport { members, held: Some(held), ..SyncReport::default() })
    }

    async fn stand(&self, catalog: &dyn Agents, before: GroupStanding, now: GroupStanding) -> Result<(), CatalogError> {
        if before != now {
            catalog.save_group_standing(&self.tenant, &now).await?;
        }
        self.show_hold(now.held.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
