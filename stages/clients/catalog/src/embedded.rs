//! The embedded catalog: one sled tree with the content of the Knovvu database.
//!
//! A conversation is one value (row, recordings and analysis state), written together with its entry in the
//! analysis queue and the counters in one atomic batch: that batch is the completing transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ContactId, ConversationKey, ConversationState, DeadLetter, TenantId};
use runtime::task;
use serde::{Serialize, de::DeserializeOwned};
use state::{ErasureList, StateError, Store};

use super::{
    AnalysisEntry, Attempt, AttemptKind, Catalog, CatalogError, ConversationCounts, ConversationRow, CurrentTurn,
    Heartbeat, ProducerTurn,
};

mod agents;
mod analysis;
mod audit;
mod conversations;
mod dead_letters;
mod erasure;
mod lacking;
mod overview;
mod readiness;
mod runs;
mod services;
mod timeline;
mod turns;

/// The tree in the local state.
const TREE: &str = "catalog";

/// Every kind of key in the tree, by its first byte.
mod kind {
    /// `a` tenant NUL agent id (8, big-endian) → agent.
    pub(super) const AGENT: u8 = b'a';
    /// `r` tenant NUL → when the group was read.
    pub(super) const AGENTS_READ: u8 = b'r';
    /// `g` tenant NUL → how the group stands beside its agents.
    pub(super) const GROUP: u8 = b'g';
    /// `c` tenant NUL external id (8, big-endian) → conversation row.
    pub(super) const CONVERSATION: u8 = b'c';
    /// `q` time in milliseconds (8) digest (16) → conversation key.
    pub(super) const ANALYSIS: u8 = b'q';
    /// `d` id (8) → dead letter.
    pub(super) const DEAD_LETTER: u8 = b'd';
    /// `D` digest (16) → id of the dead letter.
    pub(super) const DEAD_LETTER_OF: u8 = b'D';
    /// `h` tenant NUL external id (8) sequence (8) → hop.
    pub(super) const HOP: u8 = b'h';
    /// `R` tenant NUL kind (1) id (8) → replay run.
    pub(super) const RUN: u8 = b'R';
    /// `t` tenant NUL → the last turn of the producer, and what its turns know together.
    pub(super) const TURN: u8 = b't';
    /// `n` → counters.
    pub(super) const COUNTS: u8 = b'n';
    /// `l` tenant NUL → the learned delay of first looks, in seconds.
    pub(super) const READINESS: u8 = b'l';
    /// `e` tombstone (32) → erasure that is pending.
    pub(super) const ERASURE: u8 = b'e';
    /// `o` number (8) → what an operator did.
    pub(super) const ACT: u8 = b'o';
    /// `i` → id of the last dead letter (8), so that none is given again.
    pub(super) const LAST_DEAD_LETTER: u8 = b'i';
}

/// The Knovvu database in the local state.
#[derive(Clone)]
pub struct EmbeddedCatalog {
    inner: Arc<Inner>,
    /// Whose writes go through this handle.
    turn: CurrentTurn,
}

struct Inner {
    store: Store,
    tree: sled::Tree,
    /// The tombstones, which outlive the tree.
    erased: ErasureList,
    /// Held while a value is read, changed and written back; guards the counters.
    writing: Mutex<WriteState>,
    /// The keys of the replay runs that the producer works on, which looks for them every other second.
    open_runs: Mutex<BTreeSet<Vec<u8>>>,
    /// The services of this process by their ids, and when each was last heard of.
    services: Mutex<BTreeMap<String, (Heartbeat, Timestamp)>>,
}

struct WriteState {
    counts: ConversationCounts,
    next_dead_letter: u64,
    next_hop: u64,
    /// The latest attempt of each conversation that is not final. No other process works on them.
    attempts: HashMap<ConversationKey, Attempt>,
    last_attempt: i64,
}

/// Attempts that are remembered; when there are more, all of them begin anew.
const MOST_ATTEMPTS: usize = 100_000;

