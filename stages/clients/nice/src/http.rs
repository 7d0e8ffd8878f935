//! The one function that sends an API request: bearer, budget, timeout, cap, one renewed token, metrics.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use model::{ApiFamily, Quota, QuotaClass, http::MAX_HEADERS, retry_after::longest_retry_after};
use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use runtime::{Clock, chance, task};
use serde_json::Value;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::body;
use super::body::BodyError;
use super::cached::Held;
use super::network::Network;
use super::token::{Token, Tokens};
use super::wire::ShapeError;
use super::{Excess, NiceError, Timeouts};
use crate::NiceMetrics;

/// What is asked of NICE; the name is the label in metrics and the subject of error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Token,
    Discovery,
    Groups,
    GroupAgents,
    Teams,
    TeamAgents,
    Completed,
    Contact,
    Hierarchy,
    ContactPlayback,
    SegmentPlayback,
    Media,
    ExtractionBegin,
    ExtractionJob,
    ExtractionFile,
    SessionJoin,
    SessionEvents,
}

/// Tokens, configurations and single contacts have some KiB.
const SMALL: usize = 1024 * 1024;

/// Playback may bring waveforms although they are declined.
const PLAYBACK: usize = 8 * 1024 * 1024;

/// NICE's largest page, 10,000 contacts of 3 KiB.
const LIST: usize = 32 * 1024 * 1024;

impl Endpoint {
    /// The label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Discovery => "discovery",
            Self::Groups => "groups",
            Self::GroupAgents => "group_agents",
            Self::Teams => "teams",
            Self::TeamAgents => "team_agents",
            Self::Completed => "completed",
            Self::Contact => "contact",
            Self::Hierarchy => "hierarchy",
            Self::ContactPlayback => "contact_playback",
            Self::SegmentPlayback => "segment_playback",
            Self::Media => "media",
            Self::ExtractionBegin => "extraction_begin",
            Self::ExtractionJob => "extraction_job",
            Self::ExtractionFile => "extraction_file",
            Self::SessionJoin => "session_join",
            Self::SessionEvents => "session_events",
        }
    }

    fn cap(self) -> usize {
        match self {
            Self::Token | Self::Discovery | Self::Contact | Self::Media => SMALL,
            Self::ExtractionBegin | Self::ExtractionJob | Self::ExtractionFile => SMALL,
            Self::SessionJoin | Self::SessionEvents => SMALL,
            Self::ContactPlayback | Self::SegmentPlayback => PLAYBACK,
            Self::Groups | Self::GroupAgents | Self::Teams | Self::TeamAgents | Self::Completed | Self::Hierarchy => {
                LIST
            }
        }
    }

    /// The budget it draws on; data extraction has a pace of its own, and a long poll only waits.
    fn family(self) -> Option<ApiFamily> {
        match self {
            Self::ContactPlayback | Self::SegmentPlayback => Some(ApiFamily::MediaPlayback),
            Self::SessionEvents | Self::ExtractionBegin | Self::ExtractionJob | Self::ExtractionFile => None,
            _ => Some(ApiFamily::Acd),
        }
    }

    /// Whether less of it can be asked for.
    fn is_divisible(self) -> bool {
        self == Self::Completed
    }

    /// Whether NICE keeps the request until there is something to say: its silence says nothing of NICE.
    fn is_long_poll(self) -> bool {
        self == Self::SessionEvents
    }
}

/// What NICE answered where an answer was possible.
#[derive(Debug)]
pub(super) enum Answer {
    /// 200 with a body.
    Body(Bytes),
    /// 204: nothing there, or nothing more.
    Nothing,
    /// 404: unknown, or not there yet.
    NotFound,
}

/// What NICE made of a POST.
#[derive(Debug)]
pub(super) enum Posted {
    /// It was answered as a GET is.
    Answered(Answer),
    /// 403, which may stand for "not now".
    Forbidden,
}

/// A transport for API calls: no redirects, no proxies of the environment, no cookies, HTTP/1.1.
pub(super) fn transport(timeouts: &Timeouts) -> ClientBuilder {
    // Fails only where one is chosen already, and that is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(concat!("nice-knovvu/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .http1_max_headers(MAX_HEADERS)
        // A header that is none costs itself, not the answer.
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .connect_timeout(timeouts.connect)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(IDLE_CALLS)
}

/// Idle connections that are kept for API calls.
const IDLE_CALLS: usize = 32;

