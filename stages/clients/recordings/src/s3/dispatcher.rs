//! The transport under rusoto: a signed request in, reqwest's answer out.
//!
//! What rusoto would misread is put right here, before it sees an answer: a success that carries an error, white space
//! before the XML, headers that it cannot parse. An object streams; no other answer of S3 that is asked for here is
//! large, so each is read whole, up to a cap. Redirects are not followed and proxies of the environment are not used: a
//! signature goes to the endpoint and nowhere else.

use std::error::Error;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use model::{retry_after::http_date, text::without_mark};
use reqwest::{
    Client, Method, Request, Response, Url,
    header::{DATE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH},
};
use runtime::TraceSpan;
use rusoto_core::{
    ByteStream, DispatchSignedRequest, HttpDispatchError,
    request::{DispatchSignedRequestFuture, HttpResponse},
    signature::{SignedRequest, SignedRequestPayload},
};
use transport::TransportOptions;

/// A page of 1,000 uploads has some 700 KiB.
const MOST_ANSWER: usize = 4 * 1024 * 1024;

/// The headers that are passed on, besides the object's metadata: rusoto panics where it cannot parse one of those
/// that it looks at.
const HEADERS: &[&str] = &["content-length", "content-type", "etag", "retry-after"];

/// What a failure to get an answer begins with: rusoto keeps nothing of it but a text.
pub(super) mod class {
    /// No connection.
    pub(crate) const CONNECT: &str = "connect";
    /// No connection that can be trusted.
    pub(crate) const CERTIFICATE: &str = "certificate";
    /// A connection that broke, or an answer that is none.
    pub(crate) const NETWORK: &str = "network";
    /// A request that must not be sent.
    pub(crate) const UNSENDABLE: &str = "unsendable";
}

tokio::task_local! {
    /// Under what condition the request that is sent may have its effect. rusoto has no field for it, and S3 wants no
    /// signature over it.
    static CONDITION: Condition;
}

/// What must lie under the key for a request to have its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// No object.
    Nothing,
    /// The object of this ETag.
    ETag(String),
}

impl Condition {
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Nothing => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            // Without its quotes: Ceph compares the text as it comes, and the others take either.
            Self::ETag(tag) => Some((IF_MATCH, tag.parse().ok()?)),
        }
    }
}

/// Sends a request under a condition, where there is one.
pub(super) async fn under<T>(condition: Option<Condition>, sending: impl Future<Output = T>) -> T {
    match condition {
        Some(condition) => CONDITION.scope(condition, sending).await,
        None => sending.await,
    }
}

/// Sends signed requests.
#[derive(Debug, Clone)]
pub(super) struct Dispatcher {
    client: Client,
    server_time: ServerTime,
}

impl Dispatcher {
    /// Makes the transport; nothing is sent.
    pub(super) fn new(options: TransportOptions) -> reqwest::Result<Self> {
        Ok(Self { client: options.builder().build()?, server_time: ServerTime::default() })
    }

    /// What time it is at the server.
    pub(super) fn server_time(&self) -> ServerTime {
        self.server_time.clone()
    }
}

impl DispatchSignedRequest for Dispatcher {
    fn dispatch(&self, request: SignedRequest, _: Option<Duration>) -> DispatchSignedRequestFuture {
        let this = self.clone();
        Box::pin(async move {
            let (needs_text, is_object) = (answers_in_text(&request), reads_object(&request));
            let mut request = outgoing(request)?;
            if let Ok(condition) = CONDITION.try_with(Clone::clone) {
                // Without it the request would have its effect whatever lies there.
                let (name, value) = condition.header().ok_or_else(|| unsendable("a condition is no valid header"))?;
                request.headers_mut().insert(name, value);
            }
            let span = {
                let (method, url) = (request.method().as_str(), request.url());
                TraceSpan::request(method, "recordings", url.host_str(), url.port_or_known_default())
            };
            let answer = this.client.execute(request).await;
            match &answer {
                Ok(response) => span.answered(response.status().as_u16()),
                Err(_) => span.failed(class::NETWORK),
            }
            let response = answer.map_err(|error| failed(&error))?;
            this.server_time.note(response.headers());
            if is_object && response.status().is_success() {
                return Ok(object(response));
            }
            incoming(response, needs_text).await
        })
    }
}

/// What time it is at the server, by its latest answer: ages of what lies there are counted by its clock, not ours.
#[derive(Debug, Clone)]
pub(super) struct ServerTime(Arc<AtomicI64>);

impl Default for ServerTime {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl ServerTime {
    /// None until an answer told it.
    pub(super) fn get(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).ok()
    }

    fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| http_date(date.to_str().ok()?));
        if let Some(date) = date {
            self.0.store(date.as_second(), Ordering::Relaxed);
        }
    }
}

