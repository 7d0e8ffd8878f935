//! Media playback: the metadata of a call or a segment, and a link to its recording once there is one.

use axum::{http::Method, response::Response};
use serde_json::{Value, json};

use super::{
    ask::Ask,
    auth::{authorized, unauthorized},
    media,
    reply::{Answer, retry_after, server_error},
};
use crate::{
    call::{Call, Kind, Leg},
    chance::Dice,
    clock::{self, Millis},
    config::NotReady,
    service::Service,
    world::{SECOND_PART, World},
};

/// What a request is about.
enum Subject<'a> {
    /// A call, with the legs that have begun.
    Contact(&'a Call, &'a [Leg]),
    Segment(&'a Call, &'a Leg),
}

/// Answers `/media-playback/v1/…`.
pub(crate) fn answer(service: &Service, ask: &Ask) -> (&'static str, Response) {
    let endpoint = match (ask.part(1).as_str(), ask.part(2).as_str(), ask.parts()) {
        ("v1", "contacts", 3) => "playback-contact",
        ("v1", "segments", 4) => "playback-segment",
        _ => return ("unknown", Answer::gateway(404, "no Route matched with those values").plain()),
    };
    if ask.method != Method::GET {
        return (endpoint, Answer::Empty(405).plain());
    }
    let window = service.playback_quota().limit().map_or(service.config.playback.window, |(_, window)| window);
    service.counters.playback_asked(service.now(), window);
    service.playback_quota().asked(service.now());
    if let Some(error) = server_error(service, "playback") {
        return (endpoint, error);
    }
    if !authorized(service, ask) {
        return (endpoint, unauthorized(service, ask).plain());
    }
    if let Some(refusal) = throttled(service, ask) {
        return (endpoint, refusal);
    }
    let forbidden = service.faults.strikes("playback forbidden", |faults| faults.playback_forbidden);
    if forbidden || !service.config.playback.permitted {
        return (endpoint, error(403, "FORBIDDEN", "no permission to play recordings").plain());
    }
    (endpoint, look_up(service, ask, endpoint).spoiled(service))
}

fn throttled(service: &Service, ask: &Ask) -> Option<Response> {
    let wait = service.playback_quota().take(service.now()).err()?;
    let route = ask
        .path
        .rsplit_once('/')
        .filter(|(front, _)| front.ends_with("segments"))
        .map_or(&*ask.path, |(front, _)| front);
    let mut response = Answer::Json(429, json!({ "message": "API rate limit exceeded", "route": route })).plain();
    retry_after(service, &mut response, wait, service.config.playback.retry_after);
    Some(response)
}

fn look_up(service: &Service, ask: &Ask, endpoint: &str) -> Answer {
    let now = service.now();
    let world = service.world();
    let subject = if endpoint == "playback-segment" {
        let segment = ask.raw_part(3);
        world.segment(segment).map(|(call, leg)| Subject::Segment(call, leg))
    } else {
        let Some(id) = ask.param("acd-call-id") else { return error(400, "BAD_REQUEST", "acd-call-id is required") };
        let Ok(id) = id.parse::<i64>() else { return error(400, "BAD_REQUEST", "acd-call-id is not a number") };
        let found = world.leg(id).filter(|(call, _)| id == call.master || service.config.playback.legs_find_the_call);
        found.map(|(call, _)| Subject::Contact(call, &call.legs))
    };
    let Some(subject) = subject else { return not_found() };
    let call = subject.call();
    if !wants_voice(ask) || call.kind != Kind::Voice || !call.recorded || now < call.started_at() {
        return not_found();
    }
    let fate = service.fates().recording(call);
    if fate.is_gone(now) {
        return not_found();
    }
    let ready = fate.recorded && now >= fate.at;
    if !ready && call.not_ready == NotReady::NotFound {
        return not_found();
    }
    let link = ready.then(|| {
        let foreign = service.faults.strikes("foreign media link", |faults| faults.foreign_media_link);
        media::link(service, subject.name(), foreign)
    });
    if let Some(link) = link.as_deref().filter(|_| ask.param("isDownload") == Some("true")) {
        if service.config.playback.redirect_url {
            return Answer::Json(200, json!({ "redirectUrl": link }));
        }
        return Answer::Json(200, json!({ "fileToPlayUrl": link }));
    }
    let mut interactions = match (ready, call.not_ready) {
        (false, NotReady::NoInteractions) => Vec::new(),
        _ => interactions(&world, &subject.so_far(now), link.as_deref(), now),
    };
    let second = fate.second.filter(|second| !second.unlisted_before || now >= second.at);
    if let (Some(second), Subject::Contact(..), false) = (second, &subject, interactions.is_empty()) {
        let ready = fate.recorded && now >= second.at;
        let link = ready.then(|| media::link(service, &format!("{}{SECOND_PART}", subject.name()), false));
        interactions.push(second_part(&subject, link.as_deref()));
    }
    Answer::Json(200, envelope(service, &subject, interactions))
}

/// Voice is in every media type but chat and e-mail; nothing said means everything.
fn wants_voice(ask: &Ask) -> bool {
    let mut asked = ask.query.iter().filter(|(key, _)| key == "media-type").map(|(_, value)| value.as_str()).peekable();
    asked.peek().is_none() || asked.any(|media| ["voice-only", "voice-and-screen", "all"].contains(&media))
}

