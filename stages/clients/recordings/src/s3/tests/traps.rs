//! What S3, rusoto or the network may do to us, one trap a test.

use runtime::task;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::fake::{COMPLETED, Fake, Request, answer, error};
use super::*;
use crate::s3::error::S3ErrorKind;

/// A body that makes two parts.
const TWO_PARTS: usize = LEAST_PART + 1000;

async fn put(store: &S3Store, length: usize) -> Result<u64, RecordingStoreError> {
    Ok(store.put(&key(1, 0), WAV, body_of(length)).await?.size_bytes)
}

#[track_caller]
fn assert_transient(result: Result<u64, RecordingStoreError>, names: &str, wait: Option<u64>) {
    let error = result.unwrap_err();
    let RecordingStoreError::Unavailable { reason, retry_after, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains(names), "{reason}");
    assert_eq!(retry_after.map(|wait| wait.as_secs()), wait, "{reason}");
    for secret in ["s3cr3t", "acme", "/2026/"] {
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

#[tokio::test]
async fn a_completion_that_answers_with_an_error_in_a_success_is_no_success() {
    let failing = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\n<Error><Code>InternalError</Code></Error>";
    let fake = Fake::start(move |request, before| match request.operation() {
        "complete" if before < 2 => answer(200, &[], failing),
        _ => None,
    });
    let fake = fake.await;
    assert_eq!(put(&fake.store().await, TWO_PARTS).await.unwrap(), TWO_PARTS as u64);
    assert_eq!(fake.of("complete").len(), 3, "sent again in place");

    let fake = Fake::start(|request, _| match request.operation() {
        "complete" => answer(200, &[], "<Error><Code>InvalidPart</Code></Error>"),
        _ => None,
    });
    let fake = fake.await;
    assert_transient(put(&fake.store().await, TWO_PARTS).await, "complete_upload: 500 InvalidPart", None);
    assert_eq!(fake.of("abort").len(), 1);
}

#[tokio::test]
async fn a_completion_that_says_nothing_is_no_success() {
    let fake = Fake::start(move |request, before| {
        (request.operation() == "complete" && before == 0).then(|| answer(200, &[], "").unwrap())
    });
    let fake = fake.await;
    assert_eq!(put(&fake.store().await, TWO_PARTS).await.unwrap(), TWO_PARTS as u64);
    assert_eq!(fake.of("complete").len(), 2);
}

#[tokio::test]
async fn a_store_that_takes_no_tags_is_asked_once_and_stores_all_the_same() {
    for (status, code) in [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidTag")] {
        let fake =
            Fake::start(move |request, _| (request.operation() == "tag").then(|| error(status, code).unwrap())).await;
        let store = fake.store().await;
        for _ in 0..2 {
            put(&store, TWO_PARTS).await.ok();
        }
        assert_eq!(fake.of("tag").len(), 1, "{code}");
        assert_eq!(fake.of("complete").len(), 2, "{code}");
    }
}

/// What an object under a condition of the fake store is told to be written in place of.
const FOUND: &str = "0123456789abcdef0123456789abcdef";

/// A store that keeps to conditions.
async fn conditional() -> Fake {
    Fake::start(|request, _| {
        let condition = request.headers.get("if-match").or(request.headers.get("if-none-match"))?;
        match request.operation() {
            "put" | "complete" if condition.contains("0000000") => error(412, "PreconditionFailed"),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn an_object_is_written_under_the_condition_of_what_was_found() {
    let fake = conditional().await;
    let store = fake.store().await;
    let object = CurrentObject::Object(FOUND.to_owned());
    for (found, name, value) in
        [(&CurrentObject::Nothing, "if-none-match", "*".to_owned()), (&object, "if-match", FOUND.to_owned())]
    {
        store.put_if_unchanged(&key(1, 0), WAV, Some(found), body_of(10)).await.unwrap();
        // The fake store adds up what it was sent: the length is not asked for here.
        store.put_if_unchanged(&key(1, 0), WAV, Some(found), body_of(TWO_PARTS)).await.ok();
        for operation in ["put", "complete"] {
            let request = fake.of(operation).pop().unwrap();
            assert_eq!(request.headers.get(name), Some(&value), "{operation}");
            assert!(!request.headers["authorization"].contains("if-"), "S3 wants no signature over it");
        }
    }
    assert!(fake.of("create").iter().chain(&fake.of("part")).all(|request| !request.headers.contains_key("if-match")));
    assert_eq!(store.caveat(), None);
}

#[tokio::test]
async fn a_store_without_conditions_is_looked_at_instead_and_a_person_is_told() {
    for refuses in [true, false] {
        let fake = Fake::start(move |request, _| {
            let has_condition = ["if-match", "if-none-match"].iter().any(|name| request.headers.contains_key(*name));
            match request.operation() {
                "put" | "complete" if has_condition && refuses => error(501, "NotImplemented"),
                "head" => Some(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n".to_vec()),
                _ => None,
            }
        });
        let fake = fake.await;
        let store = fake.store().await;
        store.put_if_unchanged(&key(1, 0), WAV, Some(&CurrentObject::Nothing), body_of(10)).await.unwrap();
        assert_eq!(fake.of("head").len(), 1);
        let object = CurrentObject::Object(FOUND.to_owned());
        let replaced = store.put_if_unchanged(&key(1, 0), WAV, Some(&object), body_of(TWO_PARTS)).await;
        let error = replaced.unwrap_err();
        assert!(matches!(error, RecordingStoreError::Overtaken(_)), "{error:?}");
        assert!(error.to_string().contains("another recording was stored there meanwhile"), "{error}");
        let caveat = store.caveat().unwrap();
        assert!(caveat.contains("PutObject and CompleteMultipartUpload"), "{caveat}");
    }
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_finds_its_own_object() {
    let sha256 = "1f825aa2f0020ef7cf91dfa30da4668d791c5d4824fc8e41354b89ec05795ab3";
    for (hash, is_ours) in [(sha256, true), ("another", false)] {
        let fake = Fake::start(move |request, _| {
            let condition = request.headers.get("if-match").or(request.headers.get("if-none-match"));
            match (request.operation(), condition) {
                ("put" | "complete", Some(_)) => error(412, "PreconditionFailed"),
                ("head", _) => Some(
                    format!("HTTP/1.1 200 OK\r\ncontent-length: 10\r\nx-amz-meta-sha256: {hash}\r\n\r\n").into_bytes(),
                ),
                _ => None,
            }
        });
        let fake = fake.await;
        let stored =
            fake.store().await.put_if_unchanged(&key(1, 0), WAV, Some(&CurrentObject::Nothing), body_of(10)).await;
        assert_eq!(stored.is_ok(), is_ours, "{stored:?}");
    }
}

#[tokio::test]
async fn a_completion_that_does_not_name_what_was_stored_counts_only_if_the_object_is_ours() {
    let nameless = "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>";
    for is_ours in [true, false] {
        let fake = Fake::start(move |request, _| match request.operation() {
            "complete" => answer(200, &[], nameless),
            "head" if !is_ours => Some(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n".to_vec()),
            _ => None,
        });
        let fake = fake.await;
        let stored = put(&fake.store().await, TWO_PARTS).await;
        if is_ours {
            assert_eq!(stored.unwrap(), TWO_PARTS as u64);
        } else {
            assert_transient(stored, "complete_upload: the answer does not say", None);
        }
    }
}

#[tokio::test]
async fn white_space_that_kept_the_connection_alive_is_skipped() {
    for completed in [format!(" \n\r\n\t  {COMPLETED}"), COMPLETED.replace("?>", "?>\n\n    ")] {
        let fake = Fake::start(move |request, _| match request.operation() {
            "complete" => answer(200, &[], &completed),
            _ => None,
        });
        let fake = fake.await;
        assert_eq!(put(&fake.store().await, TWO_PARTS).await.unwrap(), TWO_PARTS as u64);
        assert_eq!(fake.of("complete").len(), 1);
    }
}

#[tokio::test]
async fn an_object_of_another_length_is_no_success() {
    let fake = Fake::start(|request, _| match request.operation() {
        "head" => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n".to_vec()),
        _ => None,
    });
    let fake = fake.await;
    assert_transient(put(&fake.store().await, TWO_PARTS).await, "another length", None);
}

#[tokio::test]
async fn a_lost_answer_of_a_completion_is_resolved_by_the_object() {
    for (is_ours, tag) in [(true, None), (false, Some("\"somebody-elses\""))] {
        let fake = Fake::start(move |request, before| match (request.operation(), before, tag) {
            ("complete", 0, _) => Some(Vec::new()),
            ("complete", ..) => error(404, "NoSuchUpload"),
            ("head", _, Some(tag)) => {
                Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {TWO_PARTS}\r\netag: {tag}\r\n\r\n").into_bytes())
            }
            _ => None,
        });
        let fake = fake.await;
        let stored = put(&fake.store().await, TWO_PARTS).await;
        if is_ours {
            assert_eq!(stored.unwrap(), TWO_PARTS as u64);
        } else {
            assert_transient(stored, "404 NoSuchUpload", None);
        }
    }
}

#[tokio::test]
async fn a_key_that_a_url_would_change_is_not_sent() {
    let fake = Fake::start(|_, _| None).await;
    for key in ["a/../b", "a/./b", "..", "a/%2e%2e/b/../c"] {
        let failure = fake.store().await.head(key).await.unwrap_err();
        assert_eq!(failure.kind, S3ErrorKind::Rejected, "{failure}");
    }
    assert!(fake.operations().is_empty());
}

#[tokio::test]
async fn a_refusal_is_transient_names_the_setting_and_is_not_repeated() {
    for (status, code, names) in [
        (403, "InvalidAccessKeyId", "[recordings] access_key_id"),
        (403, "SignatureDoesNotMatch", "[recordings] secret_access_key"),
        (404, "NoSuchBucket", "[recordings] bucket"),
        (400, "AuthorizationHeaderMalformed", "[recordings] region"),
    ] {
        let fake = Fake::start(move |_, _| error(status, code)).await;
        assert_transient(put(&fake.store().await, 10).await, names, Some(60));
        assert_eq!(fake.operations(), ["put"]);
    }
}

#[tokio::test]
async fn a_store_that_sheds_load_is_asked_again_when_it_said_with_a_fresh_signature() {
    let slow_down = "<Error><Code>SlowDown</Code></Error>";
    let fake = Fake::start(move |_, before| match before {
        0 => answer(503, &["retry-after: 1"], slow_down),
        1 => answer(500, &[], ""),
        _ => None,
    });
    let fake = fake.await;
    let store = fake.store().await;
    assert_eq!(put(&store, 10).await.unwrap(), 10);
    let puts = fake.of("put");
    assert_eq!(puts.len(), 3);
    assert!(puts.iter().all(|put| put.body == content_of(10)), "the body is sent whole each time");
    let header = |place: usize, name: &str| puts[place].headers[name].clone();
    assert_ne!(header(0, "x-amz-date"), header(1, "x-amz-date"));
    assert_ne!(header(0, "authorization"), header(1, "authorization"));
    assert_eq!(store.metrics.retries.with_label_values(&["put"]).get(), 2);
}

#[tokio::test]
async fn a_longer_wait_than_fits_in_place_is_handed_to_the_flow() {
    for (headers, wait) in [
        (&["retry-after: 120"][..], Some(120)),
        (&["retry-after: 99999"], Some(300)),
        (&["retry-after: 60", "retry-after: \"120\", 90"], Some(120)),
        (&["retry-after : 100", "retry-after: 40"], Some(100)),
    ] {
        let fake = Fake::start(move |_, _| answer(503, headers, "")).await;
        assert_transient(put(&fake.store().await, 10).await, "put: 503", wait);
        assert_eq!(fake.operations(), ["put"]);
    }
}

#[tokio::test]
async fn many_headers_are_no_outage() {
    let headers: Vec<_> = (0..900).map(|n| format!("x-proxy-{n}: via")).collect();
    let fake = Fake::start(move |request, _| {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        (request.operation() == "put")
            .then(|| answer(404, &headers, "<Error><Code>NoSuchBucket</Code></Error>").unwrap())
    });
    let fake = fake.await;
    assert_transient(put(&fake.store().await, 10).await, "[recordings] bucket", Some(60));
}

#[tokio::test]
async fn a_store_that_stays_troubled_is_given_up_for_now() {
    let fake = Fake::start(|request, _| (request.operation() == "part").then(|| error(500, "InternalError").unwrap()));
    let fake = fake.await;
    assert_transient(put(&fake.store().await, TWO_PARTS).await, "upload_part: 500 InternalError", None);
    assert!((6..=12).contains(&fake.of("part").len()), "{}", fake.of("part").len());
    assert_eq!(fake.of("abort").len(), 1);
}

#[tokio::test]
async fn headers_that_cannot_be_read_do_no_harm() {
    let fake = Fake::start(|request, _| {
        let mut answer = b"HTTP/1.1 200 OK\r\nx-amz-expiration: caf\xe9 \xff\r\n\
            x-amz-server-side-encryption-bucket-key-enabled: perhaps\r\nx-amz-missing-meta: many\r\n\
            x-amz-mp-parts-count: few\r\netag: \"caf\xc3\xa9\"\r\n"
            .to_vec();
        let length = if request.operation() == "head" { "10" } else { "0" };
        answer.extend_from_slice(format!("content-length: {length}\r\nconnection: close\r\n\r\n").as_bytes());
        Some(answer)
    });
    let fake = fake.await;
    let store = fake.store().await;
    assert_eq!(put(&store, 10).await.unwrap(), 10);
    assert_eq!(store.size(&key(1, 0)).await.unwrap(), Some(10));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fake::start(|_, _| None).await;
    for status in [301, 302, 307, 308] {
        let location = format!("location: {}/calls/x", elsewhere.url());
        let fake = Fake::start(move |_, _| answer(status, &[&location], "")).await;
        assert_transient(put(&fake.store().await, 10).await, "[recordings] region, endpoint", Some(60));
    }
    assert!(elsewhere.operations().is_empty(), "no signature left for elsewhere");
}

#[tokio::test]
async fn a_put_says_what_it_stores() {
    let fake = Fake::start(|_, _| None).await;
    put(&fake.store().await, 10).await.unwrap();
    let [put] = &fake.of("put")[..] else { panic!("one put") };
    assert_eq!(put.target, "/calls/acme/2026/04/01/1/0.wav");
    for (name, value) in [
        ("content-length", "10"),
        ("content-md5", "xWvVSA9uVBPLYqCtlmZhOg=="),
        ("content-type", WAV),
        ("x-amz-meta-sha256", "1f825aa2f0020ef7cf91dfa30da4668d791c5d4824fc8e41354b89ec05795ab3"),
    ] {
        assert_eq!(put.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!put.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn every_part_carries_its_md5_and_the_object_its_sha256() {
    use base64::Engine;
    use md5::Digest;
    let fake = Fake::start(|_, _| None).await;
    put(&fake.store().await, TWO_PARTS).await.unwrap();
    let parts = fake.of("part");
    assert_eq!(parts.iter().map(|part| part.body.len()).collect::<Vec<_>>(), [LEAST_PART, 1000]);
    for part in &parts {
        let md5 = base64::prelude::BASE64_STANDARD.encode(md5::Md5::digest(&part.body));
        assert_eq!(part.headers["content-md5"], md5);
    }
    let tag = &fake.of("tag")[0];
    assert_eq!(tag.target, "/calls/acme/2026/04/01/1/0.wav?tagging=");
    let hash = hex::encode(sha2::Sha256::digest(content_of(TWO_PARTS)));
    let text = String::from_utf8(tag.body.clone()).unwrap();
    assert!(text.contains(&format!("<Key>sha256</Key><Value>{hash}</Value>")), "{text}");
    assert_eq!(fake.operations(), ["uploads", "create", "part", "part", "complete", "tag", "head"]);
}

#[tokio::test]
async fn encryption_is_asked_for_wherever_an_object_is_made() {
    for (encryption, algorithm, key_id) in [
        (Encryption::Bucket, None, None),
        (Encryption::SseS3, Some("AES256"), None),
        (Encryption::SseKms { key_id: None }, Some("aws:kms"), None),
        (Encryption::SseKms { key_id: Some("key-1".to_owned()) }, Some("aws:kms"), Some("key-1")),
    ] {
        let fake = Fake::start(|_, _| None).await;
        let store = open(S3Options { encryption, ..fake.options() }).await;
        put(&store, TWO_PARTS).await.unwrap();
        put(&store, 10).await.unwrap();
        for operation in ["put", "create"] {
            let header = |request: &Request, name: &str| request.headers.get(name).cloned();
            let request = &fake.of(operation)[0];
            assert_eq!(header(request, "x-amz-server-side-encryption").as_deref(), algorithm, "{operation}");
            let name = "x-amz-server-side-encryption-aws-kms-key-id";
            assert_eq!(header(request, name).as_deref(), key_id, "{operation}");
        }
    }
}

#[tokio::test]
async fn a_session_token_is_sent_along() {
    let fake = Fake::start(|_, _| None).await;
    let credentials = Credentials::Static {
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".into(),
        session_token: Some("token-1".into()),
    };
    put(&open(S3Options { credentials, ..fake.options() }).await, 10).await.unwrap();
    assert_eq!(fake.of("put")[0].headers["x-amz-security-token"], "token-1");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Fake::start(|_, _| None).await;
    let mut options = S3Options { request_timeout: Duration::from_millis(50), ..fake.options() };
    options.endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    assert_transient(put(&open(options.clone()).await, 10).await, "put: no answer in time", None);
    drop(listener);
    assert_transient(put(&open(options).await, 10).await, "cannot be reached (connect)", None);
}

#[tokio::test]
async fn a_recording_that_trickles_does_not_hold_its_memory_for_ever() {
    let fake = Fake::start(|_, _| None).await;
    let options = S3Options { stale_after: Duration::from_millis(200), memory: LEAST_PART, ..fake.options() };
    let store = open(options).await;
    let trickle = stream::repeat_with(|| Ok(Bytes::from_static(b"a"))).then(async |byte| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        byte
    });
    let begun = stream::iter([Ok(piece(0, LEAST_PART + CHUNK))]);
    let key = key(1, 0);
    let put = store.put(&key, WAV, begun.chain(trickle).boxed());
    let error = tokio::time::timeout(Duration::from_secs(20), put).await.expect("it ends").unwrap_err();
    assert!(matches!(&error, RecordingStoreError::SlowBody), "{error:?}");
    assert!(error.to_string().contains("too slowly"), "{error}");
    assert_eq!(fake.of("abort").len(), 1);
    assert!(fake.of("complete").is_empty());
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    let test = "s3::tests::traps::a_put_says_what_it_stores";
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args([test, "--exact"]).kill_on_drop(true);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let fake = Fake::start(|_, _| None).await;
    let refused =
        async |options: S3Options| S3Store::open(options, StoreMetrics::default()).await.err().unwrap().to_string();
    for endpoint in ["http://s3.example", "https://user@s3.example", "https://s3.example/?x=1"] {
        let error = refused(S3Options { endpoint: endpoint.parse().unwrap(), ..fake.options() }).await;
        assert!(error.starts_with("[recordings] endpoint: "), "{error}");
    }
    let error = refused(S3Options { ca_file: Some("/nowhere/ca.pem".into()), ..fake.options() }).await;
    assert!(error.starts_with("[recordings] ca_file: /nowhere/ca.pem: "), "{error}");
    let error = refused(S3Options { part_size: LEAST_PART - 1, ..fake.options() }).await;
    assert!(error.starts_with("[recordings] part_size: "), "{error}");
}

#[tokio::test]
async fn an_upload_is_stale_by_the_clock_of_the_store_and_its_latest_part() {
    let key = key(1, 0);
    for (initiated, part, is_swept) in [
        ("2026-04-01T11:49:59.000Z", None, true),
        ("2026-04-01T11:50:02.000Z", None, false),
        ("2026-04-01T11:00:00.000Z", Some("2026-04-01T11:49:59.000Z"), true),
        ("2026-04-01T11:00:00.000Z", Some("2026-04-01T11:50:02.000Z"), false),
        ("2999-04-01T11:00:00.000Z", None, false),
        ("some day", None, false),
        ("2026-04-01T11:00:00.000Z", Some("some day"), false),
    ] {
        let uploads = format!(
            "<ListMultipartUploadsResult><Upload><Key>{key}</Key><UploadId>u</UploadId>\
             <Initiated>{initiated}</Initiated></Upload></ListMultipartUploadsResult>"
        );
        let part = part.map(|at| format!("<Part><PartNumber>1</PartNumber><LastModified>{at}</LastModified></Part>"));
        let parts = format!("<ListPartsResult>{}</ListPartsResult>", part.unwrap_or_default());
        let date = "date: Wed, 01 Apr 2026 12:00:00 GMT";
        let fake = Fake::start(move |request, _| match request.operation() {
            "uploads" => answer(200, &[date], &uploads),
            "parts" => answer(200, &[date], &parts),
            _ => None,
        });
        let fake = fake.await;
        assert_eq!(fake.store().await.sweep().await.unwrap(), u64::from(is_swept), "{initiated}");
        assert_eq!(fake.of("abort").len(), usize::from(is_swept));
    }
}

#[tokio::test]
async fn every_page_of_a_listing_is_swept() {
    let page = |id: u32, is_last: bool| {
        format!(
            "<ListMultipartUploadsResult><IsTruncated>{}</IsTruncated><NextKeyMarker>k{id}</NextKeyMarker>\
             <NextUploadIdMarker>u{id}</NextUploadIdMarker><Upload><Key>{}</Key><UploadId>u{id}</UploadId>\
             <Initiated>2026-04-01T11:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
            !is_last,
            key(u64::from(id) + 1, 0),
        )
    };
    let fake = Fake::start(move |request, before| match request.operation() {
        "uploads" => {
            answer(200, &["date: Wed, 01 Apr 2026 12:00:00 GMT"], &page(before.try_into().unwrap(), before == 2))
        }
        "parts" => answer(200, &["date: Wed, 01 Apr 2026 12:00:00 GMT"], "<ListPartsResult></ListPartsResult>"),
        _ => None,
    });
    let fake = fake.await;
    assert_eq!(fake.store().await.sweep().await.unwrap(), 3);
    assert!(fake.of("uploads")[2].target.contains("key-marker=k1"), "{:?}", fake.of("uploads")[2].target);
}

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_does_not_hold_up_the_others() {
    let upload = |id: u64| {
        format!(
            "<Upload><Key>{}</Key><UploadId>u{id}</UploadId><Initiated>2026-04-01T11:00:00.000Z</Initiated></Upload>",
            key(id, 0)
        )
    };
    let uploads: String = (1..=3).map(upload).collect();
    let page = format!("<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>");
    let fake = Fake::start(move |request, before| match request.operation() {
        "uploads" => answer(200, &["date: Wed, 01 Apr 2026 12:00:00 GMT"], &page),
        "parts" => answer(200, &["date: Wed, 01 Apr 2026 12:00:00 GMT"], "<ListPartsResult></ListPartsResult>"),
        "abort" if before == 0 => error(403, "AccessDenied"),
        _ => None,
    });
    let fake = fake.await;
    let failure = fake.store().await.sweep().await.unwrap_err();
    assert!(failure.to_string().contains("AccessDenied"), "it is told at the end: {failure}");
    assert_eq!(fake.of("abort").len(), 3);
}

#[tokio::test]
async fn a_sweep_goes_on_where_the_one_before_stopped_and_from_tenant_to_tenant() {
    let fake = Fake::start(|request, before| {
        let page = format!(
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k{before}</NextKeyMarker>\
             <NextUploadIdMarker>u{before}</NextUploadIdMarker></ListMultipartUploadsResult>",
        );
        let is_endless = request.target.contains("prefix=acme%2F");
        (request.operation() == "uploads" && is_endless).then(|| answer(200, &[], &page).unwrap())
    });
    let fake = fake.await;
    let store = fake.store().await;
    store.learn(&["zeta", "acme"].map(|tenant| tenant.parse().unwrap()));
    store.sweep().await.unwrap();
    let of_first = fake.of("uploads").len();
    store.sweep().await.unwrap();
    let asked = fake.of("uploads");
    assert_eq!((of_first, asked.len()), (5, 10), "some pages a sweep");
    assert!(asked.iter().all(|request| request.target.contains("prefix=acme%2F")), "the bucket may be shared");
    assert!(asked[5].target.contains("key-marker=k4"), "{}", asked[5].target);
}

/// A TLS server before a fake store, and the authority of its certificate as PEM.
async fn tls_before(fake: &Fake) -> (Url, String, AbortOnDropHandle<()>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let upstream = fake.address();
    let terminator = task::spawn("tls", async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up.
            let Ok(mut inside) = acceptor.accept(stream).await else { continue };
            let mut outside = TcpStream::connect(upstream).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await);
        }
    });
    (url, certificate.pem(), terminator)
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_by_its_file_and_otherwise_not() {
    let fake = Fake::start(|_, _| None).await;
    let (endpoint, authority, _terminator) = tls_before(&fake).await;
    let options = S3Options { endpoint, ..fake.options() };
    let stored = put(&open(options.clone()).await, 10).await;
    assert_transient(stored, "[recordings] ca_file", Some(60));
    assert!(fake.operations().is_empty());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    for text in [authority.clone(), format!("\u{feff}{authority}")] {
        std::fs::write(&file, text).unwrap();
        let options = S3Options { ca_file: Some(file.clone()), ..options.clone() };
        assert_eq!(put(&open(options).await, 10).await.unwrap(), 10);
    }
}
