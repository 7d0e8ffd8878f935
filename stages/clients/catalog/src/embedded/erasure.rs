//! Erasure and retention in the embedded catalog.
//!
//! Tombstones lie in files beside the store ([`state::Erased`]), pending erasures in its tree. The pending one is
//! written first, so that a crash between the two leaves an erasure that is begun anew, and never a tombstone whose
//! erasure nobody remembers.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, ConversationState, Retention, TenantId};
use runtime::{chance, task};
use serde::{Deserialize, Serialize};

use super::{EmbeddedCatalog, Inner, WriteState, keyed, kind, read, tenant_prefix, write};
use crate::{
    CatalogError, ConversationRow, ConversationStatus, ErasedRows, Erasure, Erasures, Expired, Recorded,
    RecordingLocation, SETTLED, Tombstone, TombstoneKey,
};

#[async_trait]
impl Erasures for EmbeddedCatalog {
    async fn begin_erasure(&self, key: &ConversationKey, now: Timestamp) -> Result<Erasure, CatalogError> {
        Inner::begin_erasure(&self.inner, key, now).await
    }

    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        self.inner.erase_rows(key).await
    }

    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError> {
        self.inner.pending_erasures(after, limit)
    }

    async fn finish_erasure(&self, erasure: &Erasure, now: Timestamp) -> Result<bool, CatalogError> {
        self.inner.finish_erasure(erasure, now).await
    }

    async fn expired(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        Inner::expired(&self.inner, tenant, retention, now, after, limit).await
    }

    async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        self.inner.expire_rows(tenant, retention, now, ids).await
    }
}

/// An erasure as it stands in the tree.
#[derive(Serialize, Deserialize)]
struct PendingErasure {
    #[serde(flatten)]
    key: ConversationKey,
    asked_at: Timestamp,
    started_at: Option<Timestamp>,
}

impl PendingErasure {
    fn erasure(self, tombstone: Tombstone) -> Erasure {
        let Self { key, asked_at, started_at } = self;
        Erasure { tombstone, key, asked_at, started_at }
    }
}

impl super::EmbeddedCatalog {
    /// Whether a conversation was erased.
    pub fn is_erased(&self, key: &ConversationKey) -> bool {
        self.inner.is_erased(key)
    }
}

impl Inner {
    /// Whether a conversation was erased.
    pub(super) fn is_erased(&self, key: &ConversationKey) -> bool {
        self.tombstone(key).is_some_and(|tombstone| self.erased.contains(tombstone.as_bytes()))
    }

    /// Refuses to write what was erased.
    pub(super) fn refuse_erased(&self, key: &ConversationKey) -> Result<(), CatalogError> {
        match self.is_erased(key) {
            true => Err(CatalogError("the conversation was erased".to_owned())),
            false => Ok(()),
        }
    }

    /// Its tombstone; none where nothing was ever erased.
    fn tombstone(&self, key: &ConversationKey) -> Option<Tombstone> {
        self.erased.key().map(|secret| TombstoneKey::new(secret).tombstone(key))
    }

    pub(super) fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError> {
        if self.is_erased(key) {
            return Ok(ConversationStatus::Erased);
        }
        Ok(self.row(key)?.map_or(ConversationStatus::Unknown, |row| ConversationStatus::Saved(row.state)))
    }

    pub(super) async fn begin_erasure(
        inner: &Arc<Self>,
        key: &ConversationKey,
        now: Timestamp,
    ) -> Result<Erasure, CatalogError> {
        let (noting, noted) = (inner.clone(), key.clone());
        let erasure = blocking(move || noting.note(&noted, now)).await?;
        inner.commit().await?;
        let (adding, tombstone) = (inner.clone(), erasure.tombstone);
        blocking(move || {
            // Nobody writes a row between the question whether it was erased and the row.
            let _counters = adding.lock();
            adding.erased.add(tombstone.as_bytes()).map_err(|error| CatalogError(error.to_string()))
        })
        .await?;
        Ok(erasure)
    }

