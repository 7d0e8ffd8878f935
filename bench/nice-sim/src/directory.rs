//! Who works for the tenant: agents, groups and teams, and how they were at any instant.
//!
//! Nothing is overwritten: a change adds a version from its instant on, so "was this agent in the group when the call
//! ended" has one answer, whenever it is asked.

use std::collections::BTreeSet;

use crate::{chance::Dice, clock::Millis, config::DirectoryConfig};

const FIRST_NAMES: [&str; 12] =
    ["Ada", "Zoë", "Jürgen", "Mei", "Søren", "Aylin", "Noor", "Łukasz", "Inês", "Tom", "Çağla", "Ben"];
const LAST_NAMES: [&str; 11] =
    ["O'Neil", "Yılmaz", "García", "Schmidt", "Novák", "Lee", "da Silva", "Ng", "Ivanova", "Smith-Jones", "Ó Briain"];

/// The id of the agent who was hired first.
const FIRST_AGENT: i64 = 900_001;

/// From one agent's id to the next: gaps, as real ids have.
const AGENT_STEP: i64 = 7;

/// One agent, with ids that never change.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: i64,
    /// The UserHub's UUID for the same person.
    pub(crate) user_id: String,
    pub(crate) user_name: String,
    versions: Vec<(Millis, AgentVersion)>,
}

/// What may change about an agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentVersion {
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) active: bool,
    pub(crate) team: i64,
}

impl Agent {
    /// The agent as of an instant.
    pub(crate) fn at(&self, at: Millis) -> &AgentVersion {
        version_at(&self.versions, at)
    }

    /// When the version in force began; the beginning of time stands for "never changed".
    pub(crate) fn changed_at(&self, at: Millis) -> Millis {
        self.versions.iter().rev().map(|(from, _)| *from).find(|from| *from <= at).unwrap_or(Millis::MIN)
    }

    /// The name shown on a screen.
    pub(crate) fn full_name(&self, at: Millis) -> String {
        let version = self.at(at);
        format!("{} {}", version.first_name, version.last_name)
    }
}

/// One group: its id never changes.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: i64,
    pub(crate) name: String,
    members: Vec<(Millis, BTreeSet<i64>)>,
    hidden: Option<BTreeSet<i64>>,
}

impl Group {
    /// The members as of an instant.
    pub(crate) fn members(&self, at: Millis) -> &BTreeSet<i64> {
        version_at(&self.members, at)
    }

    /// The members whom the client's user may not see. None where its lists say nothing of that.
    pub(crate) fn hidden(&self) -> Option<&BTreeSet<i64>> {
        self.hidden.as_ref()
    }
}

/// One team.
#[derive(Clone, Debug)]
pub(crate) struct Team {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) uuid: String,
}

fn version_at<T>(versions: &[(Millis, T)], at: Millis) -> &T {
    // Before its first version a thing was as it then became.
    versions.iter().rev().find(|(from, _)| *from <= at).map_or(&versions[0].1, |(_, version)| version)
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) agents: Vec<Agent>,
    pub(crate) groups: Vec<Group>,
    pub(crate) teams: Vec<Team>,
    wanted_group: i64,
}

impl Directory {
    /// The directory of a seed.
    pub(crate) fn new(config: &DirectoryConfig, seed: u64) -> Self {
        let mut dice = Dice::new(seed, "directory");
        let teams: Vec<Team> = (config.teams.iter())
            .map(|team| Team { id: team.id, name: team.name.clone(), uuid: dice.uuid() })
            .collect();
        let mut directory = Self { agents: Vec::new(), groups: Vec::new(), teams, wanted_group: config.wanted_group };
        for index in 0..config.agents {
            let first = FIRST_NAMES[index % FIRST_NAMES.len()];
            let last = LAST_NAMES[index % LAST_NAMES.len()];
            let team = directory.teams.get(index % directory.teams.len().max(1)).map_or(0, |team| team.id);
            directory.push_agent(first, last, team, Millis::MIN, &mut dice);
        }
        for group in &config.groups {
            let members = directory.agents.iter().skip(group.first_agent).take(group.agents).map(|agent| agent.id);
            let members = vec![(Millis::MIN, members.collect())];
            directory.groups.push(Group { id: group.id, name: group.name.clone(), members, hidden: None });
        }
        directory
    }

