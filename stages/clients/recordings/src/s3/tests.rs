//! The store against a real server passes the door's suite and keeps its own promises; what a real server does not
//! do on demand, a fake one does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{stream, stream::StreamExt};
use tempfile::TempDir;

use super::memory::Gathering;
use super::*;
use crate::conformance::{Subject, key, recording_store_checks};

mod fake;
mod real;
mod traps;
mod twins;

const WAV: &str = "audio/wav";

/// A bucket of a real server, and a store for it.
struct Bucket {
    server: &'static test_servers::S3,
    store: Arc<S3Store>,
    /// For the marks.
    _dir: TempDir,
}

impl Bucket {
    /// Options for a new bucket.
    async fn options(server: &test_servers::S3) -> S3Options {
        let credentials = Credentials::Static {
            access_key_id: server.access_key().to_owned(),
            secret_access_key: server.secret_key().into(),
            session_token: None,
        };
        let endpoint = server.endpoint().parse().unwrap();
        S3Options::new(endpoint, server.bucket().await, server.region().to_owned(), credentials)
    }

    /// A second store for the same bucket, as another process has it.
    async fn other(&self, change: impl FnOnce(&mut S3Options)) -> S3Store {
        let mut options = self.store.options.clone();
        change(&mut options);
        open(options).await
    }
}

async fn open(options: S3Options) -> S3Store {
    S3Store::open(options, StoreMetrics::default()).await.unwrap()
}

impl Subject for Bucket {
    async fn fresh() -> Self {
        let server = test_servers::s3().await;
        let dir = tempfile::tempdir().unwrap();
        let options = S3Options { marks: Some(dir.path().to_owned()), ..Self::options(server).await };
        Self { server, store: Arc::new(open(options).await), _dir: dir }
    }

    fn store(&self) -> Arc<dyn RecordingStore> {
        self.store.clone()
    }

    async fn bytes(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        content(self.server, &self.store, key).await
    }

    async fn half_written(&self) -> usize {
        self.store.open_uploads("").await.unwrap().len()
    }

    async fn leave_half_written(&self) {
        let number = self.half_written().await.try_into().unwrap();
        leave_upload(&self.other(|_| {}).await, &key(9, number).to_string()).await;
    }
}

recording_store_checks!(Bucket);

/// What lies under a key, read past the store's own client.
async fn content(server: &test_servers::S3, store: &S3Store, key: &ObjectKey) -> Option<Vec<u8>> {
    store.size(key).await.unwrap()?;
    Some(server.request("GET", &format!("/{}/{key}", store.options.bucket), Vec::new()).await)
}

/// An upload with one part, as a process leaves it that was killed.
async fn leave_upload(store: &S3Store, key: &str) {
    let upload = store.create_upload(key, WAV).await.unwrap();
    let mut part = Gathering::new(&store.memory);
    part.add(&vec![7; LEAST_PART]).await;
    store.send_part(&upload, 1, part.finish(false)).await.unwrap();
}

fn body_of(length: usize) -> RecordingBody<'static> {
    let pieces = (0..length.div_ceil(CHUNK)).map(move |n| Ok(piece(n, CHUNK.min(length - n * CHUNK))));
    stream::iter(pieces).boxed()
}

const CHUNK: usize = 60_000;

fn piece(number: usize, length: usize) -> Bytes {
    (0..length).map(|place| ((place % 251) ^ (number % 253)) as u8).collect()
}

fn content_of(length: usize) -> Vec<u8> {
    (0..length.div_ceil(CHUNK)).flat_map(|n| piece(n, CHUNK.min(length - n * CHUNK))).collect()
}

#[tokio::test]
async fn a_part_may_take_as_long_as_the_least_rate_asks_for() {
    let options = S3Options::new(
        "http://127.0.0.1:1".parse().unwrap(),
        "recordings".to_owned(),
        "eu".to_owned(),
        Credentials::Static { access_key_id: "id".to_owned(), secret_access_key: "secret".into(), session_token: None },
    );
    let patience = |rate| options.clone().for_rate(rate).stale_after;
    assert!(patience(1024) > Duration::from_secs(5 * 1024), "5 MiB at 1 KiB/s");
    assert_eq!(patience(1_000_000), options.stale_after);
}
