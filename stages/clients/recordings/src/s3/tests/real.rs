//! The store's own promises, against a real server.

use std::path::Path;

use runtime::task;
use rusoto_s3::{PutObjectRequest, S3};

use super::*;
use crate::conformance::{conversation, fed_body};
use crate::s3::{conditions::Heed, error::S3Error, operation::Operation, sweep::Spared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_carries_its_sha256_and_content_type_whatever_its_size() {
    use sha2::Digest;
    let bucket = Bucket::fresh().await;
    for length in [0, 10, LEAST_PART, LEAST_PART + 1, 3 * LEAST_PART] {
        assert_eq!(bucket.store.put(&key(1, 0), WAV, body_of(length)).await.unwrap().size_bytes, length as u64);
        let expected = hex::encode(sha2::Sha256::digest(content_of(length)));
        let object = bucket.store.head(&key(1, 0).to_string()).await.unwrap().unwrap();
        let told = if length <= LEAST_PART {
            object.metadata.unwrap_or_default().remove("sha256")
        } else {
            tags(&bucket).await.split_once("<Key>sha256</Key><Value>").map(|(_, rest)| rest[..64].to_owned())
        };
        assert_eq!((told, object.content_type.as_deref()), (Some(expected), Some(WAV)), "{length}");
        assert!(bucket.bytes(&key(1, 0)).await.unwrap() == content_of(length), "{length}");
    }
    assert_eq!(bucket.half_written().await, 0);
}

/// The tags of the first object, read past the store's own client.
async fn tags(bucket: &Bucket) -> String {
    let path = format!("/{}/{}?tagging", bucket.store.options.bucket, key(1, 0));
    String::from_utf8(bucket.server.request("GET", &path, Vec::new()).await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_with_versions_keeps_each_recording_once() {
    let bucket = Bucket::fresh().await;
    let name = bucket.store.options.bucket.clone();
    bucket.server.request("PUT", &format!("/{name}?versioning"), VERSIONED.into()).await;
    for (position, length) in [(0, 10), (1, LEAST_PART + 1), (2, 3 * LEAST_PART)] {
        bucket
            .store
            .put_if_unchanged(&key(1, position), WAV, Some(&CurrentObject::Nothing), body_of(length))
            .await
            .unwrap();
    }
    let listing = bucket.server.request("GET", &format!("/{name}?versions"), Vec::new()).await;
    let listing = String::from_utf8(listing).unwrap();
    assert_eq!(listing.matches("<Key>acme/").count(), 3, "{listing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_does_about_conditions_is_known_and_leaves_nothing() {
    let bucket = Bucket::fresh().await;
    bucket.store.check().await.unwrap();
    let conditions = bucket.store.conditions().await.unwrap();
    println!("{conditions:?}, {:?}", bucket.store.caveat());
    assert_eq!(conditions.put, Heed::Keeps, "Ceph heeds it of a PUT");
    assert_eq!(bucket.store.caveat().is_none(), conditions.complete == Heed::Keeps);
    assert_eq!(bucket.half_written().await, 0);
    assert_eq!(bucket.store.head(PROBE_KEY).await.unwrap(), None);
}

const VERSIONED: &str = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled\
                         </Status></VersioningConfiguration>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_refuses_content_that_does_not_match_its_md5() {
    let bucket = Bucket::fresh().await;
    let put = bucket.store.client.put_object(PutObjectRequest {
        bucket: bucket.store.options.bucket.clone(),
        key: key(1, 0).to_string(),
        body: Some(b"content".to_vec().into()),
        content_md5: Some("AAAAAAAAAAAAAAAAAAAAAA==".to_owned()),
        ..Default::default()
    });
    let failure = S3Error::of(Operation::Put, put.await.unwrap_err());
    assert!(failure.to_string().contains("400"), "{failure}");
    assert_eq!(bucket.store.size(&key(1, 0)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_version_and_no_delete_marker_of_an_erased_conversation_is_left() {
    let bucket = Bucket::fresh().await;
    let name = bucket.store.options.bucket.clone();
    // One version from before the bucket kept any.
    bucket.store.put(&key(1, 0), WAV, body_of(10)).await.unwrap();
    bucket.server.request("PUT", &format!("/{name}?versioning"), VERSIONED.into()).await;
    for length in [20, LEAST_PART + 1] {
        bucket.store.put(&key(1, 0), WAV, body_of(length)).await.unwrap();
    }
    bucket.store.put(&key(1, 1), WAV, body_of(30)).await.unwrap();
    bucket.store.put(&key(11, 0), WAV, body_of(40)).await.unwrap();
    // Somebody deleted it as one deletes: it is hidden, and still there.
    bucket.server.request("DELETE", &format!("/{name}/{}", key(1, 0)), Vec::new()).await;
    leave_upload(&bucket.other(without_marks).await, &key(1, 2).to_string()).await;
    let listed = async || {
        let listing = bucket.server.request("GET", &format!("/{name}?versions"), Vec::new()).await;
        String::from_utf8(listing).unwrap()
    };
    let before = listed().await;
    assert!(before.matches("/1/0.wav").count() >= 4 && before.contains("DeleteMarker"), "{before}");

    let (conversation, started_at) = conversation(1);
    // Three versions, a marker, and another object.
    assert!(bucket.store.erase(&conversation, started_at).await.unwrap() >= 5);
    let after = listed().await;
    assert!(!after.contains("/1/") && !after.contains("DeleteMarker"), "{after}");
    assert!(after.contains("/11/0.wav"), "{after}");
    assert_eq!(bucket.half_written().await, 0);
    assert_eq!(bucket.store.erase(&conversation, started_at).await.unwrap(), 0);
}

fn secret_in(file: &Path, server: &test_servers::S3) -> Credentials {
    Credentials::SecretFile {
        access_key_id: server.access_key().to_owned(),
        secret_access_key_file: file.to_owned(),
        session_token_file: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_changes_in_its_file_works_without_a_restart() {
    let bucket = Bucket::fresh().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "an-old-secret").unwrap();
    let store = bucket.other(|options| options.credentials = secret_in(&file, bucket.server)).await;
    let error = store.put(&key(1, 0), WAV, body_of(10)).await.unwrap_err();
    assert!(error.to_string().contains("[recordings] "), "{error}");
    std::fs::write(&file, format!("{}\n", bucket.server.secret_key())).unwrap();
    assert_eq!(store.put(&key(1, 0), WAV, body_of(10)).await.unwrap().size_bytes, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_read_even_while_the_body_is_on_its_way() {
    let bucket = Bucket::fresh().await;
    let wrong = Credentials::Static {
        access_key_id: bucket.server.access_key().to_owned(),
        secret_access_key: "wr0ng".into(),
        session_token: None,
    };
    let store = bucket.other(|options| options.credentials = wrong).await;
    for length in [LEAST_PART - 1, LEAST_PART + 1] {
        let error = store.put(&key(1, 0), WAV, body_of(length)).await.unwrap_err();
        assert!(error.to_string().contains("[recordings] "), "{length}: {error}");
    }
    assert_eq!(bucket.store.size(&key(1, 0)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_recordings_that_share_a_small_memory_all_arrive() {
    let bucket = Bucket::fresh().await;
    let store = Arc::new(bucket.other(|options| options.memory = LEAST_PART).await);
    let length = |number: u32| 2 * LEAST_PART + number as usize;
    let puts = (0..8).map(|number| {
        let store = store.clone();
        task::spawn("put", async move { store.put(&key(1, number), WAV, body_of(length(number))).await })
    });
    for (number, put) in (0..).zip(futures::future::join_all(puts.collect::<Vec<_>>()).await) {
        assert_eq!(put.unwrap().unwrap().size_bytes, length(number) as u64);
        assert!(bucket.bytes(&key(1, number)).await.unwrap() == content_of(length(number)), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_names_what_is_wrong() {
    let bucket = Bucket::fresh().await;
    let unknown = Credentials::Static {
        access_key_id: "GK000000000000000000000000".to_owned(),
        secret_access_key: "wr0ng".into(),
        session_token: None,
    };
    let checked = async |change: &dyn Fn(&mut S3Options)| {
        let error = bucket.other(change).await.check().await.unwrap_err();
        assert!(matches!(&error, RecordingStoreError::Unavailable { retry_after: Some(_), .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&bucket.server.endpoint()) && !text.contains("wr0ng"), "{text}");
        text
    };
    let text = checked(&|options| options.credentials = unknown.clone()).await;
    assert!(text.contains("[recordings] access_key_id"), "{text}");
    let text = checked(&|options| options.bucket = "there-is-no-such-bucket".to_owned()).await;
    assert!(text.contains("[recordings] ") && text.contains("there-is-no-such-bucket"), "{text}");
    let error = bucket.other(|options| options.endpoint = "http://127.0.0.1:9".parse().unwrap()).await.check().await;
    assert!(error.unwrap_err().to_string().contains("cannot be reached (connect) (http://127.0.0.1:9/"));
    bucket.store.check().await.unwrap();
    assert_eq!(bucket.half_written().await, 0);
}

/// Another machine sees no marks.
fn without_marks(options: &mut S3Options) {
    options.marks = None;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_delivery_of_a_crashed_call_aborts_what_the_crash_left() {
    let bucket = Bucket::fresh().await;
    let crashed = bucket.other(without_marks).await;
    leave_upload(&crashed, &key(1, 0).to_string()).await;
    leave_upload(&crashed, &key(1, 1).to_string()).await;
    assert_eq!(bucket.store.sweep().await.unwrap(), 0, "they may be under way on another machine");
    bucket.store.put(&key(1, 0), WAV, body_of(LEAST_PART + 5)).await.unwrap();
    let open = bucket.store.open_uploads("").await.unwrap();
    assert_eq!(open.iter().map(|upload| &upload.name().key).collect::<Vec<_>>(), [&key(1, 1).to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_gone_on_for_very_long_and_still_does_is_spared() {
    let bucket = Bucket::fresh().await;
    leave_upload(&bucket.other(without_marks).await, &key(1, 0).to_string()).await;
    let open = async || bucket.store.open_uploads("").await.unwrap().len();
    // Any age counts as very long here, and a part came just now.
    bucket.store.abort_others(&key(1, 0).to_string(), Spared::Older(Duration::ZERO)).await.unwrap();
    assert_eq!(open().await, 1);
    bucket.store.abort_others(&key(1, 0).to_string(), Spared::Older(Duration::from_secs(3600))).await.unwrap();
    assert_eq!(open().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_spares_the_uploads_of_other_processes_and_of_other_programs() {
    let bucket = Bucket::fresh().await;
    let (feed, body) = fed_body();
    let store = bucket.store.clone();
    let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await });
    for number in 0..200 {
        feed.send(Ok(piece(number, CHUNK))).await.unwrap();
    }
    leave_upload(&bucket.other(without_marks).await, "backups/2026.tar").await;
    assert_eq!(bucket.other(|_| {}).await.sweep().await.unwrap(), 0, "another process here");
    assert_eq!(bucket.other(without_marks).await.sweep().await.unwrap(), 0, "another machine");
    assert_eq!(bucket.store.sweep().await.unwrap(), 0);
    drop(feed);
    assert_eq!(putting.await.unwrap().unwrap().size_bytes, 200 * CHUNK as u64);
    assert_eq!(bucket.half_written().await, 1, "the other program's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_machine_left_is_swept_once_it_is_stale() {
    let bucket = Bucket::fresh().await;
    leave_upload(&bucket.other(without_marks).await, &key(1, 0).to_string()).await;
    leave_upload(&bucket.other(without_marks).await, "backups/2026.tar").await;
    let impatient = bucket.other(|options| options.stale_after = Duration::ZERO).await;
    assert_eq!(impatient.sweep().await.unwrap(), 1);
    assert_eq!(bucket.half_written().await, 1, "the other program's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_somebody_aborted_fails_and_leaves_nothing() {
    let bucket = Bucket::fresh().await;
    let (feed, body) = fed_body();
    let store = bucket.store.clone();
    let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await });
    for number in 0..200 {
        feed.send(Ok(piece(number, CHUNK))).await.unwrap();
    }
    bucket.other(|_| {}).await.abort_others(&key(1, 0).to_string(), Spared::None).await.unwrap();
    drop(feed);
    let error = putting.await.unwrap().unwrap_err();
    assert!(matches!(&error, RecordingStoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(bucket.store.size(&key(1, 0)).await.unwrap(), None);
    assert_eq!(bucket.half_written().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_comes_back_costs_no_recording() {
    let server = test_servers::S3::start().await;
    let options = Bucket::options(&server).await;
    let store = Arc::new(open(options.clone()).await);
    let (feed, body) = fed_body();
    let putting = task::spawn("put", {
        let store = store.clone();
        async move { store.put(&key(1, 0), WAV, body).await }
    });
    let length = 400 * CHUNK;
    for number in 0..200 {
        feed.send(Ok(piece(number, CHUNK))).await.unwrap();
    }
    server.kill().await;
    server.start_again().await;
    for number in 200..400 {
        if feed.send(Ok(piece(number, CHUNK))).await.is_err() {
            break; // it gave up
        }
    }
    drop(feed);
    match putting.await.unwrap() {
        Ok(stored) => assert_eq!(stored.size_bytes, length as u64),
        Err(error) => {
            assert!(matches!(&error, RecordingStoreError::Unavailable { .. }), "{error:?}");
            assert_eq!(store.size(&key(1, 0)).await.unwrap(), None);
            store.put(&key(1, 0), WAV, body_of(length)).await.unwrap();
        }
    }
    assert!(content(&server, &store, &key(1, 0)).await.unwrap() == content_of(length));
    store.sweep().await.unwrap();
    // An upload whose creation was answered while the server died is known to nobody.
    open(S3Options { stale_after: Duration::ZERO, ..options }).await.sweep().await.unwrap();
    assert!(store.open_uploads("").await.unwrap().is_empty());
}