fn envelope(service: &Service, subject: &Subject<'_>, interactions: Vec<Value>) -> Value {
    let call = subject.call();
    let mut body = json!({
        "contactId": call.playback_id,
        "acdcontactId": call.master.to_string(),
        "elevatedInteraction": call.elevated,
    });
    if service.config.playback.old_shape {
        let wrapped: Vec<Value> = interactions.into_iter().map(|one| json!({ "Interaction": one })).collect();
        body["Interactions"] = json!(wrapped);
        return json!({ "value": body });
    }
    let key = if matches!(subject, Subject::Segment(..)) { "Interactions" } else { "interactions" };
    body[key] = json!(interactions);
    body
}

/// The voice interaction, behind a chat where the call was elevated.
fn interactions(world: &World, subject: &Subject<'_>, link: Option<&str>, now: Millis) -> Vec<Value> {
    let call = subject.call();
    let (start, end) = (clock::write_whole_seconds(subject.start()), clock::write_whole_seconds(subject.end()));
    let acw_end = clock::write_whole_seconds(subject.legs().last().map_or(0, Leg::acw_ended_at));
    let mut participants: Vec<Value> = subject.legs().iter().map(|leg| agent(world, leg, now)).collect();
    participants.push(json!({ "participantType": "CUSTOMER", "channel": 2 }));
    let mut data = json!({
        "startTime": start, "endTime": end, "acwEndTime": acw_end,
        "participantDataList": participants,
        "segmentsDataList": segments(call, subject.legs()),
        "waveformDataList": [], "categoryMatchesList": [], "sentiments": [], "dfoStages": [],
    });
    if let Some(link) = link {
        data["fileToPlayUrl"] = json!(link);
    }
    let voice = json!({
        "mediaType": "voice-only", "channelType": "PHONE_CALL", "@type": "call",
        "startTime": start, "endTime": end, "callTaggingList": [], "dynamicBusinessData": [], "data": data,
    });
    if !call.elevated {
        return vec![voice];
    }
    let chat = json!({
        "mediaType": "chat", "channelType": "CHAT", "@type": "chat", "startTime": start, "endTime": start,
        "data": { "messages": [{ "content": "I would rather call." }], "content": "" },
    });
    vec![chat, voice]
}

/// A voice interaction that began a second after the first.
fn second_part(subject: &Subject<'_>, link: Option<&str>) -> Value {
    let start = clock::write_whole_seconds(subject.start() + 1000);
    let end = clock::write_whole_seconds(subject.end());
    let mut data = json!({
        "startTime": start, "endTime": end, "participantDataList": [], "segmentsDataList": [],
    });
    if let Some(link) = link {
        data["fileToPlayUrl"] = json!(link);
    }
    json!({
        "mediaType": "voice-only", "channelType": "PHONE_CALL", "@type": "call",
        "startTime": start, "endTime": end, "data": data,
    })
}

fn agent(world: &World, leg: &Leg, now: Millis) -> Value {
    let agent = world.directory.agent(leg.agent_id);
    let (start, end) = (clock::write_whole_seconds(leg.answered_at()), clock::write_whole_seconds(leg.hung_up_at));
    json!({
        "participantType": "AGENT",
        "agentName": agent.map(|agent| agent.full_name(leg.hung_up_at.min(now))),
        "participantId": Dice::new(leg.recording.seed, "participant").uuid(),
        "segmentId": leg.segment_id,
        "userId": agent.map(|agent| agent.user_id.as_str()),
        "channel": 1,
        "voiceStages": [{ "stageType": "ACTIVE", "startTime": start, "endTime": end, "recordingID": leg.segment_id }],
        "screenStages": [],
    })
}

fn segments(call: &Call, legs: &[Leg]) -> Vec<Value> {
    let last = call.legs.last().map(|leg| leg.contact_id);
    (legs.iter())
        .map(|leg| {
            json!({
                "segmentId": leg.segment_id,
                "startTime": clock::write_whole_seconds(leg.answered_at()),
                "endTime": clock::write_whole_seconds(leg.hung_up_at),
                "acwEndTime": clock::write_whole_seconds(leg.acw_ended_at()),
                "openReasonType": if leg.contact_id == call.master { "CONTACT" } else { "TRANSFER" },
                "closeReasonType": if Some(leg.contact_id) == last { "CONTACT" } else { "TRANSFER" },
                "directionType": if call.outbound { "OUTBOUND" } else { "INBOUND" },
                "firstSegment": leg.contact_id == call.master,
                "channelType": "PHONE_CALL",
                "source": "ACD",
            })
        })
        .collect()
}

fn not_found() -> Answer {
    error(404, "NOT_FOUND", "Interaction not found")
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::Json(status, json!({ "internalCode": code, "message": message }))
}

impl<'a> Subject<'a> {
    fn call(&self) -> &'a Call {
        match self {
            Self::Contact(call, _) | Self::Segment(call, _) => call,
        }
    }

    fn legs(&self) -> &'a [Leg] {
        match self {
            Self::Contact(_, legs) => legs,
            Self::Segment(_, leg) => std::slice::from_ref(leg),
        }
    }

    /// The same without the legs that are still to come.
    fn so_far(&self, now: Millis) -> Self {
        match *self {
            Self::Contact(call, legs) => {
                let begun = legs.partition_point(|leg| leg.answered_at() <= now);
                Self::Contact(call, &legs[..begun])
            }
            Self::Segment(call, leg) => Self::Segment(call, leg),
        }
    }

    /// The name of its medium.
    fn name(&self) -> &'a str {
        match self {
            Self::Contact(call, _) => &call.playback_id,
            Self::Segment(_, leg) => &leg.segment_id,
        }
    }

    fn start(&self) -> Millis {
        self.legs().first().map_or(0, Leg::answered_at)
    }

    fn end(&self) -> Millis {
        self.legs().last().map_or(0, |leg| leg.hung_up_at)
    }
}
