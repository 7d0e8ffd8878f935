//! `agents`: the agents of the group, and its reading now.

use std::sync::Arc;

use catalog::{Agents, HeldReading};
use clap::Args;
use flow::StageError;
use jiff::Timestamp;
use model::{Agent, AgentId, System};
use runtime::task;
use serde::{Deserialize, Serialize};
use stages::sync_agents::{REMEDY, SyncAgents, SyncError, SyncReport};
use utoipa::ToSchema;

use super::paging::{AnswerPage, PageStart};
use super::{AdminRequest, AdminRoute, OperationError, Running, ServedTenant, SingleCommand};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::tables::{folded, time};

/// What is asked of the agents and of the group.
#[derive(Clone)]
pub(crate) struct AgentOperations {
    pub(super) tenant: ServedTenant,
    pub(super) catalog: Arc<dyn Agents>,
    pub(super) running: Running,
}

/// Every agent is asked for, former ones too.
#[derive(Debug, Args, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListAgents {}

impl AdminRequest for ListAgents {
    type Answer = Vec<Agent>;
    type Handler = AgentOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/agents");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &AgentOperations) -> Result<Vec<Agent>, OperationError> {
        Ok(operations.catalog.agents(operations.tenant.get()?).await?)
    }

    async fn fulfil_page(
        self,
        operations: &AgentOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<Agent>>, OperationError> {
        let (limit, after) = (start.limit()?, start.after::<AgentId>()?);
        let mut agents = self.fulfil(operations).await?;
        agents.retain(|agent| after.is_none_or(|after| agent.external_id > after));
        agents.sort_by_key(|agent| agent.external_id);
        agents.truncate(limit);
        Ok(AnswerPage::of(agents, limit, |agent| agent.external_id.to_string()))
    }
}

impl SingleCommand for ListAgents {
    fn table(agents: &Vec<Agent>) -> String {
        if agents.is_empty() {
            return "no agents".to_owned();
        }
        let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let line = |agent: &Agent| {
            let (id, memberships) = (agent.external_id, &agent.memberships);
            let active = if agent.is_active() { "yes" } else { "no" };
            let (since, until) = (moment(memberships.last_since()), moment(memberships.until()));
            let who = format!("{}, {} {}", agent.user_name, agent.first_name, agent.last_name);
            format!("{id:<20}{active:<8}{since:<22}{until}\n{}", folded("    ", &who))
        };
        let head = format!("{:<20}{:<8}{:<22}{}", "agent", "active", "member since", "member until");
        [head].into_iter().chain(agents.iter().map(line)).collect::<Vec<_>>().join("\n")
    }
}

/// The reading of the group that is held is asked for, if one is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowHeldReading {}

impl AdminRequest for ShowHeldReading {
    type Answer = Option<HeldReading>;
    type Handler = AgentOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/agents/held");

    async fn fulfil(self, operations: &AgentOperations) -> Result<Option<HeldReading>, OperationError> {
        Ok(operations.catalog.group_standing(operations.tenant.get()?).await?.held)
    }
}

/// The group is read now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReadGroup {
    pub(crate) mode: SyncMode,
}

/// What happens to a reading in which many agents are gone at once, or hidden.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SyncMode {
    /// It is held until it is confirmed.
    Sync,
    /// It is accepted.
    Accept,
}

impl AdminRequest for ReadGroup {
    type Answer = SyncReport;
    type Handler = AgentOperations;
    const ROUTE: AdminRoute = AdminRoute::post("/agents/{mode}");

    async fn fulfil(self, operations: &AgentOperations) -> Result<SyncReport, OperationError> {
        let sync = operations.agent_sync()?.clone();
        match self.mode {
            SyncMode::Sync => to_its_end(async move { sync.run_once().await }).await,
            SyncMode::Accept => to_its_end(async move { sync.accept().await }).await,
        }
    }
}

impl SingleCommand for ReadGroup {
    const NEED: Need = Need::Nice;
    const WANTED: Wanted = Wanted::AgentSync;

    fn table(report: &SyncReport) -> String {
        let SyncReport { members, joined, left, deactivated, renamed, .. } = report;
        match report.held {
            Some(_) => format!("{members} agents in the group as before: the reading is held, nothing was changed"),
            None => format!(
                "{members} agents in the group: {joined} joined, {left} left, {deactivated} deactivated, {renamed} renamed"
            ),
        }
    }

    fn verdict(report: &SyncReport) -> Result<(), CommandError> {
        report.held.as_ref().map_or(Ok(()), |reading| Err(CommandError::partly(held(reading))))
    }
}

/// Why a reading is held, since when, and what to do.
pub(crate) fn held(held: &HeldReading) -> String {
    let HeldReading { since, lost, active, hidden, .. } = held;
    let mut doubts = Vec::new();
    if *lost > 0 {
        doubts.push(format!("{lost} of {active} agents would leave"));
    }
    if *hidden > 0 {
        doubts.push(format!("NICE hides {hidden} agents"));
    }
    format!(
        "the group's reading is held since {}: {}; the agents stay as they are; {REMEDY}",
        time(Some(*since)),
        doubts.join(", ")
    )
}

impl AgentOperations {
    fn agent_sync(&self) -> Result<&Arc<SyncAgents>, OperationError> {
        if self.running.producing.as_ref().is_some_and(|producing| !*producing.borrow()) {
            let reason = "this producer waits for the lease; ask the one that has it";
            return Err(OperationError::Refused(reason.to_owned()));
        }
        let nobody = || OperationError::Refused("this process does not sync the agents; ask the producer".to_owned());
        self.running.sync.as_ref().ok_or_else(nobody)
    }
}

/// A sync goes on when who asked for it goes away.
async fn to_its_end(
    sync: impl Future<Output = Result<SyncReport, SyncError>> + Send + 'static,
) -> Result<SyncReport, OperationError> {
    let synced = task::spawn("asked_sync", sync).detach().await;
    let ended_early =
        |_| SyncError::Settings(StageError::transient(System::Nice, "the sync ended early, the log says why"));
    Ok(synced.map_err(ended_early)??)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_sync_goes_on_when_who_asked_for_it_goes_away() {
        let ((read, has_read), (ended, has_ended)) = (oneshot::channel::<()>(), oneshot::channel());
        let sync = async move {
            has_read.await.unwrap();
            ended.send(()).unwrap();
            Ok(SyncReport::default())
        };
        let mut asked = Box::pin(to_its_end(sync));
        assert!(futures::poll!(&mut asked).is_pending());
        drop(asked);
        read.send(()).unwrap();
        has_ended.await.expect("it came to its end");
        assert_eq!(to_its_end(async { Ok(SyncReport::default()) }).await.unwrap(), SyncReport::default());
    }
}
