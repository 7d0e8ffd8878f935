//! *Audit*: what operators did by page and API.

use axum::{extract::Query, response::Response};
use maud::{Markup, html};

use super::visit::{Guest, Visit};
use super::words::moment;
use super::{layout, layout::Place};
use crate::operations::{
    AdminRequest, OperationError,
    audit::{ListActs, PAGE},
};

/// The view.
pub(super) async fn show(visit: Visit, Query(asked): Query<ListActs>) -> Response {
    let body = body(&visit, asked).await;
    layout::answer(&visit, Place::Audit, body)
}

async fn body(visit: &Guest, asked: ListActs) -> Result<Markup, OperationError> {
    let texts = visit.texts();
    let acts = asked.fulfil(&visit.context.operations.audit).await?;
    Ok(html! {
        h1 { (texts.audit) }
        p.quiet { (texts.audit_says) }
        section.panel aria-label=(texts.audit) {
            @if acts.is_empty() { p.quiet { (texts.no_acts) } } @else {
                table.stack {
                    thead { tr { th scope="col" { (texts.at) } th scope="col" { (texts.who) } th scope="col" { (texts.act) } th scope="col" { (texts.subject) } } }
                    tbody {
                        @for act in &acts {
                            tr {
                                th scope="row" { (moment(act.at)) }
                                td data-name=(texts.who) { (act.who) }
                                td data-name=(texts.act) { (act.act) }
                                td.reason data-name=(texts.subject) { (act.subject) }
                            }
                        }
                    }
                }
                @if let Some(last) = acts.last().filter(|_| acts.len() == PAGE) { div.pager { span {} a href={ "/audit?before=" (last.id) } { (texts.older) } } }
            }
        }
    })
}
