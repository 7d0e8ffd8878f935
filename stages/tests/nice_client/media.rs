//! Recordings: cut, stalled, expired, moved, too long, too short.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use stages::clients::nice::{LinkRefresher, Media, MediaLink, NiceError};
use stages::model::ContactId;

use crate::fake::{Fake, Reply, Request, Step, answer, head, json, status};
use crate::rig::{Rig, SECRET, host, is_permanent, is_transient, short};

/// Bytes that differ everywhere.
fn recording() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A client, the media server, and a link to it.
struct Studio {
    rig: Rig,
    media: Fake,
    link: MediaLink,
}

impl Studio {
    async fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(handler, Duration::from_secs(20)).await
    }

    async fn with(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static, idle: Duration) -> Self {
        let media = Fake::start(handler).await;
        let mut timeouts = short();
        timeouts.media_idle = idle;
        let address = media.address;
        let playback = move |request: &Request| {
            let link = match request.path.contains("acd-call-id=7&") {
                true => format!("http://{address}/a.mp4?sig={SECRET}"),
                false => format!("http://{address}/fresh.mp4?sig={SECRET}"),
            };
            json(format!(r#"{{"interactions":[{{"data":{{"fileToPlayUrl":"{link}"}}}}]}}"#))
        };
        let rig = Rig::with(playback, &[host(&media)], |_| {}, timeouts).await;
        let link = link(&rig, 7).await;
        Self { rig, media, link }
    }

    async fn open(&self) -> Result<Media, NiceError> {
        self.rig.client.open_media(&self.link).await
    }

    async fn read(&self) -> Result<Vec<u8>, NiceError> {
        read(self.open().await?).await
    }

    fn refresher(&self, asked: &Arc<AtomicUsize>) -> LinkRefresher {
        let (client, asked) = (self.rig.client.clone(), asked.clone());
        Arc::new(move || {
            let client = client.clone();
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                let playback = client.contact_playback(ContactId::from_number(8).unwrap()).await?;
                Ok(playback.interactions[0].link.clone().unwrap())
            }
            .boxed()
        })
    }

    async fn read_refreshing(&self) -> (Result<Vec<u8>, NiceError>, usize) {
        let asked = Arc::new(AtomicUsize::new(0));
        let opened = self.rig.client.open_media_with_refresh(&self.link, self.refresher(&asked)).await;
        let outcome = match opened {
            Ok(media) => read(media).await,
            Err(error) => Err(error),
        };
        (outcome, asked.load(Ordering::Relaxed))
    }

    fn resumes(&self) -> u64 {
        self.rig.metrics.recording_resumes.get()
    }
}

async fn link(rig: &Rig, call: u64) -> MediaLink {
    let playback = rig.client.contact_playback(ContactId::from_number(call).unwrap()).await.unwrap();
    playback.interactions[0].link.clone().unwrap()
}

