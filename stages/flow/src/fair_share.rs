//! The consumer's slots, shared fairly among tenants: slow work of one does not hold up the others.
//!
//! In: the tenant of each message that comes off the queue. Out: a slot, which is free again when it is dropped, or
//! the advice to send the message back for a while.
//!
//! # Contract
//! A tenant holds as many slots as are worked on at a time (`[consumer] concurrency`); all together hold twice as many,
//! so that one cannot take the last. A tenant is slow while more than half as many works as one tenant has slots have
//! lasted long, of those that it holds and of as many that ended last: with two slots or more one long call makes nobody slow. Slow tenants
//! together hold no more than one tenant may, in equal parts; a part is never less than one slot. What is under way
//! keeps its slot.
//!
//! Whoever finds no slot waits here, live before backfill, then in the order of arrival. A message goes back to the
//! queue only for the sake of another tenant: those that wait hold the places through which others come. It stays away
//! for some seconds, the longer the more often it did.
//! - While others are here, or were within the last minute, only a few messages of slow tenants wait, so that their
//!   slots do not stand empty. The rest goes back at once.
//! - A slow tenant that is alone has all slots of one tenant, and as many messages may wait. The last third of the places
//!   is the way by which another would be seen: who has stood there for two seconds goes back, unless half as many messages
//!   as the tenant has slots got one meanwhile.
//!
//! So the queue moves, whatever the tenants in it do: every four seconds at least half as many messages as one tenant has
//! slots get a slot or go back, and as soon as another tenant is seen, its messages have a way of their own. Only work
//! that holds all slots, of two tenants at least, can make others wait for longer.
//!
//! # After a crash
//! Nothing is kept: the queue delivers again, and a slow tenant is noticed within seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{ContactEvent, Lane, TenantId};
use runtime::chance;
use tokio::{sync::Notify, time::Instant};

use super::delivery::Hold;

/// Work that lasts longer than this is slow. A message of a slow tenant that is alone waits for as long on the way by
/// which others would be seen.
const SLOW: Duration = Duration::from_secs(2);

/// How long slow work counts after it has ended, and how long a tenant counts as being here after it was.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a slow tenant's message waits for a slot before it goes back for the sake of others, if it is not among the
/// next ones.
const PATIENCE: Duration = Duration::from_millis(100);

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
    /// When several tenants were here last.
    shared_at: Option<Instant>,
}

/// The slots of one tenant; forgotten once it holds none, waits for none and has done nothing slow of late.
#[derive(Debug, Default)]
struct TenantSlots {
    /// The slots it holds, by number, and since when. The first one is the oldest.
    held: BTreeMap<u64, Instant>,
    /// Its messages that wait, in the order of their turns.
    waiting: BTreeMap<(Lane, u64), Arc<Notify>>,
    /// Its works that ended last, as many as it may hold slots: when, where one was slow.
    ended: VecDeque<Option<Instant>>,
    /// When its messages got their slots: the last ones, half as many as it may hold.
    given: VecDeque<Instant>,
}

/// A message of a slow tenant found no slot: it goes back to the queue for this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBack(pub Duration);

impl FairShare {
    /// All are free; one tenant may hold so many.
    pub fn new(slots: usize) -> Self {
        let slots = slots.max(1);
        let state = SlotTable { held: 0, tenants: BTreeMap::new(), next: 0, shared_at: None };
        Self { inner: Arc::new(Inner { slots, state: Mutex::new(state) }) }
    }

    /// How many slots there are, of one tenant's number.
    pub fn all(slots: usize) -> usize {
        slots.max(1).saturating_mul(2)
    }

