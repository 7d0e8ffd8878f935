//! The way of a request: over the network, or to a NICE in this process.
//!
//! The second one is for simulations: no socket is opened, so that the time of a test is the only time there is.

use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::{Request, RequestBuilder, Response};

use runtime::traces::{self, RequestSpan, TraceSpan};

use super::endpoint::Endpoint;
use super::resolver::{self, ResolveError};

/// Answers requests in this process.
pub trait Exchange: Send + Sync {
    /// The answer to a request, or why there is none.
    fn exchange(&self, request: Request) -> BoxFuture<'static, Result<Response, WireError>>;
}

/// Where requests go.
#[derive(Clone, Default)]
pub enum Network {
    /// To the host that the URL names.
    #[default]
    Internet,
    /// To a service in this process. Names are not resolved, and addresses not looked at.
    Simulated(Arc<dyn Exchange>),
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireError {
    /// What went wrong, in a word; the transport's own text may hold the URL.
    pub(super) word: &'static str,
    /// Where the address is at fault.
    pub(super) refusal: Option<ResolveError>,
}

impl WireError {
    /// Nobody listens there.
    pub const UNREACHABLE: Self = Self { word: "connect", refusal: None };

    /// The connection broke off.
    pub const BROKEN: Self = Self { word: "network", refusal: None };
}

impl From<&reqwest::Error> for WireError {
    fn from(error: &reqwest::Error) -> Self {
        let word = if error.is_timeout() {
            "timeout"
        } else if error.is_connect() {
            "connect"
        } else {
            "network"
        };
        Self { word, refusal: resolver::refusal(error) }
    }
}

impl Network {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, endpoint: Endpoint, request: RequestBuilder) -> Result<Response, WireError> {
        let (client, request) = request.build_split();
        let request = request.map_err(|error| WireError::from(&error))?;
        let span = span(endpoint, &request);
        let answer = match self {
            Self::Internet => client.execute(request).await.map_err(|error| WireError::from(&error)),
            Self::Simulated(service) => service.exchange(request).await,
        };
        match &answer {
            Ok(response) => span.answered(response.status().as_u16()),
            Err(error) => span.failed(error.word),
        }
        answer
    }
}

/// Long polls are one connection for each agent, and belong to no call.
fn span(endpoint: Endpoint, request: &Request) -> RequestSpan {
    if !traces::is_on() || endpoint.is_long_poll() {
        return RequestSpan::none();
    }
    let url = request.url();
    TraceSpan::request(request.method().as_str(), endpoint.name(), url.host_str(), url.port_or_known_default())
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Internet => "Internet",
            Self::Simulated(_) => "Simulated",
        })
    }
}
