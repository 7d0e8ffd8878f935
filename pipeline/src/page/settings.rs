//! *Settings*: what is in force, with its origin, secrets masked; the tenants; the agents.

use axum::response::Response;
use maud::{Markup, html};

use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, moment};
use super::{layout, layout::Place};
use crate::config::EffectiveSetting;
use crate::operations::{AdminRequest, OperationError, agents::ListAgents};

/// Agents that are shown.
const MOST_AGENTS: usize = 1000;

/// The view.
pub(super) async fn show(visit: Visit) -> Response {
    let body = body(&visit).await;
    layout::answer(&visit, Place::Settings, body)
}

async fn body(visit: &Guest) -> Result<Markup, OperationError> {
    let texts = visit.texts();
    let tenants = visit.context.operations.overview.tenants().await?;
    let listed = ListAgents {}.fulfil(&visit.context.operations.agents).await;
    let agents = match listed {
        Ok(agents) => agents,
        // A consumer that serves all tenants has none of its own.
        Err(OperationError::NoTenant(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(html! {
        h1 { (texts.settings) }
        section.panel aria-labelledby="tenants-title" {
            h2 #tenants-title { (texts.tenants) }
            @for tenant in &tenants { span.tenant { (tenant) } " " }
        }
        section.panel aria-labelledby="agents-title" {
            h2 #agents-title { (texts.agents) }
            details {
                summary { (fill(texts.agents_active, &[&agents.iter().filter(|agent| agent.is_active()).count(), &agents.iter().filter(|agent| !agent.is_active()).count()])) }
                table.stack {
                    thead { tr { th scope="col" { (texts.agent) } th scope="col" { (texts.name) } th scope="col" { (texts.state) } th scope="col" { (texts.since) } } }
                    tbody {
                        @for agent in agents.iter().take(MOST_AGENTS) {
                            tr {
                                th scope="row" { a href={ "/conversations?agent=" (agent.external_id) } { (agent.external_id) } }
                                td data-name=(texts.name) { (agent.first_name) " " (agent.last_name) }
                                td data-name=(texts.state) { @if agent.is_active() { span.chip.good { (texts.active) } } @else { span.chip { (texts.inactive) } } }
                                td data-name=(texts.since) { @let memberships = &agent.memberships; @if let Some(at) = if agent.is_active() { memberships.last_since() } else { memberships.until() } { (moment(at)) } }
                            }
                        }
                    }
                }
                @if agents.len() > MOST_AGENTS { p.quiet { (fill(texts.only_first, &[&MOST_AGENTS])) } }
            }
        }
        (sections(texts, &visit.context.settings))
    })
}

/// The settings, section by section.
fn sections(texts: &Texts, settings: &[EffectiveSetting]) -> Markup {
    html! {
        @for section in settings.chunk_by(|one, next| one.section == next.section) {
            @let name = section.first().map_or("", |setting| setting.section);
            section.panel aria-labelledby={ "section-" (name) } {
                h2.mono id={ "section-" (name) } { "[" (name) "]" }
                table.stack.of-settings {
                    thead { tr { th scope="col" { (texts.key) } th scope="col" { (texts.value) } th scope="col" { (texts.origin) } } }
                    tbody {
                        @for setting in section {
                            tr {
                                th.mono scope="row" { (setting.key) }
                                td data-name=(texts.value) { @match &setting.value { Some(value) => span.mono { (value) }, None => span.quiet { (texts.not_set) } } }
                                td data-name=(texts.origin) { @if let Some(word) = &setting.origin { (origin(texts, word)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn origin(texts: &Texts, origin: &str) -> Markup {
    let (class, word) = match origin {
        "default" => ("quiet", texts.origin_default),
        "file" => ("", texts.origin_file),
        "environment" => ("", texts.origin_environment),
        "secret file" => ("", texts.origin_secret_file),
        other => ("", other),
    };
    html! { span class=(class) { (word) } }
}
