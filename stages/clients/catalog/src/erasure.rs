//! What the catalog knows of conversations that were erased: tombstones, and nothing that could be read back.
//!
//! A tombstone is a keyed digest of the conversation's key. Ids of calls are few enough to be tried one by one, so a
//! plain digest would give them away; the key does not stand where the tombstones stand.

use std::fmt;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, ConversationState, INTEGRATION_TYPE, Retention, TenantId};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use crate::{CatalogError, RecordingRow};

/// Erasures by an operator, and what the retention ends.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Leaves a tombstone, and notes that everything of the conversation is to be erased. Durable once it returns; from
    /// then on nothing of it is written any more. What others began to write a moment before may still appear: the
    /// erasure is pending until it is finished.
    async fn begin_erasure(&self, key: &ConversationKey, now: Timestamp) -> Result<Erasure, CatalogError>;

    /// Deletes every row of a conversation whose erasure is pending, in one commit, durable once it returns.
    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError>;

    /// Pending erasures, at most `limit` in the order of their tombstones after `after`.
    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError>;

    /// Forgets all but the tombstone of an erasure that is pending as it was read, and for so long that nothing of the
    /// conversation can be under way any more; false if it is not. A catalog with a clock of its own goes by that.
    async fn finish_erasure(&self, erasure: &Erasure, now: Timestamp) -> Result<bool, CatalogError>;

    /// The tenant's conversations whose retention is over, in a fixed order that is oldest first or near it: at most
    /// `limit` after `after`. A catalog that holds the tenant's settings goes by those, and one with a clock of its own
    /// by the earlier of both times.
    async fn expired(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError>;

    /// Deletes every row of those of these conversations whose retention is over, and counts them. Leaves no tombstone:
    /// what lies beyond the retention is not imported in any case.
    async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError>;

    /// The right to erase what is beyond the tenant's retention, for as long as it lives; none while another process
    /// has it. It ends with the process. A catalog that one process has alone always gives it.
    async fn retention_turn(&self, _tenant: &TenantId) -> Result<Option<RetentionTurn>, CatalogError> {
        Ok(Some(RetentionTurn::default()))
    }
}

/// What the key of tombstones is derived with: the same secret makes other keys for other purposes.
const LABEL: &[u8] = b"nice-knovvu tombstones v1";

/// What tells that two keys are the same, and nothing else of them.
const FINGERPRINT: &[u8] = b"nice-knovvu tombstones fingerprint v1";

/// How much of a tombstone is shown, in hex digits.
const SHOWN: usize = 12;

/// The key that tombstones are made with.
pub struct TombstoneKey(SecretBox<[u8; 32]>);

/// What is left of an erased conversation: 32 bytes that nobody can make without the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tombstone([u8; 32]);

impl TombstoneKey {
    /// This key, which is used for nothing else.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(*key)))
    }

    /// A key made of a secret that has other uses too.
    pub fn derived(secret: &[u8; 32]) -> Self {
        Self::new(&digest(secret, [LABEL]))
    }

    /// The tombstone of a conversation.
    pub fn tombstone(&self, key: &ConversationKey) -> Tombstone {
        let external_id = key.external_id.to_string();
        // No part contains a NUL.
        let parts = [key.tenant.as_str().as_bytes(), &[0], INTEGRATION_TYPE.as_bytes(), &[0], external_id.as_bytes()];
        Tombstone(digest(self.0.expose_secret(), parts))
    }

    /// The same for the same key; tells nothing of it.
    pub fn fingerprint(&self) -> [u8; 32] {
        digest(self.0.expose_secret(), [FINGERPRINT])
    }
}

fn digest<'a>(key: &[u8; 32], parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for TombstoneKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TombstoneKey")
    }
}

impl Tombstone {
    /// One that was read.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Tombstone {
    /// Enough to tell it from others, in logs and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0)[..SHOWN])
    }
}

