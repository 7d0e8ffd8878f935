//! The door to the recording store.
//!
//! An object is written whole or not at all: a body that ends in an error, a crash, a full disk leave nothing under the
//! key. Writing a key again replaces the object. NICE may give a recording twice with other bytes, and two consumers
//! may hold the same call: [`RecordingStore::put_if_unchanged`] replaces only what its caller has seen. Memory does not
//! grow with the size of a recording.

#![warn(clippy::iter_over_hash_type)] // a simulation repeats itself only where the order is always the same
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test may take the time and chance as they come"))]

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use model::{ConversationKey, ObjectKey, TenantId};

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod filesystem;
mod metrics;
mod s3;

pub use error::{BodyError, RecordingStoreError};
pub use filesystem::{DESCRIPTION, FilesystemStore};
pub use metrics::StoreMetrics;
pub use s3::{Credentials, Encryption, S3Options, S3OptionsError, S3Store};

/// The bytes of a recording as they arrive; an error means that the recording is not whole.
pub type RecordingBody<'a> = BoxStream<'a, Result<Bytes, BodyError>>;

/// What a put has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOutput {
    /// The length of the object.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// What lies under a key, to be told from what is written there later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurrentObject {
    /// No object.
    Nothing,
    /// An object, by a name that another one does not have.
    Object(String),
}

/// The recording store.
#[async_trait]
pub trait RecordingStore: Send + Sync + 'static {
    /// The bucket or folder that holds the objects, as it stands in the recording's row.
    fn bucket(&self) -> &str;

    /// Stores `body` under `key`, whatever lies there, and hashes it on the way. Once it returns, the object is whole
    /// and durable, and the store has said so of its bytes or of its length. An error of the body is passed on as it is;
    /// one of the store is transient.
    async fn put(
        &self,
        key: &ObjectKey,
        content_type: &str,
        body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        self.put_if_unchanged(key, content_type, None, body).await
    }

    /// The same, if under `key` still lies what was `found`; if another object came there meanwhile nothing is changed,
    /// and the caller was overtaken: no fault of the store's.
    async fn put_if_unchanged(
        &self,
        key: &ObjectKey,
        content_type: &str,
        found: Option<&CurrentObject>,
        body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError>;

    /// What lies under a key.
    async fn find(&self, key: &ObjectKey) -> Result<CurrentObject, RecordingStoreError>;

    /// An object's bytes, as they lie there; none where there is no object.
    async fn read(&self, key: &str) -> Result<Option<RecordingBody<'static>>, RecordingStoreError>;

    /// What a person should know of the store, once it was checked.
    fn caveat(&self) -> Option<String> {
        None
    }

    /// Whether descriptions are kept: not where people look into the catalog instead.
    fn takes_descriptions(&self) -> bool {
        false
    }

    /// Lays a description for people beside the recordings in `folder`, where the store takes any.
    async fn describe(&self, _folder: &str, _description: &[u8]) -> Result<(), RecordingStoreError> {
        Ok(())
    }

    /// The length of an object, if it is there.
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, RecordingStoreError>;

    /// Whether what a row says to lie in `bucket` under `object_key` lies in this store: what is elsewhere is not
    /// erased by erasing here.
    async fn keeps(&self, bucket: &str, _object_key: &str) -> Result<bool, RecordingStoreError> {
        Ok(bucket == self.bucket())
    }

    /// Erases all that is kept of a conversation which started at `started_at`: every version of every object, what was
    /// deleted before, what is half written, the description. Durable once it returns, with the number of what was
    /// erased. A put under way may still leave an object behind it: whoever erases looks again.
    async fn erase(&self, conversation: &ConversationKey, started_at: Timestamp) -> Result<u64, RecordingStoreError>;

    /// Erases the same where the start is not known; none where the store cannot look for it.
    async fn erase_of_any_day(&self, _conversation: &ConversationKey) -> Result<Option<u64>, RecordingStoreError> {
        Ok(None)
    }

    /// Whose recordings there are: a sweep looks through theirs only.
    fn learn(&self, _tenants: &[TenantId]) {}

    /// Removes what a crash left half written, or some of it; the next sweep goes on.
    async fn sweep(&self) -> Result<u64, RecordingStoreError>;

    /// Whether the store answers: asked every few seconds, so it costs next to nothing.
    async fn answers(&self) -> Result<(), RecordingStoreError> {
        self.check().await
    }

    /// Whether the store can be written to.
    async fn check(&self) -> Result<(), RecordingStoreError>;
}
