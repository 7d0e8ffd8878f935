//! Reading a recording through cuts, stalls and expired links.
//!
//! What has been delivered is never delivered again and never contradicted: the rest is asked for by range under
//! the same entity tag; where the server sends everything anew, or nothing ties a fresh link to the same object,
//! the bytes that were delivered are read once more and compared by hash. Nothing is buffered beyond one chunk. All
//! of it is about the bytes on the wire: what is packed is resumed in its packed form.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, HeaderValue},
};
use runtime::chance;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::pace::ArrivalRate;
use super::unpack::Packing;
use super::{ContentRange, MediaHeaders, MediaOrigin, RangeAsked, changed, kind, page, strong_etag};
use crate::{MediaLink, NiceError};

/// How often one recording is resumed; beyond that the flow begins anew, later.
const MAX_RESUMES: u32 = 5;

/// The delay doubles twice at most: a worker waits meanwhile.
const MAX_DELAY_FACTOR: u32 = 4;

/// A media host that asks for a longer wait is left to the flow's delays by running out of resumes.
const MAX_WAIT_ASKED: Duration = Duration::from_secs(10);

/// A recording under way.
pub(super) struct MediaReader {
    origin: Arc<MediaOrigin>,
    /// The link that the recording was opened with.
    opened_with: MediaLink,
    total: Option<u64>,
    etag: Option<HeaderValue>,
    content_type: Option<String>,
    packing: Packing,
    ranges: bool,
    body: Option<ResponseBody>,
    /// How many bytes were delivered, and their hash.
    read: u64,
    prefix: Sha256,
    resumes: u32,
    pace: ArrivalRate,
    /// Why the last body ended.
    trouble: NiceError,
}

/// An answer that is being read.
struct ResponseBody {
    response: Response,
    /// The place in the recording where it must end.
    end: Option<u64>,
    replay: Option<PrefixReplay>,
}

/// Bytes that were delivered before and come again.
struct PrefixReplay {
    left: u64,
    hash: Sha256,
}

impl MediaReader {
    /// Begins with an answer to a request for the whole recording.
    pub(super) fn new(origin: Arc<MediaOrigin>, response: Response, found: MediaHeaders) -> Self {
        Self {
            opened_with: origin.link(),
            origin,
            total: found.length,
            etag: found.etag,
            content_type: found.content_type,
            packing: found.packing,
            ranges: found.ranges,
            body: Some(ResponseBody { response, end: found.length, replay: None }),
            read: 0,
            prefix: Sha256::new(),
            resumes: 0,
            pace: ArrivalRate::default(),
            trouble: NiceError::media("the recording was not read"),
        }
    }

    /// The bytes, each once and in order.
    pub(super) fn into_stream(self) -> super::MediaBody {
        let chunks =
            stream::try_unfold(self, |mut reader| async move { Ok(reader.next().await?.map(|chunk| (chunk, reader))) });
        chunks.boxed()
    }

    /// The next bytes; none when the recording is whole.
    async fn next(&mut self) -> Result<Option<Bytes>, NiceError> {
        loop {
            let Some(body) = &mut self.body else {
                self.resume().await?;
                continue;
            };
            let (limits, since) = (&self.origin.source.timeouts, Instant::now());
            let chunk = tokio::time::timeout(limits.media_idle, body.response.chunk()).await;
            let bytes = if let Ok(Ok(Some(chunk))) = &chunk { chunk.len() } else { 0 };
            // Not resumed: another connection to a host that trickles would trickle, too. Nobody waits for longer than
            // this: what is more was time in which the reader itself was left standing.
            self.pace.count(since.elapsed().min(limits.media_idle), bytes, limits)?;
            match chunk {
                Ok(Ok(Some(chunk))) => {
                    if let Some(bytes) = self.take(chunk)? {
                        return Ok(Some(bytes));
                    }
                }
                Ok(Ok(None)) if self.is_whole() => return Ok(None),
                Ok(Ok(None)) => self.broke("the recording ended early"),
                Ok(Err(_)) => self.broke("the recording broke off"),
                Err(_) => self.broke("the recording stalled"),
            }
        }
    }

    fn broke(&mut self, what: &str) {
        self.body = None;
        self.trouble = NiceError::media(what);
    }

    fn is_whole(&self) -> bool {
        let replaying = self.body.as_ref().is_some_and(|body| body.replay.is_some());
        !replaying && self.total.is_none_or(|total| total == self.read)
    }

