//! Snapshots: what agents and contacts do right now.

use serde_json::json;

use super::{
    Names,
    paging::{self, Page, Row, instant},
    row,
};
use crate::{
    api::{
        ask::Ask,
        reply::{Answer, object},
    },
    call::{Call, Kind, Leg},
    clock::{self, Millis},
    service::Service,
};

/// `contacts/active`: from the start to the end of after-call work.
pub(crate) fn active_contacts(service: &Service, ask: &Ask, names: Names) -> Answer {
    let now = service.now();
    let result = instant(ask, "updatedSince").and_then(|since| {
        let world = service.world();
        let rows = (world.running(now..=now).into_iter())
            .filter(|(call, leg)| call.kind == Kind::Voice && (leg.started_at..leg.acw_ended_at()).contains(&now))
            .filter(|(_, leg)| since.is_none_or(|since| changed_at(leg, now) >= since))
            .map(|(call, leg)| row::named(active_row(call, leg, now), names))
            .collect();
        list(service, ask, rows)
    });
    result.map_or_else(|refused| refused, |listed| paging::answer("activeContacts", listed))
}

/// `agents/states`: a row per logged-in agent.
pub(crate) fn agent_states(service: &Service, ask: &Ask, names: Names) -> Answer {
    let now = service.now();
    let result = instant(ask, "updatedSince").and_then(|since| {
        let world = service.world();
        let busy: Vec<(&Call, &Leg)> = (world.running(now..=now).into_iter())
            .filter(|(call, leg)| call.kind == Kind::Voice && (leg.answered_at()..leg.acw_ended_at()).contains(&now))
            .collect();
        let rows = (world.directory.agents.iter())
            .filter(|agent| agent.at(now).active)
            .filter_map(|agent| {
                let taken = busy.iter().find(|(_, leg)| leg.agent_id == agent.id).copied();
                let (state, name, since_state) = match taken {
                    Some((_, leg)) if now >= leg.hung_up_at => (2, "Unavailable", leg.hung_up_at),
                    Some((call, leg)) if call.outbound => (4, "OutboundContact", leg.answered_at()),
                    Some((_, leg)) => (3, "InboundContact", leg.answered_at()),
                    None => (1, "Available", service.clock.started_at()),
                };
                since.is_none_or(|since| since_state >= since).then(|| {
                    let version = agent.at(now);
                    row::named(
                        object(json!({
                            "agentId": agent.id, "agentStateId": state, "agentStateName": name,
                            "contactId": taken.map(|(_, leg)| leg.contact_id),
                            "isACW": state == 2, "isOutbound": taken.is_some_and(|(call, _)| call.outbound),
                            "isActive": true, "openContacts": usize::from(taken.is_some()), "mediaTypeId": 4,
                            "startDate": clock::write(since_state), "lastUpdateTime": clock::write(since_state),
                            "teamId": version.team, "userName": agent.user_name,
                            "firstName": version.first_name, "lastName": version.last_name,
                        })),
                        names,
                    )
                })
            })
            .collect();
        list(service, ask, rows)
    });
    result.map_or_else(|refused| refused, |listed| paging::answer("agentStates", listed))
}

/// `contact-state-descriptions`: only the states that contacts here can be in.
pub(crate) fn state_descriptions() -> Answer {
    let state = |id: u32, name: &str| json!({ "ContactStateId": id, "ContactStateDescription": name, "ContactStateCategory": name });
    Answer::Json(200, json!({ "contactStateDescriptions": [state(4, "Active"), state(18, "EndContact")] }))
}

fn active_row(call: &Call, leg: &Leg, now: Millis) -> Row {
    let (from, to) = row::addresses(call);
    object(json!({
        "contactId": leg.contact_id, "masterContactId": call.master, "agentId": leg.agent_id,
        "agentStartDate": clock::write(leg.answered_at()), "contactStartDate": clock::write(leg.started_at),
        "stateId": 4, "stateName": "Active", "isOutbound": call.outbound, "isLogged": true, "mediaTypeId": 4,
        "fromAddress": from, "toAddress": to, "lastUpdateTime": clock::write(changed_at(leg, now)),
    }))
}

fn changed_at(leg: &Leg, now: Millis) -> Millis {
    [leg.hung_up_at, leg.answered_at()].into_iter().find(|at| *at <= now).unwrap_or(leg.started_at)
}

fn list(service: &Service, ask: &Ask, mut rows: Vec<Row>) -> Result<Option<paging::Listed>, Answer> {
    let max = service.config.acd.admin_page_max;
    let page = Page::read(ask, max, max)?;
    page.sort(&mut rows)?;
    Ok(page.cut(service, ask, rows))
}
