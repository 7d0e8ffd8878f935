//! The one function that sends a request to NICE: timeout, cap, metrics, and what its answer means.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use model::retry_after::longest_retry_after;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, RETRY_AFTER},
};
use runtime::{Clock, task};
use serde_json::Value;
use tokio::time::Instant;
use transport::TransportOptions;

use super::body;
use super::body::BodyReadError;
use super::endpoint::Endpoint;
use super::network::Network;
use super::wire::ShapeError;
use super::{Excess, NiceError, Timeouts};
use crate::{NiceHealth, NiceMetrics};

/// What NICE answered where an answer was possible.
#[derive(Debug)]
pub(super) enum ApiAnswer {
    /// 200 with a body.
    Body(Bytes),
    /// 204: nothing there, or nothing more.
    Nothing,
    /// 404: unknown, or not there yet.
    NotFound,
}

/// Idle connections that are kept for API calls.
const IDLE_CALLS: usize = 32;

/// Each long poll has a connection of its own, idle for the moment between two polls: as many as there may be agents.
const IDLE_POLLS: usize = 10_000;

/// The way to NICE and to the hosts of its recordings.
pub(super) fn transport(timeouts: &Timeouts, most_idle: usize) -> TransportOptions {
    TransportOptions::new(timeouts.connect, most_idle)
}

/// A transport for API calls.
fn api_transport(timeouts: &Timeouts, most_idle: usize) -> Result<Client, NiceError> {
    transport(timeouts, most_idle)
        .builder()
        .build()
        .map_err(|_| NiceError::permanent("the HTTPS transport cannot be set up"))
}

/// Asks for JSON: without that the ACD API does not know how to render its data.
fn for_json(request: RequestBuilder) -> RequestBuilder {
    request.header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "gzip")
}

/// Sends API requests.
pub(super) struct Http {
    network: Network,
    client: Client,
    /// The transport of long polls, made at the first one.
    polls: OnceLock<Client>,
    metrics: NiceMetrics,
    /// What NICE answers.
    pub(super) health: NiceHealth,
    timeouts: Timeouts,
    /// Requests in a row that nobody answered.
    pub(super) unanswered: AtomicU32,
}

impl Http {
    /// Makes the transport; nothing is sent.
    pub(super) fn new(
        network: Network,
        metrics: NiceMetrics,
        health: NiceHealth,
        timeouts: &Timeouts,
    ) -> Result<Self, NiceError> {
        let client = api_transport(timeouts, IDLE_CALLS)?;
        let (polls, unanswered) = (OnceLock::new(), AtomicU32::new(0));
        Ok(Self { network, client, polls, metrics, health, timeouts: timeouts.clone(), unanswered })
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.timeouts.clock.now()
    }

