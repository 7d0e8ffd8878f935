//! Errors below `/api/v1`, as RFC 9457 tells them: `application/problem+json`.

use axum::{
    body::to_bytes,
    extract::Request as HttpRequest,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flow::StageError;
use serde::{Deserialize, Serialize};
use stages::{completeness::ReportError, source::ListError};
use utoipa::ToSchema;

use crate::operations::OperationError;

/// The media type.
pub(super) const PROBLEM: &str = "application/problem+json";

/// The longest text of a refusal that is passed on.
const LONGEST_TEXT: usize = 16 * 1024;

/// Why a request was refused or failed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request, in words for a person.
    pub(crate) detail: String,
}

impl Problem {
    /// A problem of this status.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { kind: "about:blank".to_owned(), title, status: status.as_u16(), detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, PROBLEM)], text).into_response()
    }
}

impl IntoResponse for OperationError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Report(ReportError::List(ListError::Settings(StageError::Permanent { .. }))) => StatusCode::CONFLICT,
            Self::Report(ReportError::List(_)) => StatusCode::BAD_GATEWAY,
            Self::Report(ReportError::Compare(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_) | Self::NoTenant(_) => StatusCode::CONFLICT,
            Self::Sync(_) | Self::Erasure(_) | Self::Verification(_) => StatusCode::BAD_GATEWAY,
            Self::Catalog(_) | Self::Queue(_) | Self::State(_) | Self::Budget(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, self.to_string()).into_response()
    }
}

/// Makes a problem of every refusal, also of what the router and the reading of a request refuse by themselves.
pub(super) async fn told_as_problem(request: HttpRequest, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_told = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM);
    if is_told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, LONGEST_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let detail = match status {
        _ if !text.is_empty() => text,
        StatusCode::NOT_FOUND => "there is no such address below /api/v1; see /api/v1/openapi.json".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => "this address takes other methods, which `Allow` names".to_owned(),
        _ => status.to_string(),
    };
    let mut problem = Problem::new(status, detail).into_response();
    for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
        if let Some(value) = parts.headers.get(&name) {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}

/// Who shows no token, or a wrong one.
pub(super) fn unauthorized() -> Response {
    let why = "show a token: Authorization: Bearer TOKEN. That of this machine is in admin.json in the state directory";
    let mut problem = Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    problem.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    problem
}
