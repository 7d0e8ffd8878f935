//! A recording: opened and checked first, then streamed.
//!
//! In: a link from NICE's answer. Out: a [`Media`] whose type is known from its first bytes, which are the only ones
//! that have been read. The link is followed to listed hosts only, never with our bearer token or a cookie, never
//! through a proxy, never to an address that is not to be connected to (see [`super::resolver`]), and through a few
//! redirects at most, each of which is checked as the link was.
//!
//! What goes wrong here is the media host's trouble ([`NiceError::Media`]), not NICE's and not the call's, unless
//! the link itself is one that may not be followed.
//!
//! - `redirect`: where an answer sends us. `reader`: the bytes on the wire, through cuts and expired links.
//! - `pace`: how slowly they may come. `unpack`: out of their content encoding. `kind`: what they are.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use reader::MediaReader;
use reqwest::{
    Client, Response, Url,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
        TRANSFER_ENCODING,
    },
};
use runtime::Clock;
use tokio::time::Instant;
use unpack::Packing;

use super::endpoint::Endpoint;
use super::http::{transport, wait_asked};
use super::network::Network;
use super::resolver::{GuardedResolver, ResolveError};
use super::{LinkRefresher, MediaLink, NiceError, NiceSettings, Timeouts, check_link};
use crate::NiceMetrics;

mod content_range;
mod kind;
mod pace;
mod reader;
mod redirect;
mod unpack;

pub use content_range::ContentRange;

/// Idle connections that are kept for each host of recordings.
const IDLE_MEDIA: usize = 32;

/// Where recordings are fetched from.
pub(super) struct MediaSource {
    network: Network,
    client: Client,
    hosts: Vec<super::MediaHost>,
    metrics: NiceMetrics,
    timeouts: Timeouts,
}

impl MediaSource {
    /// Makes the transport; nothing is sent.
    pub(super) fn new(
        settings: &NiceSettings,
        network: Network,
        metrics: NiceMetrics,
        timeouts: Timeouts,
    ) -> Result<Self, NiceError> {
        let hosts = settings.media_hosts.clone();
        let client = transport(&timeouts, IDLE_MEDIA)
            .builder()
            .dns_resolver(GuardedResolver::new(&hosts, &settings.private_media_hosts))
            .build()
            .map_err(|_| NiceError::permanent("the HTTPS transport cannot be set up"))?;
        Ok(Self { network, client, hosts, metrics, timeouts })
    }

    /// Opens a recording; a link that has expired is replaced once where there is a refresher.
    pub(super) async fn open(
        self: Arc<Self>,
        link: &MediaLink,
        refresher: Option<LinkRefresher>,
    ) -> Result<Media, NiceError> {
        let origin = Arc::new(MediaOrigin { source: self, refresher, link: Mutex::new(link.clone()) });
        let Opening { content_length, content_type, body } = origin.clone().begin().await?;
        let host = origin.host();
        Ok(Media { origin, host, content_length, content_type, body: Some(Mutex::new(body)) })
    }

    /// Sends one GET for a recording; what comes back is 200, or 206 where a range was asked for.
    async fn get(&self, link: &MediaLink, range: Option<&RangeAsked>) -> Result<Response, NiceError> {
        self.send(Endpoint::Media, link, range).await
    }

    /// Sends one GET for a listing, under the rules that hold for recordings; what comes back is 200.
    pub(super) async fn get_listing(&self, link: &MediaLink) -> Result<Response, NiceError> {
        let response = self.send(Endpoint::ExtractionFile, link, None).await?;
        if Packing::of(response.headers()) != Packing::None || !is_delimited(&response) {
            return Err(NiceError::media("the file comes encoded, or without a length: a cut would look like its end"));
        }
        Ok(response)
    }