impl fmt::Debug for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tombstone({self})")
    }
}

/// What stands of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationStatus {
    /// No row stands.
    Unknown,
    /// A row stands.
    Saved(ConversationState),
    /// It was erased, and is not to come back.
    Erased,
}

impl ConversationStatus {
    /// The state of the row, if one stands.
    pub fn state(self) -> Option<ConversationState> {
        match self {
            Self::Saved(state) => Some(state),
            Self::Unknown | Self::Erased => None,
        }
    }
}

/// An erasure that is not finished: the last time that the plain id is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Erasure {
    /// What will be left.
    pub tombstone: Tombstone,
    /// What is to be erased.
    pub key: ConversationKey,
    /// When it was asked for, the last time.
    pub asked_at: Timestamp,
    /// When the conversation began, if a row told it: that names the folder of its recordings.
    pub started_at: Option<Timestamp>,
}

impl fmt::Debug for Erasure {
    /// Without the id, which is not to reach any log any more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erasure").field("tombstone", &self.tombstone).field("asked_at", &self.asked_at).finish()
    }
}

/// What was deleted from the catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedRows {
    /// Whether the conversation's row stood, with its recordings and its analysis entry.
    pub conversation: bool,
    /// Dead letters of it.
    pub dead_letters: u64,
    /// Lines of its timeline.
    pub hops: u64,
}

/// How long an erasure is pending: longer than anything takes that was under way when it was asked for. A recording
/// that arrives no faster than it was spoken takes as long as the longest call, four hours.
pub const SETTLED: SignedDuration = SignedDuration::from_hours(6);

/// Where a recording lies, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingLocation {
    /// The bucket or folder that holds it.
    pub bucket: String,
    /// Its place in there.
    pub object_key: String,
}

impl From<&RecordingRow> for RecordingLocation {
    fn from(row: &RecordingRow) -> Self {
        Self { bucket: row.bucket.clone(), object_key: row.object_key.clone() }
    }
}

/// A conversation whose retention is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Whose it is.
    pub tenant: TenantId,
    /// NICE's contact id of the leg.
    pub external_id: ContactId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Where its recordings lie.
    pub recordings: Vec<RecordingLocation>,
}

impl Expired {
    /// The key of its row.
    pub fn key(&self) -> ConversationKey {
        ConversationKey { tenant: self.tenant.clone(), external_id: self.external_id }
    }
}

/// The right to erase what is beyond a tenant's retention; it ends when it is dropped.
#[derive(Default)]
pub struct RetentionTurn {
    /// What keeps it from the other processes, where there are any.
    _held: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl RetentionTurn {
    /// One that lasts as long as `held`.
    pub fn of(held: impl std::any::Any + Send + Sync) -> Self {
        Self { _held: Some(Box::new(held)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, id: &str) -> ConversationKey {
        ConversationKey { tenant: tenant.parse().unwrap(), external_id: id.parse().unwrap() }
    }

    #[test]
    fn a_tombstone_depends_on_key_tenant_and_id_and_shows_neither() {
        let tombstone = |secret, tenant, id| TombstoneKey::derived(&[secret; 32]).tombstone(&key(tenant, id));
        let one = tombstone(1, "acme", "698800000001");
        assert_eq!(one, tombstone(1, "acme", "698800000001"));
        for other in
            [tombstone(2, "acme", "698800000001"), tombstone(1, "acm", "698800000001"), tombstone(1, "acme", "69")]
        {
            assert_ne!(one, other);
        }
        assert_eq!(one.to_string().len(), SHOWN);
        assert!(!format!("{one:?}").contains("698800000001"));
        assert_eq!(format!("{:?}", TombstoneKey::derived(&[7; 32])), "TombstoneKey");
        let fingerprint = |secret| TombstoneKey::derived(&[secret; 32]).fingerprint();
        assert!(fingerprint(1) == fingerprint(1) && fingerprint(1) != fingerprint(2));
    }
}
