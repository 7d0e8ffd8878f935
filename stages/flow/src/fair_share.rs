//! The consumer's places, shared fairly among tenants: slow work of one does not hold up the others.
//!
//! In: the tenant of each message that comes off the queue. Out: a place, which is free again when it is dropped, or
//! the advice to send the message back for a while.
//!
//! # Contract
//! A tenant holds as many places as are worked on at a time (`[consumer] concurrency`); all together hold twice as many,
//! so that one cannot take the last. Tenants whose work has lasted long of late are slow, and slow ones together hold no
//! more than one tenant may, in equal parts; a part is never less than one place. What is under way keeps its place.
//!
//! Whoever finds no place waits here, live before backfill, then in the order of arrival. Of a slow tenant only a few wait,
//! so that its places do not stand empty: more would hold what others come through. They go back to the queue for some
//! seconds, the longer the more often they did.
//!
//! # After a crash
//! Nothing is kept: the queue delivers again, and whoever is slow is found out in seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::{ContactEvent, Lane, Settle, SettleError, TenantId};
use runtime::chance;
use tokio::{sync::Notify, time::Instant};

/// Work that lasts longer than this makes its tenant slow.
const SLOW: Duration = Duration::from_secs(2);

/// And so long after its end it still is.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a slow tenant's message waits for a place before it goes back, if it is not among the next ones.
const PATIENCE: Duration = Duration::from_millis(100);

/// The same while no other tenant turns up: each message that goes back makes the time a little longer, up to this. So
/// a tenant that is alone hardly sends messages around.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

/// Nobody waits here for longer: a broker takes back what is held for half an hour, and blames the message for it.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A message that is among the next ones looks again whether it still is.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a message goes back for: at least, and at most; up to twice that, so that they do not return together.
const AWAY_MIN: Duration = Duration::from_secs(5);
const AWAY_MAX: Duration = Duration::from_secs(60);

/// The places of a consumer.
#[derive(Debug, Clone)]
pub struct FairShare {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Places that one tenant may hold.
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: usize,
    tenants: BTreeMap<TenantId, Standing>,
    /// Numbers places and waiters.
    next: u64,
    patience: Duration,
    /// Whose message went back last.
    sent_back: Option<TenantId>,
}

/// How it stands with a tenant; forgotten once it holds nothing, waits for nothing and is quick.
#[derive(Debug, Default)]
struct Standing {
    /// The places it holds, by number, and since when. The first one is the oldest.
    held: BTreeMap<u64, Instant>,
    /// Its messages that wait, in the order of their turns.
    waiting: BTreeMap<(Lane, u64), Arc<Notify>>,
    slow_until: Option<Instant>,
}

/// A message of a slow tenant found no place: it goes back to the queue for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBack(pub Duration);

impl FairShare {
    /// All are free; one tenant may hold so many.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        let state = State { held: 0, tenants: BTreeMap::new(), next: 0, patience: PATIENCE, sent_back: None };
        Self { inner: Arc::new(Inner { places, state: Mutex::new(state) }) }
    }

    /// How many places there are, of one tenant's number.
    pub fn all(places: usize) -> usize {
        places.max(1).saturating_mul(2)
    }

    /// How many messages are taken off the queue at a time: those that hold places, and some that wait or are sent back.
    pub fn prefetch(places: usize) -> usize {
        places.max(1).saturating_mul(3)
    }

    /// Waits for a place.
    pub async fn admit(&self, event: &ContactEvent) -> Result<Place, SentBack> {
        let since = Instant::now();
        let turn_comes = Arc::new(Notify::new());
        let turn = self.inner.lock().line_up(event, turn_comes.clone());
        let _waiter = Waiter { inner: &self.inner, tenant: &event.tenant, turn };
        loop {
            let look_again_at = {
                let mut state = self.inner.lock();
                match state.try_admit(&self.inner, &event.tenant, turn, since, Instant::now()) {
                    Look::Admitted(number) => {
                        let tenant = event.tenant.clone();
                        return Ok(Place { inner: self.inner.clone(), tenant, number });
                    }
                    Look::SentBack => return Err(SentBack(away(event))),
                    Look::Again(at) => at,
                }
            };
            tokio::select! {
                biased;
                // A word that came since is kept.
                () = turn_comes.notified() => {}
                () = tokio::time::sleep_until(look_again_at) => {}
            }
        }
    }
}

/// What a look for a place came to.
enum Look {
    Admitted(u64),
    SentBack,
    Again(Instant),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn line_up(&mut self, event: &ContactEvent, turn_comes: Arc<Notify>) -> (Lane, u64) {
        let turn = (Lane::of(event), self.number());
        self.tenants.entry(event.tenant.clone()).or_default().waiting.insert(turn, turn_comes);
        if self.sent_back.as_ref().is_some_and(|tenant| *tenant != event.tenant) {
            self.patience = PATIENCE;
        }
        turn
    }

