//! A form that acts: sent by a page of ours, by somebody who may.

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;

use super::context::PageContext;
use super::visit::{Guest, Visit};
use super::{layout, layout::Place};
use crate::admission::OperatorRole;

/// The largest form.
const LARGEST: usize = 16 << 10;

/// The fields of a form, and who sent it.
pub(super) struct Acting<T> {
    pub(super) visit: Visit,
    pub(super) fields: T,
}

/// The field that every form carries.
#[derive(Deserialize)]
struct FormToken {
    #[serde(default)]
    form: String,
}

/// A form without fields of its own.
#[derive(Deserialize)]
pub(super) struct NoFields {}

impl<T: DeserializeOwned> FromRequest<PageContext> for Acting<T> {
    type Rejection = Response;

    async fn from_request(request: Request, context: &PageContext) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, context).await?;
        let texts = visit.texts();
        let Some(expected) = visit.visitor.form_token.as_ref().filter(|_| visit.visitor.may(OperatorRole::Act)) else {
            return Err(layout::refusal(&visit, Place::None, StatusCode::FORBIDDEN, texts.may_not_act));
        };
        let body = to_bytes(body, LARGEST).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        let FormToken { form } = fields(&body)?;
        let is_own = bool::from(form.as_bytes().ct_eq(expected.as_bytes()));
        if !is_own || !context.admission.is_own_form(&parts.headers) {
            return Err(layout::refusal(&visit, Place::None, StatusCode::FORBIDDEN, texts.foreign_form));
        }
        Ok(Self { fields: fields(&body)?, visit })
    }
}

/// The field of a login; it comes before there is a session.
#[derive(Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    pub(super) token: String,
}

/// A login, and who sent it.
pub(super) struct Arriving {
    pub(super) guest: Guest,
    pub(super) login: Login,
}

impl FromRequest<PageContext> for Arriving {
    type Rejection = Response;

    async fn from_request(request: Request, context: &PageContext) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Ok(guest) = Guest::from_request_parts(&mut parts, context).await;
        if !context.admission.is_own_form(&parts.headers) {
            return Err((StatusCode::FORBIDDEN, "the form was not sent by this page\n").into_response());
        }
        let body = to_bytes(body, LARGEST).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        Ok(Self { guest, login: fields(&body)? })
    }
}

/// A form that is none.
struct UnreadableForm;

impl From<UnreadableForm> for Response {
    fn from(_: UnreadableForm) -> Self {
        (StatusCode::BAD_REQUEST, "the form cannot be read\n").into_response()
    }
}

/// The fields of a form: it is written as a query is.
fn fields<T: DeserializeOwned>(body: &[u8]) -> Result<T, UnreadableForm> {
    let text = std::str::from_utf8(body).map_err(|_| UnreadableForm)?;
    let uri: Uri = format!("/?{text}").parse().map_err(|_| UnreadableForm)?;
    Ok(Query::try_from_uri(&uri).map_err(|_| UnreadableForm)?.0)
}
