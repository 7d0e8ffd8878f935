//! *A conversation*: what is known of it, and its timeline as a picture.

use axum::{extract::Path, http::StatusCode, response::Response};
use jiff::Timestamp;
use maud::{Markup, html};
use model::{ContactId, Hop};
use serde_json::Value;

use super::acting::{Acting, NoFields};
use super::now::outcome_name;
use super::parts::{form_token, stage_name, state_chip};
use super::pictures::{Piece, bar, swatch};
use super::reasons::reason;
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{bytes, fill, moment, span, took};
use super::{layout, layout::Place};
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, OperationError,
    personal::ShowCustomerNumber,
    trace::{Trace, TraceConversation},
};

/// Hops that are drawn; the last ones of a conversation that waited for long.
const MOST_DRAWN: usize = 200;

/// What was asked for besides, and is shown once.
#[derive(Default)]
struct Shown {
    /// The customer's number, if it was asked for: none where there is none.
    number: Option<Option<String>>,
    /// Whether the recordings can be heard.
    players: bool,
}

/// The view.
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let body = body(&visit, &id, Shown::default()).await;
    layout::answer(&visit, Place::Conversations, body)
}

/// The view with the customer's number; that it was asked for is written down first.
pub(super) async fn show_number(Path(id): Path<String>, Acting { mut visit, .. }: Acting<NoFields>) -> Response {
    visit.0.address = format!("/conversations/{id}");
    let asked = async {
        let conversation_id = contact(&id)?;
        visit.record("show number", &format!("conversation {conversation_id}")).await?;
        let personal = &visit.context.operations.personal;
        let number = ShowCustomerNumber { conversation_id }.fulfil(personal).await?.customer_number;
        body(&visit, &id, Shown { number: Some(number), ..Shown::default() }).await
    };
    let body = asked.await;
    layout::answer(&visit, Place::Conversations, body)
}

/// The view with players; that somebody wants to hear it is written down first, and again when a recording is played.
pub(super) async fn listen(Path(id): Path<String>, Acting { mut visit, .. }: Acting<NoFields>) -> Response {
    visit.0.address = format!("/conversations/{id}");
    if !visit.context.playback {
        return layout::refusal(&visit, Place::Conversations, StatusCode::FORBIDDEN, visit.texts().playback_is_off);
    }
    let asked = async {
        visit.record("listen", &format!("conversation {}", contact(&id)?)).await?;
        body(&visit, &id, Shown { players: true, ..Shown::default() }).await
    };
    let body = asked.await;
    layout::answer(&visit, Place::Conversations, body)
}

/// An id in an address.
pub(super) fn contact(id: &str) -> Result<ContactId, OperationError> {
    id.parse().map_err(|_| OperationError::Invalid("an id is 1 to 19 digits".to_owned()))
}

async fn body(guest: &Guest, id: &str, shown: Shown) -> Result<Markup, OperationError> {
    let request: TraceConversation = serde_json::from_value(serde_json::json!({ "conversation_id": contact(id)? }))
        .map_err(|error| OperationError::Invalid(error.to_string()))?;
    let trace = request.fulfil(&guest.context.operations.trace).await?;
    let texts = guest.texts();
    Ok(html! {
        h1 { (texts.conversation) " " span.mono { (trace.conversation_id) } " " (state_chip(texts, &trace.state)) }
        @if let Some(letter) = &trace.dead_letter {
            p.notice.bad { (fill(texts.set_aside_at, &[&stage_name(texts, &letter.stage)])) " " (reason(guest, &letter.reason)) " " a href={ "/dead-letters/" (letter.id) } { (fill(texts.dead_letter_n, &[&letter.id])) } }
        }
        div.columns {
            (facts(guest, &trace, &shown))
            (recordings(guest, &trace, &shown))
        }
        (timeline(guest, &trace.hops))
    })
}

