//! The agent's event feed: join a session, then ask for the next event and wait.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ask::Ask, reply::Answer};
use crate::{
    call::{Call, Kind, Leg},
    clock::{self, Millis},
    memory::sessions::Feed,
    service::Service,
};

/// Answers the three session operations.
pub(crate) async fn answer(service: &Service, ask: &Ask, endpoint: &str) -> Answer {
    match endpoint {
        "session-join" => join(service, ask),
        "session-next-event" => next_event(service, ask).await,
        _ => {
            service.counters.violation("an agent's session was ended");
            service.sessions.close(ask.raw_part(4));
            Answer::Empty(202)
        }
    }
}

fn join(service: &Service, ask: &Ask) -> Answer {
    let body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
    let in_body = match &body["asAgentId"] {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let Some(agent) = ask.param("asAgentId").and_then(|text| text.parse().ok()).or(in_body) else {
        return Answer::Status(400, "asAgentId is required".into());
    };
    if !service.logged_in(agent) {
        return Answer::Status(409, "the agent is not logged in".into());
    }
    let feed = Feed { agent, shown_to: service.now(), begun: false };
    Answer::Json(200, json!({ "sessionId": service.sessions.open(service.config.seed, feed) }))
}

/// Waits for something to happen, as long as `timeout` says.
async fn next_event(service: &Service, ask: &Ask) -> Answer {
    let seconds = match ask.param("timeout").unwrap_or("60").parse::<u64>() {
        Ok(seconds @ 0..=60) => seconds,
        _ => return Answer::Status(400, "timeout is 0 to 60".into()),
    };
    let id = ask.raw_part(4);
    let waiting_since = tokio::time::Instant::now();
    loop {
        let Some(feed) = service.sessions.get(id).filter(|feed| service.logged_in(feed.agent)) else {
            return Answer::Status(409, "the session has ended".into());
        };
        let now = service.now();
        let events = events(service, feed, now);
        if !events.is_empty() {
            let next = Feed { shown_to: now, begun: true, ..feed };
            // The old id stays good: whoever lost this answer asks again and gets the events again.
            let session_id = service.sessions.open(service.config.seed, next);
            return Answer::Json(200, json!({ "sessionId": session_id, "events": events }));
        }
        if waiting_since.elapsed() >= Duration::from_secs(seconds) {
            return Answer::Empty(304);
        }
        service.sessions.tick(service.clock.is_given()).await;
    }
}

/// What happened to the agent's calls since the feed was last shown. Every value is text.
fn events(service: &Service, feed: Feed, now: Millis) -> Vec<Value> {
    let mut events = Vec::new();
    if !feed.begun {
        events.push(json!({
            "Type": "AgentSessionStart", "BusNo": service.config.tenant.business_unit_id.to_string(),
            "AgentId": feed.agent.to_string(), "IISHost": "SIM", "VCHost": "SIM",
        }));
    }
    let world = service.world();
    let mut happened: Vec<(Millis, Value)> = (world.running(feed.shown_to..=now).into_iter())
        .filter(|(call, leg)| call.kind == Kind::Voice && leg.agent_id == feed.agent)
        .flat_map(|(call, leg)| {
            [
                (leg.answered_at(), "Active", false),
                (leg.hung_up_at, "Disconnected", false),
                (leg.acw_ended_at(), "Disconnected", true),
            ]
            .into_iter()
            .filter(|(at, ..)| feed.shown_to < *at && *at <= now)
            .map(|(at, status, last)| (at, event(call, leg, at, status, last)))
        })
        .collect();
    happened.sort_by_key(|(at, _)| *at);
    events.extend(happened.into_iter().map(|(_, event)| event));
    events
}

fn event(call: &Call, leg: &Leg, at: Millis, status: &str, last: bool) -> Value {
    let text = |flag: bool| if flag { "True" } else { "False" };
    json!({
        "Type": "CallContactEvent", "ContactID": leg.contact_id.to_string(), "MasterID": call.master.to_string(),
        "Status": status, "FinalState": text(last), "IsInbound": text(!call.outbound), "CallType": "Regular",
        "ANI": call.customer, "DNIS": call.service_number, "StartTimeUTC": clock::write(leg.started_at),
        "LastStateChangeTimeUTC": clock::write(at), "IISHost": "SIM", "VCHost": "SIM",
    })
}
