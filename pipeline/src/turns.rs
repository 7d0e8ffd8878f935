//! The producer's turns: each begins in the catalog, where it finds what the tenant's producers know together.
//!
//! The local state notes the number of this producer's last turn. If that was the last turn at all, the processed-id
//! log is whole; if not, another producer has worked meanwhile, and of calls from before this turn the catalog is asked
//! instead (see `stages::dedupe`). That is remembered until such calls lie beyond the log's retention.
//!
//! # After a crash
//! A turn that was begun in the catalog and not noted here counts as another producer's: more is asked than is needed.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, CatalogError, CurrentTurn, ProducerTurn};
use jiff::Timestamp;
use model::TenantId;
use runtime::Clock;
use serde::{Deserialize, Serialize};
use stages::watermark::{Watermark, is_beyond, worked_since};
use state::{State, StateError};
use tracing::info;

/// The tree of the local state with this producer's last turn of each tenant.
const TREE: &str = "turns";

/// The tree in which earlier versions kept the memory that is the catalog's now, and the names there.
const EARLIER: &str = "watermarks";
const EARLIER_POLL: &str = "poll";
const EARLIER_SINCE: &str = "reconciliation";

/// Why a turn did not begin; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The local state did not answer.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What the local state notes of this producer's last turn.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    number: u64,
    /// The log does not know what another producer found of the time before.
    unknown_before: Option<Timestamp>,
}

/// Begins turns.
#[derive(Clone)]
pub(crate) struct Turns {
    catalog: Arc<dyn Catalog>,
    tenant: TenantId,
    state: State,
    retention: Duration,
    recovery_window: Duration,
    clock: Clock,
    current: CurrentTurn,
    poll: Watermark,
}

/// A turn that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What its writes carry.
    pub(crate) turn: ProducerTurn,
    /// The processed-id log does not know what another producer found of the time before.
    pub(crate) unknown_before: Option<Timestamp>,
}

impl Turns {
    /// The turns of a producer. Its processed-id log remembers `retention`; a stored time in the future goes back by
    /// `recovery_window`.
    pub(crate) fn new(
        catalog: Arc<dyn Catalog>,
        tenant: TenantId,
        state: State,
        retention: Duration,
        recovery_window: Duration,
        clock: Clock,
    ) -> Self {
        let current = CurrentTurn::default();
        let poll = Watermark::new(catalog.in_turn(current.clone()), tenant.clone());
        Self { catalog, tenant, state, retention, recovery_window, clock, current, poll }
    }

    /// Whose turns.
    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The catalog for what outlives a turn: it writes in the last one that was begun, and as an operator before the
    /// first. A turn that is over writes until another one begins, and is refused then.
    pub(crate) fn catalog(&self) -> Arc<dyn Catalog> {
        self.catalog.in_turn(self.current.clone())
    }

    /// The catalog for what ends with a turn.
    pub(crate) fn catalog_of(&self, turn: &ProducerTurn) -> Arc<dyn Catalog> {
        self.catalog.in_turn(CurrentTurn::only(turn))
    }

    /// The poll's watermark.
    pub(crate) fn poll(&self) -> &Watermark {
        &self.poll
    }

    /// Begins a turn: what any turn before still writes is refused from then on.
    pub(crate) async fn begin(&self) -> Result<Begun, TurnError> {
        let turn = ProducerTurn::new(self.tenant.clone(), self.catalog.begin_turn(&self.tenant).await?);
        let now = self.clock.now();
        let noted = self.noted()?;
        let unknown_before = match noted {
            Some(Noted { number, unknown_before }) if number + 1 == turn.number => unknown_before,
            _ => Some(now),
        };
        let horizon = now.checked_sub(self.retention).unwrap_or(Timestamp::MIN);
        let unknown_before = unknown_before.filter(|before| *before > horizon);
        self.note(&Noted { number: turn.number, unknown_before }).await?;
        self.current.set(Some(turn.clone()));
        self.take_over_from_earlier_version(now).await?;
        // Before NICE is asked: a key that is mended hours later does not move the beginning.
        worked_since(&*self.catalog(), &self.tenant, now, self.recovery_window).await?;
        self.poll.load().await?;
        info!(turn = turn.number, watermark = ?self.poll.get(), ?unknown_before, "a turn of the producer begins");
        Ok(Begun { turn, unknown_before })
    }

