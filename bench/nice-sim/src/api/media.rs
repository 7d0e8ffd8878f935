//! The object store behind the signed links: `/_media/{name}.mp4?expires=…&signature=…`.
//!
//! It knows no tokens. A link works until it expires and is answered like a store answers: 403 with XML after that.

use std::{
    convert::Infallible,
    io::{self, Write},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::{ask::Ask, auth::hmac, reply::server_error};
use crate::{clock::millis, fate::version_of, listener::Line, recording::Recording, service::Service};

/// Pieces that a slow body is cut into.
const SLOW_PIECES: u64 = 8;

/// How long a stalled body says nothing before the connection ends; longer than any sensible idle timeout.
const STALL: Duration = Duration::from_secs(600);

/// How a body goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    Reset,
    Truncated,
    Stalled,
    Slow,
    Trickling,
    LengthLong,
    LengthShort,
}

/// Signs a link to the medium `name`.
pub(crate) fn link(service: &Service, name: &str, foreign: bool) -> String {
    let expires = service.now() + millis(service.config.playback.media_link_ttl);
    let root = if foreign { &service.trap } else { &service.base };
    format!("{root}/_media/{name}.mp4?expires={expires}&signature={}", signature(service, name, expires))
}

pub(super) fn signature(service: &Service, name: &str, expires: i64) -> String {
    hex::encode(hmac(&service.link_key.to_be_bytes(), format!("{name} {expires}").as_bytes()))
}

/// Answers a signed link.
pub(crate) fn answer(service: &Service, ask: &Ask, line: Line) -> (&'static str, Response) {
    ("media", open(service, ask, line))
}

fn open(service: &Service, ask: &Ask, line: Line) -> Response {
    if ask.headers.contains_key(header::AUTHORIZATION) {
        service.counters.violation("bearer token sent to the media host");
    }
    if ask.method != Method::GET {
        return refused(StatusCode::FORBIDDEN, "AccessDenied", "the link is signed for GET");
    }
    let Some(name) = ask.raw_part(1).strip_suffix(".mp4").filter(|_| ask.parts() == 2) else {
        return refused(StatusCode::NOT_FOUND, "NoSuchKey", "the key does not exist");
    };
    let expires = ask.param("expires").and_then(|expires| expires.parse::<i64>().ok()).unwrap_or(0);
    if ask.param("signature") != Some(signature(service, name, expires).as_str()) {
        return refused(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "the signature does not match");
    }
    if service.now() >= expires {
        return refused(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    }
    if let Some(error) = server_error(service, "media") {
        return error;
    }
    let now = service.now();
    let found = (service.world().medium(name))
        .map(|(call, medium)| (call.break_first, medium, service.fates().recording(call)))
        .filter(|(.., fate)| !fate.is_gone(now));
    let Some((break_first, recording, fate)) = found else {
        return refused(StatusCode::NOT_FOUND, "NoSuchKey", "the key does not exist");
    };
    let version = fate.version(now);
    let recording = version_of(recording, version);
    if service.faults.strikes("media redirect", |faults| faults.media_redirect) && ask.param("again").is_none() {
        return redirect(StatusCode::TEMPORARY_REDIRECT, format!("{}&again=1", link(service, name, false)));
    }
    if service.faults.strikes("media redirect endless", |faults| faults.media_redirect_endless) {
        return redirect(StatusCode::FOUND, link(service, name, false));
    }
    if service.faults.strikes("media redirect foreign", |faults| faults.media_redirect_foreign) {
        return redirect(StatusCode::FOUND, link(service, name, true));
    }
    let defect = if service.media_opened_before(name) < break_first { Defect::Truncated } else { draw_defect(service) };
    if service.faults.strikes("media encoding", |faults| faults.media_encoding) && recording.size <= PACKED_AT_MOST {
        let medium = Medium { name, version, content: Content::Packed(packed(recording)) };
        return send(service, ask, medium, defect, line);
    }
    send(service, ask, Medium { name, version, content: Content::Plain(recording) }, defect, line)
}

/// A recording is packed in memory: larger ones come as they are.
const PACKED_AT_MOST: u64 = 16 << 20;

/// A version of a medium.
#[derive(Debug)]
struct Medium<'a> {
    name: &'a str,
    version: u32,
    content: Content,
}