    fn try_admit(&mut self, inner: &Inner, tenant: &TenantId, turn: (Lane, u64), since: Instant, now: Instant) -> Look {
        let slow = self.tenants.values().filter(|standing| standing.is_slow(now)).count();
        let number = self.number();
        let is_room = self.held < Self::all(inner);
        let patience = self.patience;
        let standing = self.tenants.entry(tenant.clone()).or_default();
        let is_slow = standing.is_slow(now);
        let share = if is_slow { (inner.places / slow.max(1)).max(1) } else { inner.places };
        let is_next = standing.waiting.keys().next() == Some(&turn);
        if is_next && is_room && standing.held.len() < share {
            standing.held.insert(number, now);
            self.held += 1;
            return Look::Admitted(number);
        }
        let until = since + LONGEST_WAIT;
        if now >= until {
            return Look::SentBack;
        }
        if !is_slow {
            return Look::Again(standing.slow_from().unwrap_or(now + SLOW).min(until));
        }
        if self.is_among_next(inner, tenant, turn, slow, now) {
            return Look::Again((now + AGAIN).min(until));
        }
        if now.saturating_duration_since(since) >= patience {
            let again = self.sent_back.replace(tenant.clone()).is_some_and(|before| before == *tenant);
            if again && self.tenants.len() == 1 {
                self.patience = (self.patience + self.patience / 32).min(LONGEST_PATIENCE);
            }
            return Look::SentBack;
        }
        Look::Again(since + patience)
    }

    /// Whether a message of a slow tenant waits here: one of its next few, at least one, and of all slow tenants together
    /// not more than half of what one may hold.
    fn is_among_next(&self, inner: &Inner, tenant: &TenantId, turn: (Lane, u64), slow: usize, now: Instant) -> bool {
        let all = (inner.places / 2).max(1);
        let keeps = (all / slow.max(1)).max(1);
        let next_of = |standing: &Standing| standing.waiting.keys().take(keeps).copied().collect::<Vec<_>>();
        let is_of_its_own = self.tenants.get(tenant).is_some_and(|standing| next_of(standing).contains(&turn));
        let slow_ones = self.tenants.values().filter(|standing| standing.is_slow(now));
        is_of_its_own && slow_ones.flat_map(next_of).filter(|other| *other < turn).count() < all
    }

    fn all(inner: &Inner) -> usize {
        FairShare::all(inner.places)
    }

    /// Tells whoever is next in a line that there may be room, and forgets a tenant of which there is nothing to be
    /// remembered.
    fn go_on(&mut self, now: Instant) {
        for next in self.tenants.values().filter_map(|standing| standing.waiting.values().next()) {
            next.notify_one();
        }
        self.tenants
            .retain(|_, standing| !standing.held.is_empty() || !standing.waiting.is_empty() || standing.is_slow(now));
    }
}

impl Standing {
    /// When it becomes slow by what it holds.
    fn slow_from(&self) -> Option<Instant> {
        self.held.values().next().map(|since| *since + SLOW)
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.slow_from().is_some_and(|from| from <= now) || self.slow_until.is_some_and(|until| until > now)
    }
}

/// How long a message goes back for: as long as it has waited so far, within bounds.
fn away(event: &ContactEvent) -> Duration {
    let away = Duration::from_secs(event.busy_secs).clamp(AWAY_MIN, AWAY_MAX);
    away.mul_f64(chance::range(1.0..2.0))
}

/// Takes its turn back when it is dropped.
struct Waiter<'a> {
    inner: &'a Inner,
    tenant: &'a TenantId,
    turn: (Lane, u64),
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(standing) = state.tenants.get_mut(self.tenant) {
            standing.waiting.remove(&self.turn);
        }
        state.go_on(Instant::now());
    }
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    tenant: TenantId,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.inner.lock();
        if let Some(standing) = state.tenants.get_mut(&self.tenant)
            && let Some(since) = standing.held.remove(&self.number)
        {
            if now.saturating_duration_since(since) >= SLOW {
                standing.slow_until = Some(now + REMEMBERED);
            }
            state.held -= 1;
        }
        state.go_on(now);
    }
}

/// Where the place of a message is kept until it is settled or dropped.
#[derive(Debug, Default)]
pub struct Seat {
    place: Arc<Mutex<Option<Place>>>,
}

impl Seat {
    /// The duty to settle the message, whose end gives the place back.
    pub fn of(&self, settle: Box<dyn Settle>) -> Box<dyn Settle> {
        Box::new(Seated { settle, _place: self.place.clone() })
    }

    /// Keeps the place from now on.
    pub fn take(self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

struct Seated {
    settle: Box<dyn Settle>,
    _place: Arc<Mutex<Option<Place>>>,
}

#[async_trait]
impl Settle for Seated {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.settle.ack().await
    }

    async fn defer(self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        self.settle.defer(event, delay).await
    }
}

#[cfg(test)]
mod tests;
