//! The catalog that all machines share: the embedded one, as a server. As a database does, it has a clock of its own,
//! which it goes by where a machine's is ahead, knows the tenants, and lets one machine at a time see to a retention.
//!
//! What may be repeated is repeated for a while before it fails: so does the program's way to its database, and every
//! write of the catalog may be. A timeline's hops are written once or are lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use catalog::{
    AnalysisCounts, AnalysisEntry, Attempt, AttemptKind, Catalog, CatalogError, ConversationCounts, ConversationFilter,
    ConversationRow, ConversationStatus, CurrentTurn, DayCounts, DeadLetterFilter, DeadLetterGroup, EmbeddedCatalog,
    ErasedRows, Erasure, Expired, Fate, FoundConversation, GroupStanding, Heartbeat, KnownService, Lacking,
    LearnedDelay, Lessons, OperatorAct, ProducerMemory, Recorded, ReplayRun, RetentionTurn, RowCount, RunKind,
    RunState, Tombstone,
    roles::{
        Agents, AnalysisQueue, Audits, Conversations, DeadLetters, Erasures, FirstLooks, Overviews, ProducerTurns,
        Runs, Services, Timelines,
    },
};
use jiff::{Timestamp, civil::Date};
use model::{
    Agent, AgentId, ContactId, Conversation, ConversationKey, DeadLetter, Hop, Retention, StoredRecording, TenantId,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use runtime::Clock;
use state::{ErasureList, State, StateOptions};
use tempfile::TempDir;

use super::{Kind, Link, lock, settings::SharedSettings};

/// Where memory is a directory.
const MEMORY: &str = "/dev/shm";

/// Whoever sees to each tenant's retention.
type RetentionTurns = Arc<Mutex<BTreeMap<TenantId, Weak<TenantId>>>>;

/// The catalog; clones share it.
#[derive(Clone)]
pub struct SharedCatalog {
    embedded: EmbeddedCatalog,
    clock: Clock,
    settings: SharedSettings,
    retention_turns: RetentionTurns,
    _room: Arc<Room>,
}

/// Where the embedded catalog lies: the state goes before its directory.
struct Room {
    _state: State,
    _dir: TempDir,
}

impl SharedCatalog {
    /// An empty one with a clock of its own, beside the tenants' settings. The seed makes the key of its tombstones, and
    /// so their order.
    pub fn open(clock: Clock, settings: SharedSettings, seed: u64) -> anyhow::Result<Self> {
        let dir = match Path::new(MEMORY).is_dir() {
            true => tempfile::tempdir_in(MEMORY),
            false => tempfile::tempdir(),
        };
        let dir = dir.context("no directory for the simulated servers")?;
        // A server never dies here, so that nothing has to outlive it.
        let options = StateOptions { inline_commits: true, volatile: true, ..StateOptions::default() };
        let state = State::open(dir.path(), options)?.state;
        ErasureList::open(state.store().dir())?.key_or(StdRng::seed_from_u64(seed).random())?;
        let embedded = EmbeddedCatalog::open(state.store())?;
        let room = Arc::new(Room { _state: state, _dir: dir });
        Ok(Self { embedded, clock, settings, retention_turns: Arc::default(), _room: room })
    }

    /// The embedded catalog, past every link.
    pub fn embedded(&self) -> &EmbeddedCatalog {
        &self.embedded
    }

    /// A machine's way to it.
    pub fn through(&self, link: Link) -> LinkedCatalog {
        LinkedCatalog { server: self.clone(), catalog: Arc::new(self.embedded.clone()), link }
    }

    /// A time of a machine's, as far as the server has come.
    fn no_later(&self, at: Timestamp) -> Timestamp {
        at.min(self.clock.now())
    }

    fn retention(&self, tenant: &TenantId, asked: Retention) -> Retention {
        self.settings.retention_of(tenant).unwrap_or(asked)
    }

    fn retention_turn(&self, tenant: &TenantId) -> Option<RetentionTurn> {
        let mut turns = lock(&self.retention_turns);
        if turns.get(tenant).is_some_and(|turn| turn.strong_count() > 0) {
            return None;
        }
        let turn = Arc::new(tenant.clone());
        turns.insert(tenant.clone(), Arc::downgrade(&turn));
        Some(RetentionTurn::of(turn))
    }
}

/// A machine's way to the catalog.
#[derive(Clone)]
pub struct LinkedCatalog {
    server: SharedCatalog,
    /// The embedded one, in a turn or in none.
    catalog: Arc<dyn Catalog>,
    link: Link,
}

impl LinkedCatalog {
    async fn ask<T, Effect>(&self, kind: Kind, effect: impl Fn() -> Effect) -> Result<T, CatalogError>
    where
        Effect: Future<Output = Result<T, CatalogError>> + Send,
    {
        let answer = self.link.insist(kind, effect).await;
        answer.unwrap_or_else(|unanswered| Err(CatalogError(unanswered.to_string())))
    }

    async fn read<T, Effect>(&self, effect: impl Fn() -> Effect) -> Result<T, CatalogError>
    where
        Effect: Future<Output = Result<T, CatalogError>> + Send,
    {
        self.ask(Kind::Read, effect).await
    }

    async fn write<T, Effect>(&self, effect: impl Fn() -> Effect) -> Result<T, CatalogError>
    where
        Effect: Future<Output = Result<T, CatalogError>> + Send,
    {
        self.ask(Kind::Write, effect).await
    }

    fn with(&self, catalog: Arc<dyn Catalog>) -> Arc<dyn Catalog> {
        Arc::new(Self { catalog, ..self.clone() })
    }
}

#[async_trait]
impl Agents for LinkedCatalog {
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<Agent>, CatalogError> {
        self.read(|| self.catalog.agents(tenant)).await
    }

    async fn agent(&self, tenant: &TenantId, id: AgentId) -> Result<Option<Agent>, CatalogError> {
        self.read(|| self.catalog.agent(tenant, id)).await
    }

    async fn save_agents(&self, tenant: &TenantId, agents: &[Agent]) -> Result<(), CatalogError> {
        self.write(|| self.catalog.save_agents(tenant, agents)).await
    }

    async fn note_agents_read(&self, tenant: &TenantId, at: Timestamp) -> Result<(), CatalogError> {
        self.write(|| self.catalog.note_agents_read(tenant, at)).await
    }

    async fn agents_read_at(&self, tenant: &TenantId) -> Result<Option<Timestamp>, CatalogError> {
        self.read(|| self.catalog.agents_read_at(tenant)).await
    }

    async fn group_standing(&self, tenant: &TenantId) -> Result<GroupStanding, CatalogError> {
        self.read(|| self.catalog.group_standing(tenant)).await
    }

    async fn save_group_standing(&self, tenant: &TenantId, standing: &GroupStanding) -> Result<(), CatalogError> {
        self.write(|| self.catalog.save_group_standing(tenant, standing)).await
    }
}

#[async_trait]
impl Conversations for LinkedCatalog {
    async fn known(&self, keys: &[ConversationKey]) -> Result<Vec<bool>, CatalogError> {
        self.read(|| self.catalog.known(keys)).await
    }

    async fn save_metadata(&self, conversation: &Conversation) -> Result<Option<Attempt>, CatalogError> {
        self.write(|| self.catalog.save_metadata(conversation)).await
    }

    async fn begin_attempt(&self, key: &ConversationKey, kind: AttemptKind) -> Result<Option<Attempt>, CatalogError> {
        self.write(|| self.catalog.begin_attempt(key, kind)).await
    }

    async fn is_current(&self, key: &ConversationKey, attempt: Attempt) -> Result<bool, CatalogError> {
        self.read(|| self.catalog.is_current(key, attempt)).await
    }

    async fn complete(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.write(|| self.catalog.complete(key, recordings, missing, at, attempt)).await
    }

    async fn add_recordings(
        &self,
        key: &ConversationKey,
        recordings: &[StoredRecording],
        missing: u32,
        at: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.write(|| self.catalog.add_recordings(key, recordings, missing, at, attempt)).await
    }

    async fn lacking(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Lacking>,
        limit: usize,
    ) -> Result<Vec<Lacking>, CatalogError> {
        self.read(|| self.catalog.lacking(tenant, from, to, after, limit)).await
    }

    async fn complete_without_recording(
        &self,
        key: &ConversationKey,
        attempt: Option<Attempt>,
    ) -> Result<(), CatalogError> {
        self.write(|| self.catalog.complete_without_recording(key, attempt)).await
    }

    async fn conversation(&self, key: &ConversationKey) -> Result<Option<ConversationRow>, CatalogError> {
        self.read(|| self.catalog.conversation(key)).await
    }

    async fn counts(&self) -> Result<ConversationCounts, CatalogError> {
        self.read(|| self.catalog.counts()).await
    }

    async fn fates(&self, keys: &[ConversationKey]) -> Result<Vec<Fate>, CatalogError> {
        self.read(|| self.catalog.fates(keys)).await
    }

    async fn final_between(&self, tenant: &TenantId, from: Timestamp, to: Timestamp) -> Result<RowCount, CatalogError> {
        self.read(|| self.catalog.final_between(tenant, from, to)).await
    }

    async fn status(&self, key: &ConversationKey) -> Result<ConversationStatus, CatalogError> {
        self.read(|| self.catalog.status(key)).await
    }

    async fn recorded(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        after: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<Recorded>, CatalogError> {
        self.read(|| self.catalog.recorded(tenant, from, to, after, limit)).await
    }
}

#[async_trait]
impl DeadLetters for LinkedCatalog {
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError> {
        self.write(|| self.catalog.add_dead_letter(letter.clone())).await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError> {
        self.read(|| self.catalog.dead_letters(after, limit)).await
    }

    async fn dead_letters_of(
        &self,
        selected: &DeadLetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        self.read(|| self.catalog.dead_letters_of(selected, after, limit)).await
    }

    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        self.read(|| self.catalog.due_dead_letters(self.server.no_later(now), after, limit)).await
    }

    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        self.write(|| self.catalog.drop_dead_letters(self.server.no_later(before))).await
    }

    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        self.read(|| self.catalog.count_dead_letters(self.server.no_later(before))).await
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>, CatalogError> {
        self.read(|| self.catalog.dead_letter_groups(limit)).await
    }

    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError> {
        self.read(|| self.catalog.dead_letter(id)).await
    }

    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        self.read(|| self.catalog.dead_letter_of(key)).await
    }

    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError> {
        self.write(|| self.catalog.remove_dead_letter(letter)).await
    }
}