/// Whether a success has a text to say so, and nothing else is one: S3 may begin to answer with 200 and find out
/// afterwards that the parts cannot be put together.
fn answers_in_text(request: &SignedRequest) -> bool {
    request.method == "POST"
}

/// Whether a success is an object: what is asked for with a query is a text of S3's own.
fn reads_object(request: &SignedRequest) -> bool {
    request.method == "GET" && request.canonical_query_string.is_empty()
}

fn outgoing(request: SignedRequest) -> Result<Request, HttpDispatchError> {
    let path = request.canonical_path();
    let mut text = format!("{}://{}{path}", request.scheme(), request.hostname());
    if !request.canonical_query_string.is_empty() {
        text.push('?');
        text.push_str(&request.canonical_query_string);
    }
    let url = Url::parse(&text).map_err(|_| unsendable("the address is not a URL"))?;
    // reqwest would send the request to another path than the one that was signed.
    if url.path() != path {
        return Err(unsendable("the key has a segment that a URL leaves out"));
    }
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| unsendable("an unknown method"))?;
    let mut outgoing = Request::new(method, url);
    for (name, values) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable("a header has no valid name"))?;
        for value in values {
            let value = HeaderValue::from_bytes(value).map_err(|_| unsendable("a header has no valid value"))?;
            outgoing.headers_mut().append(name.clone(), value);
        }
    }
    *outgoing.body_mut() = request.payload.map(|payload| match payload {
        SignedRequestPayload::Buffer(bytes) => bytes.into(),
        SignedRequestPayload::Stream(stream) => reqwest::Body::wrap_stream(stream),
    });
    Ok(outgoing)
}

/// An object, to be read as it arrives.
fn object(response: Response) -> HttpResponse {
    let headers = passed_on(response.headers()).collect();
    let broken = |_| std::io::Error::other(class::NETWORK);
    let body = ByteStream::new(response.bytes_stream().map_err(broken));
    HttpResponse { status: Default::default(), headers, body }
}

async fn incoming(mut response: Response, needs_text: bool) -> Result<HttpResponse, HttpDispatchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > MOST_ANSWER {
            return Err(HttpDispatchError::new(format!("{}: the answer is too large", class::NETWORK)));
        }
        body.extend_from_slice(&chunk);
    }
    let body = root(&body);
    let mut status = response.status().as_u16();
    if response.status().is_success() && (body.starts_with(b"<Error") || (needs_text && body.is_empty())) {
        status = 500;
    }
    Ok(HttpResponse {
        status: status.try_into().map_err(|_| HttpDispatchError::new(format!("{}: no status", class::NETWORK)))?,
        headers: passed_on(response.headers()).collect(),
        body: ByteStream::from(body.to_vec()),
    })
}

/// An answer from its outermost element on. The declaration goes, and with it the white space on both sides of it
/// that kept the connection alive: rusoto reads neither.
fn root(body: &[u8]) -> &[u8] {
    let body = without_mark(body.trim_ascii_start()).trim_ascii_start();
    let Some(declaration) = body.strip_prefix(b"<?xml") else { return body };
    let end = declaration.windows(2).position(|window| window == b"?>");
    end.and_then(|end| declaration.get(end + 2..)).unwrap_or_default().trim_ascii_start()
}

/// The headers that are looked at, as text. What is not ASCII loses those letters.
fn passed_on<Name>(headers: &HeaderMap) -> impl Iterator<Item = (Name, String)>
where
    Name: for<'a> TryFrom<&'a [u8]>,
{
    headers.iter().filter_map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let is_wanted = HEADERS.contains(&name.as_str()) || name.as_str().starts_with("x-amz-meta-");
        let is_sound = name != "content-length" || value.parse::<i64>().is_ok();
        let name = Name::try_from(name.as_str().as_bytes()).ok()?;
        (is_wanted && is_sound).then_some((name, value))
    })
}

/// reqwest's own text holds the URL, and so the key.
fn failed(error: &reqwest::Error) -> HttpDispatchError {
    HttpDispatchError::new(if let Some(why) = certificate_refused(error) {
        format!("{}: {why}", class::CERTIFICATE)
    } else if error.is_connect() {
        class::CONNECT.to_owned()
    } else {
        class::NETWORK.to_owned()
    })
}

/// Why the server's certificate is not trusted, if that is what went wrong.
fn certificate_refused(error: &reqwest::Error) -> Option<String> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return Some(why.to_string());
        }
        // An I/O error passes for what it wraps: that is not its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        next = wrapped.map_or_else(|| error.source(), |error| Some(error));
    }
    None
}

fn unsendable(why: &str) -> HttpDispatchError {
    HttpDispatchError::new(format!("{}: {why}", class::UNSENDABLE))
}
