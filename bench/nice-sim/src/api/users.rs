//! The UserHub's list of users: the same people in the world of UUIDs.

use axum::{http::Method, response::Response};
use serde_json::{Value, json};

use super::{
    ask::Ask,
    auth::{authorized, unauthorized},
    reply::Answer,
};
use crate::service::Service;

/// Answers `/user-management/…`.
pub(crate) fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let listed = ask.method == Method::GET && (ask.part(1), ask.part(2)) == ("v1".into(), "users".into());
    let searched = ask.method == Method::POST && ask.path.to_lowercase() == "/user-management/v2/users/search";
    if !listed && !searched {
        return ("unknown", Answer::gateway(404, "no Route matched with those values").plain());
    }
    if !authorized(service, ask) {
        return ("users", unauthorized(service, ask).plain());
    }
    let now = service.now();
    let world = service.world();
    let users: Vec<Value> = (world.directory.agents.iter())
        .map(|agent| {
            let version = agent.at(now);
            json!({
                "id": agent.user_id, "userName": agent.user_name,
                "firstName": version.first_name, "lastName": version.last_name, "fullName": agent.full_name(now),
                "emailAddress": agent.user_name, "status": if version.active { "ACTIVE" } else { "BLOCKED" },
                "teamId": world.directory.team(version.team).map(|team| team.uuid.as_str()),
                "groupIds": [], "acdUserMappings": [{ "loginId": agent.id.to_string() }],
                "icBUId": service.config.tenant.business_unit_id,
            })
        })
        .collect();
    if listed {
        return ("users", Answer::Json(200, json!({ "users": users })).spoiled(service));
    }
    let search: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
    let number = |name: &str, otherwise: usize| search[name].as_u64().map_or(otherwise, |number| number as usize);
    let (skip, top, total) = (number("skip", 0), number("top", 50), users.len());
    let page: Vec<Value> = users.into_iter().skip(skip).take(top).collect();
    let body = json!({ "totalRecords": total, "skip": skip, "top": top, "users": page });
    ("users", Answer::Json(200, body).spoiled(service))
}