    /// Follows a link through its redirects; each of them is asked the same.
    async fn send(
        &self,
        endpoint: Endpoint,
        link: &MediaLink,
        range: Option<&RangeAsked>,
    ) -> Result<Response, NiceError> {
        let mut url = check_link(&self.hosts, &link.0).map_err(|refused| NiceError::permanent(refused.to_string()))?;
        for _ in 0..=redirect::MOST {
            let response = self.send_once(endpoint, url.clone(), range).await?;
            if !redirect::is_one(response.status()) {
                return admit(response, host_of(&url), range.is_some(), &self.timeouts.clock);
            }
            url = redirect::target(&self.hosts, &url, &response)?;
        }
        Err(NiceError::media(format!(
            "the media host {} answered with one more redirect after {}",
            host_of(&url),
            redirect::MOST
        )))
    }

    async fn send_once(&self, endpoint: Endpoint, url: Url, range: Option<&RangeAsked>) -> Result<Response, NiceError> {
        let host = host_of(&url).to_owned();
        let mut request = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(asked) = range {
            request = request.header(RANGE, format!("bytes={}-", asked.from));
            if let Some(etag) = &asked.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        let began = Instant::now();
        let sent = tokio::time::timeout(self.timeouts.media_headers, self.network.send(endpoint, request)).await;
        let label = match &sent {
            Ok(Ok(response)) => response.status().as_str().to_owned(),
            Ok(Err(error)) => error.word.to_owned(),
            Err(_) => "timeout".to_owned(),
        };
        self.metrics.answered(endpoint.name(), &label, began.elapsed());
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(NiceError::media(unreachable(&host, error.refusal, &label))),
            Err(_) => Err(NiceError::media(format!("the media host {host} did not answer in time"))),
        }
    }
}

/// Why a host was not reached, and what an operator can do where it is a matter of settings.
fn unreachable(host: &str, refusal: Option<ResolveError>, word: &str) -> String {
    match refusal {
        Some(ResolveError::Private) => format!(
            "the media host {host} leads to a private address, which is not connected to; if it is meant to, list it \
             in [nice] private_media_hosts, too"
        ),
        Some(ResolveError::Forbidden) => format!(
            "the media host {host} leads to this machine or to a reserved address, which is never connected to; \
             look at what the name resolves to here"
        ),
        Some(ResolveError::Unknown) => format!("the media host {host} has no address, or its name cannot be resolved"),
        None => format!("the media host {host} cannot be reached ({word})"),
    }
}

/// The host of a URL that was checked.
fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// The rest of a recording of which the beginning is here.
struct RangeAsked {
    from: u64,
    etag: Option<HeaderValue>,
}

fn admit(response: Response, host: &str, range_asked: bool, clock: &Clock) -> Result<Response, NiceError> {
    match response.status().as_u16() {
        200 => Ok(response),
        206 if range_asked => Ok(response),
        // Object stores say 400 or 401, too, when the credentials that signed the link have run out.
        400 | 401 | 403 | 404 | 410 => Err(NiceError::LinkExpired),
        416 if range_asked => Err(changed()),
        // What a store or a proxy before it makes of one GET says nothing of the call.
        status => Err(NiceError::Media {
            what: format!("the media host {host} answered {status}"),
            retry_after: wait_asked(&response, clock),
        }),
    }
}

/// The bytes that were delivered are not the beginning of what lies there now.
fn changed() -> NiceError {
    NiceError::media("the recording changed while it was read")
}

/// An error page in place of a recording.
fn page() -> NiceError {
    NiceError::media("the media host answered with a page instead of a recording")
}

/// What the headers of an answer say of the recording.
#[derive(Debug)]
struct MediaHeaders {
    /// How many bytes come, packed or not.
    length: Option<u64>,
    content_type: Option<String>,
    etag: Option<HeaderValue>,
    ranges: bool,
    packing: Packing,
}

