//! The group's agents as the sources see them: whose calls are let through.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Agent, AgentId};
use tokio::sync::watch;

/// Who is in the group, and when each was.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    members: Option<BTreeMap<AgentId, Agent>>,
}

impl Roster {
    /// Whether the group has been read, now or by an earlier run.
    pub fn is_known(&self) -> bool {
        self.members.is_some()
    }

    /// Whether a call of `agent` that ended at `ended_at` is to be imported.
    pub fn admits(&self, agent: AgentId, ended_at: Option<Timestamp>) -> bool {
        let members = self.members.as_ref();
        members.and_then(|members| members.get(&agent)).is_some_and(|agent| agent.was_member_at(ended_at))
    }

    /// Whether a call of `agent` may be to be imported that began at `started_at`, and whose end is not known.
    pub fn may_admit(&self, agent: AgentId, started_at: Timestamp) -> bool {
        let members = self.members.as_ref();
        let agent = members.and_then(|members| members.get(&agent));
        agent.is_some_and(|agent| agent.may_be_member_at_the_end(started_at))
    }

    /// The members of the group that can take calls now.
    pub fn active(&self) -> impl Iterator<Item = AgentId> {
        let members = self.members.iter().flat_map(BTreeMap::values);
        members.filter(|agent| agent.is_active()).map(|agent| agent.external_id)
    }

    /// Whether an agent is one of [`Self::active`].
    pub fn is_active(&self, agent: AgentId) -> bool {
        let members = self.members.as_ref();
        members.and_then(|members| members.get(&agent)).is_some_and(Agent::is_active)
    }

    /// Takes a new reading of the group.
    pub fn replace(roster: &watch::Sender<Self>, agents: &[Agent]) {
        roster.send_modify(|roster| {
            roster.members = Some(agents.iter().map(|agent| (agent.external_id, agent.clone())).collect());
        });
    }
}