    /// What of a chunk is new; bytes that come again are compared instead.
    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, NiceError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        if let Some(replay) = &mut body.replay {
            let known = chunk.split_to(usize::try_from(replay.left).unwrap_or(usize::MAX).min(chunk.len()));
            replay.hash.update(&known);
            replay.left -= known.len() as u64;
            if replay.left == 0 {
                if replay.hash.clone().finalize() != self.prefix.clone().finalize() {
                    return Err(changed());
                }
                body.replay = None;
            }
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        if body.end.is_some_and(|end| self.read + chunk.len() as u64 > end) {
            return Err(NiceError::media("the recording is longer than announced"));
        }
        self.prefix.update(&chunk);
        self.read += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// Asks for the rest; on a passing trouble there is still no body, and the next call tries again.
    async fn resume(&mut self) -> Result<(), NiceError> {
        if self.resumes == MAX_RESUMES {
            return Err(self.trouble.clone());
        }
        self.resumes += 1;
        self.origin.source.metrics.recording_resumes.inc();
        tokio::time::sleep(self.delay()).await;
        match self.reopen().await {
            Ok(body) => self.body = Some(body),
            Err(error @ (NiceError::Media { .. } | NiceError::Transient { .. } | NiceError::Quota { .. }))
                if error != changed() =>
            {
                self.trouble = error
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn delay(&self) -> Duration {
        let factor = (1 << (self.resumes - 1).min(8)).min(MAX_DELAY_FACTOR);
        let delay = self.origin.source.timeouts.resume_delay * factor;
        let asked = match &self.trouble {
            NiceError::Media { retry_after, .. }
            | NiceError::Transient { retry_after, .. }
            | NiceError::Quota { retry_after, .. } => retry_after.unwrap_or_default().min(MAX_WAIT_ASKED),
            _ => Duration::ZERO,
        };
        delay.mul_f64(chance::range(0.5..1.5)).max(asked)
    }

    async fn reopen(&mut self) -> Result<ResponseBody, NiceError> {
        let response = self.origin.get(|| self.rest()).await?;
        let found = MediaHeaders::in_answer(&response)?;
        if found.packing != self.packing {
            return Err(changed());
        }
        let is_page = found.content_type.as_deref().is_some_and(kind::names_page);
        if is_page && response.status() == StatusCode::OK && found.content_type != self.content_type {
            return Err(page());
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT => self.continue_with(response, &found),
            _ => self.begin_again_with(response, found),
        }
    }

    /// The range to ask for, unless the recording has to be read again from its first byte.
    fn rest(&self) -> Option<RangeAsked> {
        let tied = self.opened_with == self.origin.link() || self.etag.is_some();
        (self.read > 0 && self.ranges && tied).then(|| RangeAsked { from: self.read, etag: self.etag.clone() })
    }

    fn continue_with(&mut self, response: Response, found: &MediaHeaders) -> Result<ResponseBody, NiceError> {
        let header = response.headers().get(CONTENT_RANGE).map(HeaderValue::as_bytes).unwrap_or_default();
        let range = ContentRange::parse(header).filter(|range| range.first == self.read);
        let range = range.ok_or_else(|| NiceError::media("the media host answered another range"))?;
        let other_length = matches!((self.total, range.total), (Some(known), Some(told)) if known != told);
        let other_tag =
            matches!((&self.etag, strong_etag(response.headers())), (Some(known), Some(told)) if *known != told);
        if other_length || other_tag || self.total.is_some_and(|total| range.end > total) {
            return Err(changed());
        }
        if found.length.is_some_and(|length| length != range.end - range.first) {
            return Err(NiceError::media("the media host answered a range of another length"));
        }
        self.total = self.total.or(range.total);
        Ok(ResponseBody { response, end: Some(range.end), replay: None })
    }

    fn begin_again_with(&mut self, response: Response, found: MediaHeaders) -> Result<ResponseBody, NiceError> {
        if matches!((self.total, found.length), (Some(known), Some(told)) if known != told)
            || found.length.is_some_and(|length| length < self.read)
        {
            return Err(changed());
        }
        self.total = self.total.or(found.length);
        self.etag = found.etag;
        let replay = (self.read > 0).then(|| PrefixReplay { left: self.read, hash: Sha256::new() });
        Ok(ResponseBody { response, end: self.total, replay })
    }
}