impl MediaHeaders {
    /// Reads the headers, and refuses a body whose end could not be told from a cut.
    fn in_answer(response: &Response) -> Result<Self, NiceError> {
        let headers = response.headers();
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        if !is_delimited(response) {
            return Err(NiceError::media("the recording comes without a length: a cut would look like its end"));
        }
        Ok(Self {
            length: response.content_length(),
            content_type: text(CONTENT_TYPE).filter(|kind| !kind.is_empty()).map(str::to_owned),
            etag: strong_etag(headers),
            ranges: text(ACCEPT_RANGES).is_none_or(|unit| !unit.eq_ignore_ascii_case("none")),
            packing: Packing::of(headers),
        })
    }
}

/// Whether the end of the body can be told from a cut.
fn is_delimited(response: &Response) -> bool {
    let coding = response.headers().get(TRANSFER_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    response.content_length().is_some() || coding.trim().to_ascii_lowercase().ends_with("chunked")
}

/// An entity tag that stands for these very bytes; a weak one does not.
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")).cloned()
}

/// Bytes as they come; nothing comes after an error.
type MediaBody = BoxStream<'static, Result<Bytes, NiceError>>;

/// Where one recording comes from, as often as it is read.
struct MediaOrigin {
    source: Arc<MediaSource>,
    refresher: Option<LinkRefresher>,
    /// The link that was learned last.
    link: Mutex<MediaLink>,
}

/// A recording whose first bytes are here.
struct Opening {
    content_length: Option<u64>,
    content_type: Option<String>,
    body: MediaBody,
}

impl MediaOrigin {
    fn link(&self) -> MediaLink {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host of the link; it was checked when it was opened.
    fn host(&self) -> String {
        check_link(&self.source.hosts, &self.link().0).map(|url| host_of(&url).to_owned()).unwrap_or_default()
    }

    /// Asks for the recording; where the link has expired, NICE for a fresh one first. What is asked for may depend
    /// on the link.
    async fn get(&self, asked: impl Fn() -> Option<RangeAsked>) -> Result<Response, NiceError> {
        let link = self.link();
        let answered = self.source.get(&link, asked().as_ref()).await;
        let (Err(NiceError::LinkExpired), Some(refresh)) = (&answered, &self.refresher) else { return answered };
        let fresh = refresh().await?;
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        self.source.get(&fresh, asked().as_ref()).await
    }

    /// Asks for the whole recording, and reads as much of it as tells what it is.
    async fn begin(self: Arc<Self>) -> Result<Opening, NiceError> {
        let response = self.get(|| None).await?;
        let found = MediaHeaders::in_answer(&response)?;
        let (length, header, packing) = (found.length, found.content_type.clone(), found.packing.clone());
        let (mut head, mut body) = peek(MediaReader::new(self, response, found).into_stream()).await?;
        let packing = packing.of_bytes(&head)?;
        if !packing.is_empty() {
            (head, body) = peek(unpack::unpack(body, &packing, &head)).await?;
        }
        let content_type = kind::of(header.as_deref(), &head).ok_or_else(page)?;
        Ok(Opening { content_length: length.filter(|_| packing.is_empty()), content_type, body })
    }
}

/// As much of a recording as tells what it is; a first chunk has as much.
const HEAD: usize = 1024;

/// The first bytes of a body, and the whole body.
async fn peek(mut body: MediaBody) -> Result<(Vec<u8>, MediaBody), NiceError> {
    let (mut head, mut chunks) = (Vec::new(), Vec::new());
    while head.len() < HEAD
        && let Some(chunk) = body.try_next().await?
    {
        head.extend_from_slice(&chunk[..chunk.len().min(HEAD - head.len())]);
        chunks.push(Ok(chunk));
    }
    Ok((head, stream::iter(chunks).chain(body).boxed()))
}

/// A recording, opened.
pub struct Media {
    origin: Arc<MediaOrigin>,
    host: String,
    content_length: Option<u64>,
    content_type: Option<String>,
    /// None: to be opened when it is read.
    body: Option<Mutex<MediaBody>>,
}

impl Media {
    /// How many bytes the recording has, where the media host says so; it does not of one that comes packed.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The media type: the one that the media host announced, or what the first bytes say where the host did not
    /// know, or where they say otherwise.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The host that the link leads to, for evidence of whose fault it is; never a path or a query.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same recording from its first byte, whatever was read of this one: for who could not store it.
    ///
    /// Nothing is asked before the new one is read. It is fetched by the link that was learned last; NICE is asked
    /// for a fresh one only if that has expired. Where something of another type lies there by then, the stream ends
    /// with an error.
    pub fn again(&self) -> Self {
        let Self { origin, host, content_length, content_type, body: _ } = self;
        let (origin, host, content_type) = (origin.clone(), host.clone(), content_type.clone());
        Self { origin, host, content_length: *content_length, content_type, body: None }
    }

