//! The consumer's slots, shared fairly among tenants: slow work of one does not hold up the others.
//!
//! In: the tenant of each message that comes off the queue. Out: a slot, which is free again when it is dropped, or
//! the advice to send the message back for a while.
//!
//! # Contract
//! A tenant holds as many slots as are worked on at a time (`[consumer] concurrency`); all together hold twice as many,
//! so that one cannot take the last. Tenants whose work has lasted long of late are slow, and slow ones together hold
//! no more than one tenant may, in equal parts; a part is never less than one slot. What is under way keeps its slot.
//!
//! Whoever finds no slot waits here, live before backfill, then in the order of arrival. Of a slow tenant only a few
//! wait, so that its slots do not stand empty: more would hold what others come through. They go back to the queue for
//! some seconds, the longer the more often they did.
//!
//! # After a crash
//! Nothing is kept: the queue delivers again, and a slow tenant is noticed within seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{ContactEvent, Lane, TenantId};
use runtime::chance;
use tokio::{sync::Notify, time::Instant};

use super::delivery::Hold;

/// Work that lasts longer than this makes its tenant slow.
const SLOW: Duration = Duration::from_secs(2);

/// How long a tenant stays slow after such work has ended.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a slow tenant's message waits for a slot before it goes back, if it is not among the next ones.
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

/// The slots of a consumer.
#[derive(Debug, Clone)]
pub struct FairShare {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Slots that one tenant may hold.
    slots: usize,
    state: Mutex<SlotTable>,
}

#[derive(Debug)]
struct SlotTable {
    held: usize,
    tenants: BTreeMap<TenantId, TenantSlots>,
    /// Numbers slots and waiters.
    next: u64,
    patience: Duration,
    /// Whose message went back last.
    sent_back: Option<TenantId>,
}

/// The slots of one tenant; forgotten once it holds none, waits for none and is quick.
#[derive(Debug, Default)]
struct TenantSlots {
    /// The slots it holds, by number, and since when. The first one is the oldest.
    held: BTreeMap<u64, Instant>,
    /// Its messages that wait, in the order of their turns.
    waiting: BTreeMap<(Lane, u64), Arc<Notify>>,
    slow_until: Option<Instant>,
}

/// A message of a slow tenant found no slot: it goes back to the queue for this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBack(pub Duration);

impl FairShare {
    /// All are free; one tenant may hold so many.
    pub fn new(slots: usize) -> Self {
        let slots = slots.max(1);
        let state = SlotTable { held: 0, tenants: BTreeMap::new(), next: 0, patience: PATIENCE, sent_back: None };
        Self { inner: Arc::new(Inner { slots, state: Mutex::new(state) }) }
    }

    /// How many slots there are, of one tenant's number.
    pub fn all(slots: usize) -> usize {
        slots.max(1).saturating_mul(2)
    }

    /// How many messages are taken off the queue at a time: those that hold slots, and some that wait or are sent back.
    pub fn prefetch(slots: usize) -> usize {
        slots.max(1).saturating_mul(3)
    }

