//! The frame of every view.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, Render, html};

use super::assets::{ICON_ADDRESS, SCRIPT_ADDRESS, STYLE_ADDRESS};
use super::reasons::reason;
use super::texts::{Language, Texts};
use super::visit::Guest;
use crate::admission::OperatorRole;
use crate::operations::OperationError;

/// Which view is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Now,
    Conversations,
    DeadLetters,
    Completeness,
    Backfills,
    Quota,
    Settings,
    Audit,
    /// None of those in the head.
    None,
}

impl Place {
    fn name(self, texts: &Texts) -> &'static str {
        match self {
            Self::Now => texts.now,
            Self::Conversations => texts.conversations,
            Self::DeadLetters => texts.dead_letters,
            Self::Completeness => texts.completeness,
            Self::Backfills => texts.backfills,
            Self::Quota => texts.quota,
            Self::Settings => texts.settings,
            Self::Audit => texts.audit,
            Self::None => texts.operator_page,
        }
    }
}

/// The views of the head, in their order.
const PLACES: [(Place, &str); 8] = [
    (Place::Now, "/"),
    (Place::Conversations, "/conversations"),
    (Place::DeadLetters, "/dead-letters"),
    (Place::Completeness, "/completeness"),
    (Place::Backfills, "/backfills"),
    (Place::Quota, "/quota"),
    (Place::Settings, "/settings"),
    (Place::Audit, "/audit"),
];

/// A view, or why it cannot be shown.
pub(super) fn answer(guest: &Guest, place: Place, body: Result<Markup, OperationError>) -> Response {
    match body {
        Ok(body) => page(guest, place, StatusCode::OK, &body),
        Err(error) => {
            let status = match &error {
                OperationError::NotFound(_) => StatusCode::NOT_FOUND,
                OperationError::Invalid(_) => StatusCode::BAD_REQUEST,
                OperationError::Refused(_) | OperationError::NoTenant(_) => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            refusal(guest, place, status, reason(guest, &error.to_string()))
        }
    }
}

/// Why something is not shown, or was not done.
pub(super) fn refusal(guest: &Guest, place: Place, status: StatusCode, why: impl Render) -> Response {
    let texts = guest.texts();
    let body = html! {
        h1 { (texts.not_done) }
        p.notice.bad role="alert" { (why) }
        p { a href=(guest.address.split('?').next().unwrap_or("/")) { (texts.try_again) } " · " a href="/" { (texts.now) } }
    };
    page(guest, place, status, &body)
}

/// A whole page.
pub(super) fn page(guest: &Guest, place: Place, status: StatusCode, body: &Markup) -> Response {
    let texts = guest.texts();
    let tenant = guest.context.operations.status.tenant_name();
    let may_read = guest.visitor.may(OperatorRole::Read);
    let page = html! {
        (DOCTYPE)
        html lang=(guest.language.code()) data-theme=[guest.theme] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (place.name(texts)) @if let Some(tenant) = tenant { " · " (tenant) } " · nice-knovvu" }
                link rel="icon" type="image/svg+xml" href=(*ICON_ADDRESS);
                link rel="stylesheet" href=(*STYLE_ADDRESS);
                script src=(*SCRIPT_ADDRESS) defer {}
            }
            body {
                a.skip href="#main" { (texts.skip) }
                header.top {
                    div.top-inner {
                        div.brand-row {
                            a.brand href="/" { "nice-knovvu" }
                            @if let (Some(tenant), true) = (tenant, may_read) { span.tenant { (tenant) } }
                            (preferences(guest))
                        }
                        @if may_read {
                            nav aria-label=(texts.views) {
                                ul.views {
                                    @for (other, address) in PLACES {
                                        li { a href=(address) aria-current=[(other == place).then_some("page")] { (other.name(texts)) } }
                                    }
                                }
                            }
                        }
                    }
                }
                main #main { (body) }
                footer {
                    span { "nice-knovvu " (env!("CARGO_PKG_VERSION")) }
                    span { (texts.times_are_utc) }
                    @if place == Place::Now { span #live-state data-on=(texts.live) data-lost=(texts.live_lost) { (texts.not_live) } }
                }
            }
        }
    };
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// Language, colours, and who is signed in.
fn preferences(guest: &Guest) -> Markup {
    let texts = guest.texts();
    let other = match guest.language {
        Language::English => Language::Turkish,
        Language::Turkish => Language::English,
    };
    let back = guest.address.split('?').next().unwrap_or("/");
    html! {
        div.preferences {
            a href={ "/preferences?language=" (other.code()) "&back=" (back) } lang=(other.code()) hreflang=(other.code()) { (other.name()) }
            @match guest.theme {
                Some("dark") => a href={ "/preferences?theme=light&back=" (back) } { (texts.light) },
                Some(_) => a href={ "/preferences?theme=system&back=" (back) } { (texts.as_system) },
                None => a href={ "/preferences?theme=dark&back=" (back) } { (texts.dark) },
            }
            @match &guest.visitor.form_token {
                Some(form) => {
                    span { @if guest.visitor.may(OperatorRole::Act) { (texts.role_act) } @else { (texts.role_read) } }
                    form method="post" action="/logout" {
                        input type="hidden" name="form" value=(form);
                        button.plain type="submit" { (texts.sign_out) }
                    }
                }
                None => a href="/login" { (texts.sign_in) },
            }
        }
    }
}