    /// A GET, not yet sent.
    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        for_json(self.client.get(url))
    }

    /// A POST, not yet sent.
    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        for_json(self.client.post(url))
    }

    /// The transport of long polls.
    fn polls(&self) -> Result<&Client, NiceError> {
        match self.polls.get() {
            Some(polls) => Ok(polls),
            None => {
                let polls = api_transport(&self.timeouts, IDLE_POLLS)?;
                Ok(self.polls.get_or_init(|| polls))
            }
        }
    }

    /// What an endpoint is asked: a POST where there is a body for it, else a GET.
    pub(super) fn request(
        &self,
        endpoint: Endpoint,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<RequestBuilder, NiceError> {
        Ok(match body {
            Some(body) => self.post(url.clone()).json(body),
            None if endpoint.is_long_poll() => for_json(self.polls()?.get(url.clone())),
            None => self.get(url.clone()),
        })
    }

    /// Counts a link to the next page that led astray.
    pub(super) fn refused_next(&self, endpoint: Endpoint) {
        self.metrics.requests.with_label_values(&[endpoint.name(), "refused_next"]).inc();
    }

    /// Counts interactions of an answer that hold no voice, or do not tell.
    pub(super) fn passed_over(&self, types: &[&'static str]) {
        for kind in types {
            self.metrics.interactions_skipped.with_label_values(&[*kind]).inc();
        }
    }

    /// Sends one request and reads its answer whole.
    pub(super) async fn send(&self, endpoint: Endpoint, request: RequestBuilder) -> Result<Reply, NiceError> {
        let began = Instant::now();
        let timeout = if endpoint.is_long_poll() { self.timeouts.poll } else { self.timeouts.api };
        let outcome = tokio::time::timeout(timeout, self.exchange(endpoint, request)).await;
        match &outcome {
            _ if endpoint.is_long_poll() => {}
            Ok(Ok(_) | Err(ExchangeError::Body(_))) => self.unanswered.store(0, Ordering::Relaxed),
            Ok(Err(ExchangeError::Network(_))) | Err(_) => drop(self.unanswered.fetch_add(1, Ordering::Relaxed)),
        }
        let label = match &outcome {
            Ok(Ok(reply)) => reply.status.as_str().to_owned(),
            Ok(Err(failure)) => failure.label().to_owned(),
            Err(_) => "timeout".to_owned(),
        };
        self.metrics.answered(endpoint.name(), &label, began.elapsed());
        match &outcome {
            Ok(Ok(reply)) => self.health.answered(endpoint, reply.status, self.now()),
            Ok(Err(_)) | Err(_) => self.health.unanswered(endpoint, &label, self.now()),
        }
        if !endpoint.is_long_poll() {
            self.metrics.answered_to_tenant(&label);
        }
        match outcome {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(failure.into_error(endpoint)),
            Err(_) => {
                let what = format!("{}: NICE did not answer in time", endpoint.name());
                Err(match endpoint.is_divisible() {
                    true => NiceError::TooMuch { what, why: Excess::Length },
                    false => NiceError::transient(what),
                })
            }
        }
    }

    async fn exchange(&self, endpoint: Endpoint, request: RequestBuilder) -> Result<Reply, ExchangeError> {
        let response =
            self.network.send(endpoint, request).await.map_err(|error| ExchangeError::Network(error.word))?;
        let status = response.status();
        let retry_after = wait_asked(&response, &self.timeouts.clock);
        let body = if status.is_success() {
            body::read(response, endpoint.cap()).await.map_err(ExchangeError::Body)?
        } else {
            // Whether it could be read does not matter, and it must not hold up the status.
            drop(tokio::time::timeout(ERROR_PAGE_WAIT, body::read(response, ERROR_PAGE)).await);
            Bytes::new()
        };
        Ok(Reply { status, retry_after, body })
    }
}

/// An answer with its body, where the status promises one.
pub(super) struct Reply {
    /// The bare status.
    pub(super) status: StatusCode,
    /// The wait that it asks for.
    pub(super) retry_after: Option<Duration>,
    body: Bytes,
}

/// Error pages are read this far, so that the connection can be used again; they are never looked at.
const ERROR_PAGE: usize = 64 * 1024;

/// A connection that does not give up its error page sooner is not worth keeping.
const ERROR_PAGE_WAIT: Duration = Duration::from_secs(1);

/// The wait that an answer asks for.
pub(super) fn wait_asked(response: &Response, clock: &Clock) -> Option<Duration> {
    let headers = response.headers().get_all(RETRY_AFTER).iter();
    longest_retry_after(headers.map(HeaderValue::as_bytes), clock.now())
}

enum ExchangeError {
    Network(&'static str),
    Body(BodyReadError),
}

impl ExchangeError {
    fn label(&self) -> &'static str {
        match self {
            Self::Network(word) => word,
            Self::Body(error) => error.label(),
        }
    }

    fn into_error(self, endpoint: Endpoint) -> NiceError {
        let name = endpoint.name();
        match self {
            Self::Network(word) => NiceError::transient(format!("{name}: NICE cannot be reached ({word})")),
            Self::Body(error @ (BodyReadError::TooLarge | BodyReadError::Bomb)) if endpoint.is_divisible() => {
                NiceError::TooMuch { what: format!("{name}: {error}"), why: Excess::Length }
            }
            Self::Body(error @ (BodyReadError::TooLarge | BodyReadError::Bomb)) => {
                NiceError::Odd { what: format!("{name}: {error}") }
            }
            Self::Body(error @ (BodyReadError::Broken | BodyReadError::Encoding)) => {
                NiceError::transient(format!("{name}: {error}"))
            }
        }
    }
}

impl Reply {
    /// What the status means for whoever asked.
    pub(super) fn answer(self, endpoint: Endpoint) -> Result<ApiAnswer, NiceError> {
        let what = format!("{}: NICE answered {}", endpoint.name(), self.status.as_u16());
        match self.status.as_u16() {
            204 | 205 => Ok(ApiAnswer::Nothing),
            200..=299 => Ok(ApiAnswer::Body(self.body)),
            300..=399 => Err(NiceError::transient(format!("{what}, redirects are not followed"))),
            401 | 403 => Err(NiceError::Refused { what }),
            404 => Ok(ApiAnswer::NotFound),
            // Who says when to come again does not mean the size.
            400 | 413 | 414 | 422 if endpoint.is_divisible() && self.retry_after.is_some() => {
                Err(NiceError::Transient { what, retry_after: self.retry_after })
            }
            status @ (400 | 413 | 414 | 422 | 504) if endpoint.is_divisible() && self.retry_after.is_none() => {
                let why = if matches!(status, 400 | 414 | 422) { Excess::Refused } else { Excess::Length };
                Err(NiceError::TooMuch { what, why })
            }
            408 | 425 | 429 | 500.. => Err(NiceError::Transient { what, retry_after: self.retry_after }),
            _ => Err(NiceError::Odd { what }),
        }
    }
}

/// A larger body is read on a thread of its own, so that other tasks go on.
const READ_ASIDE_FROM: usize = 256 * 1024;

/// Reads a body with one of the pure readers.
pub(super) async fn parse<T: Send + 'static>(
    endpoint: Endpoint,
    body: Bytes,
    reader: fn(&[u8]) -> Result<T, ShapeError>,
) -> Result<T, NiceError> {
    let read = if body.len() < READ_ASIDE_FROM {
        reader(&body)
    } else {
        let aside = task::blocking(move || reader(&body)).await;
        aside.map_err(|_| NiceError::transient(format!("{}: the answer was not read", endpoint.name())))?
    };
    read.map_err(|error| {
        let what = format!("{}: {error}", endpoint.name());
        match error {
            ShapeError::NotJson if endpoint.is_divisible() => NiceError::TooMuch { what, why: Excess::Damage },
            ShapeError::Empty | ShapeError::Html | ShapeError::NotJson | ShapeError::Shape(_) => {
                NiceError::transient(what)
            }
            ShapeError::Grammar(_) => NiceError::Permanent { what },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_date_to_wait_for_is_as_far_away_as_the_clock_says() {
        let asked = axum::http::Response::builder().header(RETRY_AFTER, "Wed, 01 Apr 2026 12:02:00 GMT");
        let asked = Response::from(asked.body("").unwrap());
        let clock = Clock::fixed("2026-04-01T12:00:00Z".parse().unwrap());
        assert_eq!(wait_asked(&asked, &clock), Some(Duration::from_secs(120)));
    }
}