#[async_trait]
impl Timelines for LinkedCatalog {
    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        let sky = self.link.sky();
        let is_lost = !sky.carries() || sky.is_full || self.link.draw(sky.refuses) || self.link.is_killed();
        if !is_lost {
            self.catalog.record_hop(key, hop).await;
        }
    }

    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        self.read(|| self.catalog.hops(key)).await
    }

    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        self.read(|| self.catalog.last_hops(keys)).await
    }
}

#[async_trait]
impl AnalysisQueue for LinkedCatalog {
    async fn analysis_queue(&self, skip: usize, limit: usize) -> Result<Vec<AnalysisEntry>, CatalogError> {
        self.read(|| self.catalog.analysis_queue(skip, limit)).await
    }

    async fn analysis_counts(&self) -> Result<Option<AnalysisCounts>, CatalogError> {
        self.read(|| self.catalog.analysis_counts()).await
    }

    async fn prune_analysis(&self, older_than: std::time::Duration) -> Result<u64, CatalogError> {
        self.write(|| self.catalog.prune_analysis(older_than)).await
    }
}

#[async_trait]
impl Runs for LinkedCatalog {
    async fn begin_run(&self, run: &ReplayRun) -> Result<u64, CatalogError> {
        self.write(|| self.catalog.begin_run(run)).await
    }

