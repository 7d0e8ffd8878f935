//! Data extraction: a job that lists the recorded segments of some days, and its file behind a signed link.
//!
//! `POST /data-extraction/v1/jobs` begins a job, one at a time and not too often; `GET` of it tells when it is over and
//! where the file lies: `/_extracts/{job}.csv?expires=…&signature=…`, which knows no tokens. A file has one row per
//! segment that begins in the asked days of UTC, however old, and is made when it is fetched.

use axum::{
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::{ToSpan, civil, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    ask::Ask,
    auth::{authorized, unauthorized},
    media,
    reply::{Answer, server_error},
};
use crate::{
    call::{Call, Kind, Leg},
    chance::Dice,
    clock::{self, Millis, millis},
    config::ExtractionOutcome,
    directory::Directory,
    fate::RecordingFate,
    memory::extractions::{Job, Version},
    service::Service,
};

/// Answers `/data-extraction/v1/jobs…`.
pub(crate) fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let endpoint = match (&ask.method, ask.part(1).as_str(), ask.part(2).as_str(), ask.parts()) {
        (&Method::POST, "v1", "jobs", 3) => "extraction-begin",
        (&Method::GET, "v1", "jobs", 3) => "extraction-jobs",
        (&Method::GET, "v1", "jobs", 4) => "extraction-job",
        _ => return ("unknown", Answer::gateway(404, "no Route matched with those values").plain()),
    };
    if let Some(error) = server_error(service, "extraction") {
        return (endpoint, error);
    }
    if !authorized(service, ask) {
        return (endpoint, unauthorized(service, ask).plain());
    }
    if !service.config.extraction.permitted {
        return (endpoint, Answer::gateway(403, "no permission to extract interaction metadata").plain());
    }
    let answer = match endpoint {
        "extraction-begin" => begin(service, ask),
        "extraction-jobs" => {
            Answer::Json(200, service.extractions.all().iter().map(|job| status(service, job)).collect())
        }
        _ => {
            let job = service.extractions.find(ask.raw_part(3));
            job.map_or_else(|| Answer::gateway(404, "no such job"), |job| Answer::Json(200, status(service, &job)))
        }
    };
    (endpoint, answer.plain())
}

/// Begins a job, unless another one runs or the last call was a moment ago.
fn begin(service: &Service, ask: &Ask) -> Answer {
    let config = &service.config.extraction;
    let now = service.now();
    if !service.extractions.may_begin(now, millis(config.pace)) {
        return Answer::gateway(403, "another extraction of the tenant is running, or the last call was too recent");
    }
    let (version, from, to) = match wanted(&ask.body, config.days_max) {
        Ok(wanted) => wanted,
        Err(why) => return Answer::gateway(400, why),
    };
    let job = |number: u64| {
        let id = Dice::new(service.config.seed, &format!("extraction {number}")).uuid();
        Job { id, version, from, to, ends_at: now + millis(config.job_time) }
    };
    Answer::Json(202, json!(service.extractions.begin(job).id))
}

/// Reads what a job is asked for; both days are in it.
fn wanted(body: &[u8], days_max: i32) -> Result<(Version, Millis, Millis), &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    if body["entityName"] != "recording-interaction-metadata" {
        return Err("entityName is not known");
    }
    let version = match body["version"].as_str() {
        Some("7") => Version::Seven,
        Some("10") => Version::Ten,
        _ => return Err("version is not known"),
    };
    let date = |name: &str| body[name].as_str().filter(|text| text.len() == 10)?.parse::<civil::Date>().ok();
    let (Some(first), Some(last)) = (date("startDate"), date("endDate")) else {
        return Err("startDate and endDate are dates");
    };
    let days = (last - first).get_days() + 1;
    if !(1..=days_max).contains(&days) {
        return Err("the range is reversed or too long");
    }
    let midnight = |date: civil::Date| date.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp().as_millisecond());
    let after = last.checked_add(1.day()).ok().and_then(midnight);
    midnight(first).zip(after).map(|(from, to)| (version, from, to)).ok_or("startDate and endDate are dates")
}

fn status(service: &Service, job: &Job) -> Value {
    let config = &service.config.extraction;
    let (word, result) = match config.outcome {
        _ if service.now() < job.ends_at => ("RUNNING", json!({})),
        ExtractionOutcome::Succeeded => ("SUCCEEDED", json!({ "url": link(service, job) })),
        ExtractionOutcome::Failed => ("FAILED", json!({ "errorMessage": "internal error" })),
        ExtractionOutcome::Cancelled => ("CANCELLED", json!({})),
        ExtractionOutcome::Expired => ("EXPIRED", json!({})),
    };
    json!({ "jobStatus": { "id": job.id, "status": word, "result": result } })
}

/// Signs a link to the file of a job.
fn link(service: &Service, job: &Job) -> String {
    let expires = service.now() + millis(service.config.extraction.link_ttl);
    let foreign = service.faults.strikes("foreign extraction link", |faults| faults.foreign_media_link);
    let root = if foreign { &service.trap } else { &service.base };
    let name = format!("{}.csv", job.id);
    format!("{root}/_extracts/{name}?expires={expires}&signature={}", media::signature(service, &name, expires))
}

