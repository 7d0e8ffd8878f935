//! The agents, and what is held of the group, for a person.

use catalog::HeldReading;
use model::Agent;
use stages::sync_agents::{REMEDY, SyncReport};

use super::{table, time};

pub(crate) fn sync(report: &SyncReport) -> String {
    let SyncReport { members, joined, left, deactivated, renamed, .. } = report;
    match report.held {
        Some(_) => format!("{members} agents in the group as before: the reading is held, nothing was changed"),
        None => format!(
            "{members} agents in the group: {joined} joined, {left} left, {deactivated} deactivated, {renamed} renamed"
        ),
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

pub(crate) fn list(agents: &[Agent]) -> String {
    let mut table = table(&["agent", "login", "name", "active", "member since", "member until"]);
    for agent in agents {
        table.add_row([
            agent.external_id.to_string(),
            agent.user_name.clone(),
            format!("{} {}", agent.first_name, agent.last_name),
            if agent.is_active() { "yes" } else { "no" }.to_owned(),
            time(agent.memberships.last_since()),
            time(agent.memberships.until()),
        ]);
    }
    table.to_string()
}
