//! An upload that the store began and whose id nobody learned does not stay open.

use std::sync::atomic::{AtomicBool, Ordering};

use super::fake::{Fake, answer, error};
use super::*;

const DATE: &str = "date: Wed, 01 Apr 2026 12:00:00 GMT";

/// A listing with one upload of the first key.
fn listing(id: &str, initiated: &str) -> String {
    format!(
        "<ListMultipartUploadsResult><Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{initiated}</Initiated>\
         </Upload></ListMultipartUploadsResult>",
        key(1, 0)
    )
}

async fn marked(fake: &Fake, dir: &TempDir) -> S3Store {
    open(S3Options { marks: Some(dir.path().to_owned()), ..fake.options() }).await
}

fn marks_in(dir: &TempDir) -> usize {
    std::fs::read_dir(dir.path()).unwrap().count()
}

#[tokio::test]
async fn an_upload_that_was_begun_twice_leaves_none_behind() {
    let fake = Fake::start(move |request, before| match (request.operation(), before) {
        // Carried out; the answer is lost.
        ("create", 0) => Some(Vec::new()),
        ("uploads", 1..) => answer(200, &[DATE], &listing("twin", "2026-04-01T11:59:59.000Z")),
        _ => None,
    });
    let (fake, dir) = (fake.await, tempfile::tempdir().unwrap());
    let length = LEAST_PART + 1000;
    let store = marked(&fake, &dir).await;
    assert_eq!(store.put(&key(1, 0), WAV, body_of(length)).await.unwrap().size_bytes, length as u64);
    let aborted = fake.of("abort");
    assert_eq!(aborted.len(), 1);
    assert!(aborted[0].target.contains("uploadId=twin"), "{}", aborted[0].target);
    assert_eq!(marks_in(&dir), 1, "the store may carry the first request out later still");
}

#[tokio::test]
async fn an_upload_that_the_store_begins_after_all_gave_up_is_found_by_its_mark() {
    let begun = Arc::new(AtomicBool::new(false));
    let late = begun.clone();
    let fake = Fake::start(move |request, _| match request.operation() {
        "create" => error(400, "InvalidRequest"),
        "uploads" if late.load(Ordering::SeqCst) => answer(200, &[DATE], &listing("late", "2026-04-01T11:58:30.000Z")),
        "parts" => answer(200, &[DATE], "<ListPartsResult></ListPartsResult>"),
        _ => answer(204, &[DATE], ""),
    });
    let (fake, dir) = (fake.await, tempfile::tempdir().unwrap());
    let store = marked(&fake, &dir).await;
    store.put(&key(1, 0), WAV, body_of(LEAST_PART + 1000)).await.unwrap_err();
    assert_eq!(store.sweep().await.unwrap(), 0, "nothing is open yet");
    begun.store(true, Ordering::SeqCst);
    // Any process of the machine finds it.
    assert_eq!(marked(&fake, &dir).await.sweep().await.unwrap(), 1);
    assert!(fake.of("abort")[0].target.contains("uploadId=late"));
}

#[tokio::test]
async fn one_that_goes_on_elsewhere_is_spared_by_a_mark_that_was_looked_at() {
    let parts = "<ListPartsResult><Part><PartNumber>1</PartNumber><LastModified>2026-04-01T11:57:00.000Z</LastModified>\
                 </Part></ListPartsResult>";
    let fake = Fake::start(move |request, before| match (request.operation(), before) {
        ("create", _) => error(400, "InvalidRequest"),
        ("uploads", 4..) => answer(200, &[DATE], &listing("live", "2026-04-01T11:55:00.000Z")),
        ("parts", _) => answer(200, &[DATE], parts),
        _ => answer(200, &[DATE], "<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
    });
    let (fake, dir) = (fake.await, tempfile::tempdir().unwrap());
    let store = marked(&fake, &dir).await;
    store.put(&key(1, 0), WAV, body_of(LEAST_PART + 1000)).await.unwrap_err();
    for _ in 0..3 {
        assert_eq!(store.sweep().await.unwrap(), 0);
    }
    assert!(fake.of("uploads").len() > 5 && fake.of("abort").is_empty());
}

#[tokio::test]
async fn an_upload_whose_beginning_was_answered_leaves_no_mark() {
    let (fake, dir) = (Fake::start(|_, _| None).await, tempfile::tempdir().unwrap());
    marked(&fake, &dir).await.put(&key(1, 0), WAV, body_of(LEAST_PART + 1000)).await.unwrap();
    assert_eq!(marks_in(&dir), 0);
}
