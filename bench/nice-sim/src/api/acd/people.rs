//! Groups, teams and agents.

use serde_json::{Value, json};

use super::{
    paging::{self, Page, Row, flag, instant},
    path_id,
};
use crate::{
    api::{
        ask::Ask,
        reply::{Answer, object},
    },
    chance::{derive, word},
    clock::{self, Millis},
    directory::{Agent, Directory, Group, Team},
    service::Service,
};

/// `groups` and `groups/{id}`.
pub(crate) fn groups(service: &Service, ask: &Ask) -> Answer {
    let world = service.world();
    if ask.parts() > 4 {
        let Some(group) = world.directory.group(path_id(ask)) else { return unknown() };
        return Answer::Json(200, json!({ "totalRecords": 1, "groups": [group_row(service, group)] }));
    }
    let active = flag(ask, "isActive");
    let rows = (world.directory.groups.iter())
        .filter(|group| found(ask, &[&group.name]))
        .filter(|_| active != Some(false))
        .map(|group| group_row(service, group))
        .collect();
    list(service, ask, "groups", rows)
}

/// `groups/{id}/agents`: the members, or with `assigned=false` everybody else.
pub(crate) fn group_agents(service: &Service, ask: &Ask) -> Answer {
    let now = service.now();
    let world = service.world();
    let Some(group) = world.directory.group(path_id(ask)) else { return unknown() };
    if service.faults.strikes("group no content", |faults| faults.group_no_content) {
        return Answer::Empty(204);
    }
    if service.faults.strikes("group empty", |faults| faults.group_empty) {
        return Answer::Json(200, json!({ "agents": [], "totalRecords": 0 }));
    }
    let faults = service.faults.current();
    let in_share = |agent: i64, kind: &str, share: f64| in_share(service.config.seed, agent, kind, share);
    let assigned = flag(ask, "assigned").unwrap_or(true);
    let members = group.members(now - clock::millis(faults.group_late));
    let mut hidden = group.hidden().cloned();
    if faults.group_hidden > 0.0 {
        let more = members.iter().copied().filter(|agent| in_share(*agent, "group hidden", faults.group_hidden));
        hidden.get_or_insert_default().extend(more);
    }
    let is_hidden = |agent: &Agent| {
        hidden.as_ref().is_some_and(|hidden| hidden.contains(&agent.id))
            || (members.contains(&agent.id) && is_left_out(service.config.seed, agent.id, faults.group_half))
    };
    let agents = world.directory.agents.iter().filter(|agent| members.contains(&agent.id) == assigned);
    let rows = selected(ask, agents.filter(|agent| !is_hidden(agent)), now)
        .map(|agent| agent_row(service, agent, now, "userId", &world.directory))
        .collect();
    let Some(hidden) = hidden else { return list(service, ask, "agents", rows) };
    let hidden = members.intersection(&hidden).count();
    match list(service, ask, "agents", rows) {
        Answer::Json(200, mut body) => {
            body["hiddenAgents"] = json!(hidden);
            Answer::Json(200, body)
        }
        Answer::Empty(204) => Answer::Json(200, json!({ "agents": [], "totalRecords": 0, "hiddenAgents": hidden })),
        other => other,
    }
}

/// Whether an agent is among those of a group that its list leaves out while this share of them is.
pub(crate) fn is_left_out(seed: u64, agent: i64, share: f64) -> bool {
    in_share(seed, agent, "group half", share)
}

fn in_share(seed: u64, agent: i64, kind: &str, share: f64) -> bool {
    let drawn = word(derive(seed, kind), agent as u64) as f64 / u64::MAX as f64;
    drawn < share
}

/// `agents/{id}/groups`.
pub(crate) fn agent_groups(service: &Service, ask: &Ask) -> Answer {
    let now = service.now();
    let world = service.world();
    let agent = path_id(ask);
    if world.directory.agent(agent).is_none() {
        return unknown();
    }
    let groups = world.directory.groups.iter().filter(|group| group.members(now).contains(&agent));
    let rows: Vec<Row> = groups.map(|group| group_row(service, group)).collect();
    if rows.is_empty() { Answer::Empty(204) } else { Answer::Json(200, json!({ "agentGroups": rows })) }
}

/// `agents`.
pub(crate) fn agents(service: &Service, ask: &Ask) -> Answer {
    let now = service.now();
    let world = service.world();
    let since = match since(ask) {
        Ok(since) => since,
        Err(refused) => return refused,
    };
    let agents =
        (world.directory.agents.iter()).filter(|agent| since.is_none_or(|since| agent.changed_at(now) >= since));
    let rows =
        selected(ask, agents, now).map(|agent| agent_row(service, agent, now, "userID", &world.directory)).collect();
    match list(service, ask, "agents", rows) {
        Answer::Json(200, mut body) => {
            body["hiddenAgents"] = json!(0);
            Answer::Json(200, body)
        }
        other => other,
    }
}

