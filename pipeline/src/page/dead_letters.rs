//! *Dead letters*: grouped by stage and reason, with counts over time; replayed and dropped by group or one by one.
//! What will happen is said before it does.

use axum::{
    extract::{Path, Query},
    response::{IntoResponse, Redirect, Response},
};
use catalog::{DeadLetterGroup, MOST_GROUPED, reason_shape};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};
use model::{DeadLetter, Key};
use serde::Deserialize;

use super::acting::{Acting, NoFields};
use super::parts::{form_token, stage_name};
use super::pictures::spark;
use super::reasons::{GONE, reason};
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, moment, number, short_moment, short_time};
use super::{layout, layout::Place};
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, OperationError,
    dead_letters::{
        DropDeadLetter, GroupDeadLetters, ListDeadLetters, MOST_GROUPS, ReplayDeadLetter, ShowDeadLetter, is_cut,
    },
    paging::{AnswerPage, PageStart},
};

/// Letters of a group on one page.
const SHOWN: usize = 100;

/// Letters that one click deals with; the rest stays for the next.
const MOST_AT_ONCE: usize = 1000;

/// Days over which letters are counted.
const DAYS: usize = 14;

/// What is done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LetterAct {
    Replay,
    Drop,
}

impl LetterAct {
    fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Drop => "drop",
        }
    }
}

/// The letters of a group that were shown to whoever acts on it: these and no others.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Confirmed {
    /// How many, at most.
    count: usize,
    /// The highest number.
    last: u64,
}

/// Which page of a group.
#[derive(Deserialize)]
pub(super) struct LetterPage {
    cursor: Option<String>,
}

/// The view of all groups.
pub(super) async fn show(visit: Visit) -> Response {
    let body = groups(&visit).await.map(|groups| all(&visit, &groups));
    layout::answer(&visit, Place::DeadLetters, body)
}

/// The view of one group.
pub(super) async fn show_group(
    visit: Visit,
    Path(key): Path<String>,
    Query(LetterPage { cursor }): Query<LetterPage>,
) -> Response {
    let asked = async {
        let (group, is_first) = (group(&visit, &key).await?, cursor.is_none());
        let page = letters_of(&visit, &group, SHOWN, cursor).await?;
        Ok(one_group(&visit, &group, &page, is_first))
    };
    let body = asked.await;
    layout::answer(&visit, Place::DeadLetters, body)
}

/// What will happen to a group.
pub(super) async fn confirm_group(visit: Visit, Path((key, act)): Path<(String, LetterAct)>) -> Response {
    let asked = async {
        let group = group(&visit, &key).await?;
        let letters = letters_of(&visit, &group, MOST_AT_ONCE, None).await?.items;
        // All of them went meanwhile.
        let Some(last) = letters.last() else { return Err(gone()) };
        let confirmed = Confirmed { count: letters.len(), last: last.id };
        let what = html! { (stage_name(visit.texts(), &group.stage)) ": " (reason(&visit, &group.reason)) };
        Ok(confirm(&visit, act, Some(confirmed), &what, &format!("/dead-letters/groups/{key}")))
    };
    let body = asked.await;
    layout::answer(&visit, Place::DeadLetters, body)
}