    /// Waits for a slot.
    pub async fn admit(&self, event: &ContactEvent) -> Result<Slot, SentBack> {
        let since = Instant::now();
        let turn_comes = Arc::new(Notify::new());
        let turn = self.inner.lock().line_up(event, turn_comes.clone());
        let _waiter = QueuedMessage { inner: &self.inner, tenant: &event.tenant, turn };
        loop {
            let look_again_at = {
                let mut state = self.inner.lock();
                match state.try_admit(&self.inner, &event.tenant, turn, since, Instant::now()) {
                    Admission::Admitted(number) => {
                        let tenant = event.tenant.clone();
                        return Ok(Slot { inner: self.inner.clone(), tenant, number });
                    }
                    Admission::SentBack => return Err(SentBack(away(event))),
                    Admission::Again(at) => at,
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

/// Whether a message gets a slot now.
enum Admission {
    Admitted(u64),
    SentBack,
    Again(Instant),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, SlotTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotTable {
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

    fn try_admit(
        &mut self,
        inner: &Inner,
        tenant: &TenantId,
        turn: (Lane, u64),
        since: Instant,
        now: Instant,
    ) -> Admission {
        let slow = self.tenants.values().filter(|tenant_slots| tenant_slots.is_slow(now)).count();
        let number = self.number();
        let is_room = self.held < Self::all(inner);
        let patience = self.patience;
        let tenant_slots = self.tenants.entry(tenant.clone()).or_default();
        let is_slow = tenant_slots.is_slow(now);
        let share = if is_slow { (inner.slots / slow.max(1)).max(1) } else { inner.slots };
        let is_next = tenant_slots.waiting.keys().next() == Some(&turn);
        if is_next && is_room && tenant_slots.held.len() < share {
            tenant_slots.held.insert(number, now);
            self.held += 1;
            return Admission::Admitted(number);
        }
        let until = since + LONGEST_WAIT;
        if now >= until {
            return Admission::SentBack;
        }
        if !is_slow {
            return Admission::Again(tenant_slots.slow_from().unwrap_or(now + SLOW).min(until));
        }
        if self.is_among_next(inner, tenant, turn, slow, now) {
            return Admission::Again((now + AGAIN).min(until));
        }
        if now.saturating_duration_since(since) >= patience {
            let again = self.sent_back.replace(tenant.clone()).is_some_and(|before| before == *tenant);
            if again && self.tenants.len() == 1 {
                self.patience = (self.patience + self.patience / 32).min(LONGEST_PATIENCE);
            }
            return Admission::SentBack;
        }
        Admission::Again(since + patience)
    }

    /// Whether a message of a slow tenant waits here: one of its next few, at least one, and of all slow tenants
    /// together not more than half of what one may hold.
    fn is_among_next(&self, inner: &Inner, tenant: &TenantId, turn: (Lane, u64), slow: usize, now: Instant) -> bool {
        let all = (inner.slots / 2).max(1);
        let keeps = (all / slow.max(1)).max(1);
        let next_of = |tenant_slots: &TenantSlots| tenant_slots.waiting.keys().take(keeps).copied().collect::<Vec<_>>();
        let is_of_its_own = self.tenants.get(tenant).is_some_and(|tenant_slots| next_of(tenant_slots).contains(&turn));
        let slow_ones = self.tenants.values().filter(|tenant_slots| tenant_slots.is_slow(now));
        is_of_its_own && slow_ones.flat_map(next_of).filter(|other| *other < turn).count() < all
    }

    fn all(inner: &Inner) -> usize {
        FairShare::all(inner.slots)
    }

    /// Tells whoever is next in a line that there may be room, and forgets a tenant of which there is nothing to be
    /// remembered.
    fn go_on(&mut self, now: Instant) {
        for next in self.tenants.values().filter_map(|tenant_slots| tenant_slots.waiting.values().next()) {
            next.notify_one();
        }
        self.tenants.retain(|_, tenant_slots| {
            !tenant_slots.held.is_empty() || !tenant_slots.waiting.is_empty() || tenant_slots.is_slow(now)
        });
    }
}

impl TenantSlots {
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
struct QueuedMessage<'a> {
    inner: &'a Inner,
    tenant: &'a TenantId,
    turn: (Lane, u64),
}

impl Drop for QueuedMessage<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(tenant_slots) = state.tenants.get_mut(self.tenant) {
            tenant_slots.waiting.remove(&self.turn);
        }
        state.go_on(Instant::now());
    }
}

/// A slot; free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    inner: Arc<Inner>,
    tenant: TenantId,
    number: u64,
}

impl Hold for Slot {}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.inner.lock();
        if let Some(tenant_slots) = state.tenants.get_mut(&self.tenant)
            && let Some(since) = tenant_slots.held.remove(&self.number)
        {
            if now.saturating_duration_since(since) >= SLOW {
                tenant_slots.slow_until = Some(now + REMEMBERED);
            }
            state.held -= 1;
        }
        state.go_on(now);
    }
}

#[cfg(test)]
mod tests;