    async fn save_run(&self, run: &ReplayRun, before: RunState) -> Result<RunState, CatalogError> {
        self.write(|| self.catalog.save_run(run, before)).await
    }

    async fn change_run(&self, run: &ReplayRun, to: RunState, at: Timestamp) -> Result<bool, CatalogError> {
        self.write(|| self.catalog.change_run(run, to, at)).await
    }

    async fn run(&self, tenant: &TenantId, kind: RunKind, id: u64) -> Result<Option<ReplayRun>, CatalogError> {
        self.read(|| self.catalog.run(tenant, kind, id)).await
    }

    async fn open_runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.read(|| self.catalog.open_runs(tenant, kind, limit)).await
    }

    async fn runs(&self, tenant: &TenantId, kind: RunKind, limit: usize) -> Result<Vec<ReplayRun>, CatalogError> {
        self.read(|| self.catalog.runs(tenant, kind, limit)).await
    }
}

#[async_trait]
impl ProducerTurns for LinkedCatalog {
    async fn begin_turn(&self, tenant: &TenantId) -> Result<u64, CatalogError> {
        self.write(|| self.catalog.begin_turn(tenant)).await
    }

    async fn producer_memory(&self, tenant: &TenantId) -> Result<ProducerMemory, CatalogError> {
        self.read(|| self.catalog.producer_memory(tenant)).await
    }

    async fn advance_poll(
        &self,
        tenant: &TenantId,
        to: Timestamp,
        held_back: Option<u64>,
    ) -> Result<ProducerMemory, CatalogError> {
        self.write(|| self.catalog.advance_poll(tenant, self.server.no_later(to), held_back)).await
    }

    async fn hold_poll_back(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.write(|| self.catalog.hold_poll_back(tenant, to)).await
    }

    async fn note_worked_since(&self, tenant: &TenantId, at: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.write(|| self.catalog.note_worked_since(tenant, self.server.no_later(at))).await
    }

    async fn advance_rechecks(&self, tenant: &TenantId, to: Timestamp) -> Result<ProducerMemory, CatalogError> {
        self.write(|| self.catalog.advance_rechecks(tenant, self.server.no_later(to))).await
    }
}