/// Does it to a group.
pub(super) async fn act_on_group(
    Path((key, act)): Path<(String, LetterAct)>,
    Acting { visit, fields: Confirmed { count, last } }: Acting<Confirmed>,
) -> Response {
    let acted = async {
        let group = group(&visit, &key).await?;
        let letters = letters_of(&visit, &group, count.clamp(1, MOST_AT_ONCE), None).await?.items;
        let ids: Vec<u64> = letters.iter().map(|letter| letter.id).take_while(|id| *id <= last).collect();
        let (first, last) = (ids.first().copied().unwrap_or_default(), ids.last().copied().unwrap_or_default());
        let subject = format!("{} dead letters, {first} to {last}: {} ({})", ids.len(), group.reason, group.stage);
        visit.record(&format!("{} dead letters", act.word()), &subject).await?;
        let (mut done, mut broken) = (0, None);
        for id in ids {
            match apply(&visit, act, id).await {
                Ok(()) => done += 1,
                // Gone meanwhile, or written anew: the others go on.
                Err(OperationError::NotFound(_) | OperationError::Refused(_)) => {}
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        Ok((done, broken))
    };
    let body = acted.await.map(|(done, broken): (usize, Option<OperationError>)| {
        let texts = visit.texts();
        let said = if act == LetterAct::Replay { texts.replayed } else { texts.dropped };
        html! {
            h1 { (texts.dead_letters) }
            p.notice role="status" { (fill(said, &[&done])) }
            @if let Some(error) = broken { p.notice.bad role="alert" { (reason(&visit, &error.to_string())) } }
            p { a.button href="/dead-letters" { (texts.back_to_letters) } }
        }
    });
    layout::answer(&visit, Place::DeadLetters, body)
}

/// The view of one letter, with its message.
pub(super) async fn show_one(visit: Visit, Path(id): Path<u64>) -> Response {
    let body = letter(&visit, id).await.map(|letter| one(&visit, &letter));
    layout::answer(&visit, Place::DeadLetters, body)
}

/// What will happen to one letter.
pub(super) async fn confirm_one(visit: Visit, Path((id, act)): Path<(u64, LetterAct)>) -> Response {
    let body = letter(&visit, id).await.map(|letter| {
        let what = html! { (fill(visit.texts().dead_letter_n, &[&id])) ": " (reason(&visit, &letter.reason)) };
        confirm(&visit, act, None, &what, &format!("/dead-letters/{id}"))
    });
    layout::answer(&visit, Place::DeadLetters, body)
}

/// Does it to one letter.
pub(super) async fn act_on_one(
    Path((id, act)): Path<(u64, LetterAct)>,
    Acting { visit, .. }: Acting<NoFields>,
) -> Response {
    let acted = async {
        let letter = letter(&visit, id).await?;
        visit.record(&format!("{} dead letter", act.word()), &format!("dead letter {id}: {}", letter.reason)).await?;
        apply(&visit, act, id).await?;
        Ok(letter.conversation_id)
    };
    match acted.await {
        Ok(Some(conversation)) if act == LetterAct::Replay && conversation.parse::<u64>().is_ok() => {
            Redirect::to(&format!("/conversations/{conversation}")).into_response()
        }
        Ok(_) => Redirect::to("/dead-letters").into_response(),
        Err(error) => layout::answer(&visit, Place::DeadLetters, Err(error)),
    }
}

async fn apply(visit: &Guest, act: LetterAct, id: u64) -> Result<(), OperationError> {
    let operations = &visit.context.operations.dead_letters;
    match act {
        LetterAct::Replay => ReplayDeadLetter { id }.fulfil(operations).await,
        LetterAct::Drop => DropDeadLetter { id }.fulfil(operations).await,
    }
}

async fn letter(visit: &Guest, id: u64) -> Result<DeadLetter, OperationError> {
    let request: ShowDeadLetter = serde_json::from_value(serde_json::json!({ "id": id }))
        .map_err(|error| OperationError::Invalid(error.to_string()))?;
    request.fulfil(&visit.context.operations.dead_letters).await
}

/// Every group, the largest first.
async fn groups(visit: &Guest) -> Result<Vec<DeadLetterGroup>, OperationError> {
    GroupDeadLetters {}.fulfil(&visit.context.operations.dead_letters).await
}

async fn group(visit: &Guest, key: &str) -> Result<DeadLetterGroup, OperationError> {
    groups(visit).await?.into_iter().find(|group| key_of(&group.stage, &group.reason) == key).ok_or_else(gone)
}

fn gone() -> OperationError {
    OperationError::NotFound(GONE.to_owned())
}

/// Some letters of a group, the oldest first.
async fn letters_of(
    visit: &Guest,
    group: &DeadLetterGroup,
    most: usize,
    cursor: Option<String>,
) -> Result<AnswerPage<Vec<DeadLetter>>, OperationError> {
    let start = PageStart::of(most, cursor);
    ListDeadLetters::of_group(group).fulfil_page(&visit.context.operations.dead_letters, start).await
}

/// The name of a group in an address.
fn key_of(stage: &str, reason: &str) -> String {
    format!("{:?}", Key::of(&["group", stage, reason]))
}

fn all(visit: &Guest, groups: &[DeadLetterGroup]) -> Markup {
    let (texts, language) = (visit.texts(), visit.language);
    let whole: u64 = groups.iter().map(|group| group.count).sum();
    html! {
        h1 { (texts.dead_letters) }
        @if groups.is_empty() { p.notice { (texts.no_dead_letters) } } @else {
            p.quiet { (fill(texts.letters_in_groups, &[&number(language, whole), &groups.len()])) }
            @if is_cut(groups) { p.notice { (fill(texts.only_newest_counted, &[&number(language, MOST_GROUPED as u64), &number(language, MOST_GROUPS as u64)])) } }
            section.panel aria-label=(texts.dead_letters) {
                table.stack {
                    thead { tr {
                        th scope="col" { (texts.reason) } th scope="col" { (texts.stage) } th.number scope="col" { (texts.count) }
                        th scope="col" { (texts.last_days) } th scope="col" { (texts.newest) } th scope="col" { (texts.acts) }
                    } }
                    tbody {
                        @for group in groups {
                            @let address = format!("/dead-letters/groups/{}", key_of(&group.stage, &group.reason));
                            tr {
                                th.reason scope="row" { a href=(address) { (reason(visit, &group.reason)) } @if let Some(back) = goes_back(texts, group, visit.now) { div.quiet { (back) } } }
                                td data-name=(texts.stage) { (stage_name(texts, &group.stage)) }
                                td.number data-name=(texts.count) { (number(language, group.count)) }
                                td data-name=(texts.last_days) { (by_day(visit, group)) }
                                td data-name=(texts.newest) { (short_moment(group.last_at, visit.now)) }
                                td.table-acts { (acts(visit, &address)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// When the first of them goes back by itself.
fn goes_back(texts: &Texts, group: &DeadLetterGroup, now: Timestamp) -> Option<String> {
    group.replay_at.map(|first| fill(texts.goes_back_at, &[&short_time(first, now)]))
}

fn by_day(visit: &Guest, group: &DeadLetterGroup) -> Markup {
    let today = visit.now.to_zoned(TimeZone::UTC).date();
    let of = |day: Date| group.days.iter().find(|counted| counted.day == day).map_or(0, |counted| counted.count);
    let counts: Vec<u64> = (0..DAYS as i64).rev().map(|ago| of(today.saturating_sub(Span::new().days(ago)))).collect();
    let recent: u64 = counts.iter().sum();
    spark(&counts, &fill(visit.texts().letters_in_days, &[&recent, &DAYS]))
}

fn acts(visit: &Guest, address: &str) -> Markup {
    let texts = visit.texts();
    html! {
        @if visit.visitor.may(OperatorRole::Act) {
            div.acts.small {
                a.button href={ (address) "/replay" } { (texts.replay) }
                a.button.harm href={ (address) "/drop" } { (texts.drop) }
            }
        } @else { span.quiet { (texts.only_who_may_act) } }
    }
}

fn one_group(visit: &Guest, group: &DeadLetterGroup, page: &AnswerPage<Vec<DeadLetter>>, is_first: bool) -> Markup {
    let texts = visit.texts();
    let address = format!("/dead-letters/groups/{}", key_of(&group.stage, &group.reason));
    html! {
        h1 { (reason(visit, &group.reason)) }
        p { (stage_name(texts, &group.stage)) " · " (fill(texts.letters, &[&number(visit.language, group.count)])) }
        (acts(visit, &address))
        p {}
        section.panel aria-label=(texts.dead_letters) {
            table.stack {
                thead { tr { th scope="col" { (texts.number) } th scope="col" { (texts.conversation) } th scope="col" { (texts.at) } th scope="col" { (texts.goes_back) } } }
                tbody {
                    @for letter in &page.items {
                        tr {
                            th scope="row" { a href={ "/dead-letters/" (letter.id) } { (letter.id) } }
                            td data-name=(texts.conversation) { (conversation(letter)) }
                            td data-name=(texts.at) { (moment(letter.at)) }
                            td data-name=(texts.goes_back) { @match letter.replay_at { Some(at) => (moment(at)), None => "–" } }
                        }
                    }
                }
            }
            @if !is_first || page.next.is_some() {
                div.pager {
                    span { @if !is_first { a href=(address) { (texts.oldest) } } }
                    @if let Some(cursor) = &page.next { a href={ (address) "?cursor=" (cursor) } { (texts.newer) } }
                }
            }
        }
    }
}

fn conversation(letter: &DeadLetter) -> Markup {
    html! {
        @match &letter.conversation_id {
            Some(id) if id.parse::<u64>().is_ok() => a.mono href={ "/conversations/" (id) } { (id) },
            Some(id) => span.mono { (id) },
            None => "–",
        }
    }
}

fn one(visit: &Guest, letter: &DeadLetter) -> Markup {
    let texts = visit.texts();
    let group = format!("/dead-letters/groups/{}", key_of(&letter.stage, &reason_shape(&letter.reason)));
    html! {
        h1 { (fill(texts.dead_letter_n, &[&letter.id])) }
        section.panel aria-label=(texts.facts) {
            dl.facts {
                dt { (texts.reason) } dd { a href=(group) { (reason(visit, &letter.reason)) } }
                dt { (texts.stage) } dd { (stage_name(texts, &letter.stage)) }
                dt { (texts.conversation) } dd { (conversation(letter)) }
                dt { (texts.at) } dd { (moment(letter.at)) }
                dt { (texts.goes_back) } dd { @match letter.replay_at { Some(at) => (moment(at)), None => (texts.not_by_itself) } }
            }
            p {}
            (acts(visit, &format!("/dead-letters/{}", letter.id)))
        }
        @if visit.visitor.may(OperatorRole::Act) {
            section.panel aria-labelledby="message-title" {
                h2 #message-title { (texts.message) }
                pre.mono { (serde_json::to_string_pretty(&letter.message).unwrap_or_default()) }
            }
        }
    }
}

/// Says what will happen, and asks whether it shall: to one letter, or to those of a group.
fn confirm(visit: &Guest, act: LetterAct, of_group: Option<Confirmed>, what: &Markup, back: &str) -> Markup {
    let texts = visit.texts();
    let count = of_group.map_or(1, |confirmed| confirmed.count);
    let (title, says, button, class) = match act {
        LetterAct::Replay => (texts.replay_title, texts.replay_says, texts.replay_n, "main-act"),
        LetterAct::Drop => (texts.drop_title, texts.drop_says, texts.drop_n, "harm"),
    };
    html! {
        h1 { (title) }
        section.panel aria-label=(title) {
            p { strong { (what) } }
            p { (fill(says, &[&count])) }
            p.quiet { (texts.is_written_down) }
            @if visit.visitor.may(OperatorRole::Act) {
                form method="post" action={ (back) "/" (act.word()) } {
                    (form_token(visit))
                    @if let Some(Confirmed { count, last }) = of_group {
                        input type="hidden" name="count" value=(count);
                        input type="hidden" name="last" value=(last);
                    }
                    div.acts { button class=(class) type="submit" { (fill(button, &[&count])) } a.button href=(back) { (texts.leave_as_is) } }
                }
            } @else { p { (texts.only_who_may_act) } }
        }
    }
}