    /// How many messages are taken off the queue at a time: those that hold slots, as many that wait, and as many that
    /// are sent back where nothing moves.
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
        let (now, turn) = (Instant::now(), (Lane::of(event), self.number()));
        let was_shared = self.is_shared(now);
        self.tenants.entry(event.tenant.clone()).or_default().waiting.insert(turn, turn_comes);
        self.note_company(now);
        if !was_shared && self.is_shared(now) {
            // Those make way that waited because their tenant was alone.
            self.tenants
                .values()
                .flat_map(|tenant_slots| tenant_slots.waiting.values())
                .for_each(|all| all.notify_one());
        }
        turn
    }

    /// Notes that several tenants are here, if so.
    fn note_company(&mut self, now: Instant) {
        if self.tenants.values().filter(|tenant_slots| tenant_slots.is_here()).nth(1).is_some() {
            self.shared_at = Some(now);
        }
    }

    /// Whether a tenant that is here is not alone, or was not within the last minute.
    fn is_shared(&self, now: Instant) -> bool {
        self.shared_at.is_some_and(|at| now < at + REMEMBERED)
            || self.tenants.values().filter(|tenant_slots| tenant_slots.is_here()).nth(1).is_some()
    }

    fn try_admit(
        &mut self,
        inner: &Inner,
        tenant: &TenantId,
        turn: (Lane, u64),
        since: Instant,
        now: Instant,
    ) -> Admission {
        let slots = inner.slots;
        // Who is alone shares with nobody, and a third of the places is for those that wait. Otherwise half as many wait,
        // of all slow tenants together.
        let is_shared = self.is_shared(now);
        let (slow, places) = match is_shared {
            true => (self.slow(slots, now).count().max(1), (slots / 2).max(1)),
            false => (1, slots),
        };
        let number = self.number();
        let is_room = self.held < Self::all(inner);
        let tenant_slots = self.tenants.entry(tenant.clone()).or_default();
        let is_slow = tenant_slots.is_slow(slots, now);
        let share = if is_slow { (slots / slow).max(1) } else { slots };
        let is_next = tenant_slots.waiting.keys().next() == Some(&turn);
        if is_next && is_room && tenant_slots.held.len() < share {
            tenant_slots.give(slots, number, now);
            self.held += 1;
            return Admission::Admitted(number);
        }
        let until = since + LONGEST_WAIT;
        if now >= until {
            return Admission::SentBack;
        }
        let moves_until = tenant_slots.given_half_since(slots).map(|at| at + SLOW);
        if !is_slow {
            return Admission::Again(tenant_slots.slow_from(slots, now).unwrap_or(now + SLOW).min(until));
        }
        if self.is_among_next(slots, tenant, turn, slow, places, now) {
            return Admission::Again((now + AGAIN).min(until));
        }
        let goes_at = match is_shared {
            true => since + PATIENCE,
            false => moves_until.map_or(since + SLOW, |at| at.max(since + SLOW)),
        };
        if now >= goes_at { Admission::SentBack } else { Admission::Again(goes_at.min(until)) }
    }

    /// The tenants that are slow.
    fn slow(&self, slots: usize, now: Instant) -> impl Iterator<Item = &TenantSlots> {
        self.tenants.values().filter(move |tenant_slots| tenant_slots.is_slow(slots, now))
    }

    /// Whether a message of a slow tenant waits here: one of its next few, at least one, and of all slow tenants
    /// together not more than there are places.
    fn is_among_next(
        &self,
        slots: usize,
        tenant: &TenantId,
        turn: (Lane, u64),
        slow: usize,
        places: usize,
        now: Instant,
    ) -> bool {
        let keeps = (places / slow).max(1);
        let next_of = |tenant_slots: &TenantSlots| tenant_slots.waiting.keys().take(keeps).copied().collect::<Vec<_>>();
        let is_of_its_own = self.tenants.get(tenant).is_some_and(|tenant_slots| next_of(tenant_slots).contains(&turn));
        is_of_its_own && self.slow(slots, now).flat_map(next_of).filter(|other| *other < turn).count() < places
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
        self.tenants.retain(|_, tenant_slots| tenant_slots.is_here() || tenant_slots.slow_ended(now) > 0);
    }
}

impl TenantSlots {
    /// Whether a message of it waits or is worked on.
    fn is_here(&self) -> bool {
        !self.held.is_empty() || !self.waiting.is_empty()
    }

    fn give(&mut self, slots: usize, number: u64, now: Instant) {
        self.held.insert(number, now);
        self.given.push_back(now);
        if self.given.len() > (slots / 2).max(1) {
            self.given.pop_front();
        }
    }

    /// Since when half as many messages as it has slots got one.
    fn given_half_since(&self, slots: usize) -> Option<Instant> {
        self.given.front().filter(|_| self.given.len() >= (slots / 2).max(1)).copied()
    }

    /// How many of its last works were slow, and ended of late.
    fn slow_ended(&self, now: Instant) -> usize {
        self.ended.iter().flatten().filter(|at| now < **at + REMEMBERED).count()
    }

    /// When it is slow, if what it holds goes on: since the past, where it is already.
    fn slow_from(&self, slots: usize, now: Instant) -> Option<Instant> {
        // More than half of its slots, and the first of those that it holds are the oldest.
        match (slots / 2).checked_sub(self.slow_ended(now)) {
            None => Some(now),
            Some(further) => self.held.values().nth(further).map(|since| *since + SLOW),
        }
    }

    fn is_slow(&self, slots: usize, now: Instant) -> bool {
        self.slow_from(slots, now).is_some_and(|from| from <= now)
    }

    /// Remembers a work that has ended, and forgets the one before as many as it may hold.
    fn end(&mut self, slots: usize, since: Instant, now: Instant) {
        let is_slow = now.saturating_duration_since(since) >= SLOW;
        self.ended.push_back(is_slow.then_some(now));
        if self.ended.len() > slots {
            self.ended.pop_front();
        }
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
        let now = Instant::now();
        let mut state = self.inner.lock();
        state.note_company(now);
        if let Some(tenant_slots) = state.tenants.get_mut(self.tenant) {
            tenant_slots.waiting.remove(&self.turn);
        }
        state.go_on(now);
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
        state.note_company(now);
        if let Some(tenant_slots) = state.tenants.get_mut(&self.tenant)
            && let Some(since) = tenant_slots.held.remove(&self.number)
        {
            tenant_slots.end(self.inner.slots, since, now);
            state.held -= 1;
        }
        state.go_on(now);
    }
}

#[cfg(test)]
mod tests;
