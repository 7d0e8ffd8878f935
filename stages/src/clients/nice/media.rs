//! A recording: opened and checked first, then streamed.
//!
//! In: a link from NICE's answer. Out: a [`Media`] whose length and type are known and whose bytes have not been
//! read. The link is followed to listed hosts only, never with our bearer token or a cookie, never through a
//! redirect or a proxy, and never to an address that is not public (see [`super::resolver`]).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use reqwest::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    RANGE, TRANSFER_ENCODING,
};
use reqwest::{Client, Response, StatusCode};

use super::http::{Endpoint, network_word, transport, wait_asked};
use super::resolver::{GuardedResolver, leads_inside};
use super::{LinkRefresher, MediaHost, MediaLink, NiceError, Timeouts, check_link};
use crate::flow::Metrics;

mod content_range;
mod reader;

pub use content_range::ContentRange;
use reader::Reader;

/// Where recordings are fetched from.
pub(super) struct MediaSource {
    client: Client,
    hosts: Vec<MediaHost>,
    metrics: Metrics,
    timeouts: Timeouts,
}

impl MediaSource {
    /// Makes the transport; nothing is sent.
    pub(super) fn new(hosts: Vec<MediaHost>, metrics: Metrics, timeouts: Timeouts) -> Result<Self, NiceError> {
        let client = transport(&timeouts)
            .dns_resolver(GuardedResolver::new(&hosts))
            .build()
            .map_err(|_| NiceError::permanent("the HTTPS transport cannot be set up"))?;
        Ok(Self { client, hosts, metrics, timeouts })
    }

    /// Opens a recording; a link that has expired is replaced once where there is a refresher.
    pub(super) async fn open(
        self: Arc<Self>,
        link: &MediaLink,
        refresher: Option<LinkRefresher>,
    ) -> Result<Media, NiceError> {
        let mut link = link.clone();
        let mut opened = self.get(&link, None).await;
        if let (Err(NiceError::LinkExpired), Some(refresh)) = (&opened, &refresher) {
            link = refresh().await?;
            opened = self.get(&link, None).await;
        }
        let response = opened?;
        let found = Found::in_answer(&response)?;
        let content_type = found.content_type.clone();
        Ok(Media { content_type, reader: Reader::new(self, link, refresher, response, found) })
    }

    /// Sends one GET for a recording; what comes back is 200, or 206 where a range was asked for.
    async fn get(&self, link: &MediaLink, range: Option<&RangeAsked>) -> Result<Response, NiceError> {
        self.send(Endpoint::Media, link, range).await
    }

    /// Sends one GET for a listing, under the rules that hold for recordings; what comes back is 200.
    pub(super) async fn get_listing(&self, link: &MediaLink) -> Result<Response, NiceError> {
        let response = self.send(Endpoint::ExtractionFile, link, None).await?;
        if is_encoded(&response) || !is_delimited(&response) {
            return Err(NiceError::transient(
                "the file comes encoded, or without a length: a cut would look like its end",
            ));
        }
        Ok(response)
    }

