//! The recording store that all machines share, in memory. It keeps what an object store keeps: objects whole or not at
//! all, replaced only by those who have seen them, and what an upload leaves behind whose process was killed.
//!
//! It names objects by their bytes, as S3 does: two of the same bytes are not told apart.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{stream, stream::StreamExt};
use jiff::Timestamp;
use model::{ConversationKey, ObjectKey};
use recordings::{CurrentObject, PutOutput, RecordingBody, RecordingStore, RecordingStoreError};
use sha2::{Digest, Sha256};

use super::{Kind, Link, Unanswered, lock};

/// The pieces in which an object is read.
const PIECE: usize = 256 * 1024;

/// Where nothing is heard, this share of uploads ends by itself, at the latest after this time.
const LATE: f64 = 0.3;
const LATEST: Duration = Duration::from_secs(600);

/// The store; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    bucket: Arc<str>,
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Debug, Default)]
struct Shelves {
    objects: BTreeMap<String, Object>,
    /// By folder.
    descriptions: BTreeMap<String, Bytes>,
    uploads: BTreeMap<u64, Partial>,
    begun: u64,
    /// How many puts have ended with an object.
    written: u64,
}

#[derive(Debug)]
struct Object {
    body: Bytes,
    sha256: String,
    content_type: String,
}

/// What was written of an object that is not whole.
#[derive(Debug)]
struct Partial {
    key: String,
    is_under_way: bool,
}

/// An object as whoever looks past the door sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Where it lies.
    pub key: String,
    /// Its length.
    pub size: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its media type.
    pub content_type: String,
    /// The description for people that lies beside it.
    pub description: Option<Bytes>,
}

impl MemoryStore {
    /// An empty bucket of this name.
    pub fn new(bucket: &str) -> Self {
        Self { bucket: bucket.into(), shelves: Arc::default() }
    }

    /// A machine's way to it.
    pub fn through(&self, link: Link) -> LinkedStore {
        LinkedStore { store: self.clone(), link }
    }

    /// Every object, in the order of their keys.
    pub fn objects(&self) -> Vec<StoredObject> {
        let shelves = lock(&self.shelves);
        let stored = |(key, object): (&String, &Object)| StoredObject {
            key: key.clone(),
            size: object.body.len() as u64,
            sha256: object.sha256.clone(),
            content_type: object.content_type.clone(),
            description: shelves.descriptions.get(folder_of(key)).cloned(),
        };
        shelves.objects.iter().map(stored).collect()
    }

    /// The descriptions for people, by folder.
    pub fn descriptions(&self) -> BTreeMap<String, Bytes> {
        lock(&self.shelves).descriptions.clone()
    }

    /// An object's bytes.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        lock(&self.shelves).objects.get(key).map(|object| object.body.clone())
    }

    /// How many half-written objects there are.
    pub fn half_written(&self) -> usize {
        lock(&self.shelves).uploads.len()
    }

    /// How many puts have ended with an object so far.
    pub fn written(&self) -> u64 {
        lock(&self.shelves).written
    }

    fn begin(&self, key: String) -> Upload {
        let mut shelves = lock(&self.shelves);
        shelves.begun += 1;
        let number = shelves.begun;
        shelves.uploads.insert(number, Partial { key: key.clone(), is_under_way: true });
        Upload { store: self.clone(), number, key, body: BytesMut::new() }
    }

    fn find(&self, key: &str) -> CurrentObject {
        lock(&self.shelves).find(key)
    }

    fn erase(&self, is_erased: impl Fn(&str) -> bool) -> u64 {
        let mut shelves = lock(&self.shelves);
        let before = shelves.kept();
        shelves.objects.retain(|key, _| !is_erased(folder_of(key)));
        shelves.descriptions.retain(|folder, _| !is_erased(folder));
        shelves.uploads.retain(|_, partial| partial.is_under_way || !is_erased(folder_of(&partial.key)));
        (before - shelves.kept()) as u64
    }

    fn sweep(&self) -> u64 {
        let uploads = &mut lock(&self.shelves).uploads;
        let before = uploads.len();
        uploads.retain(|_, partial| partial.is_under_way);
        (before - uploads.len()) as u64
    }
}

impl Shelves {
    fn find(&self, key: &str) -> CurrentObject {
        self.objects.get(key).map_or(CurrentObject::Nothing, |object| CurrentObject::Object(object.sha256.clone()))
    }

    fn kept(&self) -> usize {
        self.objects.len() + self.descriptions.len() + self.uploads.len()
    }
}

fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// An object on its way. Dropped, it is removed; abandoned, it stays until it is swept.
struct Upload {
    store: MemoryStore,
    number: u64,
    key: String,
    body: BytesMut,
}

impl Upload {
    /// Takes in what arrives: a copy, so that nothing of the caller's is held.
    async fn fill(&mut self, body: &mut RecordingBody<'_>) -> Result<(), RecordingStoreError> {
        while let Some(bytes) = body.next().await {
            self.body.extend_from_slice(&bytes?);
        }
        Ok(())
    }

    /// Makes it an object, if there still lies what was `found`.
    fn finish(&mut self, content_type: &str, found: Option<&CurrentObject>) -> Result<PutOutput, RecordingStoreError> {
        let mut shelves = lock(&self.store.shelves);
        if found.is_some_and(|found| *found != shelves.find(&self.key)) {
            let reason = "another recording was stored there meanwhile".to_owned();
            return Err(RecordingStoreError::Overtaken(reason));
        }
        let body = std::mem::take(&mut self.body).freeze();
        let (size_bytes, sha256) = (body.len() as u64, hex(&Sha256::digest(&body)));
        let stored = PutOutput { size_bytes, sha256: sha256.clone() };
        shelves.objects.insert(self.key.clone(), Object { body, sha256, content_type: content_type.to_owned() });
        shelves.written += 1;
        Ok(stored)
    }

