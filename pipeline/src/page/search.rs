//! Finds conversations: by id, by agent, by time.

use axum::{
    extract::Query,
    response::{IntoResponse, Redirect, Response},
};
use catalog::FoundConversation;
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};
use model::{Agent, AgentId, ContactId};
use serde::Deserialize;

use super::parts::state_chip;
use super::reasons::reason;
use super::visit::{Guest, Visit};
use super::words::{moment, span};
use super::{layout, layout::Place};
use crate::operations::{
    AdminRequest, OperationError,
    agents::ListAgents,
    overview::{FindConversations, PAGE},
};

/// Agents that can be chosen from.
const MOST_AGENTS: usize = 1000;

/// What is looked for, as the form gives it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    id: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    before_id: Option<ContactId>,
    before_end: Option<Timestamp>,
}

/// The view; an id leads to its conversation at once.
pub(super) async fn show(visit: Visit, Query(search): Query<Search>) -> Response {
    let id: String = search.id.chars().filter(|char| !char.is_whitespace()).collect();
    if !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit()) {
        return Redirect::to(&format!("/conversations/{id}")).into_response();
    }
    layout::answer(&visit, Place::Conversations, body(&visit, search).await)
}

async fn body(visit: &Guest, search: Search) -> Result<Markup, OperationError> {
    let texts = visit.texts();
    let today = visit.now.to_zoned(TimeZone::UTC).date();
    let day = |text: &str, preset: Date| text.parse().unwrap_or(preset);
    let to = day(&search.to, today);
    let from = day(&search.from, to.saturating_sub(Span::new().days(6))).min(to);
    let agents = ListAgents {}.fulfil(&visit.context.operations.agents).await?;
    let agent: Option<AgentId> = search.agent.parse().ok();
    let asked = FindConversations {
        agent,
        from: begin(from)?,
        to: begin(to.tomorrow().map_err(beyond)?)?,
        only_exceptions: false,
        before_id: search.before_id,
        before_end: search.before_end,
    };
    let found = asked.fulfil(&visit.context.operations.overview).await;
    Ok(html! {
        h1 { (texts.conversations) }
        div.columns.search {
            form.panel method="get" action="/conversations" role="search" aria-label=(texts.find_by_id) {
                h2 { (texts.find_by_id) }
                div.fields {
                    label { (texts.contact_id) input name="id" inputmode="numeric" pattern="[0-9 ]{1,24}" required autocomplete="off"; }
                    button.main-act type="submit" { (texts.find) }
                }
            }
            form.panel method="get" action="/conversations" role="search" aria-label=(texts.find_by_time) {
                h2 { (texts.find_by_time) }
                div.fields {
                    label { (texts.agent)
                        select name="agent" {
                            option value="" { (texts.every_agent) }
                            @for known in agents.iter().take(MOST_AGENTS) {
                                option value=(known.external_id) selected[agent == Some(known.external_id)] { (name(known)) }
                            }
                        }
                    }
                    label { (texts.from_day) input type="date" name="from" value=(from); }
                    label { (texts.to_day) input type="date" name="to" value=(to); }
                    button type="submit" { (texts.find) }
                }
            }
        }
        @match found {
            Ok(found) => (list(visit, &agents, &found, (agent, from, to))),
            Err(error) => p.notice.bad role="alert" { (reason(visit, &error.to_string())) },
        }
    })
}

/// The beginning of a UTC day.
pub(super) fn begin(day: Date) -> Result<Timestamp, OperationError> {
    Ok(day.to_zoned(TimeZone::UTC).map_err(beyond)?.timestamp())
}

/// A day beyond the calendar.
pub(super) fn beyond(error: jiff::Error) -> OperationError {
    OperationError::Invalid(error.to_string())
}

fn name(agent: &Agent) -> String {
    format!("{} {} ({})", agent.first_name, agent.last_name, agent.external_id)
}

fn list(
    visit: &Guest,
    agents: &[Agent],
    found: &[FoundConversation],
    (agent, from, to): (Option<AgentId>, Date, Date),
) -> Markup {
    let texts = visit.texts();
    let more = found.last().filter(|_| found.len() == PAGE).map(|last| {
        let agent = agent.map_or_else(String::new, |agent| agent.to_string());
        let (id, end) = (last.external_id, last.ended_at);
        format!("/conversations?agent={agent}&from={from}&to={to}&before_id={id}&before_end={end}")
    });
    html! {
        section.panel aria-labelledby="found-title" {
            h2 #found-title { (texts.ended_in_range) }
            @if found.is_empty() { p.quiet { (texts.nothing_found) } } @else {
                table.stack {
                    thead { tr {
                        th scope="col" { (texts.contact_id) } th scope="col" { (texts.state) } th scope="col" { (texts.ended_at) }
                        th scope="col" { (texts.length) } th scope="col" { (texts.agent) }
                    } }
                    tbody {
                        @for call in found {
                            @let known = agents.iter().find(|known| known.external_id == call.agent_external_id);
                            tr {
                                th scope="row" { a.mono href={ "/conversations/" (call.external_id) } { (call.external_id) } }
                                td data-name=(texts.state) { (state_chip(texts, call.state.as_str())) }
                                td data-name=(texts.ended_at) { (moment(call.ended_at)) }
                                td data-name=(texts.length) { (span(visit.language, texts, call.ended_at.duration_since(call.started_at).as_secs_f64())) }
                                td data-name=(texts.agent) { (known.map_or_else(|| call.agent_external_id.to_string(), name)) }
                            }
                        }
                    }
                }
                @if let Some(more) = more { div.pager { span {} a href=(more) { (texts.older) } } }
            }
        }
    }
}