impl Medium<'_> {
    /// Other bytes have another tag.
    fn tag(&self) -> String {
        let packed = if matches!(self.content, Content::Packed(_)) { "-gzip" } else { "" };
        let version = if self.version > 0 { format!("-{}", self.version) } else { String::new() };
        format!("\"{}{version}{packed}\"", self.name)
    }
}

/// What lies under a link.
#[derive(Clone, Debug)]
enum Content {
    Plain(Recording),
    /// In gzip.
    Packed(Bytes),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Plain(recording) => recording.size,
            Self::Packed(bytes) => bytes.len() as u64,
        }
    }

    fn read(&self, start: u64, end: u64) -> Box<dyn Iterator<Item = Bytes> + Send> {
        match self {
            Self::Plain(recording) => Box::new(recording.read(start, end)),
            Self::Packed(bytes) => Box::new(std::iter::once(bytes.slice(start as usize..end as usize))),
        }
    }
}

/// The recording in gzip, the same bytes each time.
fn packed(recording: Recording) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = recording.read(0, recording.size).try_for_each(|chunk| encoder.write_all(&chunk));
    let packed = written.and_then(|()| encoder.finish());
    packed.expect("memory takes what is written").into()
}

fn draw_defect(service: &Service) -> Defect {
    let faults = &service.faults;
    let draws = [
        (Defect::Reset, faults.strikes("media reset", |faults| faults.media_reset)),
        (Defect::Truncated, faults.strikes("media truncated", |faults| faults.media_truncated)),
        (Defect::Stalled, faults.strikes("media stall", |faults| faults.media_stall)),
        (Defect::LengthLong, faults.strikes("length long", |faults| faults.content_length_long)),
        (Defect::LengthShort, faults.strikes("length short", |faults| faults.content_length_short)),
        (Defect::Trickling, faults.strikes("media trickle", |faults| faults.media_trickle)),
        (Defect::Slow, faults.strikes("slow body", |faults| faults.slow_body)),
    ];
    draws.into_iter().find(|(_, strikes)| *strikes).map_or(Defect::None, |(defect, _)| defect)
}

/// Sends the medium, or the range asked for.
fn send(service: &Service, ask: &Ask, medium: Medium<'_>, defect: Defect, line: Line) -> Response {
    let tag = medium.tag();
    let Medium { name, version, content } = medium;
    let size = content.size();
    let is_packed = matches!(content, Content::Packed(_));
    let range = ask.header(header::RANGE).filter(|_| service.config.playback.ranges);
    let range = range.filter(|_| ask.header(header::IF_RANGE).is_none_or(|wanted| wanted == tag));
    let (status, start, end) = match range.and_then(|range| parse_range(range, size)) {
        None => (StatusCode::OK, 0, size),
        Some(Some((start, end))) => (StatusCode::PARTIAL_CONTENT, start, end),
        Some(None) => {
            let mut response = refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "no such range");
            insert(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
            return response;
        }
    };
    service.counters.media_sent(end - start);
    let is_whole = end == size && matches!(defect, Defect::None | Defect::Slow | Defect::Trickling);
    let mut sent = body(service, content, start, end, defect, line);
    if is_whole {
        sent = noted(service, sent, name.to_owned(), version, end - start);
    }
    let mut response = Response::new(sent);
    *response.status_mut() = status;
    let generic = service.faults.strikes("media generic type", |faults| faults.media_generic_type);
    let kind = if generic { "binary/octet-stream" } else { "video/mp4" };
    insert(&mut response, header::CONTENT_TYPE, kind.to_owned());
    if is_packed {
        insert(&mut response, header::CONTENT_ENCODING, "gzip".to_owned());
    }
    insert(&mut response, header::ETAG, tag);
    if service.config.playback.ranges {
        insert(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    }
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut response, header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
    }
    if service.config.playback.content_length {
        let length = match defect {
            Defect::LengthLong => end - start + 1000,
            Defect::LengthShort => (end - start) / 2,
            _ => end - start,
        };
        insert(&mut response, header::CONTENT_LENGTH, length.to_string());
    }
    response
}

