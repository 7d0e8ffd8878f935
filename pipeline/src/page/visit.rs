//! Who asks for a page, and in which language and colours.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;

use super::context::PageContext;
use super::texts::{Language, Texts};
use crate::admission::{OperatorRole, Visitor, cookie};
use crate::operations::OperationError;

/// Somebody who looks at the page, whatever they may see.
pub(super) struct Guest {
    pub(super) context: PageContext,
    pub(super) visitor: Visitor,
    pub(super) language: Language,
    /// The colours that they chose; none: as their system has them.
    pub(super) theme: Option<&'static str>,
    /// The address that they asked for, with its query.
    pub(super) address: String,
    pub(super) now: Timestamp,
}

/// Somebody who may read.
pub(super) struct Visit(pub(super) Guest);

impl std::ops::Deref for Visit {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.0
    }
}

impl Guest {
    /// The words in their language.
    pub(super) fn texts(&self) -> &'static Texts {
        self.language.texts()
    }

    /// Writes down what they are about to do.
    pub(super) async fn record(&self, act: &str, subject: &str) -> Result<(), OperationError> {
        self.context.operations.audit.record(&self.visitor.who, act, subject).await
    }

    fn of(context: &PageContext, parts: &Parts) -> Self {
        let headers = &parts.headers;
        Self {
            context: context.clone(),
            visitor: context.admission.visitor(headers, peer(&parts.extensions)),
            language: language(headers),
            theme: cookie(headers, THEME).and_then(theme_named),
            address: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            now: context.clock.now(),
        }
    }
}

impl FromRequestParts<PageContext> for Guest {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &PageContext) -> Result<Self, Self::Rejection> {
        Ok(Self::of(context, parts))
    }
}

impl FromRequestParts<PageContext> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, context: &PageContext) -> Result<Self, Response> {
        let guest = Guest::of(context, parts);
        if guest.visitor.may(OperatorRole::Read) {
            return Ok(Self(guest));
        }
        // A feed or a player has no use for a form.
        let wants_page = parts.headers.get(header::ACCEPT).is_some_and(|kinds| contains(kinds, "text/html"));
        Err(match wants_page && parts.method == axum::http::Method::GET {
            true => Redirect::to("/login").into_response(),
            false => (StatusCode::UNAUTHORIZED, "sign in at /login\n").into_response(),
        })
    }
}

/// The cookie of the language.
pub(super) const LANGUAGE: &str = "knovvu_language";

/// The cookie of the colours.
pub(super) const THEME: &str = "knovvu_theme";

/// Colours by their name.
pub(super) fn theme_named(name: &str) -> Option<&'static str> {
    ["light", "dark"].into_iter().find(|theme| *theme == name)
}

/// The client's address, where the transport knows it.
pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

fn language(headers: &HeaderMap) -> Language {
    let chosen = cookie(headers, LANGUAGE).and_then(Language::named);
    chosen.unwrap_or_else(|| {
        let wished = headers.get(header::ACCEPT_LANGUAGE).and_then(|wished| wished.to_str().ok()).unwrap_or_default();
        // The first is the one that they like best; weights are for those who wish for many.
        wished.split(',').find_map(|one| Language::named(one.trim().get(..2)?)).unwrap_or(Language::English)
    })
}

fn contains(value: &axum::http::HeaderValue, text: &str) -> bool {
    value.to_str().is_ok_and(|value| value.contains(text))
}
