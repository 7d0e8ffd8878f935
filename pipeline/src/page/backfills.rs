//! *Backfills*: planned, begun, paused, resumed and cancelled, with how far each has come.

use axum::{
    extract::Path,
    response::{IntoResponse, Redirect, Response},
};
use catalog::RunState;
use jiff::civil::Date;
use maud::{Markup, html};
use model::Members;
use serde::Deserialize;

use super::acting::{Acting, NoFields};
use super::parts::form_token;
use super::pictures::shares;
use super::reasons::reason;
use super::search::{begin as begin_of, beyond};
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{decimal, fill, moment, number, span};
use super::{layout, layout::Place};
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, OperationError,
    replays::{Backfill, BackfillProgress, Change, ChangeBackfill, ListBackfills},
};

/// What a backfill is asked for with.
#[derive(Deserialize)]
pub(super) struct BackfillForm {
    from: Date,
    to: Date,
    #[serde(default)]
    members_now: Option<String>,
    act: String,
}

/// The view.
pub(super) async fn show(visit: Visit) -> Response {
    let asked = ListBackfills {}.fulfil(&visit.context.operations.replays).await;
    let body =
        asked.map(|backfills| html! { h1 { (visit.texts().backfills) } (new(&visit)) (list(&visit, &backfills)) });
    layout::answer(&visit, Place::Backfills, body)
}

/// Plans one, or begins it.
pub(super) async fn begin(Acting { visit, fields }: Acting<BackfillForm>) -> Response {
    let plan_only = fields.act != "begin";
    let asked = async {
        let to = fields.to.tomorrow().map_err(beyond)?;
        let members = if fields.members_now.is_some() { Members::Now } else { Members::Then };
        let backfill = Backfill { from: begin_of(fields.from)?, to: begin_of(to)?, members, plan_only };
        let act = if plan_only { "plan backfill" } else { "begin backfill" };
        visit.record(act, &format!("calls that began from {} to before {to}", fields.from)).await?;
        backfill.fulfil(&visit.context.operations.replays).await
    };
    done(&visit, asked.await.map(|_| ()))
}

/// Pauses one, resumes it, or cancels it.
pub(super) async fn change(
    Path((id, change)): Path<(u64, Change)>,
    Acting { visit, .. }: Acting<NoFields>,
) -> Response {
    let act = match change {
        Change::Pause => "pause backfill",
        Change::Resume => "resume backfill",
        Change::Cancel => "cancel backfill",
    };
    let asked = async {
        visit.record(act, &format!("backfill {id}")).await?;
        ChangeBackfill { id, change }.fulfil(&visit.context.operations.replays).await
    };
    done(&visit, asked.await.map(|_| ()))
}

fn done(visit: &Visit, done: Result<(), OperationError>) -> Response {
    match done {
        Ok(()) => Redirect::to("/backfills").into_response(),
        Err(error) => layout::answer(visit, Place::Backfills, Err(error)),
    }
}

fn new(visit: &Guest) -> Markup {
    let texts = visit.texts();
    let today = visit.now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let yesterday = today.yesterday().unwrap_or(today);
    html! {
        section.panel aria-labelledby="new-title" {
            h2 #new-title { (texts.new_backfill) }
            p.quiet { (texts.backfill_says) }
            @if visit.visitor.may(OperatorRole::Act) {
                form method="post" action="/backfills" {
                    (form_token(visit))
                    div.fields {
                        label { (texts.from_day) input type="date" name="from" value=(yesterday) max=(today) required; }
                        label { (texts.to_day) input type="date" name="to" value=(yesterday) max=(today) required; }
                        label.check { input type="checkbox" name="members_now" value="yes"; (texts.members_now) }
                        div.acts {
                            button.main-act type="submit" name="act" value="plan" { (texts.plan) }
                            button type="submit" name="act" value="begin" { (texts.plan_and_begin) }
                        }
                    }
                }
            } @else { p { (texts.only_who_may_act) } }
        }
    }
}

fn list(visit: &Guest, backfills: &[BackfillProgress]) -> Markup {
    html! {
        @if backfills.is_empty() { p.quiet { (visit.texts().no_backfills) } }
        @for backfill in backfills { (card(visit, backfill)) }
    }
}

