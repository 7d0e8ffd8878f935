//! What a reading of the group changes of the agents. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Agent, AgentId, Memberships};
use nice::GroupAgent;

use super::report::SyncReport;

/// The rows that must be written so that the agents follow the group as it was `now`, and what that changes. Who is new
/// in it, or back, came at an unknown moment after `last`.
pub(super) fn compare(
    before: &[Agent],
    group: Vec<GroupAgent>,
    last: Timestamp,
    now: Timestamp,
) -> (Vec<Agent>, SyncReport) {
    let mut known: BTreeMap<AgentId, &Agent> = before.iter().map(|agent| (agent.external_id, agent)).collect();
    let mut report = SyncReport::default();
    let mut changed = Vec::new();
    for member in group {
        let old = known.remove(&member.agent_id);
        let was_active = old.is_some_and(Agent::is_active);
        report.members += usize::from(member.is_active);
        report.joined += usize::from(member.is_active && !was_active);
        report.deactivated += usize::from(!member.is_active && was_active);
        let mut memberships =
            old.map_or_else(Memberships::default, |old| old.memberships.clone()).not_beyond(now, last);
        // One that is seen deactivated for the first time may have taken calls until then.
        if member.is_active || old.is_none() {
            memberships.join(last);
        }
        if !member.is_active {
            memberships.leave(now);
        }
        let agent = Agent {
            external_id: member.agent_id,
            // A reading without the UserHub id does not forget it.
            user_id: member.user_id.or_else(|| old.and_then(|old| old.user_id.clone())),
            user_name: member.user_name,
            first_name: member.first_name,
            last_name: member.last_name,
            memberships,
        };
        report.renamed += usize::from(old.is_some_and(|old| names(old) != names(&agent)));
        if old != Some(&agent) {
            changed.push(agent);
        }
    }
    for absent in known.into_values() {
        report.left += usize::from(absent.is_active());
        let mut memberships = absent.memberships.clone().not_beyond(now, last);
        memberships.leave(now);
        if memberships != absent.memberships {
            changed.push(Agent { memberships, ..absent.clone() });
        }
    }
    (changed, report)
}

/// The agents after a change.
pub(super) fn applied(before: &[Agent], changed: &[Agent]) -> Vec<Agent> {
    let agents = before.iter().chain(changed).map(|agent| (agent.external_id, agent.clone()));
    agents.collect::<BTreeMap<_, _>>().into_values().collect()
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

    fn at(text: &str) -> Timestamp {
        format!("2026-04-01T{text}Z").parse().unwrap()
    }

    /// The agents after a reading.
    fn after(before: &[Agent], group: Vec<GroupAgent>, last: &str, now: &str) -> Vec<Agent> {
        let (changed, _) = compare(before, group, at(last), at(now));
        applied(before, &changed)
    }

    fn agent(agents: &[Agent], id: u64) -> &Agent {
        agents.iter().find(|agent| agent.external_id.get() == id).unwrap()
    }

    #[test]
    fn the_rows_follow_the_group() {
        let group =
            vec![member(1, "ann", true), member(2, "bob", true), member(3, "cid", true), member(4, "dot", true)];
        let (first, report) = compare(&[], group, at("11:00:00"), at("12:00:00"));
        assert_eq!((report.members, report.joined, first.len()), (4, 4, 4));

        let group =
            vec![member(1, "ann", true), member(2, "bea", true), member(3, "cid", false), member(5, "eve", true)];
        let (changed, report) = compare(&first, group.clone(), at("12:00:00"), at("13:00:00"));
        let expected =
            SyncReport { members: 3, joined: 1, left: 1, deactivated: 1, renamed: 1, missing: 0, held: None };
        assert_eq!(report, expected);
        let left = changed.iter().find(|agent| agent.external_id.get() == 4).unwrap();
        assert!(!left.is_active());
        assert!(left.was_member_at(Some(at("12:59:59"))), "a call from its time in the group is imported");
        assert!(!left.was_member_at(Some(at("13:00:00"))));

        let second = after(&first, group.clone(), "12:00:00", "13:00:00");
        let (changed, _) = compare(&second, group, at("13:00:00"), at("13:10:00"));
        assert!(changed.is_empty(), "a second reading changes nothing: {changed:?}");
    }

    #[test]
    fn who_joins_counts_from_the_last_reading_on_and_a_gap_does_not_count() {
        let agents = after(&[], vec![member(1, "ann", true)], "11:00:00", "12:00:00");
        let agents = after(&agents, vec![], "12:00:00", "12:10:00");
        let agents = after(&agents, vec![member(2, "bob", true)], "13:00:00", "13:10:00");
        let agents = after(&agents, vec![member(1, "ann", true), member(2, "bob", true)], "14:00:00", "14:10:00");
        let was_in = |id, time| agent(&agents, id).was_member_at(Some(at(time)));
        assert!(!was_in(1, "10:59:59") && was_in(1, "11:00:00") && was_in(1, "12:09:59"));
        assert!(!was_in(1, "12:10:00") && !was_in(1, "13:59:59") && was_in(1, "14:00:00"));
        assert!(!was_in(2, "12:59:59") && was_in(2, "13:00:00"));
    }

    #[test]
    fn one_that_is_first_seen_deactivated_was_in_the_group_until_then() {
        let agents = after(&[], vec![member(1, "ann", false)], "11:00:00", "12:00:00");
        let ann = agent(&agents, 1);
        assert!(
            !ann.is_active() && ann.was_member_at(Some(at("11:30:00"))) && !ann.was_member_at(Some(at("12:00:00")))
        );
        let (changed, _) = compare(&agents, vec![member(1, "ann", false)], at("12:00:00"), at("12:10:00"));
        assert!(changed.is_empty(), "{changed:?}");
    }

    #[test]
    fn a_time_that_a_clock_wrote_which_ran_ahead_is_not_believed() {
        let ahead = after(&[], vec![member(1, "ann", true)], "22:00:00", "23:00:00");
        let agents = after(&ahead, vec![member(1, "ann", true)], "11:00:00", "12:00:00");
        assert!(agent(&agents, 1).was_member_at(Some(at("11:30:00"))));
        // Who left then left before now at the latest.
        let left = after(&ahead, vec![], "23:00:00", "23:10:00");
        assert!(agent(&left, 1).was_member_at(Some(at("23:05:00"))));
        let left = after(&left, vec![], "11:00:00", "12:00:00");
        assert!(agent(&left, 1).was_member_at(Some(at("11:30:00"))));
        assert!(!agent(&left, 1).was_member_at(Some(at("23:05:00"))));
        let (changed, report) = compare(&left, vec![], at("12:00:00"), at("12:10:00"));
        assert!(changed.is_empty() && report == SyncReport::default(), "{changed:?}");
    }
}
