//! The embedded catalog: one sled tree with the content of the Knovvu database.
//!
//! A conversation is one value (row, recordings and analysis state), written together with its entry in the
//! analysis queue and the counters in one atomic batch: that batch is the completing transaction.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use model::{
    Agent, AgentId, ContactId, Conversation, ConversationKey, ConversationState, DeadLetter, Hop, Retention,
    StoredRecording, TenantId,
};
use serde::{Serialize, de::DeserializeOwned};
use state::{Erased, StateError, Store};

use super::{
    AnalysisEntry, Attempt, AttemptKind, Catalog, CatalogError, ConversationRow, Counted, Counts, CurrentTurn,
    ErasedRows, Erasure, Expired, Fate, GroupStanding, Lacking, LearnedDelay, Lessons, ProducerMemory, Recorded,
    RecordingRow, ReplayRun, RunKind, RunState, Standing, Tombstone, Turn,
};

mod erasure;
mod lacking;
mod readiness;
mod runs;
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
    erased: Erased,
    /// Held while a value is read, changed and written back; guards the counters.
    writing: Mutex<Counters>,
    /// The keys of the replay runs that the producer works on, which looks for them every other second.
    open_runs: Mutex<BTreeSet<Vec<u8>>>,
}

struct Counters {
    counts: Counts,
    next_dead_letter: u64,
    next_hop: u64,
    /// The latest attempt of each conversation that is not final. No other process works on them.
    attempts: HashMap<ConversationKey, Attempt>,
    last_attempt: i64,
}

/// Attempts that are remembered; when there are more, all of them begin anew.
const MOST_ATTEMPTS: usize = 100_000;