/// Each long poll has a connection of its own, idle for the moment between two polls: as many as there may be agents.
const IDLE_POLLS: usize = 10_000;

/// A transport for API calls.
fn api_transport(timeouts: &Timeouts, idle: usize) -> Result<Client, NiceError> {
    transport(timeouts)
        .pool_max_idle_per_host(idle)
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
    timeouts: Timeouts,
    /// Requests in a row that nobody answered.
    unanswered: AtomicU32,
}

impl Http {
    /// Makes the transport; nothing is sent.
    pub(super) fn new(network: Network, metrics: NiceMetrics, timeouts: &Timeouts) -> Result<Self, NiceError> {
        let client = api_transport(timeouts, IDLE_CALLS)?;
        let (polls, unanswered) = (OnceLock::new(), AtomicU32::new(0));
        Ok(Self { network, client, polls, metrics, timeouts: timeouts.clone(), unanswered })
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
    fn request(&self, endpoint: Endpoint, url: &Url, body: Option<&Value>) -> Result<RequestBuilder, NiceError> {
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
            Ok(Ok(_) | Err(Failure::Body(_))) => self.unanswered.store(0, Ordering::Relaxed),
            Ok(Err(Failure::Network(_))) | Err(_) => drop(self.unanswered.fetch_add(1, Ordering::Relaxed)),
        }
        let label = match &outcome {
            Ok(Ok(reply)) => reply.status.as_str().to_owned(),
            Ok(Err(failure)) => failure.label().to_owned(),
            Err(_) => "timeout".to_owned(),
        };
        self.metrics.answered(endpoint.name(), &label, began.elapsed());
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

    async fn exchange(&self, endpoint: Endpoint, request: RequestBuilder) -> Result<Reply, Failure> {
        let response = self.network.send(request).await.map_err(|error| Failure::Network(error.word))?;
        let status = response.status();
        let retry_after = wait_asked(&response, &self.timeouts.clock);
        let body = if status.is_success() {
            body::read(response, endpoint.cap()).await.map_err(Failure::Body)?
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
    status: StatusCode,
    retry_after: Option<Duration>,
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

enum Failure {
    Network(&'static str),
    Body(BodyError),
}

impl Failure {
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
            Self::Body(error @ (BodyError::TooLarge | BodyError::Bomb)) if endpoint.is_divisible() => {
                NiceError::TooMuch { what: format!("{name}: {error}"), why: Excess::Length }
            }
            Self::Body(error @ (BodyError::TooLarge | BodyError::Bomb)) => {
                NiceError::Odd { what: format!("{name}: {error}") }
            }
            Self::Body(error @ (BodyError::Broken | BodyError::Encoding)) => {
                NiceError::transient(format!("{name}: {error}"))
            }
        }
    }
}

impl Reply {
    /// What the status means for whoever asked.
    pub(super) fn answer(self, endpoint: Endpoint) -> Result<Answer, NiceError> {
        let what = format!("{}: NICE answered {}", endpoint.name(), self.status.as_u16());
        match self.status.as_u16() {
            204 | 205 => Ok(Answer::Nothing),
            200..=299 => Ok(Answer::Body(self.body)),
            300..=399 => Err(NiceError::transient(format!("{what}, redirects are not followed"))),
            401 | 403 => Err(NiceError::Refused { what }),
            404 => Ok(Answer::NotFound),
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

    /// The bare status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }
}

/// Sends API calls in our name.
pub(super) struct Api {
    pub(super) http: Http,
    pub(super) tokens: Tokens,
    pub(super) quota: Arc<dyn Quota>,
    /// Tokens in a row that NICE issued and never took.
    pub(super) never_taken: AtomicU32,
    /// How often NICE has refused us.
    pub(super) refusals: AtomicU64,
    /// Tells of it.
    pub(super) alarm: Alarm,
    /// Calls under way, but for long polls.
    pub(super) under_way: AtomicUsize,
}

/// After so many requests without an answer NICE counts as silent, until it answers one.
const SILENT_AFTER: u32 = 4;

/// So many at a time go on trying whether a silent NICE answers.
const PROBES: usize = 2;

/// Counts a call for as long as it lives.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So many tokens in a row must be refused from the first request on before it is a matter for a person. A token
/// that was taken and is refused later was revoked between two requests, and another will do.
const NEVER_TAKEN: u32 = 2;

impl Api {
    /// Whether NICE is silent, and enough callers wait for it as it is.
    pub(super) fn is_stuck(&self) -> bool {
        self.http.unanswered.load(Ordering::Relaxed) >= SILENT_AFTER && self.under_way.load(Ordering::Relaxed) >= PROBES
    }

    /// Asks for `url` with a bearer token, as one of `class`; a token that is refused is renewed once.
    pub(super) async fn get(&self, endpoint: Endpoint, url: &Url, class: QuotaClass) -> Result<Answer, NiceError> {
        let answer = self.reply(endpoint, url, class, None).await?.answer(endpoint);
        self.alarm.listen(&answer);
        answer
    }

    /// Sends `body` to `url`, otherwise as [`Api::get`].
    pub(super) async fn post(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: &Value,
    ) -> Result<Posted, NiceError> {
        let reply = self.reply(endpoint, url, class, Some(body)).await?;
        match reply.status {
            StatusCode::FORBIDDEN => Ok(Posted::Forbidden),
            _ => {
                let answer = reply.answer(endpoint);
                self.alarm.listen(&answer);
                answer.map(Posted::Answered)
            }
        }
    }

    /// As [`Api::get`], for who looks at the status; a body is posted.
    pub(super) async fn reply(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<Reply, NiceError> {
        let _under_way = (!endpoint.is_long_poll()).then(|| UnderWay::new(&self.under_way));
        let reply = self.ask(endpoint, url, class, body).await;
        let refused = match &reply {
            Ok(reply) => reply.status == StatusCode::FORBIDDEN,
            Err(error) => matches!(error, NiceError::Refused { .. }),
        };
        if refused {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        self.alarm.listen(&reply);
        reply
    }

    async fn ask(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<Reply, NiceError> {
        let (mut reply, mut token) = self.attempt(endpoint, url, class, body).await?;
        if reply.is_unauthorized() {
            self.count_refusal(&token);
            if !self.tokens.reject(&token) {
                return Err(refused(endpoint));
            }
            (reply, token) = self.attempt(endpoint, url, class, body).await?;
            if reply.is_unauthorized() {
                self.count_refusal(&token);
                if self.never_taken.load(Ordering::Relaxed) < NEVER_TAKEN {
                    self.tokens.reject(&token);
                    return Err(NiceError::transient(format!("{}: a renewed token was refused", endpoint.name())));
                }
                self.tokens.settle();
                return Err(refused(endpoint));
            }
        }
        token.value.mark_taken();
        self.never_taken.store(0, Ordering::Relaxed);
        Ok(reply)
    }

    fn count_refusal(&self, token: &Held<Token>) {
        if token.value.is_first_refusal() {
            self.never_taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn attempt(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<(Reply, Arc<Held<Token>>), NiceError> {
        // First without the budget: while there is no token, no request of it is spent.
        let token = self.tokens.current(&self.http).await?;
        let Some(family) = endpoint.family() else {
            let request = self.http.request(endpoint, url, body)?.header(AUTHORIZATION, token.value.bearer());
            return Ok((self.http.send(endpoint, request).await?, token));
        };
        loop {
            let mut permit = self.quota.admit(token.value.account.as_deref(), family, class).await?;
            let token = self.tokens.current(&self.http).await?;
            let request = self.http.request(endpoint, url, body)?.header(AUTHORIZATION, token.value.bearer());
            if !permit.leave() {
                continue;
            }
            let reply = self.http.send(endpoint, request).await?;
            if reply.status == StatusCode::TOO_MANY_REQUESTS {
                permit.refused(reply.retry_after);
                // No fault of the item: it waits for the budget, which has learned of it.
                let what = format!("{}: NICE takes no more requests for now (429)", endpoint.name());
                return Err(NiceError::Quota { what, retry_after: Some(again_after(reply.retry_after)) });
            }
            return Ok((reply, token));
        }
    }
}

/// Whom NICE refused asks the budget again after this time at the latest; the budget knows when it is open again.
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

fn again_after(retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or(Duration::from_secs(2)).max(Duration::from_secs(1)).min(LONGEST_REFUSAL);
    asked.mul_f64(chance::range(0.5..1.0)).max(Duration::from_secs(1))
}

fn refused(endpoint: Endpoint) -> NiceError {
    NiceError::refused(format!("{}: NICE refuses a fresh token", endpoint.name()))
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
