//! The HTTP faces, in the order a client meets them, and what all requests go through.
//!
//! Hosts of the real service are paths here: each handler is found by the first part of the path.

pub(crate) mod discovery;

pub(crate) mod auth;

pub(crate) mod acd;

pub(crate) mod playback;

pub(crate) mod media;

pub(crate) mod extraction;

pub(crate) mod users;

pub(crate) mod sessions;

pub(crate) mod ask;
pub(crate) mod reply;

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, Request, State},
    response::Response,
};

use self::{ask::Ask, reply::Answer};
use crate::{listener::Line, service::Service};

/// Answers a request that came over a socket.
pub(crate) async fn handle(
    State(service): State<Arc<Service>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    respond(&service, request, line).await
}

/// Answers any request and counts the answer.
pub(crate) async fn respond(service: &Service, request: Request, line: Line) -> Response {
    let ask = match Ask::read(request).await {
        Ok(ask) => ask,
        Err(status) => return Answer::Empty(status).plain(),
    };
    if !service.config.latency.is_zero() {
        tokio::time::sleep(service.config.latency).await;
    }
    let (endpoint, response) = match ask.part(0).as_str() {
        ".well-known" => discovery::answer(service, &ask),
        "auth" | "authentication" | "public" => auth::answer(service, &ask),
        "incontactapi" => acd::answer(service, &ask).await,
        "media-playback" => playback::answer(service, &ask),
        "data-extraction" => extraction::answer(service, &ask),
        "_extracts" => extraction::file(service, &ask),
        "user-management" => users::answer(service, &ask),
        "_media" => media::answer(service, &ask, line),
        _ => ("unknown", Answer::gateway(404, "no Route matched with those values").plain()),
    };
    service.counters.answered(endpoint, response.status().as_u16());
    response
}
