//! The group's agents as the sources see them: whose calls are let through.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::model::{Agent, AgentId};

/// Who is in the group, and until when former members were.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    members: Option<HashMap<AgentId, Agent>>,
    rewind: Option<Rewind>,
}

/// Agents joined at an unknown moment after `to`: calls that were listed and filtered out since then may be
/// theirs, so the poll goes back once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// Tells one rewind from the next.
    pub generation: u64,
    /// The last time the group was read without them.
    pub to: Timestamp,
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

    /// The rewind that the poll has to make, if any.
    pub fn rewind(&self) -> Option<Rewind> {
        self.rewind
    }

    /// Takes a new reading of the group. `joined_after` is the time of the reading before, if agents joined.
    pub fn replace(roster: &watch::Sender<Self>, agents: &[Agent], joined_after: Option<Timestamp>) {
        roster.send_modify(|roster| {
            roster.members = Some(agents.iter().map(|agent| (agent.external_id, agent.clone())).collect());
            if let Some(to) = joined_after {
                let generation = roster.rewind.map_or(1, |rewind| rewind.generation + 1);
                roster.rewind = Some(Rewind { generation, to });
            }
        });
    }
}