    /// Hires an agent and returns the new id.
    pub(crate) fn add_agent(&mut self, first: &str, last: &str, team: i64, at: Millis, seed: u64) -> i64 {
        let mut dice = Dice::new(seed, &format!("agent {}", self.agents.len()));
        self.push_agent(first, last, team, at, &mut dice)
    }

    fn push_agent(&mut self, first: &str, last: &str, team: i64, at: Millis, dice: &mut Dice) -> i64 {
        let index = self.agents.len() as i64;
        let id = FIRST_AGENT + index * AGENT_STEP;
        let version = AgentVersion { first_name: first.to_owned(), last_name: last.to_owned(), active: true, team };
        self.agents.push(Agent {
            id,
            user_id: dice.uuid(),
            user_name: format!("agent{index}@tenant.example"),
            versions: vec![(at, version)],
        });
        id
    }

    pub(crate) fn agent(&self, id: i64) -> Option<&Agent> {
        // By its place: thousands of waiting requests ask for it many times a second.
        let index = usize::try_from((id - FIRST_AGENT) / AGENT_STEP).ok()?;
        self.agents.get(index).filter(|agent| agent.id == id)
    }

    pub(crate) fn group(&self, id: i64) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    pub(crate) fn team(&self, id: i64) -> Option<&Team> {
        self.teams.iter().find(|team| team.id == id)
    }

    /// Gives a group other members from `at` on; a group that is not there yet begins to exist.
    pub(crate) fn set_group(&mut self, id: i64, members: BTreeSet<i64>, at: Millis) {
        match self.groups.iter_mut().find(|group| group.id == id) {
            Some(group) => group.members.push((at, members)),
            None => self.groups.push(Group {
                id,
                name: format!("Group {id}"),
                members: vec![(Millis::MIN, BTreeSet::new()), (at, members)],
                hidden: None,
            }),
        }
    }

    /// Hides members of a group from the client's user; they stay members.
    pub(crate) fn hide(&mut self, id: i64, agents: BTreeSet<i64>) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.id == id) {
            group.hidden = Some(agents);
        }
    }

    /// Shows all members of a group again.
    pub(crate) fn show(&mut self, id: i64) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.id == id) {
            group.hidden = None;
        }
    }

    /// Changes an agent from `at` on; false where there is none with that id.
    pub(crate) fn change_agent(&mut self, id: i64, at: Millis, change: impl FnOnce(&mut AgentVersion)) -> bool {
        let Some(agent) = self.agents.iter_mut().find(|agent| agent.id == id) else { return false };
        let mut version = agent.at(Millis::MAX).clone();
        change(&mut version);
        agent.versions.push((at, version));
        true
    }

    /// The instants at which an agent became an active member of the wanted group or ceased to be one.
    pub(crate) fn wanted_changes(&self, agent: i64) -> Vec<Millis> {
        let of_group = self.group(self.wanted_group).into_iter().flat_map(|group| &group.members).map(|(at, _)| *at);
        let of_agent = self.agent(agent).into_iter().flat_map(|agent| &agent.versions).map(|(at, _)| *at);
        let instants: BTreeSet<Millis> = of_group.chain(of_agent).filter(|at| *at != Millis::MIN).collect();
        let changed = |at: &Millis| self.wanted(agent, *at) != self.wanted(agent, *at - 1);
        instants.into_iter().filter(changed).collect()
    }

    /// Whether an agent was an active member of the wanted group.
    pub(crate) fn wanted(&self, agent: i64, at: Millis) -> bool {
        let member = self.group(self.wanted_group).is_some_and(|group| group.members(at).contains(&agent));
        member && self.agent(agent).is_some_and(|agent| agent.at(at).active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_is_remembered() {
        let mut directory = Directory::new(&DirectoryConfig::default(), 1);
        let agent = directory.agents[0].id;
        assert!(directory.wanted(agent, 500));
        directory.set_group(1001, BTreeSet::new(), 1000);
        assert!(directory.wanted(agent, 999));
        assert!(!directory.wanted(agent, 1000));
        directory.set_group(1001, BTreeSet::from([agent]), 2000);
        assert!(directory.change_agent(agent, 3000, |version| version.active = false));
        assert!(directory.wanted(agent, 2999));
        assert!(!directory.wanted(agent, 3000));
    }
}
