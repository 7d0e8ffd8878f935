//! *Quota*: what was asked of NICE in the present window, by class, and why the limit is where it is.

use axum::response::Response;
use maud::{Markup, html};

use super::pictures::{shares, swatch};
use super::reasons::reason;
use super::texts::Texts;
use super::visit::{Guest, Visit};
use super::words::{fill, number, span};
use super::{layout, layout::Place};
use crate::operations::{OperationError, status::BudgetStatus};

/// The classes with their colours, in the order of their rights.
const CLASSES: [(&str, &str); 5] = [
    ("live", "fill-accent"),
    ("retry", "fill-good"),
    ("agents", "fill-bad"),
    ("reconciliation", "fill-warn"),
    ("backfill", "fill-wait"),
];

/// The view.
pub(super) async fn show(visit: Visit) -> Response {
    let texts = visit.texts();
    let body = match visit.context.status().await {
        Ok(status) => Ok(html! {
            h1 { (texts.quota) }
            p.quiet { (texts.quota_says) }
            @if status.rate_budget.is_empty() { p.notice { (texts.no_tenant) } }
            @for budget in &status.rate_budget { (family(&visit, budget)) }
        }),
        Err(error) => Err(OperationError::Refused(error)),
    };
    layout::answer(&visit, Place::Quota, body)
}

fn family(visit: &Guest, budget: &BudgetStatus) -> Markup {
    let (texts, language) = (visit.texts(), visit.language);
    let count = |count: u32| number(language, u64::from(count));
    let title = format!("family-{}", budget.family);
    let mut counts: Vec<(u64, &'static str)> = Vec::new();
    for (class, used) in &budget.by_class {
        counts.push((u64::from(*used), colour(class)));
    }
    counts.sort_by_key(|(_, colour)| CLASSES.iter().position(|(_, other)| other == colour));
    html! {
        section.panel aria-labelledby=(title) {
            h2 id=(title) {
                (if budget.family == "acd" { texts.family_acd } else { texts.family_media }) " "
                @if budget.closed_seconds.is_some() { span.chip.bad { (texts.closed) } }
                @else if budget.limit_now < budget.limit { span.chip.warn { (fill(texts.lowered_from, &[&budget.limit])) } }
                @else { span.chip.good { (texts.full_pace) } }
            }
            (shares(&counts, u64::from(budget.limit)))
            ul.legend { @for (class, used) in &budget.by_class { li { (swatch(colour(class))) (class_name(texts, class)) ": " (count(*used)) } } }
            p {}
            dl.facts {
                dt { (texts.used_in_window) } dd { (fill(texts.used_of, &[&count(budget.used), &count(budget.limit_now)])) }
                dt { (texts.available_now) } dd { (count(budget.available)) }
                dt { (texts.limit_of_settings) } dd { (count(budget.limit)) }
                dt { (texts.refusals) } dd { (count(budget.refusals)) }
                @if let Some(seconds) = budget.closed_seconds { dt { (texts.closed) } dd { (fill(texts.for_so_long, &[&span(language, texts, seconds)])) } }
                @if let Some(seconds) = budget.full_pace_in_seconds { dt { (texts.full_pace) } dd { (fill(texts.in_so_long, &[&span(language, texts, seconds)])) } }
                dt { (texts.why) } dd { (reason(visit, &budget.why)) }
            }
        }
    }
}

fn colour(class: &str) -> &'static str {
    CLASSES.iter().find(|(name, _)| *name == class).map_or("fill-quiet", |(_, colour)| colour)
}

fn class_name<'c>(texts: &Texts, class: &'c str) -> &'c str {
    match class {
        "live" => texts.class_live,
        "retry" => texts.class_retry,
        "agents" => texts.agents,
        "backfill" => texts.class_backfill,
        "reconciliation" => texts.class_reconciliation,
        other => other,
    }
}