    async fn send(
        &self,
        endpoint: Endpoint,
        link: &MediaLink,
        range: Option<&RangeAsked>,
    ) -> Result<Response, NiceError> {
        let url = check_link(&self.hosts, &link.0).map_err(|refused| NiceError::permanent(refused.to_string()))?;
        let mut request = self.client.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(asked) = range {
            request = request.header(RANGE, format!("bytes={}-", asked.from));
            if let Some(etag) = &asked.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        let began = Instant::now();
        let sent = tokio::time::timeout(self.timeouts.media_headers, request.send()).await;
        let label = match &sent {
            Ok(Ok(response)) => response.status().as_str().to_owned(),
            Ok(Err(error)) => network_word(error).to_owned(),
            Err(_) => "timeout".to_owned(),
        };
        self.metrics.nice_request(endpoint.name(), &label, began.elapsed());
        match sent {
            Ok(Ok(response)) => admit(response, range.is_some()),
            Ok(Err(error)) if leads_inside(&error) => {
                Err(NiceError::permanent("recording link leaves the allowed hosts: it leads to a private address"))
            }
            Ok(Err(_)) => Err(NiceError::transient(format!("the media host cannot be reached ({label})"))),
            Err(_) => Err(NiceError::transient("the media host did not answer in time")),
        }
    }
}

/// The rest of a recording of which the beginning is here.
struct RangeAsked {
    from: u64,
    etag: Option<HeaderValue>,
}

fn admit(response: Response, range_asked: bool) -> Result<Response, NiceError> {
    let status = response.status();
    let what = || format!("the media host answered {}", status.as_u16());
    match status.as_u16() {
        200 => Ok(response),
        206 if range_asked => Ok(response),
        300..=399 => Err(NiceError::permanent("the media host answered with a redirect, which is refused")),
        // Object stores say 400 or 401, too, when the credentials that signed the link have run out.
        400 | 401 | 403 | 404 | 410 => Err(NiceError::LinkExpired),
        408 | 425 | 429 | 500.. => Err(NiceError::Transient { what: what(), retry_after: wait_asked(&response) }),
        416 if range_asked => Err(changed()),
        201..=299 => Err(NiceError::transient(what())),
        _ => Err(NiceError::permanent(what())),
    }
}

/// The bytes that were delivered are not the beginning of what lies there now.
fn changed() -> NiceError {
    NiceError::transient("the recording changed while it was read")
}

/// What the headers of an answer say of the recording.
#[derive(Debug)]
struct Found {
    length: Option<u64>,
    content_type: Option<String>,
    etag: Option<HeaderValue>,
    ranges: bool,
}

impl Found {
    /// Reads the headers, and refuses what cannot be a recording.
    fn in_answer(response: &Response) -> Result<Self, NiceError> {
        let headers = response.headers();
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let length = response.content_length();
        if !is_delimited(response) {
            return Err(NiceError::transient("the recording comes without a length: a cut would look like its end"));
        }
        if is_encoded(response) {
            return Err(NiceError::permanent("the recording comes in a content encoding"));
        }
        let content_type = text(CONTENT_TYPE).map(str::to_owned);
        if response.status() == StatusCode::OK && content_type.as_deref().is_some_and(is_page) {
            return Err(NiceError::transient("the media host answered with a page instead of a recording"));
        }
        let ranges = text(ACCEPT_RANGES).is_none_or(|unit| !unit.eq_ignore_ascii_case("none"));
        Ok(Self { length, content_type, etag: strong_etag(headers), ranges })
    }
}

/// Whether the end of the body can be told from a cut.
fn is_delimited(response: &Response) -> bool {
    let coding = response.headers().get(TRANSFER_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    response.content_length().is_some() || coding.trim().to_ascii_lowercase().ends_with("chunked")
}

/// Whether the bytes are packed, although that was not asked for.
fn is_encoded(response: &Response) -> bool {
    let coding = response.headers().get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !PLAIN.contains(&coding.trim().to_ascii_lowercase().as_str())
}

/// Encodings that leave the bytes as they are; the second is what some uploaders leave behind on an object.
const PLAIN: [&str; 3] = ["", "identity", "aws-chunked"];

/// Media types of error pages, which are no recordings.
fn is_page(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || ["application/json", "application/xml", "application/xhtml+xml"].contains(&kind.as_str())
}

/// An entity tag that stands for these very bytes; a weak one does not.
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")).cloned()
}

/// An opened recording.
pub struct Media {
    content_type: Option<String>,
    reader: Reader,
}

impl Media {
    /// How many bytes the recording has, where the media host says so.
    pub fn content_length(&self) -> Option<u64> {
        self.reader.total()
    }

    /// The media type that the media host announced.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The bytes, each once and in order; the stream ends without an error only when the recording is whole.
    ///
    /// A body that breaks, stalls or ends short is resumed some times by the stream itself, an expired link is
    /// replaced where there is a refresher; otherwise the stream ends with [`NiceError::LinkExpired`]. After an
    /// error nothing more comes, and what was delivered is to be thrown away.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, NiceError>> + Send {
        futures::stream::try_unfold(self.reader, |mut reader| async move {
            Ok(reader.next().await?.map(|chunk| (chunk, reader)))
        })
    }
}

impl fmt::Debug for Media {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("content_length", &self.content_length())
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_recording_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Media>();
    }

    #[test]
    fn a_page_is_told_from_a_recording() {
        for kind in ["text/html; charset=utf-8", "TEXT/plain", "application/json", "application/xml;x"] {
            assert!(is_page(kind), "{kind}");
        }
        for kind in ["audio/mp4", "video/mp4", "application/octet-stream", "binary/octet-stream", ""] {
            assert!(!is_page(kind), "{kind}");
        }
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
    async fn a_host_that_leads_inside_is_recognised() {
        let client = Client::builder().no_proxy().dns_resolver(GuardedResolver::new(&[])).build().unwrap();
        let error = client.get("http://localhost:1/").send().await.unwrap_err();
        assert!(leads_inside(&error));
    }
}
