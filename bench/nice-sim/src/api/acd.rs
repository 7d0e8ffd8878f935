//! The ACD: `/inContactAPI/services/v{n}.0/…`, in any case of letters.
//!
//! This file is the way every request takes: `Accept`, token, errors, quota, then the operation, then the habits of the
//! asked version. The operations are in the files below.

mod contacts;
mod paging;
pub(crate) mod people;
mod realtime;
pub(crate) mod row;

use axum::{
    http::{Method, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{
    ask::Ask,
    auth::{authorized, unauthorized},
    reply::{Answer, retry_after, scalars_as_strings, server_error},
    sessions,
};
use crate::{memory::rows::Names, service::Service};

/// Answers an ACD request.
pub(crate) async fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let Some(names) = version(service, ask) else {
        return ("unknown", Answer::Status(404, "unknown API version".into()).plain());
    };
    let endpoint = endpoint(ask);
    if endpoint == "unknown" {
        return (endpoint, Answer::Status(404, "unknown operation".into()).plain());
    }
    if let Some(refusal) = refusal(service, ask) {
        return (endpoint, refusal);
    }
    let answer = match endpoint {
        "groups" | "group" => people::groups(service, ask),
        "group-agents" => people::group_agents(service, ask),
        "agent-groups" => people::agent_groups(service, ask),
        "teams" | "team-agents" => people::teams(service, ask, endpoint == "team-agents"),
        "agents" => people::agents(service, ask),
        "contacts-completed" => contacts::completed(service, ask, names),
        "contacts" => contacts::all(service, ask, names),
        "contact" => contacts::one(service, ask, names),
        "contact-hierarchy" => contacts::hierarchy(service, ask),
        "contacts-active" => realtime::active_contacts(service, ask, names),
        "agent-states" => realtime::agent_states(service, ask, names),
        "contact-state-descriptions" => realtime::state_descriptions(),
        "business-unit" => business_unit(service),
        _ => sessions::answer(service, ask, endpoint).await,
    };
    (endpoint, finish(service, answer))
}

/// The version asked for, if the path has one.
fn version(service: &Service, ask: &Ask) -> Option<Names> {
    let version = ask.part(2);
    let number: u32 = version.strip_prefix('v')?.strip_suffix(".0")?.parse().ok()?;
    let new = number >= service.config.acd.new_names_from;
    (ask.part(1) == "services").then_some(if new { Names::New } else { Names::Old })
}

/// Names the operation by method and path.
fn endpoint(ask: &Ask) -> &'static str {
    let (first, second, third) = (ask.part(3), ask.part(4), ask.part(5));
    let numeric = !second.is_empty() && second.bytes().all(|byte| byte.is_ascii_digit());
    let get = ask.method == Method::GET;
    match (first.as_str(), second.as_str(), third.as_str(), ask.parts()) {
        ("groups", _, _, 4) if get => "groups",
        ("groups", _, _, 5) if get && numeric => "group",
        ("groups", _, "agents", 6) if get && numeric => "group-agents",
        ("teams", _, _, 4) if get => "teams",
        ("teams", "agents", _, 5) if get => "team-agents",
        ("teams", _, "agents", 6) if get && numeric => "team-agents",
        ("agents", _, _, 4) if get => "agents",
        ("agents", "states", _, 5) if get => "agent-states",
        ("agents", _, "groups", 6) if get && numeric => "agent-groups",
        ("contacts", _, _, 4) if get => "contacts",
        ("contacts", "completed", _, 5) if get => "contacts-completed",
        ("contacts", "active", _, 5) if get => "contacts-active",
        ("contacts", _, _, 5) if get && numeric => "contact",
        ("contacts", _, "hierarchy", 6) if get && numeric => "contact-hierarchy",
        ("contact-state-descriptions", _, _, 4) if get => "contact-state-descriptions",
        ("business-unit", _, _, 4) if get => "business-unit",
        ("agent-sessions", "join", _, 5) if ask.method == Method::POST => "session-join",
        ("agent-sessions", _, "get-next-event", 6) if get => "session-next-event",
        ("agent-sessions", _, _, 5) if ask.method == Method::DELETE => "session-end",
        _ => "unknown",
    }
}

/// What is answered instead of an operation.
fn refusal(service: &Service, ask: &Ask) -> Option<Response> {
    // A blanket `*/*` does not count: the ACD asks to be told how to render the data.
    if !ask.header(header::ACCEPT).is_some_and(|accept| accept.contains("application/json")) {
        return Some(Answer::Status(406, "do not know how to render the data: send Accept".into()).plain());
    }
    service.acd_quota().asked(service.now());
    if let Some(error) = server_error(service, "acd") {
        return Some(error);
    }
    if !authorized(service, ask) {
        return Some(unauthorized(service, ask).plain());
    }
    let wait = service.acd_quota().take(service.now()).err()?;
    let mut refusal = Answer::Status(429, "too many requests".into()).plain();
    retry_after(service, &mut refusal, wait, false);
    Some(refusal)
}

/// Puts the habits of old versions on an answer.
fn finish(service: &Service, answer: Answer) -> Response {
    let Answer::Json(200, mut body) = answer else { return answer.plain() };
    if service.config.acd.scalars_as_strings {
        scalars_as_strings(&mut body);
    }
    if service.config.acd.result_set_wrapper {
        body = json!({ "resultSet": body });
    }
    Answer::Json(200, body).spoiled(service)
}

fn business_unit(service: &Service) -> Answer {
    let unit: Value =
        json!({ "businessUnitId": service.config.tenant.business_unit_id, "businessUnitName": "Simulated" });
    Answer::Json(200, json!({ "businessUnits": [unit] }))
}

/// The id in the path, where the endpoint's name promised one.
fn path_id(ask: &Ask) -> i64 {
    ask.part(4).parse().unwrap_or(0) // digits beyond 64 bits are an unknown id
}