impl WriteState {
    /// Begins an attempt. A row may have been lost in a crash that its recordings survived, so none is the first.
    fn begin(&mut self, key: ConversationKey, kind: AttemptKind) -> Attempt {
        if self.attempts.len() >= MOST_ATTEMPTS {
            self.attempts.clear();
        }
        self.last_attempt += 1;
        let attempt = Attempt { number: self.last_attempt, kind, is_first: false };
        self.attempts.insert(key, attempt);
        attempt
    }
}

impl EmbeddedCatalog {
    /// Opens the catalog in the local state.
    pub fn open(store: &Store) -> Result<Self, StateError> {
        let tree = store.tree(TREE)?;
        let erased = ErasureList::open(store.dir())?;
        // A crash may have come between an erasure and its tombstone.
        for pending in tree.scan_prefix([kind::ERASURE]).keys() {
            if let Some(tombstone) = pending.map_err(StateError::from)?.last_chunk() {
                erased.add(tombstone)?;
            }
        }
        let counts = tree
            .get([kind::COUNTS])
            .map_err(StateError::from)?
            .and_then(|value| serde_json::from_slice(&value).ok())
            .unwrap_or_default();
        let last = tree.get([kind::LAST_DEAD_LETTER]).map_err(StateError::from)?;
        let next_dead_letter = last.and_then(|id| tail_number(&id)).unwrap_or_default() + 1;
        // Later than every hop of an earlier run: the order of a timeline.
        let next_hop = u64::try_from(store.clock().now().as_microsecond()).unwrap_or_default();
        let writing =
            Mutex::new(WriteState { counts, next_dead_letter, next_hop, attempts: HashMap::new(), last_attempt: 0 });
        let open_runs = Mutex::new(runs::open_in(&tree)?);
        let inner =
            Arc::new(Inner { store: store.clone(), tree, erased, writing, open_runs, services: Mutex::default() });
        Ok(Self { inner, turn: CurrentTurn::default() })
    }

    /// Puts back a conversation that is known from the description beside its recordings. A row that stands is
    /// left as it is, and what was erased does not come back. Not durable before the next commit.
    pub fn restore(&self, row: &ConversationRow) -> Result<(), CatalogError> {
        let mut counters = self.inner.lock();
        let key = row.key();
        if self.inner.is_erased(&key) || self.inner.row(&key)?.is_some() {
            return Ok(());
        }
        self.inner.write_row(row, None, &mut counters)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, WriteState> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, (Heartbeat, Timestamp)>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, CatalogError> {
        self.tree.get(key).map_err(|error| self.broken(error))?.map(|value| read(&value)).transpose()
    }

    fn put<T: Serialize>(&self, key: &[u8], value: &T) -> Result<(), CatalogError> {
        let value = write(value)?;
        self.tree.insert(key, value).map_err(|error| self.broken(error))?;
        Ok(())
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), CatalogError> {
        self.tree.apply_batch(batch).map_err(|error| self.broken(error))
    }

    /// The number that a key leads to.
    fn number(&self, key: &[u8]) -> Result<Option<u64>, CatalogError> {
        Ok(self.tree.get(key).map_err(|error| self.broken(error))?.and_then(|id| tail_number(&id)))
    }

    /// What these values say.
    fn read_all<T: DeserializeOwned>(
        &self,
        values: impl Iterator<Item = sled::Result<sled::IVec>>,
    ) -> impl Iterator<Item = Result<T, CatalogError>> {
        values.map(|value| read(&value.map_err(|error| self.broken(error))?))
    }

    fn row(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        self.get(&keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()))
    }

