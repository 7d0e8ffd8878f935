//! *Completeness*: a calendar of days, the exceptions of each, and what the nightly comparisons found. The calendar is
//! counted in the catalog; NICE is asked only where somebody wants its list of a day.

use axum::{
    extract::{Path, Query},
    response::Response,
};
use catalog::{DayCounts, FoundConversation, ReplayRun, RunState};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};
use serde::Deserialize;
use stages::completeness::Completeness;

use super::acting::{Acting, NoFields};
use super::parts::{form_token, state_chip};
use super::pictures::{shares, swatch};
use super::reasons::reason;
use super::search::{begin, beyond};
use super::signed_days::{self, DayMark};
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, moment, number};
use super::{layout, layout::Place};
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, OperationError,
    dead_letters::ListDeadLetters,
    overview::{CountDays, FindConversations, PAGE},
    paging::PageStart,
    replays::ListReconciliations,
    report::ShowReport,
};

/// Exceptions of a day that are shown.
const MOST_SHOWN: usize = 200;

/// Comparisons that are shown.
const MOST_RUNS: usize = 14;

/// Which month.
#[derive(Deserialize)]
pub(super) struct Month {
    month: Option<String>,
}

/// The calendar of a month.
pub(super) async fn show(visit: Visit, Query(asked): Query<Month>) -> Response {
    let body = calendar(&visit, asked.month.as_deref()).await;
    layout::answer(&visit, Place::Completeness, body)
}

/// A day and its exceptions.
pub(super) async fn show_day(visit: Visit, Path(day): Path<Date>) -> Response {
    let body = one_day(&visit, day, None).await;
    layout::answer(&visit, Place::Completeness, body)
}

/// The same, compared with NICE's list of the day.
pub(super) async fn report_day(Path(day): Path<Date>, Acting { visit, .. }: Acting<NoFields>) -> Response {
    let asked = async {
        visit.record("ask NICE for a report", &format!("calls that ended on {day}")).await?;
        let range = serde_json::json!({ "from": begin(day)?, "to": begin(day.tomorrow().map_err(beyond)?)? });
        let request: ShowReport =
            serde_json::from_value(range).map_err(|error| OperationError::Invalid(error.to_string()))?;
        let report = request.fulfil(&visit.context.operations.report).await?;
        one_day(&visit, day, Some(&report)).await
    };
    let body = asked.await;
    layout::answer(&visit, Place::Completeness, body)
}