fn facts(guest: &Guest, trace: &Trace, shown: &Shown) -> Markup {
    let texts = guest.texts();
    let row = trace.conversation.as_ref();
    let text = |field: &str| row.and_then(|row| row[field].as_str()).map(str::to_owned);
    let at = |field: &str| text(field).and_then(|at| at.parse::<Timestamp>().ok());
    html! {
        section.panel aria-labelledby="facts-title" {
            h2 #facts-title { (texts.facts) }
            @if row.is_none() { p.quiet { (texts.no_row_yet) } }
            dl.facts {
                @if row.is_some() {
                    dt { (texts.began_at) } dd { @if let Some(at) = at("started_at") { (moment(at)) } }
                    dt { (texts.ended_at) } dd { @if let Some(at) = at("ended_at") { (moment(at)) }
                        @if let (Some(from), Some(to)) = (at("started_at"), at("ended_at")) {
                            span.quiet { " (" (span(guest.language, texts, to.duration_since(from).as_secs_f64())) ")" } } }
                    dt { (texts.agent) } dd { a href={ "/conversations?agent=" (text("agent_external_id").unwrap_or_default()) } { (text("agent_external_id").unwrap_or_default()) } }
                    dt { (texts.master_contact) } dd.mono { (text("master_external_id").unwrap_or_default()) }
                    dt { (texts.direction) } dd { (match text("direction").as_deref() { Some("inbound") => texts.inbound, Some("outbound") => texts.outbound, _ => texts.unknown }) }
                    dt { (texts.found_by) } dd { (text("source").unwrap_or_default()) }
                    dt { (texts.in_analysis_queue) } dd { @match at("enqueued_at") { Some(at) => (moment(at)), None => (texts.not_yet) } }
                    dt { (texts.taken_by_analysis) } dd { @match at("claimed_at") { Some(at) => (moment(at)), None => (texts.not_yet) } }
                    dt { (texts.customer_number) } dd { (number(guest, trace, shown)) }
                }
                dt { (texts.trace_id) } dd.mono { (trace.trace_id) }
            }
        }
    }
}

/// The customer's number: hidden, until somebody who may asks for it.
fn number(guest: &Guest, trace: &Trace, shown: &Shown) -> Markup {
    let texts = guest.texts();
    html! {
        @match &shown.number {
            Some(Some(number)) => span.mono { (number) },
            Some(None) => span { (texts.no_number) },
            None => {
                span.mono aria-hidden="true" { "•••••••" } span.hidden { (texts.hidden_number) } " "
                @if guest.visitor.may(OperatorRole::Act) {
                    form.small method="post" action={ "/conversations/" (trace.conversation_id) "/number" } {
                        (form_token(guest)) button type="submit" { (texts.show_number) }
                    }
                } @else { span.quiet { (texts.only_who_may_act) } }
            }
        }
    }
}

fn recordings(guest: &Guest, trace: &Trace, shown: &Shown) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let row = trace.conversation.as_ref();
    let all: Vec<&Value> = row.and_then(|row| row["recordings"].as_array()).into_iter().flatten().collect();
    let missing = row.and_then(|row| row["recordings_missing"].as_u64()).unwrap_or_default();
    let can_play = guest.context.playback && guest.context.operations.personal.has_store();
    html! {
        section.panel aria-labelledby="recordings-title" {
            h2 #recordings-title { (texts.recordings) }
            @if missing > 0 { p.notice { (fill(texts.recordings_missing, &[&missing])) } }
            @if all.is_empty() { p.quiet { (texts.no_recordings) } }
            @for recording in &all {
                dl.facts {
                    dt { (texts.position) } dd { (recording["position"]) }
                    dt { (texts.size) } dd { (bytes(language, recording["size_bytes"].as_u64().unwrap_or_default())) ", " (recording["content_type"].as_str().unwrap_or_default()) }
                    dt { "SHA-256" } dd.mono { (recording["sha256"].as_str().unwrap_or_default()) }
                    dt { (texts.place) } dd.mono { (recording["object_key"].as_str().unwrap_or_default()) }
                }
                @if shown.players {
                    audio controls preload="none" aria-label=(fill(texts.recording_n, &[&recording["position"]]))
                        src={ "/conversations/" (trace.conversation_id) "/recordings/" (recording["position"]) } {}
                }
            }
            @if can_play && !shown.players && !all.is_empty() && guest.visitor.may(OperatorRole::Act) {
                p {}
                form method="post" action={ "/conversations/" (trace.conversation_id) "/listen" } {
                    (form_token(guest)) button type="submit" { (texts.listen) } " " span.quiet { (texts.is_written_down) }
                }
            }
        }
    }
}

