//! The network between a machine and the simulated NICEs: a request finds its service by the host of its URL.
//!
//! What TCP and HTTP do to a body is done here: an answer that names a length is cut where it ends, and broken off where
//! there is less of it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::{
    body::Body,
    http,
    http::{HeaderValue, header},
};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use nice::{Exchange, WireError};
use nice_sim::{Refused, Sim};
use reqwest::{Request, Response};

use crate::journal::Journal;
use crate::standins::Link;

/// Every NICE by the host of its base URL.
pub type Services = BTreeMap<String, Arc<Sim>>;

/// A machine's way to every NICE.
#[derive(Clone)]
pub struct Wire {
    services: Arc<Services>,
    link: Link,
    machine: Arc<str>,
    journal: Journal,
}

impl Wire {
    /// The way of one machine, over its link to the internet.
    pub fn new(services: Arc<Services>, link: Link, machine: &str, journal: Journal) -> Self {
        Self { services, link, machine: machine.into(), journal }
    }

    async fn send(self, request: Request) -> Result<Response, WireError> {
        let (method, host) = (request.method().clone(), request.url().host_str().unwrap_or_default().to_owned());
        let path = request.url().path().to_owned();
        let Some(service) = self.services.get(&host) else {
            self.journal.note(format_args!("{} {method} {host}: no such host", self.machine));
            return Err(WireError::UNREACHABLE);
        };
        let request = self.in_process(request)?;
        let sky = self.link.sky();
        if sky.is_away {
            return Err(WireError::UNREACHABLE);
        }
        if sky.is_silent || self.link.draw(sky.refuses) {
            // Nobody hears it; the asker's own patience ends this.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(sky.slow).await;
        let answer = service.call(request).await;
        if answer.extensions().get::<Refused>().is_some() {
            self.journal.note(format_args!("{} {method} {host}{path}: refused", self.machine));
            return Err(WireError::UNREACHABLE);
        }
        let status = answer.status();
        self.journal.note(format_args!("{} {method} {host}{path}: {}", self.machine, status.as_u16()));
        if self.link.is_killed() || !self.link.sky().carries() {
            return Err(WireError::BROKEN);
        }
        Ok(framed(answer))
    }

    fn in_process(&self, request: Request) -> Result<http::Request<Body>, WireError> {
        let body = request.body().and_then(reqwest::Body::as_bytes).map(Bytes::copy_from_slice).unwrap_or_default();
        let mut built = http::Request::builder().method(request.method().clone()).uri(request.url().as_str());
        for (name, value) in request.headers() {
            built = built.header(name, value);
        }
        let host = request.url().host_str().unwrap_or_default();
        built = built.header(header::HOST, host).header(header::CONTENT_LENGTH, body.len());
        built.body(Body::from(body)).map_err(|_| WireError::BROKEN)
    }
}

impl Exchange for Wire {
    fn exchange(&self, request: Request) -> BoxFuture<'static, Result<Response, WireError>> {
        Box::pin(self.clone().send(request))
    }
}

/// The answer as it looks at the other end of a connection.
fn framed(answer: http::Response<Body>) -> Response {
    let (mut head, body) = answer.into_parts();
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_none() {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let body = Framed { body: Mutex::new(body), left: length, is_broken: false };
    Response::from(http::Response::from_parts(head, reqwest::Body::wrap(body)))
}

/// A body as HTTP delivers it.
struct Framed {
    /// Never locked: the mutex only says that it is not used from two threads at a time.
    body: Mutex<Body>,
    /// What is to come, where the head said how much.
    left: Option<u64>,
    is_broken: bool,
}

/// The connection ended before the body did.
#[derive(Debug)]
struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection broke off")
    }
}

impl std::error::Error for BrokenOff {}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.is_broken || self.left == Some(0) {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let body = this.body.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let frame = match Pin::new(body).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match frame {
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
                if let Some(left) = &mut this.left {
                    data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.remaining() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None if this.left.is_none() => Poll::Ready(None),
            Some(Err(_)) | None => {
                this.is_broken = true;
                Poll::Ready(Some(Err(BrokenOff)))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