    /// What `pick` makes of the tenant's rows in the order of their ids, at most `limit` after `after`. Reads every
    /// row.
    async fn scan<Row: DeserializeOwned, T: Send + 'static>(
        self: &Arc<Self>,
        tenant: &TenantId,
        after: Option<ContactId>,
        limit: usize,
        pick: impl Fn(Row) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, CatalogError> {
        let (inner, prefix) = (self.clone(), tenant_prefix(kind::CONVERSATION, tenant));
        let from = match after {
            // The next key after one of fixed length.
            Some(after) => [keyed(kind::CONVERSATION, tenant, after.get()).as_slice(), &[0]].concat(),
            None => prefix.clone(),
        };
        blocking(move || {
            let mut picked = Vec::new();
            for entry in inner.tree.range(from..) {
                let (key, value) = entry.map_err(|error| inner.broken(error))?;
                if picked.len() == limit || !key.starts_with(&prefix) {
                    break;
                }
                picked.extend(pick(read(&value)?));
            }
            Ok(picked)
        })
        .await
    }

    /// Writes a row, what follows from its change of state, and the counters, in one batch.
    fn write_row(
        &self,
        row: &ConversationRow,
        before: Option<ConversationState>,
        counters: &mut WriteState,
    ) -> Result<(), CatalogError> {
        let key = row.key();
        let mut counts = counters.counts;
        if let Some(before) = before {
            *count_of(&mut counts, before) = count_of(&mut counts, before).saturating_sub(1);
        }
        *count_of(&mut counts, row.state) += 1;
        let mut batch = sled::Batch::default();
        batch.insert(keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()), write(row)?);
        if let (Some(entry), Some(at)) = (analysis_key(row), row.enqueued_at) {
            batch.insert(entry, write(&AnalysisEntry { key, enqueued_at: at })?);
        }
        batch.insert(&[kind::COUNTS], write(&counts)?);
        self.apply(batch)?;
        counters.counts = counts;
        Ok(())
    }

    fn finish(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
        is_done: impl FnOnce(&ConversationRow) -> bool,
        change: impl FnOnce(&mut ConversationRow),
    ) -> Result<(), CatalogError> {
        let mut counters = self.lock();
        self.refuse_erased(key)?;
        let Some(mut row) = self.row(key)? else {
            return Err(CatalogError(format!("no row of conversation {}", key.external_id)));
        };
        if attempt.is_some() && counters.attempts.get(key) != attempt.as_ref() {
            return Err(CatalogError::overtaken());
        }
        if row.state.is_final() {
            return if attempt.is_none() || is_done(&row) { Ok(()) } else { Err(CatalogError::overtaken()) };
        }
        let before = row.state;
        change(&mut row);
        self.write_row(&row, Some(before), &mut counters)
    }

    fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        let mut counters = self.lock();
        self.refuse_erased(key)?;
        let Some(row) = self.row(key)? else {
            return Err(CatalogError(format!("no row of conversation {}", key.external_id)));
        };
        if !row.asks_for(kind) {
            return Ok(None);
        }
        Ok(Some(counters.begin(key.clone(), kind)))
    }

    /// Writes a dead letter; false if it is of a body that stands already, or of an erased conversation.
    fn shelve(&self, mut letter: DeadLetter, turn: Option<ProducerTurn>) -> Result<bool, CatalogError> {
        let mut counters = self.fenced(turn)?;
        if letter.key().is_some_and(|key| self.is_erased(&key)) {
            return Ok(false);
        }
        let digest = [&[kind::DEAD_LETTER_OF], letter.digest().as_bytes().as_slice()].concat();
        let standing = self.number(&digest)?;
        if standing.is_some() && letter.conversation_id.is_none() {
            return Ok(false);
        }
        let mut counts = counters.counts;
        letter.id = standing.unwrap_or(counters.next_dead_letter);
        if standing.is_none() {
            counts.dead_letters += 1;
            counters.next_dead_letter += 1;
        }
        let mut batch = sled::Batch::default();
        batch.insert(&[kind::LAST_DEAD_LETTER], &(counters.next_dead_letter - 1).to_be_bytes());
        batch.insert(digest, &letter.id.to_be_bytes());
        batch.insert(numbered(kind::DEAD_LETTER, letter.id), write(&letter)?);
        batch.insert(&[kind::COUNTS], write(&counts)?);
        self.apply(batch)?;
        counters.counts = counts;
        Ok(true)
    }

    /// Removes a dead letter if it stands as it was read.
    fn unshelve(&self, letter: &DeadLetter) -> Result<bool, CatalogError> {
        let mut counters = self.lock();
        let at = numbered(kind::DEAD_LETTER, letter.id);
        if self.get::<DeadLetter>(&at)?.as_ref() != Some(letter) {
            return Ok(false);
        }
        let mut counts = counters.counts;
        counts.dead_letters = counts.dead_letters.saturating_sub(1);
        let mut batch = sled::Batch::default();
        batch.remove(at);
        batch.remove([&[kind::DEAD_LETTER_OF], letter.digest().as_bytes().as_slice()].concat());
        batch.insert(&[kind::COUNTS], write(&counts)?);
        self.apply(batch)?;
        counters.counts = counts;
        Ok(true)
    }

    /// Every dead letter, one at a time.
    fn letters(&self) -> impl Iterator<Item = Result<DeadLetter, CatalogError>> + '_ {
        self.read_all(self.tree.scan_prefix([kind::DEAD_LETTER]).values())
    }

    /// An error of the tree ends the store: the next start sets it aside if it is damaged.
    fn broken(&self, error: sled::Error) -> CatalogError {
        let error = StateError::from(error);
        self.store.report(&error);
        CatalogError(error.to_string())
    }

    async fn commit(&self) -> Result<(), CatalogError> {
        self.store.commit().await.map_err(|error| CatalogError(error.to_string()))
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        Arc::new(Self { inner: self.inner.clone(), turn })
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.in_turn(self.turn.pinned())
    }

    async fn check(&self) -> Result<(), CatalogError> {
        self.inner.commit().await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    task::blocking(work).await.map_err(|error| CatalogError(error.to_string()))?
}