/// A bar for each hop, on one scale of time; what it waited for before is a bar of its own colour.
fn timeline(guest: &Guest, hops: &[Hop]) -> Markup {
    let texts = guest.texts();
    let left_out = hops.len().saturating_sub(MOST_DRAWN);
    let mut hops = hops[left_out..].to_vec();
    let begun = |hop: &Hop| hop.at.as_millisecond() - i64::try_from(hop.took_millis).unwrap_or_default();
    // They are written as they end, and side by side.
    hops.sort_by_key(begun);
    let first = hops.iter().map(begun).min().unwrap_or_default();
    let last = hops.iter().map(|hop| hop.at.as_millisecond()).max().unwrap_or_default();
    let whole = (last - first).max(1) as f64;
    let place = |millis: i64| (millis - first) as f64 * 1000.0 / whole;
    let befores = std::iter::once(None).chain(hops.iter().map(Some));
    html! {
        section.panel aria-labelledby="timeline-title" {
            h2 #timeline-title { (texts.timeline) }
            @if hops.is_empty() { p.quiet { (texts.no_hops) } } @else {
                p.quiet {
                    (fill(texts.timeline_says, &[&hops.len(), &span(guest.language, texts, whole / 1e3)])) " "
                    @if let Ok(first) = Timestamp::from_millisecond(first) { (moment(first)) }
                    @if left_out > 0 { " " (fill(texts.hops_left_out, &[&left_out])) }
                }
                ol.hops {
                    @for (hop, before) in hops.iter().zip(befores) {
                        @let waited = before.filter(|before| begun(hop) > before.at.as_millisecond());
                        @if before.is_none_or(|before: &Hop| before.attempt != hop.attempt) { li.attempt { (fill(texts.attempt_n, &[&(hop.attempt + 1)])) } }
                        li.hop {
                            span { (stage_name(texts, &hop.stage)) " " (outcome(texts, &hop.outcome)) }
                            (bar(&pieces(hop, waited, &place, begun(hop))))
                            span.number { (took(guest.language, texts, hop.took_millis)) }
                            @if let Some(detail) = detail(texts, hop, waited.map(|before| begun(hop) - before.at.as_millisecond()), guest) { span.detail { (detail) } }
                        }
                    }
                }
                ul.legend {
                    li { (swatch("fill-accent")) (texts.legend_work) } li { (swatch("fill-wait")) (texts.legend_wait) }
                    li { (swatch("fill-warn")) (texts.legend_retry) } li { (swatch("fill-bad")) (texts.legend_dead) }
                }
            }
        }
    }
}

fn pieces(hop: &Hop, waited: Option<&Hop>, place: &impl Fn(i64) -> f64, begun: i64) -> Vec<Piece> {
    let end = place(hop.at.as_millisecond());
    let mut pieces = Vec::new();
    if let Some(before) = waited {
        let from = place(before.at.as_millisecond());
        pieces.push(Piece { from, length: place(begun) - from, colour: "fill-wait" });
    }
    let colour = match hop.outcome.as_str() {
        "dead_letter" => "fill-bad",
        "retry" | "handed_back" => "fill-warn",
        _ => "fill-accent",
    };
    pieces.push(Piece { from: place(begun), length: (end - place(begun)).max(4.0), colour });
    pieces
}

/// What a stage made of the call: what is as it should be is told to a screen reader only.
fn outcome(texts: &Texts, outcome: &str) -> Markup {
    html! {
        @if outcome == "ok" { span.hidden { (outcome_name(texts, outcome)) } }
        @else { span class={ "chip " (outcome_class(outcome)) } { (outcome_name(texts, outcome)) } }
    }
}

fn outcome_class(outcome: &str) -> &'static str {
    match outcome {
        "done" => "good",
        "not_ready" | "busy" => "wait",
        "retry" | "handed_back" => "warn",
        "dead_letter" => "bad",
        _ => "",
    }
}

/// Why, and for how long it waited before.
fn detail(texts: &Texts, hop: &Hop, waited_millis: Option<i64>, guest: &Guest) -> Option<Markup> {
    let waited = waited_millis
        .filter(|millis| *millis >= 500)
        .map(|millis| fill(texts.waited_before, &[&span(guest.language, texts, millis as f64 / 1e3)]));
    let why = hop.detail.as_ref().map(|why| reason(guest, why));
    let between = if waited.is_some() && why.is_some() { " · " } else { "" };
    (waited.is_some() || why.is_some())
        .then(|| html! { (waited.unwrap_or_default()) (between) @if let Some(why) = why { (why) } })
}
