//! The folder passes the door's suite, and keeps its own promises.

use std::sync::Arc;

use bytes::Bytes;
use runtime::task;
use tempfile::TempDir;

use super::*;
use crate::conformance::{Subject, fed_body, key, recording_store_checks};

struct Folder {
    dir: TempDir,
    store: Arc<FilesystemStore>,
}

impl Folder {
    fn partial(&self) -> PathBuf {
        self.dir.path().join(PARTIAL)
    }
}

impl Subject for Folder {
    async fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FilesystemStore::open(dir.path()).await.unwrap());
        Self { dir, store }
    }

    fn store(&self) -> Arc<dyn RecordingStore> {
        self.store.clone()
    }

    async fn bytes(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join(key.to_string())).ok()
    }

    async fn half_written(&self) -> usize {
        std::fs::read_dir(self.partial()).unwrap().count()
    }

    async fn leave_half_written(&self) {
        let number = self.half_written().await;
        std::fs::write(self.partial().join(format!("{}-{number}", std::process::id())), b"half").unwrap();
    }
}

recording_store_checks!(Folder);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_dropped_at_any_moment_removes_its_file() {
    let folder = Folder::fresh().await;
    for round in 0..200_u32 {
        let store = folder.store.clone();
        let (feed, body) = fed_body();
        let putting = task::spawn("put", async move { store.put(&key(1, 0), "audio/wav", body).await });
        for _ in 0..round % 4 {
            feed.send(Ok(Bytes::from(vec![7; 300_000]))).await.unwrap();
        }
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        drop(putting);
        feed.closed().await;
    }
    // A file that was just being created is removed by the thread that created it.
    let since = std::time::Instant::now();
    while folder.half_written().await > 0 {
        assert!(since.elapsed().as_secs() < 30, "{} files are left", folder.half_written().await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_an_earlier_process_left_is_in_nobodys_way() {
    let folder = Folder::fresh().await;
    for _ in 0..3 {
        folder.leave_half_written().await;
    }
    // A process with the same id begins to count anew.
    let store = FilesystemStore::open(folder.dir.path()).await.unwrap();
    let body = || futures::stream::iter([Ok(Bytes::from_static(b"whole"))]).boxed();
    assert_eq!(store.put(&key(1, 0), "audio/wav", body()).await.unwrap().size_bytes, 5);
    assert_eq!(folder.half_written().await, 3);
}

#[tokio::test]
async fn the_description_stands_beside_the_recording() {
    let folder = Folder::fresh().await;
    folder.store.describe(key(1, 0).folder(), b"{\"a\":1}").await.unwrap();
    folder.store.describe(key(1, 0).folder(), b"{}").await.unwrap();
    let path = folder.dir.path().join("acme/2026/04/01/1/conversation.json");
    assert_eq!(std::fs::read(path).unwrap(), b"{}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_a_transient_error() {
    let folder = Folder::fresh().await;
    std::fs::remove_dir_all(folder.dir.path()).unwrap();
    assert!(matches!(folder.store.check().await, Err(RecordingStoreError::Unavailable { .. })));
    let body = futures::stream::empty().boxed();
    let error = folder.store.put(&key(1, 0), "audio/wav", body).await.unwrap_err();
    assert!(matches!(&error, RecordingStoreError::Unavailable { .. }), "{error}");
    assert!(!error.to_string().contains("acme"), "no path in the text: {error}");
}