/// The counts of a day with their colours: all that is final, then what is not.
fn counts(counts: &DayCounts) -> [(u64, &'static str); 4] {
    [
        (counts.ready, "fill-good"),
        (counts.no_recording, "fill-quiet"),
        (counts.metadata_saved, "fill-wait"),
        (counts.dead, "fill-bad"),
    ]
}

fn whole(counts: &DayCounts) -> u64 {
    counts.ready + counts.no_recording + counts.metadata_saved + counts.dead
}

async fn calendar(visit: &Guest, month: Option<&str>) -> Result<Markup, OperationError> {
    let texts = visit.texts();
    let today = visit.now.to_zoned(TimeZone::UTC).date();
    let first = month.and_then(|month| format!("{month}-01").parse::<Date>().ok()).unwrap_or(today).first_of_month();
    let last = first.last_of_month();
    let days = CountDays { from: first, to: last }.fulfil(&visit.context.operations.overview).await?;
    let runs = ListReconciliations {}.fulfil(&visit.context.operations.replays).await?;
    let signed = signed_days::read(visit).await;
    let before = first.saturating_sub(Span::new().months(1));
    let after = first.saturating_add(Span::new().months(1));
    let monday = first.saturating_sub(Span::new().days(first.weekday().to_monday_zero_offset()));
    let weeks = (0..6).map(|week| monday.saturating_add(Span::new().weeks(week))).take_while(|begin| *begin <= last);
    let of = |day: Date| days.iter().find(|counts| counts.day == day).copied().unwrap_or(DayCounts::none(day));
    let total = days.iter().fold(DayCounts::none(first), |sum, day| DayCounts {
        day: first,
        ready: sum.ready + day.ready,
        incomplete: sum.incomplete + day.incomplete,
        no_recording: sum.no_recording + day.no_recording,
        metadata_saved: sum.metadata_saved + day.metadata_saved,
        dead: sum.dead + day.dead,
    });
    Ok(html! {
        h1 { (texts.completeness) " · " (first.strftime("%Y-%m")) }
        (signed_days::verdict(visit, &signed))
        p.quiet { (texts.completeness_says) }
        (legend(texts, language_counts(visit, &total)))
        section.panel aria-label=(texts.completeness) {
            table.calendar {
                thead { tr { @for name in texts.weekdays.split(' ') { th scope="col" { (name) } } } }
                tbody {
                    @for week in weeks {
                        tr {
                            @for offset in 0..7 {
                                @let day = week.saturating_add(Span::new().days(offset));
                                @if day < first || day > last || day > today { td.outside {} } @else { (cell(visit, &of(day), signed_days::mark(&signed, day))) }
                            }
                        }
                    }
                }
            }
            div.pager {
                a href={ "/completeness?month=" (before.strftime("%Y-%m")) } { "← " (before.strftime("%Y-%m")) }
                @if after <= today { a href={ "/completeness?month=" (after.strftime("%Y-%m")) } { (after.strftime("%Y-%m")) " →" } }
            }
        }
        (signed_days::panel(visit, &signed, first, last))
        section.panel aria-labelledby="runs-title" {
            h2 #runs-title { (texts.nightly_runs) }
            @if runs.is_empty() { p.quiet { (texts.no_runs) } } @else {
                table.stack {
                    thead { tr {
                        th scope="col" { (texts.range) } th.number scope="col" { (texts.listed) } th.number scope="col" { (texts.missing) }
                        th.number scope="col" { (texts.replayed_count) } th scope="col" { (texts.state) }
                    } }
                    tbody { @for run in runs.iter().take(MOST_RUNS) { (one_run(visit, run)) } }
                }
            }
        }
    })
}

fn language_counts(visit: &Guest, total: &DayCounts) -> [String; 4] {
    counts(total).map(|(count, _)| number(visit.language, count))
}

fn legend(texts: &Texts, totals: [String; 4]) -> Markup {
    let names = [texts.state_ready, texts.state_no_recording, texts.state_metadata_saved, texts.dead_letters];
    html! {
        ul.legend {
            @for ((name, (_, colour)), total) in names.iter().zip(counts(&DayCounts::none(Date::MIN))).zip(totals) {
                li { (swatch(colour)) (name) ": " strong { (total) } }
            }
        }
        p {}
    }
}

fn cell(visit: &Guest, day: &DayCounts, signed: Option<DayMark>) -> Markup {
    let (texts, language) = (visit.texts(), visit.language);
    let odd = [
        (day.dead, texts.dead_short),
        (day.metadata_saved, texts.in_flight_short),
        (day.incomplete, texts.incomplete_short),
    ];
    html! {
        td {
            a href={ "/completeness/" (day.day) } {
                span.day { (day.day.day()) span.hidden { " " (day.day) } @if let Some(signed) = signed { (signed_days::sign(texts, signed)) } }
                @if whole(day) > 0 {
                    span.count { (number(language, whole(day))) }
                    (shares(&counts(day), whole(day)))
                    @for (count, name) in odd { @if count > 0 { span.odd { (number(language, count)) " " (name) } } }
                }
            }
        }
    }
}

fn one_run(visit: &Guest, run: &ReplayRun) -> Markup {
    let (texts, language) = (visit.texts(), visit.language);
    let (class, word) = match run.state {
        RunState::Done if run.doubtful > 0 => ("warn", texts.run_doubtful),
        RunState::Done => ("good", texts.run_done),
        RunState::Failed => ("bad", texts.run_failed),
        RunState::Cancelled => ("", texts.run_cancelled),
        RunState::Paused => ("warn", texts.run_paused),
        RunState::Planning | RunState::Planned | RunState::Running => ("wait", texts.run_running),
    };
    html! {
        tr {
            th scope="row" { (moment(run.from)) " – " (moment(run.to)) }
            td.number data-name=(texts.listed) { (number(language, run.found.listed)) }
            td.number data-name=(texts.missing) { (number(language, run.found.missing)) }
            td.number data-name=(texts.replayed_count) { (number(language, run.published())) }
            td data-name=(texts.state) { div { span class={ "chip " (class) } { (word) } @if let Some(why) = run.reason.as_ref().or(run.doubt.as_ref()) { div.quiet.reason { (reason(visit, why)) } } } }
        }
    }
}

async fn one_day(visit: &Guest, day: Date, report: Option<&Completeness>) -> Result<Markup, OperationError> {
    let texts = visit.texts();
    let counted = CountDays { from: day, to: day }.fulfil(&visit.context.operations.overview).await?;
    let counted = counted.first().copied().unwrap_or(DayCounts::none(day));
    let (from, to) = (begin(day)?, begin(day.tomorrow().map_err(beyond)?)?);
    let exceptions = exceptions(visit, from, to).await?;
    let of_day = ListDeadLetters { from: Some(from), to: Some(to), ..ListDeadLetters::default() };
    let start = PageStart::of(MOST_SHOWN, None);
    let letters = of_day.fulfil_page(&visit.context.operations.dead_letters, start).await?.items;
    Ok(html! {
        h1 { (texts.completeness) " · " (day) }
        (legend(texts, language_counts(visit, &counted)))
        (shares(&counts(&counted), whole(&counted)))
        p {}
        section.panel aria-labelledby="report-title" {
            h2 #report-title { (texts.against_nice) }
            @match report {
                Some(report) => (reported(visit, report)),
                None => {
                    p.quiet { (texts.report_says) }
                    @if visit.visitor.may(OperatorRole::Act) {
                        form method="post" action={ "/completeness/" (day) } { (form_token(visit)) button type="submit" { (texts.ask_nice) } }
                    } @else { p { (texts.only_who_may_act) } }
                }
            }
        }
        section.panel aria-labelledby="exceptions-title" {
            h2 #exceptions-title { (texts.exceptions) }
            @if exceptions.is_empty() && letters.is_empty() { p.quiet { (texts.no_exceptions) } } @else {
                table.stack {
                    thead { tr { th scope="col" { (texts.conversation) } th scope="col" { (texts.state) } th scope="col" { (texts.ended_at) } th scope="col" { (texts.reason) } } }
                    tbody {
                        @for letter in &letters {
                            tr {
                                th.mono scope="row" { a href={ "/dead-letters/" (letter.id) } { (letter.conversation_id.as_deref().unwrap_or("–")) } }
                                td data-name=(texts.state) { (state_chip(texts, "dead_letter")) }
                                td {}
                                td.reason data-name=(texts.reason) { (reason(visit, &letter.reason)) }
                            }
                        }
                        @for call in &exceptions {
                            tr {
                                th.mono scope="row" { a href={ "/conversations/" (call.external_id) } { (call.external_id) } }
                                td data-name=(texts.state) { (state_chip(texts, call.state.as_str())) }
                                td data-name=(texts.ended_at) { (moment(call.ended_at)) }
                                td.reason data-name=(texts.reason) { @if call.recordings_missing > 0 { (fill(texts.recordings_missing, &[&call.recordings_missing])) } }
                            }
                        }
                    }
                }
            }
        }
        p { a href={ "/completeness?month=" (day.strftime("%Y-%m")) } { "← " (day.strftime("%Y-%m")) } }
    })
}

/// The day's conversations that are not ready, or lack recordings.
async fn exceptions(visit: &Guest, from: Timestamp, to: Timestamp) -> Result<Vec<FoundConversation>, OperationError> {
    let (mut exceptions, mut before) = (Vec::new(), None);
    loop {
        let (before_id, before_end) = Option::unzip(before);
        let asked = FindConversations { agent: None, from, to, only_exceptions: true, before_id, before_end };
        let page = asked.fulfil(&visit.context.operations.overview).await?;
        let is_last = page.len() < PAGE;
        before = page.last().map(|last| (last.external_id, last.ended_at));
        exceptions.extend(page);
        if is_last || exceptions.len() >= MOST_SHOWN {
            return Ok(exceptions);
        }
    }
}

/// What kind of exception a call is.
fn exception_name<'c>(texts: &Texts, what: &'c str) -> &'c str {
    match what {
        "recordings_missing" => texts.incomplete_short,
        "dead" => texts.state_dead_letter,
        "in_flight" => texts.in_flight_short,
        "excluded" => texts.excluded,
        "not_looked_for_yet" => texts.not_looked_for,
        "missing" => texts.missing,
        other => other,
    }
}

