//! Verify: reads recordings back and compares them with their rows.
//!
//! # Contract
//! In: conversations that are ready. Out: of each of their recordings whether the object under the key has the length
//! and the SHA-256 of its row. Nothing is changed. An object streams through, whatever its size.
//!
//! # Not a difference
//! A conversation that is erased meanwhile: its row is read again before anything is said of it. A recording whose row
//! names another store is not looked at, and counted.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Recorded, RecordingRow};
use flow::{StageError, error};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, TenantId};
use recordings::RecordingStore;
use runtime::{Clock, chance};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};
use utoipa::ToSchema;

use crate::metrics::Metrics;

/// An object that is read and ends in an error is read so often.
const ATTEMPTS: u32 = 3;

/// What may lie under a recording's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MismatchKind {
    /// No object.
    Missing,
    /// An object of another length.
    Length,
    /// An object of the same length and other bytes.
    Sha256,
}

impl MismatchKind {
    /// The one name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Length => "length",
            Self::Sha256 => "sha256",
        }
    }
}

/// A recording that its row does not describe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingMismatch {
    /// Whose.
    pub conversation_id: ContactId,
    /// Which of them.
    pub position: u32,
    /// Where it should lie.
    pub object_key: String,
    /// What is wrong.
    pub problem: MismatchKind,
    /// Length by the row.
    pub size_bytes: u64,
    /// Hash by the row.
    pub sha256: String,
    /// Length of the object.
    pub found_size_bytes: Option<u64>,
    /// Hash of the object.
    pub found_sha256: Option<String>,
}

/// What was found of some conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Recordings that were read, or looked for.
    pub recordings: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Recordings whose row names another store.
    pub elsewhere: u64,
    /// Those that differ.
    pub differences: Vec<RecordingMismatch>,
}

impl Verified {
    /// Adds what was found of others.
    pub fn add(&mut self, other: Self) {
        self.recordings += other.recordings;
        self.bytes += other.bytes;
        self.elsewhere += other.elsewhere;
        self.differences.extend(other.differences);
    }
}

/// Compares recordings with their rows.
#[derive(Clone)]
pub struct Verifier {
    /// The rows.
    pub catalog: Arc<dyn Catalog>,
    /// The objects.
    pub recordings: Arc<dyn RecordingStore>,
    /// Whose conversations there are, where the catalog knows no tenants.
    pub tenant: Option<TenantId>,
    /// The time.
    pub clock: Clock,
    /// Counts what was compared.
    pub metrics: Metrics,
}

/// How much is read back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Within this time, and of it.
    pub every: Duration,
    /// So many conversations of each tenant.
    pub sample: u32,
}

impl Verifier {
    /// The tenant's ready conversations that ended in `[from, to)`, in a fixed order: at most `limit` after `after`.
    pub async fn list(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, StageError> {
        Ok(self.catalog.recorded(tenant, from, to, after, limit).await?)
    }

    /// Reads the recordings of one conversation back.
    pub async fn verify(&self, key: &ConversationKey) -> Result<Verified, StageError> {
        let mut verified = Verified::default();
        for recording in self.rows(key).await? {
            if !self.recordings.keeps(&recording.bucket, &recording.object_key).await? {
                verified.elsewhere += 1;
                continue;
            }
            let found = self.read(&recording.object_key).await?;
            let Some(problem) = problem(&recording, found.as_ref()) else {
                self.count(&mut verified, found.as_ref(), "same");
                continue;
            };
            if !self.rows(key).await?.contains(&recording) {
                continue; // erased meanwhile
            }
            self.count(&mut verified, found.as_ref(), problem.as_str());
            let (found_size_bytes, found_sha256) = found.unzip();
            error!(
                tenant = %key.tenant, conversation.id = %key.external_id, position = recording.position,
                reason = problem.as_str(), "a stored recording is not what its row says, a person must look"
            );
            verified.differences.push(RecordingMismatch {
                conversation_id: key.external_id,
                position: recording.position,
                object_key: recording.object_key,
                problem,
                size_bytes: recording.size_bytes,
                sha256: recording.sha256,
                found_size_bytes,
                found_sha256,
            });
        }
        Ok(verified)
    }

    /// Reads some conversations of the latest time back, one after the other and evenly spread, for ever. It keeps no
    /// account of what it has read: a restart costs no more than the pause before the next one.
    pub async fn run(self, schedule: Schedule) {
        let pause = schedule.every / schedule.sample.max(1);
        loop {
            tokio::time::sleep(pause.mul_f64(chance::range(0.5..1.5))).await;
            let tenants = match self.catalog.tenants().await {
                Ok(tenants) if tenants.is_empty() => self.tenant.iter().cloned().collect(),
                Ok(tenants) => tenants,
                Err(error) => {
                    warn!(%error, "recordings not verified, will retry");
                    continue;
                }
            };
            for tenant in tenants {
                match self.verify_any(&tenant, schedule.every).await {
                    Ok(verified) => info!(%tenant, count = verified.recordings, "recordings verified"),
                    Err(error) => warn!(%tenant, %error, "recordings not verified, will retry"),
                }
            }
        }
    }

    /// Reads a conversation back that ended within the last `reach`, whichever comes after a moment of it.
    async fn verify_any(&self, tenant: &TenantId, reach: Duration) -> Result<Verified, StageError> {
        let now = self.clock.now();
        let back = SignedDuration::try_from(reach.mul_f64(chance::random::<f64>())).unwrap_or(SignedDuration::MAX);
        let from = now.checked_sub(back).unwrap_or(Timestamp::UNIX_EPOCH);
        match self.list(tenant, from, now, None, 1).await?.pop() {
            Some(Recorded { external_id, .. }) => {
                self.verify(&ConversationKey { tenant: tenant.clone(), external_id }).await
            }
            None => Ok(Verified::default()),
        }
    }

    async fn rows(&self, key: &ConversationKey) -> Result<Vec<RecordingRow>, StageError> {
        Ok(self.catalog.conversation(key).await?.map(|row| row.recordings).unwrap_or_default())
    }

    fn count(&self, verified: &mut Verified, found: Option<&(u64, String)>, result: &str) {
        verified.recordings += 1;
        verified.bytes += found.map_or(0, |(size, _)| *size);
        self.metrics.recordings_verified.with_label_values(&[result]).inc();
    }

    /// Length and hash of an object; none where there is no object.
    async fn read(&self, key: &str) -> Result<Option<(u64, String)>, StageError> {
        let mut attempt = 1;
        loop {
            match self.read_once(key).await {
                Err(error @ StageError::Transient { .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                    warn!(%error, attempt, "a recording is read again");
                }
                read => return read,
            }
        }
    }

    async fn read_once(&self, key: &str) -> Result<Option<(u64, String)>, StageError> {
        let Some(mut body) = self.recordings.read(key).await? else { return Ok(None) };
        let (mut size, mut sha256) = (0, Sha256::new());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| error::of(&*error))?;
            size += piece.len() as u64;
            sha256.update(&piece);
        }
        Ok(Some((size, hex::encode(sha256.finalize()))))
    }
}

fn problem(row: &RecordingRow, found: Option<&(u64, String)>) -> Option<MismatchKind> {
    match found {
        None => Some(MismatchKind::Missing),
        Some((size, _)) if *size != row.size_bytes => Some(MismatchKind::Length),
        Some((_, sha256)) if *sha256 != row.sha256 => Some(MismatchKind::Sha256),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