    fn noted(&self) -> Result<Option<Noted>, TurnError> {
        let noted = self.state.store().tree(TREE)?.get(self.tenant.as_str()).map_err(StateError::from)?;
        Ok(noted.and_then(|noted| serde_json::from_slice(&noted).ok()))
    }

    async fn note(&self, noted: &Noted) -> Result<(), TurnError> {
        let noted = serde_json::to_vec(noted).unwrap_or_default();
        self.state.store().tree(TREE)?.insert(self.tenant.as_str(), noted).map_err(StateError::from)?;
        Ok(self.state.store().commit().await?)
    }

    /// Moves to the catalog what an earlier version noted in the local state, where the catalog has none of it.
    /// A time to come was written by a wrong clock.
    async fn take_over_from_earlier_version(&self, now: Timestamp) -> Result<(), TurnError> {
        let believed = |at: Timestamp| match is_beyond(at, now) {
            true => now.checked_sub(self.recovery_window).unwrap_or(Timestamp::MIN),
            false => at,
        };
        let known = self.catalog.producer_memory(&self.tenant).await?;
        let poll = earlier(&self.state, EARLIER_POLL)?.filter(|_| known.poll_watermark.is_none());
        let since = earlier(&self.state, EARLIER_SINCE)?.filter(|_| known.worked_since.is_none());
        let catalog = self.catalog();
        if let Some(at) = poll.map(believed) {
            catalog.advance_poll(&self.tenant, at, None).await?;
            info!(watermark = %at, "the poll's watermark of an earlier version is in the catalog now");
        }
        if let Some(at) = since.map(believed) {
            catalog.note_worked_since(&self.tenant, at).await?;
        }
        self.state.store().drop_tree(EARLIER)?;
        Ok(())
    }
}

/// The poll's watermark as an earlier version noted it in the local state.
pub(crate) fn earlier_watermark(state: &State) -> Result<Option<Timestamp>, StateError> {
    earlier(state, EARLIER_POLL)
}

fn earlier(state: &State, name: &str) -> Result<Option<Timestamp>, StateError> {
    let stored = state.store().tree(EARLIER)?.get(name)?;
    let nanoseconds = stored.and_then(|bytes| Some(i128::from_be_bytes(bytes.as_ref().try_into().ok()?)));
    Ok(nanoseconds.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok()))
}

#[cfg(test)]
mod tests {
    use catalog::EmbeddedCatalog;
    use catalog::roles::*;
    use state::StateOptions;

    use super::*;

    const RETENTION: Duration = Duration::from_secs(3 * 86_400);

    /// A producer with a state of its own, on the catalog of all.
    struct Producer {
        turns: Turns,
        _dir: tempfile::TempDir,
    }

    impl Producer {
        fn new(catalog: &EmbeddedCatalog, clock: &Clock) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = State::open(dir.path(), StateOptions::default()).unwrap().state;
            let (catalog, tenant) = (Arc::new(catalog.clone()), "acme".parse().unwrap());
            Self { turns: Turns::new(catalog, tenant, state, RETENTION, RETENTION, clock.clone()), _dir: dir }
        }

