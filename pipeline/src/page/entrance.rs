//! Where a token is shown, and a session begins and ends; and where language and colours are chosen.

use axum::{
    extract::{FromRequest, Query, Request, State as Context},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::acting::Arriving;
use super::context::PageContext;
use super::texts::Language;
use super::visit::{Guest, LANGUAGE, THEME, peer, theme_named};
use super::{layout, layout::Place};
use crate::admission::LoginRefused;

/// The form.
pub(super) async fn show(guest: Guest) -> Response {
    layout::page(&guest, Place::None, StatusCode::OK, &form(&guest, None))
}

fn form(guest: &Guest, wrong: Option<&str>) -> Markup {
    let texts = guest.texts();
    html! {
        div.panel.login {
            h1 { (texts.sign_in) }
            @if let Some(wrong) = wrong { p.notice.bad role="alert" { (wrong) } }
            form method="post" action="/login" {
                // A password manager keeps the token under this name.
                input type="text" name="user" value="nice-knovvu" autocomplete="username" hidden;
                label { (texts.token) input type="password" name="token" required autocomplete="current-password"; }
                p {}
                button.main-act type="submit" { (texts.sign_in) }
            }
            p {}
            p.quiet { (texts.token_help) }
        }
    }
}

/// Looks at a token.
pub(super) async fn sign_in(Context(context): Context<PageContext>, request: Request) -> Response {
    let (headers, peer) = (request.headers().clone(), peer(request.extensions()));
    let Arriving { guest, login } = match Arriving::from_request(request, &context).await {
        Ok(arriving) => arriving,
        Err(refused) => return refused,
    };
    let texts = guest.texts();
    match context.admission.sign_in(&login.token, &headers, peer) {
        Ok(cookie) => with_cookie(Redirect::to("/"), &cookie),
        Err(LoginRefused::Wrong) => {
            layout::page(&guest, Place::None, StatusCode::UNAUTHORIZED, &form(&guest, Some(texts.wrong_token)))
        }
        Err(LoginRefused::TooMany) => {
            let body = form(&guest, Some(texts.too_many_tokens));
            layout::page(&guest, Place::None, StatusCode::TOO_MANY_REQUESTS, &body)
        }
    }
}

/// Ends a session. Nobody is harmed by a foreign page that does it, and it cannot: the cookie is not sent along.
pub(super) async fn sign_out(Context(context): Context<PageContext>, headers: HeaderMap) -> Response {
    with_cookie(Redirect::to("/login"), &context.admission.sign_out(&headers))
}

/// What somebody likes better.
#[derive(Deserialize)]
pub(super) struct Preference {
    language: Option<String>,
    theme: Option<String>,
    /// The path from which they come.
    back: Option<String>,
}

/// Remembers it in a cookie.
pub(super) async fn prefer(Query(preference): Query<Preference>) -> Response {
    let back = preference.back.as_deref().filter(|back| is_own_path(back)).unwrap_or("/");
    let mut answer = Redirect::to(back).into_response();
    let chosen = [
        (LANGUAGE, preference.language.as_deref().and_then(Language::named).map(Language::code)),
        (THEME, preference.theme.as_deref().map(|name| theme_named(name).unwrap_or_default())),
    ];
    for (name, value) in chosen {
        let Some(value) = value else { continue };
        let age = if value.is_empty() { 0 } else { 31_536_000 };
        let cookie = format!("{name}={value}; Path=/; Max-Age={age}; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    answer
}

/// Whether it is a path of this page, and leads to no other host.
fn is_own_path(back: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || ['/', '-', '_', '.'].contains(&char);
    back.starts_with('/') && !back.starts_with("//") && back.chars().all(is_plain)
}

fn with_cookie(answer: Redirect, cookie: &str) -> Response {
    match HeaderValue::from_str(cookie) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], answer).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