/// `teams`, `teams/agents` and `teams/{id}/agents`; agents are nested under their team and paged inside it.
pub(crate) fn teams(service: &Service, ask: &Ask, with_agents: bool) -> Answer {
    let now = service.now();
    let world = service.world();
    let one = (with_agents && ask.parts() > 5).then(|| path_id(ask));
    if one.is_some_and(|id| world.directory.team(id).is_none()) {
        return unknown();
    }
    let team_row = |team: &Team| {
        let count = world.directory.agents.iter().filter(|agent| agent.at(now).team == team.id).count();
        object(json!({
            "teamId": team.id, "teamName": team.name, "isActive": true, "agentCount": count, "teamUuid": team.uuid,
            "lastUpdateTime": clock::write(service.clock.started_at()),
        }))
    };
    let members = |team: i64| -> Vec<Row> {
        let agents = world.directory.agents.iter().filter(|agent| agent.at(now).team == team);
        selected(ask, agents, now).map(|agent| agent_row(service, agent, now, "userId", &world.directory)).collect()
    };
    match one.and_then(|id| world.directory.team(id)) {
        Some(team) => {
            let mut answer = list(service, ask, "agents", members(team.id));
            if let Answer::Json(200, body) = &mut answer {
                let mut row = team_row(team);
                row.insert("agents".to_owned(), body["agents"].take());
                if let Some(envelope) = body.as_object_mut() {
                    envelope.remove("agents");
                    envelope.insert("teams".to_owned(), json!([row]));
                }
            }
            answer
        }
        None => {
            let rows = (world.directory.teams.iter())
                .filter(|team| found(ask, &[&team.name]))
                .map(|team| {
                    let mut row = team_row(team);
                    if with_agents {
                        row.insert("agents".to_owned(), json!(members(team.id)));
                    }
                    row
                })
                .collect();
            list(service, ask, "teams", rows)
        }
    }
}

fn list(service: &Service, ask: &Ask, name: &str, mut rows: Vec<Row>) -> Answer {
    let max = service.config.acd.admin_page_max;
    let listed = Page::read(ask, max.div_ceil(2), max).and_then(|page| {
        page.sort(&mut rows)?;
        Ok(page.cut(service, ask, rows))
    });
    listed.map_or_else(|refused| refused, |listed| paging::answer(name, listed))
}

/// The agents that `isActive` and `searchString` leave.
fn selected<'a>(ask: &'a Ask, agents: impl Iterator<Item = &'a Agent>, now: Millis) -> impl Iterator<Item = &'a Agent> {
    let active = flag(ask, "isActive");
    agents
        .filter(move |agent| active.is_none_or(|active| agent.at(now).active == active))
        .filter(move |agent| found(ask, &[&agent.full_name(now), &agent.user_name]))
}

fn found(ask: &Ask, texts: &[&str]) -> bool {
    let wanted = ask.param("searchString").unwrap_or_default().to_lowercase();
    texts.iter().any(|text| text.to_lowercase().contains(&wanted))
}

/// The published types say `updateSince`, NICE's own client sends `updatedSince`.
fn since(ask: &Ask) -> Result<Option<Millis>, Answer> {
    Ok(instant(ask, "updatedSince")?.or(instant(ask, "updateSince")?))
}

fn group_row(service: &Service, group: &Group) -> Row {
    object(json!({
        "groupId": group.id, "groupName": group.name, "notes": "", "isActive": true,
        "lastUpdated": clock::write(service.clock.started_at()),
    }))
}

fn agent_row(service: &Service, agent: &Agent, now: Millis, user_id_key: &str, directory: &Directory) -> Row {
    let version = agent.at(now);
    let team = directory.team(version.team);
    let changed_at = agent.changed_at(now).max(service.clock.started_at());
    let mut row = object(json!({
        "agentId": agent.id,
        "userName": agent.user_name,
        "firstName": version.first_name,
        "middleName": "",
        "lastName": version.last_name,
        "emailAddress": agent.user_name,
        "isActive": version.active,
        "teamId": version.team,
        "teamName": team.map(|team| team.name.as_str()),
        "teamUuId": team.map(|team| team.uuid.as_str()),
        "isSupervisor": false,
        "internalId": "",
        "profileId": 1,
        "profileName": "Agent",
        "timeZone": "(GMT) Coordinated Universal Time",
        "lastUpdated": clock::write(changed_at),
        "inactiveDate": if version.active { Value::Null } else { json!(clock::write(changed_at)) },
    }));
    row.insert(user_id_key.to_owned(), json!(agent.user_id));
    row
}

fn unknown() -> Answer {
    Answer::Status(404, "no such entity".into())
}
