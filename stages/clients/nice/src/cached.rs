//! A value that is fetched once for all who wait for it: a token, a configuration.
//!
//! Whoever finds it missing fetches it while the others wait in line; a caller that gives up in the middle hands
//! the turn to the next. A value that is growing old is renewed by one caller while the others go on with it, and
//! stays in use when that fails. A failure is remembered for a growing while, so that a wrong secret or an outage
//! is met by one request now and then, not by one for each conversation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::single_flight::{Lookup, SingleFlight};
use tokio::time::Instant;

use super::NiceError;

/// A fetched value and how long it may be used.
pub(super) struct Fetched<T> {
    /// The value.
    pub(super) value: T,
    /// For so long it is as good as new.
    pub(super) fresh_for: Duration,
    /// For so long it may be used while a newer one cannot be had.
    pub(super) valid_for: Duration,
}

/// A value in use.
pub(super) struct CachedValue<T> {
    /// The value.
    pub(super) value: T,
    generation: u64,
    fresh_until: Instant,
    valid_until: Instant,
}

struct FetchFailure {
    error: NiceError,
    count: u32,
    until: Instant,
}

struct CacheState<T> {
    held: Option<Arc<CachedValue<T>>>,
    failure: Option<FetchFailure>,
    generation: u64,
    /// A new value was refused as well: until then, nobody asks for another.
    settled_until: Option<Instant>,
}

/// The cell around it.
pub(super) struct Cached<T> {
    state: Mutex<CacheState<T>>,
    flight: SingleFlight,
    delay: Duration,
}

/// The longest wait after an outage: NICE is back and we are within the minute.
const MAX_OUTAGE_DELAY: Duration = Duration::from_secs(15);

/// The longest wait after a refusal: a person has to mend it anyhow.
const MAX_REFUSED_DELAY: Duration = Duration::from_secs(60);

/// How long a new value that was refused like the old one is kept: a third will not do better.
const SETTLED: Duration = Duration::from_secs(30);

impl<T> Cached<T> {
    /// An empty cell; `delay` is the wait after a first failure.
    pub(super) fn new(delay: Duration) -> Self {
        let state = CacheState { held: None, failure: None, generation: 0, settled_until: None };
        Self { state: Mutex::new(state), flight: SingleFlight::default(), delay }
    }

    fn state(&self) -> MutexGuard<'_, CacheState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, if it may be used, without fetching it.
    pub(super) fn peek(&self) -> Option<Arc<CachedValue<T>>> {
        self.state().held.clone().filter(|held| Instant::now() < held.valid_until)
    }

    /// The value; fetched where there is none that may be used.
    pub(super) async fn get<F>(&self, fetch: impl FnOnce() -> F) -> Result<Arc<CachedValue<T>>, NiceError>
    where
        F: Future<Output = Result<Fetched<T>, NiceError>>,
    {
        let fetch = |_| async {
            let asked_at = Instant::now();
            match fetch().await {
                Ok(fetched) => Ok(self.keep(fetched, asked_at)),
                Err(error) => self.note(error),
            }
        };
        self.flight.get(|| self.lookup(), fetch).await
    }

    /// Drops the value if it is still this one, so that the next caller fetches another; false while it is known
    /// that another would be refused too.
    pub(super) fn drop_value(&self, refused: &CachedValue<T>) -> bool {
        let mut state = self.state();
        let current = state.held.as_ref().is_some_and(|held| held.generation == refused.generation);
        if current && state.settled_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        if current {
            state.held = None;
        }
        true
    }

    /// Notes that a value fetched anew was refused too.
    pub(super) fn settle(&self) {
        self.state().settled_until = Some(Instant::now() + SETTLED);
    }

    fn lookup(&self) -> Lookup<Result<Arc<CachedValue<T>>, NiceError>> {
        let state = self.state();
        let now = Instant::now();
        let failed = state.failure.as_ref().filter(|failure| now < failure.until);
        match (&state.held, failed) {
            (Some(held), _) if now < held.fresh_until => Lookup::Use(Ok(held.clone())),
            (Some(held), Some(_)) if now < held.valid_until => Lookup::Use(Ok(held.clone())),
            (Some(held), None) if now < held.valid_until => Lookup::Renew(Ok(held.clone())),
            (_, Some(failure)) => Lookup::Use(Err(failure.again(now))),
            (_, None) => Lookup::Fetch,
        }
    }

    fn keep(&self, fetched: Fetched<T>, asked_at: Instant) -> Arc<CachedValue<T>> {
        let mut state = self.state();
        state.generation += 1;
        let held = Arc::new(CachedValue {
            value: fetched.value,
            generation: state.generation,
            fresh_until: asked_at + fetched.fresh_for,
            valid_until: asked_at + fetched.valid_for,
        });
        state.held = Some(held.clone());
        state.failure = None;
        held
    }

