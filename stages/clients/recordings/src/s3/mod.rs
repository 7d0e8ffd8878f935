//! Recordings in S3: MinIO, Ceph, garage or AWS, by rusoto over our own transport.
//!
//! An object appears whole or not at all: one PUT, or an upload in parts that is completed at its end. Every byte
//! travels under a Content-MD5 that the server verifies. The bucket is addressed by path. Keys may be rotated
//! without a restart. What a crash leaves is an upload in parts that nobody sees; [`sweep`] aborts it.
//!
//! - [`dispatcher`]: a signed request in, an answer out; what rusoto would misread is put right there.
//! - [`credentials`]: the keys, from settings or files.
//! - [`operation`]: what is asked; [`call`]: timeout and attempts of one request.
//! - [`error`]: what a failure means.
//! - [`conditions`]: what an object may be written in place of, and whether the store heeds it.
//! - [`memory`]: what all puts together may hold.
//! - [`body`]: a recording as it arrives; [`put`]: into the store; [`object`]: what lies there.
//! - [`erase`]: a conversation out of it.
//! - [`uploads`]: the uploads that are open here, and [`marks`], how others on this machine see them.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ConversationKey, ObjectKey, TenantId, http::carries_secrets};
use reqwest::Url;
use rusoto_core::{Client, Region};
use rusoto_s3::S3Client;
use tokio::sync::OnceCell;
use transport::TransportOptions;

use self::{
    conditions::Conditions,
    credentials::Keyring,
    dispatcher::{Dispatcher, ServerTime},
    error::S3Error,
    marks::UploadMarks,
    memory::MemoryBudget,
    uploads::Uploads,
    walk::Walk,
};
use super::{CurrentObject, PutOutput, RecordingBody, RecordingStore, RecordingStoreError};
use crate::StoreMetrics;

mod body;
mod call;
mod conditions;
mod credentials;
mod dispatcher;
mod erase;
mod error;
mod marks;
mod memory;
mod object;
mod operation;
mod put;
mod sweep;
mod uploads;
mod walk;

pub use credentials::Credentials;

/// Where [`RecordingStore::check`] begins an upload, to abort it at once.
const PROBE_KEY: &str = ".nice-knovvu/check";

/// Idle connections that are kept: as many as calls are under way by default, of two tenants. With fewer, a store that
/// answers many at once costs a new connection for each that finds none.
const MOST_IDLE: usize = 128;

/// S3 takes no smaller part, but the last.
const LEAST_PART: usize = 5 * 1024 * 1024;

/// How the objects are encrypted where they lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    Bucket,
    /// With keys of the store (SSE-S3).
    SseS3,
    /// With a key of a key service (SSE-KMS).
    SseKms {
        /// The key; none: the store's default.
        key_id: Option<String>,
    },
}

impl Encryption {
    /// The values of the two headers that ask for it.
    fn headers(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Bucket => (None, None),
            Self::SseS3 => (Some("AES256".to_owned()), None),
            Self::SseKms { key_id } => (Some("aws:kms".to_owned()), key_id.clone()),
        }
    }
}

/// The settings of an S3 store.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Where it is: https, or http to this machine. A path may stand before the bucket.
    pub endpoint: Url,
    /// The bucket; it must exist.
    pub bucket: String,
    /// The region that requests are signed for; most servers of one's own take any.
    pub region: String,
    /// The keys.
    pub credentials: Credentials,
    /// How the objects are encrypted.
    pub encryption: Encryption,
    /// Authorities in PEM that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A body of this size or more goes in parts of it. At least 5 MiB, which S3 asks for.
    pub part_size: usize,
    /// What all puts together hold of their bodies; at most one part comes on top.
    pub memory: usize,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer; a request that carries a body gets more, by its length.
    pub request_timeout: Duration,
    /// An upload that got no part for so long is nobody's. A part that waits for its bytes for so long fails.
    pub stale_after: Duration,
    /// A folder of this machine in which uploads under way are marked, so that a sweep sees at once what a killed
    /// process left. Processes may share it. None: a sweep waits until they are stale.
    pub marks: Option<PathBuf>,
}

impl S3Options {
    /// The defaults of what need not be set.
    ///
    /// Parts of 5 MiB, the smallest, keep memory low. With 32 MiB in all, three large recordings are read and sent at
    /// once, or any number of small ones: NICE gives out a recording every two seconds. More of them wait for memory.
    /// Ten minutes without a part are more than a part takes with all its attempts, and more than 5 MiB of a
    /// recording take that arrives no faster than it was spoken. Slower ones: [`Self::for_rate`].
    pub fn new(endpoint: Url, bucket: String, region: String, credentials: Credentials) -> Self {
        Self {
            endpoint,
            bucket,
            region,
            credentials,
            encryption: Encryption::Bucket,
            ca_file: None,
            part_size: LEAST_PART,
            memory: 32 * 1024 * 1024,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            stale_after: Duration::from_secs(600),
            marks: None,
        }
    }

    /// For recordings that may arrive at so many bytes per second: an upload of one is not given up, nor taken for
    /// nobody's, while a part of it is gathered.
    #[must_use]
    pub fn for_rate(self, least_rate: u64) -> Self {
        let seconds = (self.part_size as u64).div_ceil(least_rate.max(1));
        // The rate is counted by windows: a part may end within one.
        let part = Duration::from_secs(seconds) + Duration::from_secs(120);
        Self { stale_after: self.stale_after.max(part), ..self }
    }
}