async fn read(media: Media) -> Result<Vec<u8>, NiceError> {
    media
        .into_stream()
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

const ETAG: (&str, &str) = ("ETag", "\"v1\"");

/// The recording from `from` on, of which only `sent` bytes are sent.
fn part(from: usize, sent: usize, headers: &[(&str, &str)]) -> Reply {
    let all = recording();
    let length = (all.len() - from).to_string();
    let range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
    let mut lines = vec![("Content-Length", length.as_str()), ("Content-Type", "audio/mp4")];
    if from > 0 {
        lines.push(("Content-Range", &range));
    }
    lines.extend_from_slice(headers);
    let code = if from > 0 { 206 } else { 200 };
    vec![Step::Send([head(code, &lines), all[from..from.saturating_add(sent).min(all.len())].to_vec()].concat())]
}

#[tokio::test]
async fn a_whole_recording_is_read_whole() {
    let studio = Studio::new(|_| answer(200, &[("Content-Type", "audio/mp4"), ETAG], recording())).await;
    let media = studio.open().await.unwrap();
    assert_eq!(media.content_length(), Some(200_000));
    assert_eq!(media.content_type(), Some("audio/mp4"));
    assert!(!format!("{media:?}").contains(SECRET));
    assert_eq!(read(media).await.unwrap(), recording());
    assert_eq!(studio.resumes(), 0);
    assert_eq!(studio.rig.counted("media", "200"), 1);
}

#[tokio::test]
async fn an_empty_recording_is_whole_too() {
    let studio = Studio::new(|_| answer(200, &[], "")).await;
    assert_eq!(studio.read().await.unwrap(), b"");
}

#[tokio::test]
async fn the_bearer_never_reaches_the_media_host() {
    let studio = Studio::new(|_| answer(200, &[("Set-Cookie", "a=b")], recording())).await;
    studio.read().await.unwrap();
    studio.read().await.unwrap();
    for request in studio.media.seen() {
        for name in ["authorization", "cookie", "referer", "proxy-authorization"] {
            assert_eq!(request.header(name), "", "{name}");
        }
        assert_eq!(request.header("accept-encoding"), "identity");
    }
}

#[tokio::test]
async fn a_link_off_the_list_is_not_followed() {
    let studio = Studio::new(|_| status(200)).await;
    let stranger = Fake::start(|_| answer(200, &[], "stolen")).await;
    for url in [
        format!("http://{}/x?sig={SECRET}", stranger.address),
        format!("http://{}@{}/x", studio.media.address, stranger.address),
        format!("http://localhost:{}/x", studio.media.address.port()),
        "https://evil.example/x".to_owned(),
    ] {
        let body = format!(r#"{{"redirectUrl":"{url}"}}"#);
        let rig = Rig::with(move |_| json(&body), &[host(&studio.media)], |_| {}, short()).await;
        let outcome = rig.client.open_media(&link(&rig, 7).await).await;
        assert!(is_permanent(&outcome), "{url}: {outcome:?}");
        assert!(!outcome.unwrap_err().to_string().contains(SECRET));
    }
    assert!(stranger.seen().is_empty() && studio.media.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_is_refused() {
    let stranger = Fake::start(|_| answer(200, &[], "stolen")).await;
    let target = format!("http://{}/", stranger.address);
    for code in [301, 302, 303, 307, 308] {
        let target = target.clone();
        let studio = Studio::new(move |_| answer(code, &[("Location", &target)], "")).await;
        let Err(NiceError::Permanent { what }) = studio.open().await else { panic!("{code}") };
        assert!(what.contains("redirect"), "{what}");
    }
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_no_recording_is_told() {
    for (reply, code) in [
        (answer(200, &[("Content-Type", "text/html")], "<html>"), "transient"),
        (answer(200, &[("Content-Type", "application/xml")], "<Error/>"), "transient"),
        (answer(204, &[], ""), "transient"),
        (answer(206, &[("Content-Range", "bytes 0-4/5")], "abcde"), "transient"),
        (answer(503, &[("Retry-After", "3")], ""), "transient"),
        (answer(200, &[("Content-Encoding", "gzip")], "x"), "permanent"),
        (answer(405, &[], ""), "permanent"),
        (answer(403, &[], "<Error><Code>AccessDenied</Code></Error>"), "expired"),
        (answer(404, &[], ""), "expired"),
        (answer(410, &[], ""), "expired"),
        (vec![Step::Send([head(200, &[]), recording()].concat())], "transient"),
    ] {
        let shown = format!("{reply:?}").chars().take(120).collect::<String>();
        let studio = Studio::new(move |_| reply.clone()).await;
        let outcome = match studio.open().await {
            Err(NiceError::Transient { .. }) => "transient",
            Err(NiceError::Permanent { .. }) => "permanent",
            Err(NiceError::LinkExpired) => "expired",
            other => panic!("{other:?}"),
        };
        assert_eq!(outcome, code, "{shown}");
    }
}

#[tokio::test]
async fn a_cut_recording_is_resumed_by_range() {
    let studio = Studio::new(|request| match (request.nth, request.range()) {
        (0, None) => part(0, 70_000, &[ETAG, ("Accept-Ranges", "bytes")]),
        (1, Some(70_000)) => part(70_000, 30_000, &[ETAG]),
        (2, Some(from)) => part(from, usize::MAX, &[ETAG]),
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(studio.read().await.unwrap(), recording());
    assert_eq!(studio.resumes(), 2);
    assert_eq!(studio.media.seen()[1].header("if-range"), "\"v1\"");
}

#[tokio::test]
async fn a_cut_recording_is_read_again_where_ranges_are_ignored() {
    for ranges in ["none", "bytes"] {
        let studio = Studio::new(move |request| match request.nth {
            0 => part(0, 70_000, &[("Accept-Ranges", ranges)]),
            1 => part(0, 20_000, &[]),
            _ => part(0, usize::MAX, &[]),
        })
        .await;
        assert_eq!(studio.read().await.unwrap(), recording());
        assert_eq!(studio.resumes(), 2);
        assert_eq!(studio.media.seen()[1].header("range").is_empty(), ranges == "none");
    }
}

#[tokio::test]
async fn a_recording_that_changed_is_noticed() {
    let mut other = recording();
    other[10] ^= 1;
    let longer = [recording(), vec![1]].concat();
    for second in [
        answer(200, &[], &other),
        answer(200, &[], &longer),
        answer(200, &[], &recording()[..10]),
        answer(416, &[("Content-Range", "bytes */10")], ""),
        answer(206, &[("Content-Range", "bytes 70000-200000/200001")], &longer[70_000..]),
        answer(206, &[("Content-Range", "bytes 70000-199999/200000"), ("ETag", "\"v2\"")], &recording()[70_000..]),
    ] {
        let studio = Studio::new(move |request| match request.nth {
            0 => part(0, 70_000, &[ETAG]),
            1 => second.clone(),
            _ => panic!("it is asked no more"),
        })
        .await;
        let Err(NiceError::Transient { what, .. }) = studio.read().await else { panic!() };
        assert_eq!(what, "the recording changed while it was read");
    }
}

#[tokio::test]
async fn an_odd_range_is_not_taken() {
    for (range, body) in [
        ("bytes 70001-199999/200000", recording()[70_001..].to_vec()),
        ("bytes 0-199999/200000", recording()),
        ("bytes 70000-199999/200000", recording()[70_001..].to_vec()),
        ("nonsense", recording()[70_000..].to_vec()),
    ] {
        let odd = answer(206, &[("Content-Range", range)], body);
        let studio = Studio::new(move |request| match request.nth {
            0 => part(0, 70_000, &[]),
            1 => odd.clone(),
            _ => part(request.range().unwrap(), usize::MAX, &[]),
        })
        .await;
        assert_eq!(studio.read().await.unwrap(), recording(), "{range}");
        assert_eq!(studio.resumes(), 2);
    }
}

#[tokio::test]
async fn a_recording_that_always_ends_early_never_ends_cleanly() {
    let studio = Studio::new(|request| part(request.range().unwrap_or(0), 1_000, &[])).await;
    assert!(is_transient(&studio.read().await));
    assert_eq!(studio.resumes(), 5);
    assert_eq!(studio.media.seen().len(), 6);
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).into_bytes(), bytes.to_vec(), b"\r\n".to_vec()].concat()
}

#[tokio::test]
async fn more_than_was_announced_is_never_delivered() {
    // With a Content-Length the rest stays on the wire.
    let studio = Studio::new(|_| {
        vec![Step::Send([head(200, &[("Content-Length", "200000")]), recording(), b"more".to_vec()].concat())]
    })
    .await;
    assert_eq!(studio.read().await.unwrap(), recording());
    // A body without one, after the length is known.
    let studio = Studio::new(|request| match request.nth {
        0 => part(0, 70_000, &[]),
        _ => {
            let range = [("Content-Range", "bytes 70000-199999/200000"), ("Transfer-Encoding", "chunked")];
            let body = [chunked(&recording()[70_000..]), chunked(b"more"), b"0\r\n\r\n".to_vec()].concat();
            vec![Step::Send([head(206, &range), body].concat())]
        }
    })
    .await;
    let Err(NiceError::Transient { what, .. }) = studio.read().await else { panic!() };
    assert_eq!(what, "the recording is longer than announced");
}

#[tokio::test]
async fn a_part_that_is_whole_is_not_the_recording() {
    let studio = Studio::new(|request| match (request.nth, request.range()) {
        (0, None) => part(0, 70_000, &[]),
        (1, Some(70_000)) => {
            answer(206, &[("Content-Range", "bytes 70000-99999/200000")], &recording()[70_000..100_000])
        }
        (2, Some(100_000)) => {
            // Everything anew, and cleanly ended before the place where we were.
            let body = [chunked(&recording()[..50_000]), b"0\r\n\r\n".to_vec()].concat();
            vec![Step::Send([head(200, &[("Transfer-Encoding", "chunked")]), body].concat())]
        }
        (_, from) => part(from.unwrap(), usize::MAX, &[]),
    })
    .await;
    assert_eq!(studio.read().await.unwrap(), recording());
    assert_eq!(studio.resumes(), 3);
}

#[tokio::test]
async fn a_chunked_recording_ends_with_its_last_chunk_only() {
    let opening = || head(200, &[("Transfer-Encoding", "chunked")]);
    let studio = Studio::new(move |request| match request.nth {
        0 => vec![Step::Send([opening(), chunked(&recording()[..70_000])].concat())],
        // Cleanly ended, but before the place where we were.
        1 => vec![Step::Send([opening(), chunked(&recording()[..50_000]), b"0\r\n\r\n".to_vec()].concat())],
        _ => vec![Step::Send([opening(), chunked(&recording()), b"0\r\n\r\n".to_vec()].concat())],
    })
    .await;
    let media = studio.open().await.unwrap();
    assert_eq!(media.content_length(), None);
    assert_eq!(read(media).await.unwrap(), recording());
    assert_eq!(studio.resumes(), 2);
}

#[tokio::test]
async fn a_stalled_recording_is_resumed() {
    let handler = |request: &Request| match request.range() {
        None => [part(0, 70_000, &[]), vec![Step::Stall]].concat(),
        Some(from) => part(from, usize::MAX, &[]),
    };
    let studio = Studio::with(handler, Duration::from_millis(300)).await;
    assert_eq!(studio.read().await.unwrap(), recording());
    assert_eq!(studio.resumes(), 1);
}

#[tokio::test]
async fn a_media_host_in_trouble_is_asked_again() {
    let studio = Studio::new(|request| match request.nth {
        0 => part(0, 70_000, &[]),
        1 => status(503),
        2 => vec![],
        _ => part(request.range().unwrap(), usize::MAX, &[]),
    })
    .await;
    assert_eq!(studio.read().await.unwrap(), recording());
    assert_eq!(studio.resumes(), 3);
}

#[tokio::test]
async fn an_expired_link_ends_the_stream_unless_it_is_refreshed() {
    let handler = |request: &Request| match (request.is("/fresh.mp4"), request.range()) {
        (false, None) => part(0, 70_000, &[ETAG]),
        (false, Some(_)) => status(403),
        (true, Some(from)) => part(from, usize::MAX, &[ETAG]),
        (true, None) => panic!("the tag ties both links to one object"),
    };
    let studio = Studio::new(handler).await;
    assert_eq!(studio.read().await, Err(NiceError::LinkExpired));
    let (outcome, asked) = Studio::new(handler).await.read_refreshing().await;
    assert_eq!((outcome.unwrap(), asked), (recording(), 1));
}

#[tokio::test]
async fn a_fresh_link_without_a_tag_is_compared_from_the_first_byte() {
    let handler = |request: &Request| match (request.is("/fresh.mp4"), request.nth) {
        (false, 0) => part(0, 70_000, &[]),
        (false, _) => status(404),
        (true, _) => part(request.range().unwrap_or(0), usize::MAX, &[]),
    };
    let studio = Studio::new(handler).await;
    let (outcome, asked) = studio.read_refreshing().await;
    assert_eq!((outcome.unwrap(), asked), (recording(), 1));
    assert_eq!(studio.media.seen().last().unwrap().range(), None);

    let other = |request: &Request| match (request.is("/fresh.mp4"), request.nth) {
        (false, 0) => part(0, 70_000, &[]),
        (false, _) => status(404),
        (true, _) => answer(200, &[], vec![7; 200_000]),
    };
    let (outcome, _) = Studio::new(other).await.read_refreshing().await;
    assert!(is_transient(&outcome));
}

#[tokio::test]
async fn a_link_that_expired_before_it_was_opened_is_refreshed_once() {
    let handler = |request: &Request| if request.is("/fresh.mp4") { part(0, usize::MAX, &[]) } else { status(410) };
    let (outcome, asked) = Studio::new(handler).await.read_refreshing().await;
    assert_eq!((outcome.unwrap(), asked), (recording(), 1));
    let (outcome, asked) = Studio::new(|_| status(403)).await.read_refreshing().await;
    assert_eq!((outcome, asked), (Err(NiceError::LinkExpired), 1));
}

#[tokio::test]
async fn a_recording_flows_through_a_bounded_buffer() {
    // 256 MiB, of which the reader holds a chunk at a time: the server can be ahead by the sockets' buffers only.
    const SIZE: u64 = 256 << 20;
    let length = SIZE.to_string();
    let studio = Studio::new(move |_| {
        vec![Step::Send(head(200, &[("Content-Length", &length)])), Step::Endless(vec![0; 1 << 16])]
    })
    .await;
    let mut stream = std::pin::pin!(studio.open().await.unwrap().into_stream());
    let mut read = 0;
    while let Some(chunk) = stream.try_next().await.unwrap() {
        read += chunk.len() as u64;
        assert!(studio.media.sent() <= read + (32 << 20), "{} sent, {read} read", studio.media.sent());
        assert!(chunk.len() <= 1 << 20);
    }
    assert_eq!(read, SIZE);
}
