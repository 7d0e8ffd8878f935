//! A host that is not the service: faults point there, and whoever calls it has broken a rule.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    http::{header, request::Parts},
    response::{IntoResponse, Response},
};

use crate::service::Service;

/// Answers everything with 200 and an empty object, and notes the call.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<Service>>, request: Parts) -> Response {
    caught(&service, &request)
}

/// Notes who called the host that nobody may call.
pub(crate) fn caught(service: &Service, request: &Parts) -> Response {
    let with = if request.headers.contains_key(header::AUTHORIZATION) { " with a bearer token" } else { "" };
    service.counters.violation(format!("foreign host called{with}: {} {}", request.method, request.uri.path()));
    (StatusCode::OK, "{}").into_response()
}