/// Settings that no store can be opened with; the text names the setting.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct S3OptionsError(String);

/// A bucket that holds the recordings.
pub struct S3Store {
    options: S3Options,
    client: S3Client,
    keyring: Keyring,
    server_time: ServerTime,
    memory: MemoryBudget,
    uploads: Uploads,
    conditions: OnceCell<Conditions>,
    tags: AtomicBool,
    walk: Walk,
    marks: Option<UploadMarks>,
    metrics: StoreMetrics,
}

impl S3Store {
    /// Reads keys and authorities; nothing is sent.
    pub async fn open(options: S3Options, metrics: StoreMetrics) -> Result<Self, S3OptionsError> {
        if !carries_secrets(&options.endpoint) || options.endpoint.query().is_some() {
            let rule = "needs https, or http to this machine, without user, password and query";
            return Err(S3OptionsError(format!("[recordings] endpoint: {rule}")));
        }
        if options.part_size < LEAST_PART {
            return Err(S3OptionsError("[recordings] part_size: S3 takes no parts below 5 MiB".to_owned()));
        }
        let transport = transport(&options).await?;
        let marks = options.marks.as_deref().map(UploadMarks::open).transpose();
        let marks =
            marks.map_err(|error| S3OptionsError(format!("[state] dir: the folder for marks of uploads: {error}")))?;
        let keyring = Keyring::open(options.credentials.clone()).await.map_err(S3OptionsError)?;
        let dispatcher = Dispatcher::new(transport)
            .map_err(|_| S3OptionsError("[recordings] ca_file: the HTTPS transport cannot be set up".to_owned()))?;
        let server_time = dispatcher.server_time();
        let region = Region::Custom {
            name: options.region.clone(),
            endpoint: options.endpoint.as_str().trim_end_matches('/').to_owned(),
        };
        let client = S3Client::new_with_client(Client::new_with(keyring.clone(), dispatcher), region);
        let memory = MemoryBudget::new(options.memory);
        operation::start_at_zero(&metrics);
        Ok(Self {
            options,
            client,
            keyring,
            server_time,
            memory,
            uploads: Uploads::default(),
            conditions: OnceCell::new(),
            tags: AtomicBool::new(true),
            walk: Walk::default(),
            marks,
            metrics,
        })
    }
}

/// The way to the store that the settings tell of.
async fn transport(options: &S3Options) -> Result<TransportOptions, S3OptionsError> {
    let transport = TransportOptions::new(options.connect_timeout, MOST_IDLE);
    let Some(file) = &options.ca_file else { return Ok(transport) };
    let cannot =
        |why: &dyn std::fmt::Display| S3OptionsError(format!("[recordings] ca_file: {}: {why}", file.display()));
    let pem = tokio::fs::read(file).await.map_err(|error| cannot(&error))?;
    transport.trusting(&pem).map_err(|error| cannot(&error))
}

#[async_trait]
impl RecordingStore for S3Store {
    fn bucket(&self) -> &str {
        &self.options.bucket
    }

    async fn put_if_unchanged(
        &self,
        key: &ObjectKey,
        content_type: &str,
        found: Option<&CurrentObject>,
        body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        self.store(&key.to_string(), content_type, found, body).await
    }

    async fn find(&self, key: &ObjectKey) -> Result<CurrentObject, RecordingStoreError> {
        Ok(self.found(&key.to_string()).await?)
    }

    async fn read(&self, key: &str) -> Result<Option<RecordingBody<'static>>, RecordingStoreError> {
        Ok(self.get(key).await?)
    }

    fn caveat(&self) -> Option<String> {
        self.conditions.get().and_then(Conditions::caveat)
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, RecordingStoreError> {
        Ok(self.head(&key.to_string()).await?.as_ref().and_then(object::length_of))
    }

    async fn erase(&self, conversation: &ConversationKey, started_at: Timestamp) -> Result<u64, RecordingStoreError> {
        Ok(self.erase_prefix(&format!("{}/", ObjectKey::folder_of(conversation, started_at))).await?)
    }

    fn learn(&self, tenants: &[TenantId]) {
        self.walk.learn(tenants);
    }

    async fn sweep(&self) -> Result<u64, RecordingStoreError> {
        Ok(self.abort_orphans().await?)
    }

    async fn answers(&self) -> Result<(), RecordingStoreError> {
        self.head(PROBE_KEY).await?;
        Ok(())
    }

    /// Begins an upload and aborts it: that needs the rights that a put needs, and leaves nothing behind. Finds out too
    /// whether the store heeds conditions.
    async fn check(&self) -> Result<(), RecordingStoreError> {
        let checked = async {
            self.probe().await?;
            self.conditions().await.map(drop)
        };
        checked.await.map_err(|failure: S3Error| {
            let S3Options { endpoint, bucket, .. } = &self.options;
            match RecordingStoreError::from(failure) {
                RecordingStoreError::Unavailable { reason, retry_after } => RecordingStoreError::Unavailable {
                    reason: format!("{reason} ({endpoint}, bucket {bucket})"),
                    retry_after,
                },
                other => other,
            }
        })
    }
}

#[cfg(test)]
mod tests;