    /// The bytes, each once and in order, out of their content encoding; the stream ends without an error only when
    /// the recording is whole.
    ///
    /// A body that breaks, stalls or ends short is resumed some times by the stream itself, an expired link is
    /// replaced where there is a refresher; otherwise the stream ends with [`NiceError::LinkExpired`]. After an
    /// error nothing more comes, and what was delivered is to be thrown away.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, NiceError>> + Send {
        let body = match self.body {
            Some(body) => body.into_inner().unwrap_or_else(PoisonError::into_inner),
            None => stream::once(opened_again(self.origin, self.content_type)).try_flatten().boxed(),
        };
        stream::try_unfold(body, |mut body| async move { Ok(body.try_next().await?.map(|chunk| (chunk, body))) })
    }
}

async fn opened_again(origin: Arc<MediaOrigin>, content_type: Option<String>) -> Result<MediaBody, NiceError> {
    let opening = origin.begin().await?;
    if opening.content_type == content_type { Ok(opening.body) } else { Err(changed()) }
}

impl fmt::Debug for Media {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("host", &self.host)
            .field("content_length", &self.content_length)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WireError;

    #[test]
    fn an_opened_recording_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Media>();
    }

    #[test]
    fn a_weak_tag_stands_for_nothing() {
        let tag =
            |etag: &'static str| strong_etag(&HeaderMap::from_iter([(ETAG, HeaderValue::from_static(etag))])).is_some();
        assert!(tag("\"abc\""));
        assert!(!tag("W/\"abc\""));
        assert!(!tag("abc"));
    }

    #[tokio::test]
    async fn a_host_that_leads_inside_is_recognised_and_its_remedy_named() {
        let options = transport(&Timeouts::default(), IDLE_MEDIA);
        let client = options.builder().dns_resolver(GuardedResolver::new(&[], &[])).build().unwrap();
        let error = client.get("http://localhost:1/").send().await.unwrap_err();
        assert_eq!(WireError::from(&error).refusal, Some(ResolveError::Forbidden));
        let text = unreachable("b.example", Some(ResolveError::Private), "connect");
        assert!(text.contains("b.example") && text.contains("private_media_hosts"), "{text}");
        for other in [Some(ResolveError::Forbidden), Some(ResolveError::Unknown), None] {
            let text = unreachable("b.example", other, "connect");
            assert!(text.contains("b.example") && !text.contains("private_media_hosts"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_head_of_a_body_is_looked_at_and_kept() {
        for sizes in [&[][..], &[1], &[10, 2000, 7], &[5000, 5000], &[100, 100]] {
            let chunks: Vec<_> = sizes.iter().map(|size| Ok(Bytes::from(vec![7; *size]))).collect();
            let (head, body) = peek(stream::iter(chunks).boxed()).await.unwrap();
            let total: usize = sizes.iter().sum();
            assert_eq!(head.len(), total.min(HEAD), "{sizes:?}");
            let read = body.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await.unwrap();
            assert_eq!(read, total, "{sizes:?}");
        }
    }
}
