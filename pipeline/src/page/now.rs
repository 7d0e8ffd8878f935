//! *Now*: whether calls are lost or late, whose fault it is, and what to do.

use axum::response::Response;
use flow::metrics::OUTCOMES;
use maud::{Markup, html};

use super::flow_picture::{BRINGING, FINDING, FlowPicture};
use super::parts::{Mood, sign, stage_name};
use super::pictures::shares;
use super::reasons::reason;
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, number, short_moment, span};
use super::{context::StatusRead, layout, layout::Place, services_panel, systems_panel};
use crate::operations::{
    agents,
    status::{Status, Verdict},
};

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
    let status = read.as_ref().ok();
    html! {
        (verdict(guest, &read))
        @if let Some(status) = status {
            (tiles(guest, status))
            section.panel aria-labelledby="flow-title" {
                h2 #flow-title { (guest.texts().flow) }
                (picture(guest, status))
                (stages_table(guest, status))
            }
            div.columns {
                (systems_panel::panel(guest, &status.systems))
                (held_panel(guest, status))
            }
            (services_panel::panel(guest, &status.services))
        }
    }
}

/// What the verdict says: how bad it is, in a line, and what to do.
struct VerdictWords {
    mood: Mood,
    title: String,
    detail: Markup,
}

/// The one line for which somebody looks at night; below it all that is not well.
fn verdict(guest: &Guest, read: &StatusRead) -> Markup {
    let VerdictWords { mood, title, detail } = match read {
        Ok(status) => judged(guest, status),
        Err(error) => {
            let title = guest.texts().verdict_unreadable.to_owned();
            VerdictWords { mood: Mood::Bad, title, detail: reason(guest, error) }
        }
    };
    let concerns = read.as_ref().map_or(&[][..], |status| &status.concerns);
    html! {
        div class={ "verdict " (mood.class()) } data-say=(title) {
            (sign(mood))
            div {
                h1 { (title) }
                p { (detail) }
                // In the words of `status`; one alone is in the title already.
                @if concerns.len() > 1 { ul { @for concern in concerns { li { (reason(guest, concern)) } } } }
            }
        }
    }
}

fn judged(guest: &Guest, status: &Status) -> VerdictWords {
    let (texts, language) = (guest.texts(), guest.language);
    let words = |mood, title: String, detail: &str| VerdictWords { mood, title, detail: html! { (detail) } };
    if let Some(away) = status.systems.iter().find(|system| system.state.is_away()) {
        let wait = fill(texts.calls_wait, &[&number(language, away.waiting)]);
        let remedy = systems_panel::remedy(texts, language, away).unwrap_or_default();
        return words(Mood::Bad, systems_panel::headline(guest, away), &format!("{remedy} {wait}"));
    }
    if status.verdict == Verdict::Well {
        return words(Mood::Good, texts.verdict_well.to_owned(), texts.verdict_well_detail);
    }
    let freshness = &status.freshness;
    if let Some(seconds) = freshness.oldest_due_seconds.filter(|seconds| *seconds > freshness.goal_seconds) {
        let lag = span(language, texts, seconds);
        return words(Mood::Bad, texts.verdict_late.to_owned(), &fill(texts.verdict_late_detail, &[&lag]));
    }
    if let Some(missed) = status.services.iter().find(|service| service.is_missed) {
        return words(Mood::Warn, fill(texts.verdict_missed, &[&missed.name()]), texts.verdict_missed_detail);
    }
    if status.agents_held.is_some() {
        return words(Mood::Warn, texts.verdict_held.to_owned(), texts.verdict_held_detail);
    }
    if lowered(status) {
        return words(Mood::Warn, texts.verdict_lowered.to_owned(), texts.verdict_lowered_detail);
    }
    let letters = status.conversations.map_or(0, |counts| counts.dead_letters);
    if letters > 0 {
        let title = fill(texts.verdict_dead, &[&number(language, letters)]);
        let is_all = status.concerns.len() <= 1;
        return words(Mood::Warn, title, if is_all { texts.verdict_dead_detail } else { "" });
    }
    let detail = reason(guest, status.concerns.first().map_or("", String::as_str));
    VerdictWords { mood: Mood::Warn, title: texts.verdict_look.to_owned(), detail }
}

fn lowered(status: &Status) -> bool {
    status.rate_budget.iter().any(|budget| budget.limit_now < budget.limit || budget.closed_seconds.is_some())
}

fn tiles(guest: &Guest, status: &Status) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let (backlog, counts, freshness) =
        (status.backlog.unwrap_or_default(), status.conversations.unwrap_or_default(), &status.freshness);
    let tile = |class: &str, name: &str, value: String, detail: String| {
        html! { div class={ "tile " (class) } { dt { (name) } dd { (value) } dd { (detail) } } }
    };
    let count = |count| number(language, count);
    let goal = span(language, texts, freshness.goal_seconds);
    let goal = match &freshness.waits_for {
        Some(system) => fill(texts.waits_for, &[&systems_panel::system_name(texts, system), &goal]),
        None => fill(texts.goal, &[&goal]),
    };
    let oldest = freshness.oldest_due_seconds.unwrap_or_default();
    let lag_class = if oldest > freshness.goal_seconds { "bad" } else { "" };
    let oldest = if freshness.is_known { span(language, texts, oldest) } else { "?".to_owned() };
    let dead_class = if counts.dead_letters > 0 { "warn" } else { "" };
    html! {
        dl.tiles {
            (tile(lag_class, texts.oldest_call, oldest, goal))
            (tile("", texts.due_now, count(backlog.live), fill(texts.and_backfill, &[&count(backlog.backfill)])))
            (tile("", texts.waiting, count(backlog.delayed), fill(texts.in_work, &[&count(backlog.in_flight)])))
            (tile("", texts.state_ready, count(counts.ready), fill(texts.and_no_recording, &[&count(counts.no_recording)])))
            (tile(dead_class, texts.dead_letters, count(counts.dead_letters), texts.set_aside.to_owned()))
        }
        @if !status.not_asked.is_empty() { p.notice { (fill(texts.not_known_now, &[&status.not_asked.join(", ")])) } }
    }
}

fn picture(guest: &Guest, status: &Status) -> Markup {
    let is_known = |figure: &str| !status.not_asked.iter().any(|name| name == figure);
    let picture = FlowPicture {
        texts: guest.texts(),
        language: guest.language,
        samples: &guest.context.samples(),
        backlog: status.backlog.filter(|_| is_known("backlog")),
        ready: status.conversations.filter(|_| is_known("conversations")).map(|counts| counts.ready),
    };
    picture.draw()
}

/// The same in figures.
fn stages_table(guest: &Guest, status: &Status) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    let count = |stage: &str, outcome: &str| {
        let stage = status.stages.iter().find(|one| one.stage == stage);
        number(language, stage.and_then(|stage| stage.outcomes.get(outcome)).copied().unwrap_or_default())
    };
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
                    span.quiet { (reason(guest, &budget.why)) }
                }
            }
            @if let Some(held) = &status.agents_held { p.notice.bad { (reason(guest, &agents::held(held))) } }
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