/// Answers a signed link to a file.
pub(crate) fn file(service: &Service, ask: &Ask) -> (&'static str, Response) {
    ("extraction-file", open(service, ask))
}

fn open(service: &Service, ask: &Ask) -> Response {
    if ask.headers.contains_key(header::AUTHORIZATION) {
        service.counters.violation("bearer token sent to the media host");
    }
    let name = ask.raw_part(1);
    let expires = ask.param("expires").and_then(|expires| expires.parse::<i64>().ok()).unwrap_or(0);
    if ask.method != Method::GET || ask.param("signature") != Some(&media::signature(service, name, expires)) {
        return media::refused(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "the signature does not match");
    }
    if service.now() >= expires {
        return media::refused(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    }
    match name.strip_suffix(".csv").and_then(|id| service.extractions.find(id)) {
        Some(job) => ([(header::CONTENT_TYPE, "text/csv")], table(service, &job)).into_response(),
        None => media::refused(StatusCode::NOT_FOUND, "NoSuchKey", "the key does not exist"),
    }
}

/// The columns of version 10; version 7 has no disposition and another order.
const COLUMNS: [&str; 12] = [
    "ACD Call ID (Master Contact)",
    "Segment ID",
    "Start Date",
    "Voice Recording Status",
    "Agent 1 ACD ID",
    "Agent 1 Name",
    "Agent 1 Team",
    "Agent 1 Skills",
    "ACD Agent 1 Contact Number",
    "ANI",
    "DNIS",
    "Disposition",
];

fn table(service: &Service, job: &Job) -> String {
    let visible_until = service.now() - millis(service.config.extraction.delay);
    let world = service.world();
    let mut text = if service.config.extraction.byte_order_mark { "\u{feff}" } else { "" }.to_owned();
    push(&mut text, job.version, COLUMNS.map(str::to_owned));
    for (call, leg) in world.running(job.from..=job.to) {
        let asked = (job.from..job.to).contains(&leg.answered_at()) && leg.acw_ended_at() <= visible_until;
        if asked && call.kind != Kind::Abandoned {
            let fate = service.fates().recording(call);
            push(&mut text, job.version, row(&world.directory, call, leg, fate, service.now()));
        }
    }
    text
}

fn row(directory: &Directory, call: &Call, leg: &Leg, fate: RecordingFate, now: Millis) -> [String; 12] {
    let voice = match call.kind {
        Kind::Voice if fate.recorded && now >= fate.at && !fate.is_gone(now) => "Success",
        Kind::Voice if fate.recorded && !fate.is_gone(now) => "Pending",
        Kind::Voice => "Failed",
        Kind::Chat | Kind::Abandoned => "",
    };
    let agent = directory.agent(leg.agent_id).map(|agent| agent.at(leg.hung_up_at));
    let team = agent.and_then(|agent| directory.team(agent.team));
    let (ani, dnis) = match call.outbound {
        true => (&call.service_number, &call.customer),
        false => (&call.customer, &call.service_number),
    };
    [
        call.master.to_string(),
        leg.segment_id.clone(),
        clock::write_whole_seconds(leg.answered_at()),
        voice.to_owned(),
        leg.agent_id.to_string(),
        agent.map_or(String::new(), |agent| format!("{}, {}", agent.last_name, agent.first_name)),
        team.map_or(String::new(), |team| team.name.clone()),
        "Billing, \"gold\"; Sales".to_owned(),
        leg.contact_id.to_string(),
        ani.clone(),
        dnis.clone(),
        // Notes are typed by people, line ends included.
        if leg.contact_id % 2 == 0 { "called back\r\nsaid \"thanks\"".to_owned() } else { String::new() },
    ]
}

fn push(text: &mut String, version: Version, row: [String; 12]) {
    let mut fields = row.to_vec();
    if version == Version::Seven {
        fields.pop();
        fields.reverse();
    }
    let fields: Vec<String> = fields.into_iter().map(quoted).collect();
    text.push_str(&fields.join(","));
    text.push_str("\r\n");
}

/// A field as RFC 4180 writes it.
fn quoted(field: String) -> String {
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_as_rfc_4180_says() {
        assert_eq!(quoted("plain".to_owned()), "plain");
        assert_eq!(quoted("a, \"b\"\nc".to_owned()), "\"a, \"\"b\"\"\nc\"");
    }

    #[test]
    fn both_days_of_a_range_are_in_it() {
        let body = |first: &str, last: &str| {
            let version = "10";
            let entity = "recording-interaction-metadata";
            json!({ "entityName": entity, "version": version, "startDate": first, "endDate": last }).to_string()
        };
        let wanted = |first, last| wanted(body(first, last).as_bytes(), 15);
        let (_, from, to) = wanted("2026-04-01", "2026-04-02").expect("a range of two days");
        assert_eq!(to - from, 2 * 24 * 3600 * 1000);
        assert!(wanted("2026-04-02", "2026-04-01").is_err());
        assert!(wanted("2026-04-01", "2026-04-16").is_err());
        assert!(wanted("2026-04-01", "tomorrow").is_err());
    }
}