fn card(visit: &Guest, backfill: &BackfillProgress) -> Markup {
    let (texts, language, run) = (visit.texts(), visit.language, &backfill.run);
    let count = |count| number(language, count);
    let title = format!("backfill-{}", run.id);
    let (class, word) = state(texts, run.state, run.plan_only);
    html! {
        section.panel aria-labelledby=(title) {
            h2 id=(title) { (fill(texts.backfill_n, &[&run.id])) " " span class={ "chip " (class) } { (word) } }
            p { (moment(run.from)) " – " (moment(run.to)) " " span.quiet { (if run.members == Members::Now { texts.members_now } else { texts.members_then }) } }
            @match run.plan {
                None => p.quiet { (texts.is_listed) },
                Some(plan) => {
                    p { (fill(texts.plan_found, &[&count(plan.listed), &count(plan.there()), &count(plan.missing)])) }
                    @if plan.missing > 0 {
                        (shares(&[(backfill.imported, "fill-good")], plan.missing))
                        p {
                            (fill(if backfill.imported_is_about { texts.about_imported } else { texts.imported }, &[&count(backfill.imported), &count(plan.missing)]))
                            @if let Some(rate) = backfill.per_second { " · " (fill(texts.calls_per_minute, &[&decimal(language, rate * 60.0)])) }
                            @if let Some((soonest, latest)) = eta(backfill, visit) { " · " (fill(texts.done_in, &[&span(language, texts, soonest), &span(language, texts, latest)])) }
                        }
                    }
                    @if let (Some(requests), Some(seconds), 1..) = (backfill.requests, backfill.planned_seconds, plan.missing) {
                        p.quiet { (fill(texts.costs, &[&count(requests.media_playback), &count(requests.acd), &span(language, texts, seconds)])) }
                    }
                }
            }
            @if let Some(why) = &run.reason { p.notice { (reason(visit, why)) } }
            @if let Some(doubt) = &run.doubt { p.notice { (reason(visit, doubt)) } }
            (changes(visit, backfill))
        }
    }
}

/// The soonest and the latest second in which it is done. Until enough is imported the quota alone is known, and calls
/// of which the live ones leave less; a measured rate changes less.
fn eta(backfill: &BackfillProgress, visit: &Guest) -> Option<(f64, f64)> {
    let left = backfill.done_at?.duration_since(visit.now).as_secs_f64().max(0.0);
    let is_measured = backfill.imported >= 100;
    Some(if is_measured { (left * 0.8, left * 1.25) } else { (left * 0.7, left * 2.0) })
}

fn state(texts: &Texts, state: RunState, plan_only: bool) -> (&'static str, &'static str) {
    match state {
        RunState::Planning => ("wait", texts.run_planning),
        RunState::Planned if plan_only => ("", texts.run_planned),
        RunState::Planned => ("", texts.run_planned),
        RunState::Running => ("good", texts.run_running),
        RunState::Paused => ("warn", texts.run_paused),
        RunState::Cancelled => ("", texts.run_cancelled),
        RunState::Done => ("good", texts.run_done),
        RunState::Failed => ("bad", texts.run_failed),
    }
}

fn changes(visit: &Guest, backfill: &BackfillProgress) -> Markup {
    let (texts, id) = (visit.texts(), backfill.run.id);
    let possible: &[(&str, &str, &str)] = match backfill.run.state {
        RunState::Planning | RunState::Running => &[("pause", texts.pause, ""), ("cancel", texts.cancel, "harm")],
        RunState::Paused | RunState::Planned => {
            &[("resume", texts.resume, "main-act"), ("cancel", texts.cancel, "harm")]
        }
        RunState::Failed => &[("resume", texts.resume, "")],
        RunState::Cancelled | RunState::Done => &[],
    };
    html! {
        @if visit.visitor.may(OperatorRole::Act) && !possible.is_empty() {
            div.acts {
                @for (change, word, class) in possible {
                    form method="post" action={ "/backfills/" (id) "/" (change) } {
                        (form_token(visit)) button class=(class) type="submit" { (word) span.hidden { " " (fill(texts.backfill_n, &[&id])) } }
                    }
                }
            }
        }
    }
}
