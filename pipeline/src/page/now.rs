//! *Now*: whether calls are lost or late, whose fault it is, and what to do.

use axum::response::Response;
use flow::{metrics::OUTCOMES, outside::SystemHealth};
use jiff::Timestamp;
use maud::{Markup, html};
use model::System;

use super::flow_picture::{BRINGING, FINDING, FlowPicture};
use super::parts::{Mood, sign, stage_name};
use super::pictures::shares;
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, number, short_moment, span};
use super::{context::StatusRead, layout, layout::Place};
use crate::operations::{agents, status::Status};

/// A call that waits longer than this is late: what the alert on freshness takes.
const GOAL_SECONDS: f64 = 900.0;

/// An outside system, as the page speaks of it.
struct SystemLine {
    name: String,
    mood: Mood,
    state: String,
    since: Option<Timestamp>,
    reason: String,
    remedy: &'static str,
}

/// The view.
pub(super) async fn show(visit: Visit) -> Response {
    let body = html! {
        p.hidden #said role="status" {}
        div #now data-live="/live/now" { (part(&visit).await) }
    };
    layout::page(&visit, Place::Now, axum::http::StatusCode::OK, &body)
}

/// What is kept live.
pub(super) async fn part(guest: &Guest) -> Markup {
    let read = guest.context.status().await;
    let systems = systems(guest);
    html! {
        (verdict(guest, &read, &systems))
        @if let Ok(status) = &read { (tiles(guest, status)) }
        section.panel aria-labelledby="flow-title" {
            h2 #flow-title { (guest.texts().flow) }
            (picture(guest, read.as_ref().ok().map(|status| &**status)))
            (stages_table(guest))
        }
        div.columns {
            (systems_panel(guest, &systems))
            @if let Ok(status) = &read { (held_panel(guest, status)) }
        }
    }
}

/// The one line for which somebody looks at night.
fn verdict(guest: &Guest, read: &StatusRead, systems: &[SystemLine]) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let away: Vec<_> = systems.iter().filter(|system| system.mood == Mood::Bad).collect();
    let (mood, title, detail) = match (read, away.first()) {
        (_, Some(system)) => (
            Mood::Bad,
            fill(texts.verdict_away, &[&system.name]),
            format!("{} {}", texts.nothing_is_lost, system.remedy),
        ),
        (Err(error), None) => (Mood::Bad, texts.verdict_unreadable.to_owned(), error.clone()),
        (Ok(status), None) if status.freshness_lag_seconds > GOAL_SECONDS => {
            let lag = span(language, texts, status.freshness_lag_seconds);
            (Mood::Bad, texts.verdict_late.to_owned(), fill(texts.verdict_late_detail, &[&lag]))
        }
        (Ok(status), None) if status.agents_held.is_some() => {
            (Mood::Warn, texts.verdict_held.to_owned(), texts.verdict_held_detail.to_owned())
        }
        (Ok(status), None) if lowered(status) => {
            (Mood::Warn, texts.verdict_lowered.to_owned(), texts.verdict_lowered_detail.to_owned())
        }
        (Ok(status), None) if status.conversations.dead_letters > 0 => {
            let letters = number(language, status.conversations.dead_letters);
            (Mood::Warn, fill(texts.verdict_dead, &[&letters]), texts.verdict_dead_detail.to_owned())
        }
        (Ok(_), None) => (Mood::Good, texts.verdict_well.to_owned(), texts.verdict_well_detail.to_owned()),
    };
    html! {
        div class={ "verdict " (mood.class()) } data-say=(title) {
            (sign(mood))
            div { h1 { (title) } p { (detail) } }
        }
    }
}

fn lowered(status: &Status) -> bool {
    status.rate_budget.iter().any(|budget| budget.limit_now < budget.limit || budget.closed_seconds.is_some())
}

fn tiles(guest: &Guest, status: &Status) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let lag = status.freshness_lag_seconds;
    let (backlog, counts) = (status.backlog, status.conversations);
    let tile = |class: &str, name: &str, value: String, detail: String| {
        html! { div class={ "tile " (class) } { dt { (name) } dd { (value) } dd { (detail) } } }
    };
    let count = |count| number(language, count);
    let lag_class = if lag > GOAL_SECONDS { "bad" } else { "" };
    let dead_class = if counts.dead_letters > 0 { "warn" } else { "" };
    html! {
        dl.tiles {
            (tile(lag_class, texts.oldest_call, span(language, texts, lag), fill(texts.goal, &[&span(language, texts, GOAL_SECONDS)])))
            (tile("", texts.due_now, count(backlog.live), fill(texts.and_backfill, &[&count(backlog.backfill)])))
            (tile("", texts.waiting, count(backlog.delayed), fill(texts.in_work, &[&count(backlog.in_flight)])))
            (tile("", texts.state_ready, count(counts.ready), fill(texts.and_no_recording, &[&count(counts.no_recording)])))
            (tile(dead_class, texts.dead_letters, count(counts.dead_letters), texts.set_aside.to_owned()))
        }
    }
}

fn picture(guest: &Guest, status: Option<&Status>) -> Markup {
    let picture = FlowPicture {
        texts: guest.texts(),
        language: guest.language,
        samples: &guest.context.samples(),
        backlog: status.map(|status| status.backlog),
        ready: status.map(|status| status.conversations.ready),
    };
    picture.draw()
}