    /// The store has all of it, and becomes done with it when nobody waits any more.
    fn finish_late(mut self, after: Duration, content_type: String, found: Option<CurrentObject>) {
        // The store's own task: it belongs to no machine.
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if self.finish(&content_type, found.as_ref()).is_err() {
                tracing::debug!("a late upload finds another object");
            }
        });
    }

    /// Its process is dead.
    fn abandon(&self) {
        if let Some(partial) = lock(&self.store.shelves).uploads.get_mut(&self.number) {
            partial.is_under_way = false;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        lock(&self.store.shelves).uploads.retain(|number, partial| *number != self.number || !partial.is_under_way);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes what is written");
        text
    })
}

/// A machine's way to the store.
#[derive(Debug, Clone)]
pub struct LinkedStore {
    store: MemoryStore,
    link: Link,
}

/// An upload that its machine may die over.
struct Sending<'a> {
    /// None once the store has all of it.
    upload: Option<Upload>,
    link: &'a Link,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.as_ref().filter(|_| self.link.is_killed()) {
            upload.abandon();
        }
    }
}

impl LinkedStore {
    async fn ask<T>(&self, kind: Kind, effect: impl Future<Output = T> + Send) -> Result<T, RecordingStoreError> {
        self.link.call(kind, effect).await.map_err(failed)
    }
}

fn failed(unanswered: Unanswered) -> RecordingStoreError {
    RecordingStoreError::unavailable(format!("recording store: {unanswered}"))
}

#[async_trait]
impl RecordingStore for LinkedStore {
    fn bucket(&self) -> &str {
        &self.store.bucket
    }

    async fn put_if_unchanged(
        &self,
        key: &ObjectKey,
        content_type: &str,
        found: Option<&CurrentObject>,
        mut body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        let upload = self.ask(Kind::Write, async { self.store.begin(key.to_string()) }).await?;
        let mut sending = Sending { upload: Some(upload), link: &self.link };
        let upload = sending.upload.as_mut().expect("it has just begun");
        upload.fill(&mut body).await?;
        if self.link.sky().is_silent && self.link.draw(LATE) {
            let upload = sending.upload.take().expect("nobody else takes it");
            upload.finish_late(self.link.share_of(LATEST), content_type.to_owned(), found.cloned());
            self.ask(Kind::Write, async {}).await?;
            return Err(failed(Unanswered { reason: "the connection broke", may_be_done: true }));
        }
        self.ask(Kind::Write, async { upload.finish(content_type, found) }).await?
    }

    async fn find(&self, key: &ObjectKey) -> Result<CurrentObject, RecordingStoreError> {
        self.ask(Kind::Read, async { self.store.find(&key.to_string()) }).await
    }

    async fn read(&self, key: &str) -> Result<Option<RecordingBody<'static>>, RecordingStoreError> {
        let Some(bytes) = self.ask(Kind::Read, async { self.store.bytes(key) }).await? else { return Ok(None) };
        let link = self.link.clone();
        let pieces = stream::unfold((bytes, link), |(mut left, link)| async move {
            if left.is_empty() {
                return None;
            }
            let piece = left.split_to(PIECE.min(left.len()));
            match link.sky().carries() {
                true => Some((Ok(piece), (left, link))),
                false => {
                    let cut = Unanswered { reason: "the connection broke", may_be_done: false };
                    Some((Err(failed(cut).into()), (Bytes::new(), link)))
                }
            }
        });
        Ok(Some(pieces.boxed()))
    }

    fn takes_descriptions(&self) -> bool {
        true
    }

    async fn describe(&self, folder: &str, description: &[u8]) -> Result<(), RecordingStoreError> {
        let (folder, description) = (folder.to_owned(), Bytes::copy_from_slice(description));
        let describe = async { drop(lock(&self.store.shelves).descriptions.insert(folder, description)) };
        self.ask(Kind::Write, describe).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, RecordingStoreError> {
        let size = async { self.store.bytes(&key.to_string()).map(|bytes| bytes.len() as u64) };
        self.ask(Kind::Read, size).await
    }

    async fn erase(&self, conversation: &ConversationKey, started_at: Timestamp) -> Result<u64, RecordingStoreError> {
        let erased = ObjectKey::folder_of(conversation, started_at);
        self.ask(Kind::Change, async { self.store.erase(|folder| folder == erased) }).await
    }

    async fn erase_of_any_day(&self, conversation: &ConversationKey) -> Result<Option<u64>, RecordingStoreError> {
        let tenant = format!("{}/", conversation.tenant);
        let call = format!("/{}", conversation.external_id);
        let is_erased = |folder: &str| folder.starts_with(&tenant) && folder.ends_with(&call);
        self.ask(Kind::Change, async { Some(self.store.erase(is_erased)) }).await
    }

    async fn sweep(&self) -> Result<u64, RecordingStoreError> {
        self.ask(Kind::Change, async { self.store.sweep() }).await
    }

    async fn answers(&self) -> Result<(), RecordingStoreError> {
        self.ask(Kind::Read, async {}).await
    }

    async fn check(&self) -> Result<(), RecordingStoreError> {
        self.ask(Kind::Probe, async {}).await
    }
}

#[cfg(test)]
mod tests;