#[async_trait]
impl FirstLooks for LinkedCatalog {
    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError> {
        self.write(|| self.catalog.note_readiness(tenant, lessons)).await
    }

    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError> {
        self.read(|| self.catalog.readiness(tenant)).await
    }
}

#[async_trait]
impl Audits for LinkedCatalog {
    async fn record_act(&self, act: &OperatorAct, keep: Duration) -> Result<(), CatalogError> {
        let act = OperatorAct { at: self.server.clock.now(), ..act.clone() };
        self.write(|| self.catalog.record_act(&act, keep)).await
    }

    async fn acts(&self, before: Option<u64>, limit: usize) -> Result<Vec<OperatorAct>, CatalogError> {
        self.read(|| self.catalog.acts(before, limit)).await
    }
}

#[async_trait]
impl Overviews for LinkedCatalog {
    async fn days(&self, tenant: &TenantId, from: Date, to: Date) -> Result<Vec<DayCounts>, CatalogError> {
        self.read(|| self.catalog.days(tenant, from, to)).await
    }

    async fn found(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        before: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<FoundConversation>, CatalogError> {
        self.read(|| self.catalog.found(tenant, filter, before, limit)).await
    }
}

#[async_trait]
impl Erasures for LinkedCatalog {
    async fn begin_erasure(&self, key: &ConversationKey, _now: Timestamp) -> Result<Erasure, CatalogError> {
        self.write(|| self.catalog.begin_erasure(key, self.server.clock.now())).await
    }

    async fn erase_rows(&self, key: &ConversationKey) -> Result<ErasedRows, CatalogError> {
        self.write(|| self.catalog.erase_rows(key)).await
    }

    async fn pending_erasures(&self, after: Option<Tombstone>, limit: usize) -> Result<Vec<Erasure>, CatalogError> {
        self.read(|| self.catalog.pending_erasures(after, limit)).await
    }

    async fn finish_erasure(&self, erasure: &Erasure, _now: Timestamp) -> Result<bool, CatalogError> {
        self.write(|| self.catalog.finish_erasure(erasure, self.server.clock.now())).await
    }

    async fn expired(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        after: Option<&Expired>,
        limit: usize,
    ) -> Result<Vec<Expired>, CatalogError> {
        let retention = self.server.retention(tenant, retention);
        self.read(|| self.catalog.expired(tenant, retention, self.server.no_later(now), after, limit)).await
    }

    async fn expire_rows(
        &self,
        tenant: &TenantId,
        retention: Retention,
        now: Timestamp,
        ids: &[ContactId],
    ) -> Result<u64, CatalogError> {
        let retention = self.server.retention(tenant, retention);
        self.write(|| self.catalog.expire_rows(tenant, retention, self.server.no_later(now), ids)).await
    }

    async fn retention_turn(&self, tenant: &TenantId) -> Result<Option<RetentionTurn>, CatalogError> {
        self.ask(Kind::Change, || async { Ok(self.server.retention_turn(tenant)) }).await
    }
}

#[async_trait]
impl Services for LinkedCatalog {
    async fn enlist(&self, beat: &Heartbeat, _now: Timestamp) -> Result<(), CatalogError> {
        self.write(|| self.catalog.enlist(beat, self.server.clock.now())).await
    }

    async fn beat(&self, beat: &Heartbeat, _now: Timestamp) -> Result<bool, CatalogError> {
        self.write(|| self.catalog.beat(beat, self.server.clock.now())).await
    }

    async fn services(&self, _now: Timestamp, limit: usize) -> Result<Vec<KnownService>, CatalogError> {
        self.read(|| self.catalog.services(self.server.clock.now(), limit)).await
    }

    async fn retire(&self, id: &str) -> Result<(), CatalogError> {
        self.write(|| self.catalog.retire(id)).await
    }
}

#[async_trait]
impl Catalog for LinkedCatalog {
    fn in_turn(&self, turn: CurrentTurn) -> Arc<dyn Catalog> {
        self.with(self.catalog.in_turn(turn))
    }

    fn pinned(&self) -> Arc<dyn Catalog> {
        self.with(self.catalog.pinned())
    }

    async fn clock(&self, _now: Timestamp) -> Result<Timestamp, CatalogError> {
        self.read(|| async { Ok(self.server.clock.now()) }).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        self.read(|| async { Ok(self.server.settings.tenants()) }).await
    }

    async fn check(&self) -> Result<(), CatalogError> {
        self.link.call(Kind::Read, async {}).await.map_err(|unanswered| CatalogError(unanswered.to_string()))
    }
}

#[cfg(test)]
mod tests;