/// The same in figures, since the start of this process.
fn stages_table(guest: &Guest) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let items = &guest.context.metrics.flow.stage_items;
    let count = |stage: &str, outcome: &str| number(language, items.with_label_values(&[stage, outcome]).get());
    html! {
        details #stages {
            summary #stages-summary { (texts.stages_in_figures) }
            div.scroll #stages-scroll tabindex="0" role="region" aria-label=(texts.stages_in_figures) {
                table {
                    thead { tr { th scope="col" { (texts.stage) } @for outcome in OUTCOMES { th.number scope="col" { (outcome_name(texts, outcome)) } } } }
                    tbody {
                        @for stage in FINDING.iter().chain(&BRINGING) {
                            tr { th scope="row" { (stage_name(texts, stage)) } @for outcome in OUTCOMES { td.number { (count(stage, outcome)) } } }
                        }
                    }
                }
            }
        }
    }
}

/// What a stage made of an item, in a word.
pub(super) fn outcome_name(texts: &Texts, outcome: &str) -> &'static str {
    match outcome {
        "ok" => texts.outcome_ok,
        "done" => texts.outcome_done,
        "retry" => texts.outcome_retry,
        "busy" => texts.outcome_busy,
        "not_ready" => texts.outcome_not_ready,
        "dead_letter" => texts.outcome_dead_letter,
        "handed_back" => texts.outcome_handed_back,
        _ => texts.outcome_other,
    }
}

/// Every outside system that this process asks, in words.
fn systems(guest: &Guest) -> Vec<SystemLine> {
    let texts = guest.texts();
    let line = |(system, health)| match health {
        SystemHealth::Up => SystemLine {
            name: system_name(texts, system).to_owned(),
            mood: Mood::Good,
            state: texts.answers.to_owned(),
            since: None,
            reason: String::new(),
            remedy: "",
        },
        SystemHealth::Down { since, why } => SystemLine {
            name: system_name(texts, system).to_owned(),
            mood: Mood::Bad,
            state: texts.away.to_owned(),
            since: Some(since),
            reason: why,
            remedy: remedy(texts, system),
        },
    };
    guest.context.outside.health().into_iter().map(line).collect()
}

/// A system, as people call it.
pub(super) fn system_name(texts: &Texts, system: System) -> &'static str {
    match system {
        System::Nice => texts.system_nice,
        System::MediaHost => texts.system_media_host,
        System::RecordingStore => texts.system_recording_store,
        System::Catalog => texts.system_catalog,
        System::Queue => texts.queue,
        System::Call => texts.system_call,
    }
}

fn remedy(texts: &Texts, system: System) -> &'static str {
    match system {
        System::Nice | System::MediaHost | System::Call => texts.remedy_nice,
        System::RecordingStore => texts.remedy_recording_store,
        System::Catalog => texts.remedy_catalog,
        System::Queue => texts.remedy_queue,
    }
}

fn systems_panel(guest: &Guest, systems: &[SystemLine]) -> Markup {
    let texts = guest.texts();
    html! {
        section.panel aria-labelledby="systems-title" {
            h2 #systems-title { (texts.outside_systems) }
            @if systems.is_empty() { p.quiet { (texts.all_embedded) } } @else {
                table.stack {
                    thead { tr { th scope="col" { (texts.system) } th scope="col" { (texts.state) } th scope="col" { (texts.since) } } }
                    tbody {
                        @for system in systems {
                            tr {
                                th scope="row" { (system.name) }
                                td data-name=(texts.state) {
                                    div {
                                        span class={ "chip " (system.mood.class()) } { (system.state) }
                                        @if !system.reason.is_empty() { div.quiet.reason { (system.reason) } }
                                        @if !system.remedy.is_empty() { div { (system.remedy) } }
                                    }
                                }
                                td data-name=(texts.since) { @if let Some(since) = system.since { (short_moment(since, guest.now)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is lowered or held, and why; and what else an operator wants to see at once.
fn held_panel(guest: &Guest, status: &Status) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let found = status.poll_watermark;
    html! {
        section.panel aria-labelledby="held-title" {
            h2 #held-title { (texts.lowered_or_held) }
            @for budget in &status.rate_budget {
                p {
                    span { (if budget.family == "acd" { texts.family_acd } else { texts.family_media }) " " }
                    span.quiet { (fill(texts.used_of, &[&number(language, budget.used.into()), &number(language, budget.limit_now.into())])) }
                    @if budget.limit_now < budget.limit { " " span.chip.warn { (fill(texts.lowered_from, &[&budget.limit])) } }
                    (shares(&[(u64::from(budget.used), if budget.limit_now < budget.limit { "fill-warn" } else { "fill-accent" })], u64::from(budget.limit.max(1))))
                    span.quiet { (budget.why) }
                }
            }
            @if let Some(held) = &status.agents_held { p.notice.bad { (agents::held(held)) } }
            @if status.agents_missing > 0 { p.notice { (fill(texts.agents_missing, &[&status.agents_missing])) } }
            dl.facts {
                dt { (texts.agents) } dd { (fill(texts.agents_active, &[&status.agents_active, &status.agents_inactive])) }
                dt { (texts.found_up_to) } dd { @match found { Some(at) => (short_moment(at, guest.now)), None => "–" } }
                dt { (texts.last_comparison) } dd { @match status.last_reconciliation { Some(at) => (short_moment(at, guest.now)), None => (texts.never) } }
                @if let Some(since) = status.started_at {
                    dt { (texts.running_for) } dd { (span(language, texts, guest.now.duration_since(since).as_secs_f64().max(0.0))) }
                }
            }
        }
    }
}