/// The key that leads from a conversation to its dead letter.
fn letter_key(key: &ConversationKey) -> Vec<u8> {
    let letter = model::Key::of(&["conversation", key.tenant.as_str(), &key.external_id.to_string()]);
    [&[kind::DEAD_LETTER_OF], letter.as_bytes().as_slice()].concat()
}

fn count_of(counts: &mut ConversationCounts, state: ConversationState) -> &mut u64 {
    match state {
        ConversationState::MetadataSaved => &mut counts.metadata_saved,
        ConversationState::Ready => &mut counts.ready,
        ConversationState::NoRecording => &mut counts.no_recording,
    }
}

/// The key of a row's entry in the analysis queue; none where it has none.
fn analysis_key(row: &ConversationRow) -> Option<Vec<u8>> {
    let at = row.enqueued_at.filter(|_| row.state == ConversationState::Ready)?;
    let mut entry = vec![kind::ANALYSIS];
    entry.extend_from_slice(&u64::try_from(at.as_millisecond()).unwrap_or_default().to_be_bytes());
    entry.extend_from_slice(row.key().digest().as_bytes());
    Some(entry)
}

fn tenant_prefix(kind: u8, tenant: &TenantId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(tenant.as_str().as_bytes());
    // A tenant id has no NUL, so no tenant's keys stand among another's.
    key.push(0);
    key
}

fn keyed(kind: u8, tenant: &TenantId, id: u64) -> Vec<u8> {
    let mut key = tenant_prefix(kind, tenant);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn numbered(kind: u8, id: u64) -> Vec<u8> {
    [&[kind], id.to_be_bytes().as_slice()].concat()
}

fn tail_number(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk().map(|tail| u64::from_be_bytes(*tail))
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, CatalogError> {
    serde_json::from_slice(value).map_err(|error| CatalogError(format!("unreadable value: {error}")))
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, CatalogError> {
    serde_json::to_vec(value).map_err(|error| CatalogError(format!("unwritable value: {error}")))
}

#[cfg(test)]
mod tests;