fn reported(visit: &Guest, report: &Completeness) -> Markup {
    let (texts, language, total) = (visit.texts(), visit.language, &report.total);
    let count = |count: u64| number(language, count);
    html! {
        @if total.missing > 0 { p.notice.bad { (fill(texts.n_missing, &[&count(total.missing)])) } } @else { p.notice { (texts.nothing_missing) } }
        dl.facts {
            dt { (texts.ended) } dd { (count(total.ended)) }
            dt { (texts.state_ready) } dd { (count(total.ready)) }
            dt { (texts.state_no_recording) } dd { (count(total.no_recording)) }
            dt { (texts.dead_letters) } dd { (count(total.dead)) }
            dt { (texts.state_metadata_saved) } dd { (count(total.in_flight)) }
            dt { (texts.excluded) } dd { (count(total.excluded)) }
            dt { (texts.not_looked_for) } dd { (count(total.not_looked_for_yet)) }
            dt { (texts.missing) } dd { (count(total.missing)) }
        }
        @if let Some(doubt) = &report.doubt { p.notice { (reason(visit, doubt)) } }
        @if !report.exceptions.is_empty() {
            table.stack {
                thead { tr { th scope="col" { (texts.conversation) } th scope="col" { (texts.state) } th scope="col" { (texts.reason) } } }
                tbody {
                    @for exception in report.exceptions.iter().take(MOST_SHOWN) {
                        tr {
                            th.mono scope="row" { a href={ "/conversations/" (exception.conversation_id) } { (exception.conversation_id) } }
                            td data-name=(texts.state) { (exception_name(texts, &exception.what)) }
                            td.reason data-name=(texts.reason) { (reason(visit, &exception.reason)) }
                        }
                    }
                }
            }
        }
    }
}
