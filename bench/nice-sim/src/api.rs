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
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::header,
    response::{IntoResponse, Response},
};

use self::{ask::Ask, reply::Answer};
use crate::{
    faults::{Host, Outage},
    listener::{Line, Refused},
    service::Service,
};

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
    let first = ask.part(0);
    let outage = service.faults.outage(match first.as_str() {
        "_media" | "_extracts" => Host::Media,
        ".well-known" | "auth" | "authentication" | "public" => Host::Tokens,
        _ => Host::Api,
    });
    match outage {
        Some(Outage::Refused) => return refused(&line),
        Some(Outage::Silent) => std::future::pending().await,
        _ => {}
    }
    let latency = service.config.latency + service.faults.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let (endpoint, response) = match first.as_str() {
        _ if outage.is_some() => ("away", away(outage)),
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

/// What stands for a connection that nobody accepts.
fn refused(line: &Line) -> Response {
    line.refuse();
    let nothing = futures::stream::iter([Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))]);
    let mut response = Response::new(Body::from_stream(nothing));
    *response.status_mut() = axum::http::StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(Refused);
    response
}

/// What stands in front of a service that is away says.
fn away(outage: Option<Outage>) -> Response {
    let status = match outage {
        Some(Outage::Status(status)) => status,
        _ => 200,
    };
    let page = "<!DOCTYPE html><html><body><h1>Service unavailable</h1></body></html>";
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    *response.status_mut() = reply::code(status);
    response
}