/// The body with its defect. A body that ends early ends the connection, because the promised length is not reached.
fn body(service: &Service, content: Content, start: u64, end: u64, defect: Defect, line: Line) -> Body {
    let half = start + (end - start) / 2;
    match defect {
        Defect::None => Body::from_stream(stream::iter(content.read(start, end).map(Ok::<_, Infallible>))),
        Defect::LengthShort => Body::from_stream(stream::iter(content.read(start, half).map(Ok::<_, Infallible>))),
        Defect::Truncated => failing(&content, start, half, None),
        Defect::LengthLong => failing(&content, start, end, None),
        Defect::Reset => failing(&content, start, half, Some(line)),
        Defect::Stalled => {
            let silence = stream::once(async {
                tokio::time::sleep(STALL).await;
                Err(io::Error::from(io::ErrorKind::TimedOut))
            });
            Body::from_stream(stream::iter(content.read(start, half).map(Ok)).chain(silence))
        }
        Defect::Slow => paused(service, content, start, end, (end - start).div_ceil(SLOW_PIECES).max(1)),
        Defect::Trickling => paused(service, content, start, end, 1),
    }
}

/// Notes that a medium was handed out once the last of its bytes has been.
fn noted(service: &Service, body: Body, name: String, version: u32, length: u64) -> Body {
    let (served, now) = (service.media_served.clone(), service.now());
    if length == 0 {
        served.note(&name, version, now);
    }
    let mut left = length;
    Body::from_stream(body.into_data_stream().inspect_ok(move |piece| {
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            served.note(&name, version, now);
        }
    }))
}

/// A body in pieces of this length, with pauses before them.
fn paused(service: &Service, content: Content, start: u64, end: u64, length: u64) -> Body {
    let pause = service.faults.current().slow_pause;
    let pieces = (start..end).step_by(length as usize).flat_map(move |at| content.read(at, (at + length).min(end)));
    Body::from_stream(stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(piece)
    }))
}

/// A body that breaks at `end`, with a reset of the connection or just its end.
fn failing(content: &Content, start: u64, end: u64, reset: Option<Line>) -> Body {
    let pieces = stream::iter(content.read(start, end).map(Ok::<Bytes, io::Error>));
    Body::from_stream(pieces.chain(broken(reset)))
}

fn broken(reset: Option<Line>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::once(async move {
        // A pause has the server flush what it holds: the client shall see an answer that breaks, not none.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(line) = reset {
            line.reset();
        }
        Err(io::ErrorKind::ConnectionReset.into())
    })
}

/// Reads a `Range` header: `None` is one that is ignored, `Some(None)` one that cannot be satisfied.
fn parse_range(header: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    if last.contains(',') {
        return None; // several ranges: the whole, as a store may
    }
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), size),
        (start, "") => (start.parse().ok()?, size),
        (start, last) => (start.parse().ok()?, last.parse::<u64>().ok()?.saturating_add(1).min(size)),
    };
    Some((start < end).then_some((start, end)))
}

fn redirect(status: StatusCode, to: String) -> Response {
    let mut response = status.into_response();
    insert(&mut response, header::LOCATION, to);
    response
}

pub(super) fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

fn insert(response: &mut Response, name: header::HeaderName, value: String) {
    let value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""));
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        assert_eq!(parse_range("bytes=0-0", 10), Some(Some((0, 1))));
        assert_eq!(parse_range("bytes=4-", 10), Some(Some((4, 10))));
        assert_eq!(parse_range("bytes=-3", 10), Some(Some((7, 10))));
        assert_eq!(parse_range("bytes=8-99", 10), Some(Some((8, 10))));
        assert_eq!(parse_range("bytes=10-", 10), Some(None));
        assert_eq!(parse_range("bytes=0-1,4-5", 10), None);
        assert_eq!(parse_range("lines=0-1", 10), None);
        assert_eq!(parse_range("bytes=a-b", 10), None);
    }
}