        async fn begin(&self) -> (u64, Option<Timestamp>) {
            let begun = self.turns.begin().await.unwrap();
            (begun.turn.number, begun.unknown_before)
        }
    }

    fn shared_catalog() -> (EmbeddedCatalog, State, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), StateOptions::default()).unwrap().state;
        (EmbeddedCatalog::open(state.store()).unwrap(), state, dir)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_producer_knows_whether_another_one_has_worked_meanwhile() {
        let (catalog, _state, _dir) = shared_catalog();
        let clock = Clock::fixed(at("2026-04-01T12:00:00Z"));
        let (first, second) = (Producer::new(&catalog, &clock), Producer::new(&catalog, &clock));
        // Whether there was one of an earlier version nobody knows.
        let begun = clock.now();
        assert_eq!(first.begin().await, (1, Some(begun)));
        clock.advance(jiff::SignedDuration::from_hours(1));
        assert_eq!(first.begin().await, (2, Some(begun)), "a restart learns nothing of the time before");
        clock.advance(jiff::SignedDuration::from_hours(71));
        assert_eq!(first.begin().await, (3, None), "all of it lies beyond the retention");
        assert_eq!(second.begin().await, (4, Some(clock.now())));
        clock.advance(jiff::SignedDuration::from_hours(1));
        assert_eq!(first.begin().await, (5, Some(clock.now())));
        assert_eq!(first.begin().await, (6, Some(clock.now())));
    }

    #[tokio::test]
    async fn a_successor_begins_where_the_one_before_stood() {
        let (catalog, _state, _dir) = shared_catalog();
        let clock = Clock::fixed(at("2026-04-01T12:00:00Z"));
        let (first, second) = (Producer::new(&catalog, &clock), Producer::new(&catalog, &clock));
        first.begin().await;
        let moved = at("2026-04-01T11:30:00Z");
        first.turns.poll().advance(moved).await.unwrap();
        second.begin().await;
        assert_eq!(second.turns.poll().get(), Some(moved));
        // The one before comes back to life: what it writes is refused.
        assert!(first.turns.poll().advance(clock.now()).await.is_err());
        assert!(first.turns.catalog().note_agents_read(first.turns.tenant(), clock.now()).await.is_err());
        second.turns.poll().load().await.unwrap();
        assert_eq!(second.turns.poll().get(), Some(moved));
    }

    #[tokio::test]
    async fn what_an_earlier_version_noted_is_taken_over_once() {
        let (catalog, _state, _dir) = shared_catalog();
        let clock = Clock::fixed(at("2026-04-01T12:00:00Z"));
        let (poll, since) = (at("2026-04-01T11:55:00Z"), at("2026-03-01T00:00:00Z"));
        let (first, second) = (Producer::new(&catalog, &clock), Producer::new(&catalog, &clock));
        for producer in [&first, &second] {
            let earlier = producer.turns.state.store().tree(EARLIER).unwrap();
            earlier.insert(EARLIER_POLL, poll.as_nanosecond().to_be_bytes().as_slice()).unwrap();
            earlier.insert(EARLIER_SINCE, since.as_nanosecond().to_be_bytes().as_slice()).unwrap();
        }
        first.begin().await;
        let known = catalog.producer_memory(first.turns.tenant()).await.unwrap();
        assert_eq!((known.poll_watermark, known.worked_since), (Some(poll), Some(since)));
        drop(first.turns.poll().hold_back(at("2026-04-01T09:00:00Z")).await.unwrap());
        for producer in [&first, &second, &first] {
            producer.begin().await;
            assert_eq!(producer.turns.poll().get(), Some(at("2026-04-01T09:00:00Z")), "the catalog's counts");
            assert_eq!(earlier_watermark(&producer.turns.state).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_time_to_come_of_an_earlier_version_is_not_taken_over() {
        let (catalog, _state, _dir) = shared_catalog();
        let clock = Clock::fixed(at("2026-04-01T12:00:00Z"));
        let (first, ahead) = (Producer::new(&catalog, &clock), at("2026-04-06T12:00:00Z"));
        let earlier = first.turns.state.store().tree(EARLIER).unwrap();
        for name in [EARLIER_POLL, EARLIER_SINCE] {
            earlier.insert(name, ahead.as_nanosecond().to_be_bytes().as_slice()).unwrap();
        }
        first.begin().await;
        let known = catalog.producer_memory(first.turns.tenant()).await.unwrap();
        let back = Some(at("2026-03-29T12:00:00Z"));
        assert_eq!((known.poll_watermark, known.worked_since), (back, back));
    }

    #[tokio::test]
    async fn the_first_turn_says_since_when_the_tenant_is_worked_for() {
        let (catalog, _state, _dir) = shared_catalog();
        let clock = Clock::fixed(at("2026-04-01T12:00:00Z"));
        let (first, second) = (Producer::new(&catalog, &clock), Producer::new(&catalog, &clock));
        for producer in [&first, &second] {
            producer.begin().await;
            assert_eq!(producer.turns.poll().worked_since(), Some(at("2026-04-01T12:00:00Z")));
            clock.advance(jiff::SignedDuration::from_hours(10));
        }
    }
}