    /// Notes an erasure as pending.
    fn note(&self, key: &ConversationKey, now: Timestamp) -> Result<Erasure, CatalogError> {
        // A simulation must find the same tombstones again; elsewhere this is the generator for secrets.
        let secret = self.erased.key_or(chance::random()).map_err(|error| CatalogError(error.to_string()))?;
        let tombstone = TombstoneKey::new(secret).tombstone(key);
        let _counters = self.lock();
        let at = pending_key(&tombstone);
        let earlier = self.get::<PendingErasure>(&at)?.and_then(|earlier| earlier.started_at);
        let started_at = match earlier {
            Some(started_at) => Some(started_at),
            None => self.row(key)?.map(|row| row.started_at),
        };
        let pending = PendingErasure { key: key.clone(), asked_at: now, started_at };
        self.tree.insert(at, write(&pending)?).map_err(|error| self.broken(error))?;
        Ok(pending.erasure(tombstone))
    }

    pub(super) async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        let erased = {
            let mut counters = self.lock();
            let pending = self
                .tombstone(key)
                .map(|tombstone| self.get::<PendingErasure>(&pending_key(&tombstone)))
                .transpose()?;
            if pending.flatten().is_none() {
                return Err(CatalogError("no erasure of this conversation is pending".to_owned()));
            }
            self.remove_rows(key, &mut counters)?
        };
        self.commit().await?;
        Ok(erased)
    }

    /// Removes everything of a conversation in one batch.
    fn remove_rows(&self, key: &ConversationKey, counters: &mut WriteState) -> Result<ErasedRows, CatalogError> {
        let mut erased = ErasedRows::default();
        let mut counts = counters.counts;
        let mut batch = sled::Batch::default();
        if let Some(row) = self.row(key)? {
            let count = super::count_of(&mut counts, row.state);
            *count = count.saturating_sub(1);
            batch.remove(keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()));
            if let Some(entry) = super::analysis_key(&row) {
                batch.remove(entry);
            }
            erased.conversation = true;
        }
        let letter = model::Key::of(&["conversation", key.tenant.as_str(), &key.external_id.to_string()]);
        let letter = [&[kind::DEAD_LETTER_OF], letter.as_bytes().as_slice()].concat();
        let standing = self.tree.get(&letter).map_err(|error| self.broken(error))?;
        if let Some(id) = standing.and_then(|id| super::tail_number(&id)) {
            counts.dead_letters = counts.dead_letters.saturating_sub(1);
            batch.remove(super::numbered(kind::DEAD_LETTER, id));
            batch.remove(letter);
            erased.dead_letters = 1;
        }
        for hop in self.tree.scan_prefix(keyed(kind::HOP, &key.tenant, key.external_id.get())).keys() {
            batch.remove(hop.map_err(|error| self.broken(error))?);
            erased.hops += 1;
        }
        batch.insert(&[kind::COUNTS], write(&counts)?);
        self.tree.apply_batch(batch).map_err(|error| self.broken(error))?;
        counters.counts = counts;
        Ok(erased)
    }

    pub(super) fn pending_erasures(
        &self,
        after: Option<Tombstone>,
        limit: usize,
    ) -> Result<Vec<Erasure>, CatalogError> {
        // The next key after one of fixed length.
        let from = match after {
            Some(tombstone) => [pending_key(&tombstone).as_slice(), &[0]].concat(),
            None => vec![kind::ERASURE],
        };
        let mut pending = Vec::new();
        for entry in self.tree.range(from..vec![kind::ERASURE + 1]).take(limit) {
            let (at, value) = entry.map_err(|error| self.broken(error))?;
            let tombstone = at.last_chunk().copied().map(Tombstone::from_bytes);
            let tombstone = tombstone.ok_or_else(|| CatalogError("unreadable key of an erasure".to_owned()))?;
            pending.push(read::<PendingErasure>(&value)?.erasure(tombstone));
        }
        Ok(pending)
    }

    pub(super) async fn finish_erasure(&self, erasure: &Erasure, now: Timestamp) -> Result<bool, CatalogError> {
        if now.duration_since(erasure.asked_at) < SETTLED {
            return Ok(false);
        }
        {
            let _counters = self.lock();
            let at = pending_key(&erasure.tombstone);
            let standing = self.get::<PendingErasure>(&at)?.map(|pending| pending.erasure(erasure.tombstone));
            if standing.as_ref() != Some(erasure) {
                return Ok(false);
            }
            self.tree.remove(at).map_err(|error| self.broken(error))?;
        }
        self.commit().await?;
        Ok(true)
    }

    pub(super) async fn expired(
        inner: &Arc<Self>,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        if retention.kept_for().is_none() {
            return Ok(Vec::new());
        }
        let (inner, tenant) = (inner.clone(), tenant.clone());
        let prefix = tenant_prefix(kind::CONVERSATION, &tenant);
        // The next key after one of fixed length.
        let from = after.map_or_else(
            || prefix.clone(),
            |after| [keyed(kind::CONVERSATION, &tenant, after.external_id.get()).as_slice(), &[0]].concat(),
        );
        // Reads every row of the tenant, in the order of their ids; which is near enough that of their ends.
        blocking(move || {
            let mut expired = Vec::new();
            for entry in inner.tree.range(from..) {
                let (at, value) = entry.map_err(|error| inner.broken(error))?;
                if expired.len() == limit || !at.starts_with(&prefix) {
                    break;
                }
                let row: ConversationRow = read(&value)?;
                if retention.is_over(row.ended_at, row.state.is_final(), now) {
                    let (external_id, started_at, ended_at) = (row.external_id, row.started_at, row.ended_at);
                    let recordings = row.recordings.iter().map(RecordingLocation::from).collect();
                    expired.push(Expired { tenant: tenant.clone(), external_id, started_at, ended_at, recordings });
                }
            }
            Ok(expired)
        })
        .await
    }

    /// Reads rows of the tenant in the order of their ids.
    pub(super) async fn recorded(
        inner: &Arc<Self>,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        let (inner, prefix) = (inner.clone(), tenant_prefix(kind::CONVERSATION, tenant));
        let begin = after.map_or_else(
            || prefix.clone(),
            |after| [keyed(kind::CONVERSATION, tenant, after.external_id.get()).as_slice(), &[0]].concat(),
        );
        blocking(move || {
            let mut recorded = Vec::new();
            for entry in inner.tree.range(begin..) {
                let (at, value) = entry.map_err(|error| inner.broken(error))?;
                if recorded.len() == limit || !at.starts_with(&prefix) {
                    break;
                }
                let row: ConversationRow = read(&value)?;
                if row.state == ConversationState::Ready && row.ended_at >= from && row.ended_at < to {
                    recorded.push(Recorded { external_id: row.external_id, ended_at: row.ended_at });
                }
            }
            Ok(recorded)
        })
        .await
    }

    pub(super) async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        let mut expired = 0;
        for external_id in ids {
            let key = ConversationKey { tenant: tenant.clone(), external_id: *external_id };
            let mut counters = self.lock();
            let row = self.row(&key)?;
            if row.is_some_and(|row| retention.is_over(row.ended_at, row.state.is_final(), now)) {
                self.remove_rows(&key, &mut counters)?;
                expired += 1;
            }
        }
        self.commit().await?;
        Ok(expired)
    }
}

fn pending_key(tombstone: &Tombstone) -> Vec<u8> {
    [&[kind::ERASURE], tombstone.as_bytes().as_slice()].concat()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    task::blocking(work).await.map_err(|error| CatalogError(error.to_string()))?
}
