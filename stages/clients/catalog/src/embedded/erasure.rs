//! Erasure and retention in the embedded catalog.
//!
//! Tombstones lie in files beside the store ([`state::ErasureList`]), pending erasures in its tree. The pending one is
//! written first, so that a crash between the two leaves an erasure that is begun anew, and never a tombstone whose
//! erasure nobody remembers.

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, Retention, TenantId};
use runtime::chance;
use serde::{Deserialize, Serialize};

use super::{EmbeddedCatalog, Inner, WriteState, blocking, keyed, kind, letter_key, read, write};
use crate::{
    CatalogError, ConversationRow, ErasedRows, Erasure, Erasures, Expired, RecordingLocation, SETTLED, Tombstone,
    TombstoneKey,
};

#[async_trait]
impl Erasures for EmbeddedCatalog {
    async fn begin_erasure(&self, key: &ConversationKey, now: Timestamp) -> Result<Erasure, CatalogError> {
        let (noting, noted) = (self.inner.clone(), key.clone());
        let erasure = blocking(move || noting.note(&noted, now)).await?;
        self.inner.commit().await?;
        let (adding, tombstone) = (self.inner.clone(), erasure.tombstone);
        blocking(move || {
            // Nobody writes a row between the question whether it was erased and the row.
            let _counters = adding.lock();
            adding.erased.add(tombstone.as_bytes()).map_err(|error| CatalogError(error.to_string()))
        })
        .await?;
        Ok(erasure)
    }

    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        let erased = {
            let mut counters = self.inner.lock();
            let pending = self
                .inner
                .tombstone(key)
                .map(|tombstone| self.inner.get::<PendingErasure>(&pending_key(&tombstone)))
                .transpose()?;
            if pending.flatten().is_none() {
                return Err(CatalogError("no erasure of this conversation is pending".to_owned()));
            }
            self.inner.remove_rows(key, &mut counters)?
        };
        self.inner.commit().await?;
        Ok(erased)
    }

    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError> {
        // The next key after one of fixed length.
        let from = match after {
            Some(tombstone) => [pending_key(&tombstone).as_slice(), &[0]].concat(),
            None => vec![kind::ERASURE],
        };
        let mut pending = Vec::new();
        for entry in self.inner.tree.range(from..vec![kind::ERASURE + 1]).take(limit) {
            let (at, value) = entry.map_err(|error| self.inner.broken(error))?;
            let tombstone = at.last_chunk().copied().map(Tombstone::from_bytes);
            let tombstone = tombstone.ok_or_else(|| CatalogError("unreadable key of an erasure".to_owned()))?;
            pending.push(read::<PendingErasure>(&value)?.erasure(tombstone));
        }
        Ok(pending)
    }

    async fn finish_erasure(&self, erasure: &Erasure, now: Timestamp) -> Result<bool, CatalogError> {
        if now.duration_since(erasure.asked_at) < SETTLED {
            return Ok(false);
        }
        {
            let _counters = self.inner.lock();
            let at = pending_key(&erasure.tombstone);
            let standing = self.inner.get::<PendingErasure>(&at)?.map(|pending| pending.erasure(erasure.tombstone));
            if standing.as_ref() != Some(erasure) {
                return Ok(false);
            }
            self.inner.tree.remove(at).map_err(|error| self.inner.broken(error))?;
        }
        self.inner.commit().await?;
        Ok(true)
    }

    async fn expired(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        if retention.kept_for().is_none() {
            return Ok(Vec::new());
        }
        // In the order of their ids, which is near enough that of their ends.
        let of = tenant.clone();
        let pick = move |row: ConversationRow| {
            retention.is_over(row.ended_at, row.state.is_final(), now).then(|| Expired {
                tenant: of.clone(),
                external_id: row.external_id,
                started_at: row.started_at,
                ended_at: row.ended_at,
                recordings: row.recordings.iter().map(RecordingLocation::from).collect(),
            })
        };
        self.inner.scan(tenant, after.map(|after| after.external_id), limit, pick).await
    }

    async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        let mut expired = 0;
        for external_id in ids {
            let key = ConversationKey { tenant: tenant.clone(), external_id: *external_id };
            let mut counters = self.inner.lock();
            let row = self.inner.row(&key)?;
            if row.is_some_and(|row| retention.is_over(row.ended_at, row.state.is_final(), now)) {
                self.inner.remove_rows(&key, &mut counters)?;
                expired += 1;
            }
        }
        self.inner.commit().await?;
        Ok(expired)
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
        self.put(&at, &pending)?;
        Ok(pending.erasure(tombstone))
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
        let letter = letter_key(key);
        if let Some(id) = self.number(&letter)? {
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
        self.apply(batch)?;
        counters.counts = counts;
        Ok(erased)
    }
}

fn pending_key(tombstone: &Tombstone) -> Vec<u8> {
    [&[kind::ERASURE], tombstone.as_bytes().as_slice()].concat()
}
