//! Recordings: cut, stalled, expired, moved, packed, misnamed, too long, too short, too slow.

use std::io::Write;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use futures::{FutureExt, TryStreamExt};
use model::ContactId;
use nice::{LinkRefresher, Media, MediaHost, MediaLink, NiceError, Timeouts};

use crate::fake::{Fake, Reply, Request, Step, answer, head, json, status};
use crate::rig::{Rig, SECRET, host, is_media, is_permanent, settings, short};

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
        Self::beside(handler, &[], Timeouts { media_idle: idle, ..short() }).await
    }

    /// With further hosts on the list.
    async fn beside(
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        others: &[MediaHost],
        timeouts: Timeouts,
    ) -> Self {
        let media = Fake::start(handler).await;
        let hosts = [&[host(&media)], others].concat();
        let address = media.address;
        let playback = move |request: &Request| {
            let link = match request.path.contains("acd-call-id=7&") {
                true => format!("http://{address}/a.mp4?sig={SECRET}"),
                false => format!("http://{address}/fresh.mp4?sig={SECRET}"),
            };
            json(format!(r#"{{"interactions":[{{"data":{{"fileToPlayUrl":"{link}"}}}}]}}"#))
        };
        let rig = Rig::with(playback, &hosts, |_| {}, timeouts).await;
        let link = link(&rig, 7).await;
        Self { rig, media, link }
    }

    async fn open(&self) -> Result<Media, NiceError> {
        self.rig.client.open_media(&self.link, None).await
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
        let opened = self.rig.client.open_media(&self.link, Some(self.refresher(&asked))).await;
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
        let outcome = rig.client.open_media(&link(&rig, 7).await, None).await;
        assert!(is_permanent(&outcome), "{url}: {outcome:?}");
        assert!(!outcome.unwrap_err().to_string().contains(SECRET));
    }
    assert!(stranger.seen().is_empty() && studio.media.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_to_a_listed_host_is_followed_with_the_range_and_without_a_credential() {
    for code in [301, 302, 303, 307, 308] {
        let regional = Arc::new(
            Fake::start(|request| match request.nth {
                0 => part(0, 70_000, &[ETAG, ("Set-Cookie", "a=b")]),
                _ => part(request.range().unwrap(), usize::MAX, &[ETAG]),
            })
            .await,
        );
        let target = format!("http://{}/a.mp4?sig=regional", regional.address);
        let first = move |_: &Request| answer(code, &[("Location", &target), ("Set-Cookie", "c=d")], "<Error/>");
        let studio = Studio::beside(first, &[host(&regional)], short()).await;
        assert_eq!(studio.read().await.unwrap(), recording(), "{code}");
        // What breaks is asked for where NICE said, and sent on again.
        assert_eq!((studio.resumes(), studio.media.seen().len(), regional.seen().len()), (1, 2, 2), "{code}");
        for request in studio.media.seen().into_iter().chain(regional.seen()) {
            for name in ["authorization", "cookie", "referer"] {
                assert_eq!(request.header(name), "", "{code} {name}");
            }
            assert_eq!((request.method.as_str(), request.header("accept-encoding")), ("GET", "identity"), "{code}");
        }
        assert_eq!(regional.seen()[1].header("if-range"), "\"v1\"", "{code}");
        assert!(regional.seen().iter().all(|request| !request.path.contains(SECRET)), "{code}");
    }
}

#[tokio::test]
async fn a_redirect_off_the_list_is_refused_for_good_and_names_the_host() {
    let stranger = Fake::start(|_| answer(200, &[], "stolen")).await;
    let here = format!("http://{}/{SECRET}", stranger.address);
    for target in [here.clone(), here.replace("http:", ""), "https://evil.example/x?secret".to_owned()] {
        for code in [301, 302, 307] {
            let target = target.clone();
            let studio = Studio::new(move |_| answer(code, &[("Location", &target)], "")).await;
            let Err(NiceError::Permanent { what }) = studio.open().await else { panic!("{code}") };
            assert!(what.contains("redirects off the allowed hosts"), "{what}");
            let port = stranger.address.port().to_string();
            assert!(what.contains("evil.example") || what.contains(&port), "{what}");
            assert!(!what.contains(SECRET) && !what.contains("secret"), "{what}");
        }
    }
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_tried_again_later() {
    let endless = Studio::new(|_| answer(302, &[("Location", "?again=1")], "")).await;
    let Err(NiceError::Media { what, .. }) = endless.open().await else { panic!() };
    assert!(what.contains("127.0.0.1") && what.contains("one more redirect after 3"), "{what}");
    assert_eq!(endless.media.seen().len(), 4);

    // Three are followed, whether they are told whole or not.
    let studio = Studio::new(|request| match request.path.as_str() {
        "/one" => answer(301, &[("Location", "/dir/two")], ""),
        "/dir/two" => answer(308, &[("Location", "three?x=1")], ""),
        "/dir/three?x=1" => part(0, usize::MAX, &[]),
        _ => answer(307, &[("Location", "/one")], ""),
    })
    .await;
    assert_eq!(studio.read().await.unwrap(), recording());

    for (code, location) in [(307, None), (301, Some("")), (302, Some("https://user@127.0.0.1/")), (300, Some("/x"))] {
        let headers: Vec<_> = location.map(|location| ("Location", location)).into_iter().collect();
        let reply = answer(code, &headers, "");
        let studio = Studio::new(move |_| reply.clone()).await;
        assert!(is_media(&studio.open().await), "{code} {location:?}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_the_hosts_trouble_and_is_named() {
    let hosts = ["nowhere.invalid:9"].map(|host| host.parse().unwrap());
    let body = format!(r#"{{"redirectUrl":"https://nowhere.invalid:9/{SECRET}"}}"#);
    let rig = Rig::with(move |_| json(&body), &hosts, |_| {}, short()).await;
    let Err(NiceError::Media { what, .. }) = rig.client.open_media(&link(&rig, 7).await, None).await else { panic!() };
    assert!(what.contains("nowhere.invalid") && what.contains("no address") && !what.contains(SECRET), "{what}");
}

#[tokio::test]
async fn a_private_host_must_be_a_media_host() {
    let api = Fake::start(|_| status(200)).await;
    let mut settings = settings(&api, &["*.example.com".parse().unwrap()]);
    settings.private_media_hosts = vec!["b.vpce.example.com".parse().unwrap()];
    assert_eq!(settings.validate(), Ok(()));
    settings.private_media_hosts = vec!["b.example.org".parse().unwrap()];
    let Err(NiceError::Permanent { what }) = settings.validate() else { panic!() };
    assert!(what.contains("private_media_hosts") && what.contains("b.example.org"), "{what}");
}

#[tokio::test]
async fn odd_characters_in_the_path_are_sent_as_a_browser_sends_them() {
    let studio = Studio::new(|_| part(0, usize::MAX, &[])).await;
    let body = format!(r#"{{"redirectUrl":"http://{}/a b|\"{{c}}^é.mp4?n=Ü x|y"}}"#, studio.media.address);
    let rig = Rig::with(move |_| json(&body), &[host(&studio.media)], |_| {}, short()).await;
    let media = rig.client.open_media(&link(&rig, 7).await, None).await.unwrap();
    assert_eq!(read(media).await.unwrap(), recording());
    let path = studio.media.seen()[0].path.replace("%7C", "|").replace("%5E", "^");
    assert_eq!(path, "/a%20b|%22%7Bc%7D^%C3%A9.mp4?n=%C3%9C%20x|y");
}

/// Something that begins as an MP4.
fn mp4() -> Vec<u8> {
    [b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41".to_vec(), recording()].concat()
}

#[tokio::test]
async fn the_type_comes_from_the_bytes_where_the_header_does_not_know() {
    let wav = [b"RIFF\x24\0\0\0WAVEfmt ".to_vec(), recording()].concat();
    for (header, bytes, found) in [
        (Some("application/octet-stream"), mp4(), Some("video/mp4")),
        (Some("binary/octet-stream"), wav.clone(), Some("audio/wav")),
        (Some("text/plain"), mp4(), Some("video/mp4")),
        (Some("audio/mp4"), wav, Some("audio/wav")),
        (Some("audio/mp4"), mp4(), Some("audio/mp4")),
        (Some("audio/mp4"), recording(), Some("audio/mp4")),
        (None, mp4(), Some("video/mp4")),
        (None, recording(), None),
    ] {
        let headers: Vec<_> = header.map(|header| ("Content-Type", header)).into_iter().collect();
        // In pieces, of which the first ones tell nothing.
        let length = bytes.len().to_string();
        let opening = head(200, &[&headers[..], &[("Content-Length", &length)]].concat());
        let mut reply = vec![Step::Send(opening)];
        let (first, rest) = bytes.split_at(20);
        for byte in first {
            reply.extend([Step::Send(vec![*byte]), Step::Pause(Duration::from_millis(1))]);
        }
        reply.push(Step::Send(rest.to_vec()));
        let studio = Studio::new(move |_| reply.clone()).await;
        let media = studio.open().await.unwrap();
        assert_eq!(media.content_type(), found, "{header:?}");
        assert_eq!(media.content_length(), Some(bytes.len() as u64));
        assert!(read(media).await.unwrap() == bytes, "{header:?}");
    }
}

#[tokio::test]
async fn a_recording_that_is_called_a_text_is_resumed_too() {
    let all = mp4();
    let length = all.len().to_string();
    let studio = Studio::new(move |request| match request.nth {
        0 => vec![Step::Send(
            [head(200, &[("Content-Length", &length), ("Content-Type", "text/plain")]), all[..70_000].to_vec()]
                .concat(),
        )],
        1 => answer(200, &[("Content-Type", "text/html")], "<html>busy</html>"),
        _ => answer(200, &[("Content-Type", "text/plain")], &all),
    })
    .await;
    assert!(studio.read().await.unwrap() == mp4());
    assert_eq!(studio.resumes(), 2);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The packed recording from `from` on, of which only `sent` bytes are sent.
fn packed_part(from: usize, sent: usize) -> Reply {
    let all = gzip(&mp4());
    let (length, range) = ((all.len() - from).to_string(), format!("bytes {from}-{}/{}", all.len() - 1, all.len()));
    let mut headers = vec![ETAG, ("Content-Length", length.as_str()), ("Content-Encoding", "gzip")];
    if from > 0 {
        headers.push(("Content-Range", &range));
    }
    let code = if from > 0 { 206 } else { 200 };
    vec![Step::Send([head(code, &headers), all[from..from.saturating_add(sent).min(all.len())].to_vec()].concat())]
}

#[tokio::test]
async fn a_packed_recording_is_unpacked_and_resumed_in_its_packed_form() {
    let studio = Studio::new(|request| match request.nth {
        0 => packed_part(0, 9_000),
        1 => packed_part(request.range().unwrap(), 30_000),
        _ => packed_part(request.range().unwrap(), usize::MAX),
    })
    .await;
    let media = studio.open().await.unwrap();
    assert_eq!((media.content_length(), media.content_type()), (None, Some("video/mp4")));
    assert!(read(media).await.unwrap() == mp4());
    assert_eq!(studio.resumes(), 2);
    assert_eq!(studio.media.seen()[2].range(), Some(39_000));

    // From its first byte where ranges are ignored.
    let studio = Studio::new(|request| packed_part(0, if request.nth == 0 { 9_000 } else { usize::MAX })).await;
    assert!(studio.read().await.unwrap() == mp4());
}

#[tokio::test]
async fn what_is_packed_otherwise_than_it_says_is_never_taken_for_a_recording() {
    // The whole is there, and the header is wrong.
    for encoding in ["gzip", "br", "deflate", "zstd", "utf-8"] {
        let studio = Studio::new(move |_| answer(200, &[("Content-Encoding", encoding)], mp4())).await;
        let media = studio.open().await.unwrap();
        assert_eq!(media.content_length(), Some(mp4().len() as u64), "{encoding}");
        assert!(read(media).await.unwrap() == mp4(), "{encoding}");
    }
    let cut = gzip(&mp4())[..20_000].to_vec();
    for (encoding, body, says) in [
        ("compress", b"\x1f\x9d\x90".to_vec(), "not known here (compress)"),
        ("gzip", b"neither".to_vec(), "cannot be unpacked"),
        ("zstd", gzip(&mp4()), "cannot be unpacked"),
        ("gzip", cut, "cannot be unpacked"),
    ] {
        let studio = Studio::new(move |_| answer(200, &[("Content-Encoding", encoding)], &body)).await;
        let Err(NiceError::Media { what, .. }) = studio.read().await else { panic!("{encoding}") };
        assert!(what.contains(says), "{what}");
    }
    // Begun packed, gone on with as it is.
    let studio = Studio::new(|request| match request.nth {
        0 => packed_part(0, 9_000),
        _ => answer(200, &[ETAG], mp4()),
    })
    .await;
    let Err(NiceError::Media { what, .. }) = studio.read().await else { panic!() };
    assert_eq!(what, "the recording changed while it was read");
}

#[tokio::test]
async fn a_recording_that_trickles_ends() {
    let trickle = |_: &Request| {
        let drop = [Step::Send(vec![7]), Step::Pause(Duration::from_millis(5))];
        let opening = Step::Send([head(200, &[("Content-Length", "200000")]), recording()[..2_000].to_vec()].concat());
        [vec![opening], vec![drop; 10_000].concat()].concat()
    };
    let timeouts = Timeouts { media_min_rate: 100_000, media_rate_window: Duration::from_millis(200), ..short() };
    let studio = Studio::beside(trickle, &[], timeouts).await;
    let Err(NiceError::Media { what, .. }) = studio.read().await else { panic!() };
    assert!(what.contains("arrives too slowly"), "{what}");
    assert_eq!((studio.resumes(), studio.media.seen().len()), (0, 1), "another connection would not be faster");
}

#[tokio::test]
async fn a_recording_is_read_again_by_the_link_that_was_learned_last() {
    let handler = |request: &Request| match (request.is("/fresh.mp4"), request.nth) {
        (false, 0) => part(0, usize::MAX, &[ETAG]),
        (false, _) => status(403),
        (true, _) => part(request.range().unwrap_or(0), usize::MAX, &[ETAG]),
    };
    let studio = Studio::new(handler).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let media = studio.rig.client.open_media(&studio.link, Some(studio.refresher(&asked))).await.unwrap();
    assert_eq!(media.host(), "127.0.0.1");
    let (once, twice) = (media.again(), media.again());
    assert_eq!(
        (once.content_length(), once.content_type(), once.host()),
        (Some(200_000), Some("audio/mp4"), "127.0.0.1")
    );
    assert!(!format!("{once:?}").contains(SECRET));
    assert_eq!(studio.media.seen().len(), 1, "nothing is asked before it is read");
    // The first one is given up in the middle.
    assert!(Box::pin(media.into_stream()).try_next().await.unwrap().is_some());
    assert_eq!(read(once).await.unwrap(), recording());
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the link has expired");
    let thrice = twice.again();
    assert_eq!(read(twice).await.unwrap(), recording());
    assert_eq!(read(thrice).await.unwrap(), recording());
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the link that was learned lives");
    assert_eq!(studio.media.count("/a.mp4"), 2);
}

#[tokio::test]
async fn a_recording_is_not_read_again_as_what_it_is_not() {
    let studio = Studio::new(|request| match request.nth {
        0 => part(0, usize::MAX, &[]),
        1 => answer(200, &[("Content-Type", "text/html")], "<html>"),
        2 => answer(200, &[("Content-Type", "audio/wav")], "RIFF"),
        _ => part(0, 70_000, &[]),
    })
    .await;
    let media = studio.open().await.unwrap();
    for says in ["a page instead", "changed", "broke off"] {
        let Err(NiceError::Media { what, .. }) = read(media.again()).await else { panic!("{says}") };
        assert!(what.contains(says), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_recording_is_told() {
    for (reply, code) in [
        (answer(200, &[("Content-Type", "text/html")], "<html>"), "transient"),
        (answer(200, &[("Content-Type", "application/xml")], "<Error/>"), "transient"),
        (answer(204, &[], ""), "transient"),
        (answer(206, &[("Content-Range", "bytes 0-4/5")], "abcde"), "transient"),
        (answer(503, &[("Retry-After", "3")], ""), "transient"),
        (answer(200, &[("Content-Encoding", "gzip")], "x"), "transient"),
        (answer(200, &[], "<?xml version=\"1.0\"?><Error/>"), "transient"),
        (answer(200, &[("Content-Type", "binary/octet-stream")], "{\"message\":\"no\"}"), "transient"),
        (answer(304, &[], ""), "transient"),
        (answer(405, &[], ""), "transient"),
        (answer(403, &[], "<Error><Code>AccessDenied</Code></Error>"), "expired"),
        (answer(404, &[], ""), "expired"),
        (answer(410, &[], ""), "expired"),
        (vec![Step::Send([head(200, &[]), recording()].concat())], "transient"),
    ] {
        let shown = format!("{reply:?}").chars().take(120).collect::<String>();
        let studio = Studio::new(move |_| reply.clone()).await;
        let outcome = match studio.open().await {
            Err(NiceError::Media { .. }) => "transient",
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
        let Err(NiceError::Media { what, .. }) = studio.read().await else { panic!() };
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
    assert!(is_media(&studio.read().await));
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
    let Err(NiceError::Media { what, .. }) = studio.read().await else { panic!() };
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
    assert!(is_media(&outcome));
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