impl EmbeddedCatalog {
    /// Opens the catalog in the local state.
    pub fn open(store: &Store) -> Result<Self, StateError> {
        let tree = store.tree(TREE)?;
        let erased = Erased::open(store.dir())?;
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
            Mutex::new(Counters { counts, next_dead_letter, next_hop, attempts: HashMap::new(), last_attempt: 0 });
        let open_runs = Mutex::new(runs::open_in(&tree)?);
        let inner = Arc::new(Inner { store: store.clone(), tree, erased, writing, open_runs });
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
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, CatalogError> {
        self.tree.get(key).map_err(|error| self.broken(error))?.map(|value| read(&value)).transpose()
    }

    fn row(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        self.get(&keyed(kind::CONVERSATION, &key.tenant, key.external_id.get()))
    }

    /// Writes a row, what follows from its change of state, and the counters, in one batch.
    fn write_row(
        &self,
        row: &ConversationRow,
        before: Option<ConversationState>,
        counters: &mut Counters,
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
        self.tree.apply_batch(batch).map_err(|error| self.broken(error))?;
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
        if counters.attempts.len() >= MOST_ATTEMPTS {
            counters.attempts.clear();
        }
        counters.last_attempt += 1;
        let attempt = Attempt { number: counters.last_attempt, kind };
        counters.attempts.insert(key.clone(), attempt);
        Ok(Some(attempt))
    }

    /// Writes a dead letter; false if it is of a body that stands already, or of an erased conversation.
    fn shelve(&self, mut letter: DeadLetter, turn: Option<Turn>) -> Result<bool, CatalogError> {
        let mut counters = self.fenced(turn)?;
        if letter.key().is_some_and(|key| self.is_erased(&key)) {
            return Ok(false);
        }
        let digest = [&[kind::DEAD_LETTER_OF], letter.digest().as_bytes().as_slice()].concat();
        let standing = self.tree.get(&digest).map_err(|error| self.broken(error))?.and_then(|id| tail_number(&id));
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
        self.tree.apply_batch(batch).map_err(|error| self.broken(error))?;
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
        self.tree.apply_batch(batch).map_err(|error| self.broken(error))?;
        counters.counts = counts;
        Ok(true)
    }

    /// Every dead letter, one at a time.
    fn letters(&self) -> impl Iterator<Item = Result<DeadLetter, CatalogError>> + '_ {
        let values = self.tree.scan_prefix([kind::DEAD_LETTER]).values();
        values.map(|value| read(&value.map_err(|error| self.broken(error))?))
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
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        let prefix = tenant_prefix(kind::AGENT, tenant);
        self.inner
            .tree
            .scan_prefix(prefix)
            .values()
            .map(|value| read(&value.map_err(|error| self.inner.broken(error))?))
            .collect()
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        self.inner.get(&keyed(kind::AGENT, tenant, id.get()))
    }

    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError> {
        let mut batch = sled::Batch::default();
        for agent in agents {
            batch.insert(keyed(kind::AGENT, tenant, agent.external_id.get()), write(agent)?);
        }
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            self.inner.tree.apply_batch(batch).map_err(|error| self.inner.broken(error))?;
        }
        self.inner.commit().await
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            let key = tenant_prefix(kind::AGENTS_READ, tenant);
            self.inner.tree.insert(key, write(&at)?).map_err(|error| self.inner.broken(error))?;
        }
        self.inner.commit().await
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        self.inner.get(&tenant_prefix(kind::AGENTS_READ, tenant))
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        Ok(self.inner.get(&tenant_prefix(kind::GROUP, tenant))?.unwrap_or_default())
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        {
            let _writing = self.inner.fenced(self.turn.get())?;
            let key = tenant_prefix(kind::GROUP, tenant);
            self.inner.tree.insert(key, write(standing)?).map_err(|error| self.inner.broken(error))?;
        }
        self.inner.commit().await
    }

    async fn state_of(&self, key: &ConversationKey) -> Result<Option<ConversationState>, CatalogError> {
        Ok(self.inner.row(key)?.map(|row| row.state))
    }

    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        let known = |key: &ConversationKey| {
            let row = keyed(kind::CONVERSATION, &key.tenant, key.external_id.get());
            let letter = model::Key::of(&["conversation", key.tenant.as_str(), &key.external_id.to_string()]);
            let letter = [&[kind::DEAD_LETTER_OF], letter.as_bytes().as_slice()].concat();
            Ok(self.inner.is_erased(key)
                || self.inner.tree.contains_key(row).map_err(|error| self.inner.broken(error))?
                || self.inner.tree.contains_key(letter).map_err(|error| self.inner.broken(error))?)
        };
        keys.iter().map(known).collect()
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<(), CatalogError> {
        let mut counters = self.inner.lock();
        self.inner.refuse_erased(&conversation.key())?;
        let before = self.inner.row(&conversation.key())?.map(|row| row.state);
        if before.is_some_and(ConversationState::is_final) {
            return Ok(());
        }
        let row = ConversationRow::metadata_saved(conversation);
        self.inner.write_row(&row, before, &mut counters)?;
        // Not awaited: the completing commit makes it durable, and a crash before that repeats the whole.
        self.inner.store.commit_soon();
        Ok(())
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.inner.begin_attempt(key, kind)
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        let counters = self.inner.lock();
        let is_asked_for = self.inner.row(key)?.is_some_and(|row| row.asks_for(attempt.kind));
        Ok(is_asked_for && counters.attempts.get(key) == Some(&attempt))
    }

    async fn complete_in_part(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let is_done = |row: &ConversationRow| row.recordings.len() == recordings.len() && row.holds(recordings);
        self.inner.finish(key, attempt, is_done, |row| {
            row.recordings = recordings.iter().map(RecordingRow::from).collect();
            row.recordings_missing = missing;
            row.state = ConversationState::Ready;
            row.enqueued_at = Some(at);
        })?;
        self.inner.commit().await
    }

    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.inner.add_recordings(key, recordings, missing, at, attempt)?;
        // Also where nothing was new: another caller may have written it a moment ago.
        self.inner.commit().await
    }

    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError> {
        let after = after.map(|after| after.external_id);
        self.inner.clone().lacking(tenant.clone(), (from, to), after, limit).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        let is_done = |row: &ConversationRow| row.state == ConversationState::NoRecording;
        self.inner.finish(key, attempt, is_done, |row| row.state = ConversationState::NoRecording)?;
        self.inner.commit().await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        self.inner.row(key)
    }

    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        let entries = self.inner.tree.scan_prefix([kind::ANALYSIS]).values().skip(skip).take(limit);
        entries.map(|value| read(&value.map_err(|error| self.inner.broken(error))?)).collect()
    }

    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError> {
        let written = self.inner.shelve(letter, self.turn.get())?;
        // Also of a letter that stood: another caller may have written it a moment ago.
        self.inner.commit().await?;
        Ok(written)
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError> {
        let from = numbered(kind::DEAD_LETTER, after.saturating_add(1));
        let range = self.inner.tree.range(from..vec![kind::DEAD_LETTER + 1]).values().take(limit);
        range.map(|value| read(&value.map_err(|error| self.inner.broken(error))?)).collect()
    }

    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        let mut due = Vec::new();
        for letter in self.inner.letters() {
            let letter = letter?;
            let is_after = |at| after.is_none_or(|after| (at, letter.id) > after);
            if letter.replay_at.is_some_and(|at| at <= now && is_after(at)) {
                due.push(letter);
            }
            // The earliest of those that fit: the others come when these are gone.
            if due.len() >= limit.saturating_mul(2) {
                due.sort_by_key(|letter| (letter.replay_at, letter.id));
                due.truncate(limit);
            }
        }
        due.sort_by_key(|letter| (letter.replay_at, letter.id));
        due.truncate(limit);
        Ok(due)
    }

    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut dropped = 0;
        for letter in self.inner.letters() {
            let letter = letter?;
            if letter.at < before && self.inner.unshelve(&letter)? {
                dropped += 1;
            }
        }
        self.inner.commit().await?;
        Ok(dropped)
    }

    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut count = 0;
        for letter in self.inner.letters() {
            count += u64::from(letter?.at < before);
        }
        Ok(count)
    }

    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError> {
        self.inner.get(&numbered(kind::DEAD_LETTER, id))
    }

    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        self.inner.letter_of(key)
    }

    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError> {
        if !self.inner.unshelve(letter)? {
            return Ok(false);
        }
        self.inner.commit().await?;
        Ok(true)
    }

    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        // Held to the end: an erasure that comes meanwhile finds the hop.
        let mut counters = self.inner.lock();
        if self.inner.is_erased(key) {
            return;
        }
        counters.next_hop += 1;
        let sequence = counters.next_hop;
        let mut at = keyed(kind::HOP, &key.tenant, key.external_id.get());
        at.extend_from_slice(&sequence.to_be_bytes());
        let written =
            write(&hop).and_then(|value| self.inner.tree.insert(at, value).map_err(|error| self.inner.broken(error)));
        if let Err(error) = written {
            tracing::warn!(%error, "timeline not written");
        }
    }

    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        let prefix = keyed(kind::HOP, &key.tenant, key.external_id.get());
        self.inner
            .tree
            .scan_prefix(prefix)
            .values()
            .map(|value| read(&value.map_err(|error| self.inner.broken(error))?))
            .collect()
    }

    async fn counts(&self) -> Result<Counts, CatalogError> {
        Ok(self.inner.lock().counts)
    }

    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError> {
        keys.iter().map(|key| self.inner.fate(key)).collect()
    }

    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        keys.iter().map(|key| self.inner.last_hop(key)).collect()
    }

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<Counted, CatalogError> {
        Ok(Counted::exactly(self.inner.clone().final_between(tenant.clone(), from, to).await?))
    }

    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        let id = self.inner.begin_run(run, self.turn.get())?;
        self.inner.commit().await?;
        Ok(id)
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        let state = self.inner.save_run(run, before, self.turn.get())?;
        self.inner.commit().await?;
        Ok(state)
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        let changed = self.inner.change_run(run, to, at)?;
        self.inner.commit().await?;
        Ok(changed)
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        self.inner.run(tenant, kind, id)
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.inner.open_runs(tenant, kind, limit)
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.inner.runs(tenant, kind, limit)
    }

    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        Arc::new(Self { inner: self.inner.clone(), turn })
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.in_turn(self.turn.pinned())
    }

    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError> {
        let begun = self.inner.remember(tenant, None, |memory| memory.turn += 1)?;
        self.inner.commit().await?;
        Ok(begun.turn)
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        self.inner.memory(tenant)
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            if held_back.is_none_or(|times| times == memory.held_back) {
                memory.poll_watermark = memory.poll_watermark.max(Some(to));
            }
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.poll_watermark = memory.poll_watermark.map(|at| at.min(to));
            memory.held_back += 1;
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.worked_since = Some(memory.worked_since.map_or(at, |since| since.min(at)));
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        let memory = self.inner.remember(tenant, self.turn.get(), |memory| {
            memory.rechecked_to = memory.rechecked_to.max(Some(to));
        })?;
        self.inner.commit().await?;
        Ok(memory)
    }

    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError> {
        readiness::note(&self.inner, tenant, lessons)
    }

    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError> {
        readiness::read(&self.inner, tenant)
    }

    async fn standing(&self, key: &ConversationKey) -> Result<Standing, CatalogError> {
        self.inner.standing(key)
    }

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

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        Inner::recorded(&self.inner, tenant, from, to, after, limit).await
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

    async fn check(&self) -> Result<(), CatalogError> {
        self.inner.commit().await
    }
}

fn count_of(counts: &mut Counts, state: ConversationState) -> &mut u64 {
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