    /// Remembers the failure; the old value stays in use while it may.
    fn note(&self, error: NiceError) -> Result<Arc<CachedValue<T>>, NiceError> {
        let mut state = self.state();
        let count = state.failure.as_ref().map_or(0, |failure| failure.count);
        let (longest, asked) = match &error {
            NiceError::Transient { retry_after, .. }
            | NiceError::Media { retry_after, .. }
            | NiceError::Quota { retry_after, .. } => (MAX_OUTAGE_DELAY, retry_after.unwrap_or_default()),
            NiceError::Refused { .. } | NiceError::Permanent { .. } | NiceError::Odd { .. } => {
                (MAX_REFUSED_DELAY, Duration::ZERO)
            }
            NiceError::NotReady { .. } | NiceError::TooMuch { .. } | NiceError::LinkExpired => {
                (MAX_OUTAGE_DELAY, Duration::ZERO)
            }
        };
        let delay = self.delay.saturating_mul(1 << count.min(10)).min(longest).max(asked);
        let until = Instant::now() + delay;
        state.failure = Some(FetchFailure { error: error.clone(), count: count + 1, until });
        match &state.held {
            Some(held) if Instant::now() < held.valid_until => Ok(held.clone()),
            _ => Err(error),
        }
    }
}

impl FetchFailure {
    /// The remembered error, asking for the time that remains.
    fn again(&self, now: Instant) -> NiceError {
        match &self.error {
            NiceError::Transient { what, .. } => {
                let remaining = self.until.saturating_duration_since(now);
                NiceError::Transient { what: what.clone(), retry_after: Some(remaining) }
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        cell: Arc<Cached<u32>>,
        asked: Arc<AtomicU32>,
    }

    impl Rig {
        fn new() -> Self {
            Self { cell: Arc::new(Cached::new(2 * SECOND)), asked: Arc::default() }
        }

        async fn get(&self, outcome: Result<(), NiceError>) -> Result<u32, NiceError> {
            let fetch = || async {
                let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::time::sleep(SECOND).await;
                outcome.map(|()| Fetched { value: number, fresh_for: 60 * SECOND, valid_for: 100 * SECOND })
            };
            self.cell.get(fetch).await.map(|held| held.value)
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn refused() -> Result<(), NiceError> {
        Err(NiceError::refused("no"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_callers_fetch_once() {
        let rig = Rig::new();
        let values = futures::future::join_all((0..100).map(|_| rig.get(Ok(())))).await;
        assert!(values.iter().all(|value| *value == Ok(1)));
        assert_eq!(rig.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_hands_on_the_turn() {
        let rig = Rig::new();
        let gone = tokio::time::timeout(SECOND / 2, rig.get(Ok(())));
        let (gone, stays) = futures::future::join(gone, rig.get(Ok(()))).await;
        assert!(gone.is_err());
        assert_eq!(stays, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_value_is_renewed_by_one_and_used_by_the_rest() {
        let rig = Rig::new();
        rig.get(Ok(())).await.unwrap();
        tokio::time::advance(61 * SECOND).await;
        let values = futures::future::join_all((0..10).map(|_| rig.get(Ok(())))).await;
        assert_eq!(values.iter().filter(|value| **value == Ok(2)).count(), 1);
        assert_eq!(values.iter().filter(|value| **value == Ok(1)).count(), 9);
        assert_eq!(rig.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_value_outlives_a_failed_renewal_but_not_its_end() {
        let rig = Rig::new();
        rig.get(Ok(())).await.unwrap();
        tokio::time::advance(61 * SECOND).await;
        assert_eq!(rig.get(refused()).await, Ok(1));
        assert_eq!(rig.get(Ok(())).await, Ok(1), "within the delay nobody asks");
        tokio::time::advance(60 * SECOND).await;
        assert_eq!(rig.get(Ok(())).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_hammered() {
        let rig = Rig::new();
        for _ in 0..600 {
            assert!(rig.get(refused()).await.is_err());
            tokio::time::advance(SECOND).await;
        }
        assert!((10..=20).contains(&rig.asked()), "{} requests in ten minutes", rig.asked());
        tokio::time::advance(60 * SECOND).await;
        assert!(rig.get(Ok(())).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_callers_share_one_failure() {
        let rig = Rig::new();
        let values = futures::future::join_all((0..100).map(|_| rig.get(refused()))).await;
        assert!(values.iter().all(Result::is_err));
        assert_eq!(rig.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_over_within_seconds() {
        let rig = Rig::new();
        for _ in 0..120 {
            assert!(rig.get(Err(NiceError::transient("down"))).await.is_err());
            tokio::time::advance(SECOND).await;
        }
        tokio::time::advance(MAX_OUTAGE_DELAY).await;
        assert!(rig.get(Ok(())).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_refused_value_is_dropped() {
        let rig = Rig::new();
        rig.get(Ok(())).await.unwrap();
        let first = rig.cell.peek().unwrap();
        assert!(rig.cell.drop_value(&first));
        assert_eq!(rig.get(Ok(())).await, Ok(2));
        assert!(rig.cell.drop_value(&first), "a newer one is there already");
        assert_eq!(rig.get(Ok(())).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_value_that_is_refused_too_stays_for_a_while() {
        let rig = Rig::new();
        rig.get(Ok(())).await.unwrap();
        let held = rig.cell.peek().unwrap();
        rig.cell.settle();
        assert!(!rig.cell.drop_value(&held));
        tokio::time::advance(SETTLED).await;
        assert!(rig.cell.drop_value(&held));
    }
}
