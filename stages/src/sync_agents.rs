//! Agent sync: the group's users become Knovvu agents, and stay in step.
//!
//! # Contract
//! Joiners, leavers, deactivated and renamed agents are written; the sources' filter follows at once. Who left or
//! was deactivated keeps its row, inactive, with the time up to which its calls are imported.
//!
//! A group that cannot be read whole changes nothing. A group that reads empty is read again before it is
//! believed.
//!
//! # Joiners
//! An agent joins at an unknown moment between two readings, and the poll filtered out its calls of that time. So the
//! poll's watermark is held back to the last reading before the joiner is written, and until the filter knows it.
//!
//! # After a crash
//! The joiner is either not written and joins again, or written and the watermark stands back already.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::clients::catalog::{Catalog, CatalogError};
use crate::clients::nice::{GroupAgent, NiceError, QuotaClass, REFUSED_DELAY};
use crate::clients::tenants::Tenants;
use crate::flow::{Clock, Metrics, StageError};
use crate::model::{Agent, AgentId, TenantId};
use crate::source::roster::Roster;
use crate::watermark::{HeldBack, Watermark};

/// The pause before an empty group is read again.
const SECOND_LOOK: Duration = Duration::from_secs(2);

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
    /// One sync at a time: the timer's and an operator's do not interleave.
    running: Mutex<()>,
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
        Self { tenants, catalog, tenant, roster, poll, clock, metrics, running: Mutex::new(()) }
    }

    /// Lets the sources go on with the agents of the last run, until the group is read.
    pub async fn restore(&self) -> Result<(), CatalogError> {
        let agents = self.catalog.agents(&self.tenant).await?;
        if !agents.is_empty() {
            self.announce(&agents);
        }
        Ok(())
    }

    /// Lets the sources wait for [`Self::restore`] or a reading of the group: another process may have kept the agents
    /// in step meanwhile.
    pub fn forget(&self) {
        self.roster.send_replace(Roster::default());
    }

    /// Reads the group once.
    pub async fn run_once(&self) -> Result<SyncReport, SyncError> {
        let _running = self.running.lock().await;
        let since = Instant::now();
        match self.sync().await {
            Ok(report) => {
                self.metrics.stage_finished("sync_agents", "ok", since.elapsed());
                info!(?report, "agents in step");
                Ok(report)
            }
            Err(error) => {
                self.metrics.stage_finished("sync_agents", "retry", since.elapsed());
                Err(error)
            }
        }
    }

    /// Reads the group now and then every `interval`, until it is dropped. After a failure it tries again sooner.
    pub async fn run(&self, interval: Duration, retry: crate::flow::RetryPolicy) {
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

    async fn sync(&self) -> Result<SyncReport, SyncError> {
        let begun = self.clock.now();
        let before = self.catalog.agents(&self.tenant).await?;
        let nice =
            self.tenants.get(&self.tenant).await.map_err(SyncError::Settings)?.nice.for_class(QuotaClass::Agents);
        let mut group = nice.group_agents().await?.agents;
        if group.is_empty() && before.iter().any(|agent| agent.is_active) {
            warn!("the group reads empty; it is read again before it is believed");
            tokio::time::sleep(SECOND_LOOK).await;
            group = nice.group_agents().await?.agents;
        }
        let (changed, report) = compare(&before, group, begun);
        let _held_back = self.hold_poll_back(&report, begun).await?;
        if !changed.is_empty() {
            self.catalog.save_agents(&self.tenant, &changed).await?;
        }
        self.catalog.note_agents_read(&self.tenant, begun).await?;
        let agents = self.catalog.agents(&self.tenant).await?;
        self.announce(&agents);
        self.metrics.agents_last_sync.set(begun.as_millisecond() as f64 / 1e3);
        Ok(report)
    }

    /// Sends the poll back to the last reading if agents have joined since.
    async fn hold_poll_back(&self, report: &SyncReport, begun: Timestamp) -> Result<Option<HeldBack>, SyncError> {
        match self.catalog.agents_read_at(&self.tenant).await? {
            Some(last) if report.joined > 0 => {
                let to = last.min(begun).checked_sub(CLOCK_MARGIN).unwrap_or(Timestamp::MIN);
                Ok(Some(self.poll.hold_back(to).await?))
            }
            _ => Ok(None),
        }
    }

    fn announce(&self, agents: &[Agent]) {
        let active = agents.iter().filter(|agent| agent.is_active).count();
        let gauge = |state: &str, count: usize| {
            self.metrics.agents.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        gauge("active", active);
        gauge("inactive", agents.len() - active);
        Roster::replace(&self.roster, agents);
    }
}

/// The rows that must be written so that the agents follow the group, and what that changes.
fn compare(before: &[Agent], group: Vec<GroupAgent>, now: Timestamp) -> (Vec<Agent>, SyncReport) {
    let mut known: HashMap<AgentId, &Agent> = before.iter().map(|agent| (agent.external_id, agent)).collect();
    let mut report = SyncReport::default();
    let mut changed = Vec::new();
    for member in group {
        let old = known.remove(&member.agent_id);
        let was_active = old.is_some_and(|old| old.is_active);
        report.members += usize::from(member.is_active);
        report.joined += usize::from(member.is_active && !was_active);
        report.deactivated += usize::from(!member.is_active && was_active);
        let member_until = match (member.is_active, old.and_then(|old| old.member_until)) {
            (true, _) => None,
            (false, Some(until)) => Some(until),
            (false, None) => Some(now),
        };
        let agent = Agent {
            external_id: member.agent_id,
            // A reading without the UserHub id does not forget it.
            user_id: member.user_id.or_else(|| old.and_then(|old| old.user_id.clone())),
            user_name: member.user_name,
            first_name: member.first_name,
            last_name: member.last_name,
            is_active: member.is_active,
            member_until,
        };
        report.renamed += usize::from(old.is_some_and(|old| names(old) != names(&agent)));
        if old != Some(&agent) {
            changed.push(agent);
        }
    }
    for leaver in known.into_values().filter(|agent| agent.is_active) {
        report.left += 1;
        changed.push(Agent { is_active: false, member_until: Some(now), ..leaver.clone() });
    }
    (changed, report)
}

fn names(agent: &Agent) -> (&str, &str, &str) {
    (&agent.user_name, &agent.first_name, &agent.last_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_active: bool) -> GroupAgent {
        GroupAgent {
            agent_id: AgentId::from_number(id).unwrap(),
            user_id: Some(format!("uuid-{id}")),
            user_name: name.to_owned(),
            first_name: name.to_owned(),
            last_name: String::new(),
            is_active,
        }
    }

    #[test]
    fn the_rows_follow_the_group() {
        let now: jiff::Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let group =
            vec![member(1, "ann", true), member(2, "bob", true), member(3, "cid", true), member(4, "dot", true)];
        let (first, report) = compare(&[], group, now);
        assert_eq!((report.members, report.joined, first.len()), (4, 4, 4));

        let later: jiff::Timestamp = "2026-04-01T13:00:00Z".parse().unwrap();
        let group =
            vec![member(1, "ann", true), member(2, "bea", true), member(3, "cid", false), member(5, "eve", true)];
        let (changed, report) = compare(&first, group.clone(), later);
        assert_eq!(report, SyncReport { members: 3, joined: 1, left: 1, deactivated: 1, renamed: 1 });
        let left = changed.iter().find(|agent| agent.external_id.get() == 4).unwrap();
        assert!(!left.is_active);
        assert!(left.was_member_at(Some(now)), "a call from its time in the group is imported");
        assert!(!left.was_member_at(Some("2026-04-01T13:00:01Z".parse().unwrap())));

        let mut second: HashMap<_, _> = first.into_iter().map(|agent| (agent.external_id, agent)).collect();
        second.extend(changed.into_iter().map(|agent| (agent.external_id, agent)));
        let second: Vec<_> = second.into_values().collect();
        let (changed, _) = compare(&second, group, later);
        assert!(changed.is_empty(), "a second reading changes nothing: {changed:?}");
    }
}
