//! A contact as a row, and its field names in old versions.

use serde_json::{Value, json};

use super::{Names, paging::Row};
use crate::{
    api::reply::object,
    call::{Call, Kind, Leg},
    chance::{derive, word},
    clock::{self, Millis},
    directory::Directory,
    service::Service,
};

/// The names that changed, new and old.
const RENAMED: [(&str, &str); 7] = [
    ("contactStartDate", "contactStart"),
    ("fromAddress", "fromAddr"),
    ("toAddress", "toAddr"),
    ("mediaTypeId", "mediaType"),
    ("conferenceSeconds", "confSeconds"),
    ("acwSeconds", "ACWSeconds"),
    ("stateName", "state"),
];

/// A contact as of `now`. While it is not over, its durations are those so far.
pub(crate) fn contact(service: &Service, directory: &Directory, call: &Call, leg: &Leg, now: Millis) -> Row {
    let skew = service.faults.current().clock_skew_millis;
    let updated_at = service.fates().updated_at(leg, now);
    let is_changed = updated_at > leg.second_update_at;
    let agent = directory.agent(leg.agent_id).filter(|_| call.kind != Kind::Abandoned);
    let version = agent.map(|agent| agent.at(leg.hung_up_at.min(now)));
    let team = version.and_then(|version| directory.team(version.team));
    let over = now >= leg.acw_ended_at();
    let settled = now >= leg.second_update_at;
    let chance = word(derive(service.config.seed, "row"), leg.contact_id as u64);
    let total = if over { leg.total_secs() } else { ((now - leg.started_at).max(0) / 1000) as u64 };
    let talk = leg.talk_secs().min(total);
    let (media, media_name) = if call.kind == Kind::Chat { (3, "Chat") } else { (4, "Call") };
    let (from, to) = addresses(call);
    object(json!({
        "contactId": leg.contact_id,
        "masterContactId": call.master,
        "contactStartDate": clock::write(leg.started_at),
        "lastUpdateTime": clock::write(updated_at + skew),
        "totalDurationSeconds": total,
        "agentId": agent.map_or(0, |agent| agent.id),
        "firstName": version.map(|version| version.first_name.as_str()),
        "lastName": version.map(|version| version.last_name.as_str()),
        "teamId": version.map(|version| version.team),
        "teamName": team.map(|team| team.name.as_str()),
        "skillId": 4001 + chance % 3,
        "skillName": format!("Skill {}", chance % 3),
        "campaignId": 301,
        "campaignName": "Service",
        "mediaTypeId": media,
        "mediaTypeName": media_name,
        "mediaSubTypeId": null,
        "mediaSubTypeName": null,
        "isOutbound": call.outbound,
        "fromAddress": from,
        "toAddress": to,
        "pointOfContactId": 70 + chance % 2,
        "pointOfContactName": "Main number",
        "agentSeconds": agent.map_or(0, |_| total - leg.queue_secs.min(total)),
        "acwSeconds": if over { leg.acw_secs() } else { 0 },
        "holdSeconds": talk * (chance % 4) / 10,
        "holdCount": chance % 4,
        "inQueueSeconds": leg.queue_secs.min(total),
        "preQueueSeconds": 0,
        "postQueueSeconds": 0,
        "releaseSeconds": 0,
        "conferenceSeconds": 0,
        "routingTime": 0,
        "callbackTime": 0,
        "abandonSeconds": if call.kind == Kind::Abandoned { total } else { 0 },
        "abandoned": call.kind == Kind::Abandoned,
        "isShortAbandon": false,
        // The ACD's own recording flag says nothing about the recording platform: sometimes it disagrees.
        "isLogged": !chance.is_multiple_of(5),
        "isRefused": false,
        "isTakeover": false,
        "endReason": if chance.is_multiple_of(2) { "Contact Hung Up" } else { "Agent Hung Up" },
        "transferIndicatorId": if call.transferred() { 2 } else { 0 },
        "transferIndicatorName": if call.transferred() { "ReAgent" } else { "None" },
        "primaryDispositionId": settled.then_some(11 + chance % 5),
        "secondaryDispositionId": null,
        "dispositionNotes": if is_changed { "noted hours later" } else if settled { "noted after the call" } else { "" },
        "dateContactWarehoused": settled.then(|| clock::write(leg.second_update_at)),
        "dateACWWarehoused": settled.then(|| clock::write(leg.second_update_at)),
        "isAnalyticsProcessed": false,
        "analyticsProcessedDate": null,
        "refuseTime": 0,
        "refuseReason": "",
        "serviceLevelFlag": 1,
        "tags": [],
    }))
}

/// A row as it is seen a moment too early.
pub(crate) fn half(mut row: Row) -> Row {
    row.insert("agentId".to_owned(), json!(0));
    for key in ["totalDurationSeconds", "firstName", "lastName", "teamId", "teamName", "dateContactWarehoused"] {
        row.insert(key.to_owned(), Value::Null);
    }
    row
}

/// Origin and destination: an outbound call goes to the customer.
pub(crate) fn addresses(call: &Call) -> (&str, &str) {
    match call.outbound {
        true => (&call.service_number, &call.customer),
        false => (&call.customer, &call.service_number),
    }
}

/// Gives a row the names of the asked version.
pub(crate) fn named(mut row: Row, names: Names) -> Row {
    if names == Names::Old {
        for (new, old) in RENAMED {
            if let Some(value) = row.remove(new) {
                row.insert(old.to_owned(), value);
            }
        }
    }
    row
}

/// The row of a contact that nobody took, next to a real one.
pub(crate) fn without_agent(row: &Row) -> Row {
    let mut row = row.clone();
    let contact_id = row.get("contactId").and_then(Value::as_i64).unwrap_or(0);
    // Placed calls use the first numbers of each block of 64; the last ones are free.
    let free = contact_id - contact_id % 64 + 63;
    for (key, value) in [("contactId", json!(free)), ("masterContactId", json!(free)), ("agentId", Value::Null)] {
        row.insert(key.to_owned(), value);
    }
    row.insert("abandoned".to_owned(), json!(true));
    row
}

/// A row that cannot be read, next to a real one.
pub(crate) fn unreadable(row: &Row) -> Row {
    let mut row = row.clone();
    let contact_id = row.get("contactId").and_then(Value::as_i64).unwrap_or(0);
    let id = match contact_id % 4 {
        0 => json!({ "value": contact_id }),
        1 => json!([contact_id]),
        2 => json!("n/a"),
        _ => Value::Null,
    };
    row.insert("contactId".to_owned(), id.clone());
    row.insert("masterContactId".to_owned(), id);
    if contact_id % 3 == 0 {
        row.insert("contactStartDate".to_owned(), json!("soon"));
    }
    row
}

/// Rows whose ids no reader may let through.
pub(crate) fn hostile(row: &Row) -> Vec<Row> {
    let ids = [
        json!("../x"),
        json!(-5),
        json!("698800000001/../../x"),
        json!("9".repeat(400)),
        json!("12\u{0}34"),
        json!(1.5),
    ];
    ids.into_iter()
        .map(|id| {
            let mut row = row.clone();
            row.insert("contactId".to_owned(), id.clone());
            row.insert("masterContactId".to_owned(), id);
            row
        })
        .collect()
}
