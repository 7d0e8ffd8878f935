//! A sliding window of grants: never more than N in any span of length W, whatever crashes in between.
//!
//! In: a wish to send a request, of a class and within terms. Out: a grant, or the time at which to ask again.
//!
//! # Classes
//! A grant is of a class, a small number that the caller gives a meaning. Terms may hold some classes together to a
//! share of the window, and let them have it evenly rather than at once.
//!
//! # After a crash
//! A grant is on disk before it is used, so the next process counts it too, and knows its class.
//!
//! # The clock
//! A grant counts from the moment its holder could first use it, which is when its commit was through; on disk it
//! carries an allowance for that. If the clock jumps back, grants from the future count as made just now: that
//! withholds grants for one W at most and never allows too many. A clock that jumps forward by D lets grants
//! return D early; the other side answers 429 then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::store::Store;
use crate::{Clock, StateError, keyspace};

/// How long a commit may take until its grant has to be written again with a later time.
const COMMIT_ALLOWANCE: SignedDuration = SignedDuration::from_secs(2);

/// So many classes of grants can be told apart.
pub const CLASSES: usize = 8;

/// What a grant must keep to beyond the window itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What it is for, below [`CLASSES`].
    pub class: u8,
    /// The most grants in the window for now; the window's own limit where that is less, and one at least.
    pub most: usize,
    /// The least time since the grant before, of whatever class.
    pub apart: SignedDuration,
    /// What the class may have of the window; none where it may have all.
    pub share: Option<Share>,
}

impl Terms {
    /// Whatever the window has, for class 0.
    pub const ANY: Self = Self { class: 0, most: usize::MAX, apart: SignedDuration::ZERO, share: None };
}

/// What some classes together may have of a window, spread evenly over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// These classes: of class `n` the bit `n`.
    pub classes: u8,
    /// The most of their grants in the window; one at least.
    pub most: usize,
    /// From one of their grants to the next.
    pub spacing: SignedDuration,
    /// So much earlier than its even place may a grant come; who is late by less loses nothing.
    pub slack: SignedDuration,
}

/// What became of a wish to send a request.
#[derive(Debug)]
pub enum Permission {
    /// Send one request once this is durable.
    Granted(Grant),
    /// Ask again then; nothing was taken.
    RetryAt(Timestamp),
}

/// A grant that is taken and not yet durable; dropped, it counts, used or not.
#[derive(Debug)]
#[must_use = "a grant may be used once it is durable"]
pub struct Grant {
    window: RateWindow,
    slot: u32,
    class: u8,
    asked: Timestamp,
}

/// A durable sliding window; clones share it.
#[derive(Debug, Clone)]
pub struct RateWindow {
    ring: Arc<Mutex<Ring>>,
    /// None where it lives in memory only.
    store: Option<Store>,
    clock: Clock,
}

/// The last N grants, each in the slot it has on disk; more than N where the limit was larger. The oldest is in front.
#[derive(Debug)]
struct Ring {
    name: String,
    tree: Option<sled::Tree>,
    limit: usize,
    window: SignedDuration,
    grants: VecDeque<Entry>,
    /// The even place of the next grant that has a share; not known after a restart.
    even: Option<Timestamp>,
    note: Option<Vec<u8>>,
}

/// One grant: where it lies, from when it counts, and what it was for.
#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: u32,
    at: Timestamp,
    class: u8,
}

impl Grant {
    /// Resolves once the grant is durable: then it may be used.
    pub async fn commit(self) -> Result<(), StateError> {
        let Self { window, slot, class, asked } = self;
        let Some(store) = &window.store else { return Ok(()) };
        let mut allowance = COMMIT_ALLOWANCE;
        let mut promised = later(asked, allowance);
        loop {
            store.commit().await?;
            let usable = window.clock.now();
            let mut ring = window.ring();
            ring.counts_from(slot, usable);
            if usable <= promised {
                return Ok(());
            }
            // The disk took so long that a restart would count from too early a time. Twice as long from now on, or a
            // disk that is always slow would never let one through.
            allowance = allowance.saturating_mul(2);
            promised = later(usable, allowance);
            ring.write(Entry { slot, at: promised, class })?;
        }
    }
}

impl RateWindow {
    /// Reads the last grants of this name.
    pub(crate) fn open(
        store: &Store,
        clock: Clock,
        name: &str,
        limit: u32,
        window: SignedDuration,
    ) -> Result<Self, StateError> {
        let tree = store.own_tree(keyspace::RATES)?;
        let ring = Ring::load(tree, name, limit, window, clock.now())?;
        Ok(Self { ring: Arc::new(Mutex::new(ring)), store: Some(store.clone()), clock })
    }

    /// A window that nothing outlives, for simulations.
    pub fn in_memory(clock: Clock, limit: u32, window: SignedDuration) -> Self {
        let ring = Ring::empty("", limit, window);
        Self { ring: Arc::new(Mutex::new(ring)), store: None, clock }
    }

    /// Takes a grant, if the window has one within these terms.
    pub fn take(&self, terms: &Terms) -> Result<Permission, StateError> {
        let mut ring = self.ring();
        let asked = self.clock.now();
        Ok(match ring.take(asked, terms)? {
            Ok(slot) => Permission::Granted(Grant { window: self.clone(), slot, class: terms.class, asked }),
            Err(retry_at) => Permission::RetryAt(retry_at),
        })
    }

    /// When the window has a grant within these terms, as far as can be told now; none if it has one.
    pub fn room_at(&self, terms: &Terms) -> Option<Timestamp> {
        let mut ring = self.ring();
        let now = self.clock.now();
        ring.clock_is(now);
        ring.room_at(now, terms)
    }

    /// The time by the window's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// From when the latest grant counts.
    pub fn latest(&self) -> Option<Timestamp> {
        self.ring().grants.back().map(|grant| grant.at)
    }

    /// The grants in the window at this moment, by class.
    pub fn used(&self) -> [usize; CLASSES] {
        let mut ring = self.ring();
        let now = self.clock.now();
        ring.clock_is(now);
        let mut used = [0; CLASSES];
        for grant in ring.grants.iter().filter(|grant| !ring.is_past(grant, now)) {
            used[usize::from(grant.class) % CLASSES] += 1;
        }
        used
    }

    /// What [`RateWindow::keep_note`] kept last.
    pub fn note(&self) -> Option<Vec<u8>> {
        self.ring().note.clone()
    }

    /// Keeps a few bytes beside the window; durable with the next grant that is.
    pub fn change_note(&self, note: &[u8]) -> Result<(), StateError> {
        self.ring().keep_note(note)
    }

    /// Keeps a few bytes beside the window; durable when this resolves.
    pub async fn keep_note(&self, note: &[u8]) -> Result<(), StateError> {
        self.ring().keep_note(note)?;
        match &self.store {
            Some(store) => store.commit().await,
            None => Ok(()),
        }
    }

    /// Changes limit and length; grants made so far count under the new ones.
    pub(crate) fn resize(&self, limit: u32, window: SignedDuration) -> Result<(), StateError> {
        let mut ring = self.ring();
        let Some(tree) = ring.tree.clone() else { return Ok(()) };
        if (ring.limit, ring.window) != (limit.max(1) as usize, window) {
            let name = ring.name.clone();
            *ring = Ring::load(tree, &name, limit, window, self.clock.now())?;
        }
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn empty(name: &str, limit: u32, window: SignedDuration) -> Self {
        let limit = limit.max(1) as usize;
        Self { name: name.to_owned(), tree: None, limit, window, grants: VecDeque::new(), even: None, note: None }
    }

    fn load(
        tree: sled::Tree,
        name: &str,
        limit: u32,
        window: SignedDuration,
        now: Timestamp,
    ) -> Result<Self, StateError> {
        let mut ring = Self::empty(name, limit, window);
        ring.note = tree.get(ring.note_key())?.map(|note| note.to_vec());
        let mut stored = Vec::new();
        for entry in tree.scan_prefix(ring.key(None)) {
            let (key, value) = entry?;
            let grant = read(&value).ok_or_else(|| StateError::damaged("a grant of a rate window is unreadable"))?;
            stored.push((key, grant));
        }
        // The latest N stay, and whatever is in the window: the limit may have been larger and be so again. They move
        // to the slots from 0 on, and what is beyond goes, all at once.
        stored.sort_unstable_by_key(|(_, (at, _))| *at);
        let past = stored.iter().take_while(|(_, (at, _))| now.duration_since(*at) > window).count();
        let surplus = stored.len().saturating_sub(ring.limit).min(past);
        let mut batch = sled::Batch::default();
        for (key, _) in &stored {
            batch.remove(key.clone());
        }
        for (slot, (_, (at, class))) in (0u32..).zip(stored.drain(surplus..)) {
            let grant = Entry { slot, at, class };
            batch.insert(ring.key(Some(slot)), written(&grant));
            ring.grants.push_back(grant);
        }
        tree.apply_batch(batch)?;
        ring.tree = Some(tree);
        Ok(ring)
    }

    /// Takes a slot and writes the grant into it, or says when one will be free.
    fn take(&mut self, now: Timestamp, terms: &Terms) -> Result<Result<u32, Timestamp>, StateError> {
        self.clock_is(now);
        if let Some(at) = self.room_at(now, terms) {
            return Ok(Err(at));
        }
        let full = self.grants.len() >= self.limit;
        let slot = self.grants.front().filter(|_| full).map_or(self.grants.len() as u32, |oldest| oldest.slot);
        let class = terms.class;
        self.write(Entry { slot, at: later(now, COMMIT_ALLOWANCE), class })?;
        if full {
            self.grants.pop_front();
        }
        self.grants.push_back(Entry { slot, at: now, class });
        if let Some(share) = &terms.share {
            self.even = Some(later(self.even.map_or(now, |even| even.max(now)), share.spacing));
        }
        Ok(Ok(slot))
    }

    /// When there is room within the terms; none if there is.
    fn room_at(&self, now: Timestamp, terms: &Terms) -> Option<Timestamp> {
        let most = terms.most.clamp(1, self.limit);
        let full = self.grants.len().checked_sub(most).map(|nth| self.grants[nth]);
        let apart = self.grants.back().map(|last| later(last.at, terms.apart));
        let (mut even, mut shared) = (None, None);
        if let Some(share) = &terms.share {
            let mut ours = self.grants.iter().rev().filter(|grant| share.classes & (1 << grant.class) != 0);
            // After a restart the last one is known, and nothing of its lateness.
            let last = ours.clone().next().map(|last| later(last.at, share.spacing));
            let place = self.even.or(last).map(|even| even.min(later(now, share.spacing + share.slack)));
            even = place.map(|even| earlier(even, share.slack));
            shared = ours.nth(share.most.max(1) - 1).copied();
        }
        // One microsecond more: both ends of the window count, as they may on the other side.
        let leaves = |grant: &Entry| later(grant.at, self.window + SignedDuration::from_micros(1));
        let past = |grant: &Entry| self.is_past(grant, now);
        let leave = [full, shared].into_iter().flatten().filter(|grant| !past(grant)).map(|grant| leaves(&grant));
        leave.chain([apart, even].into_iter().flatten().filter(|at| *at > now)).max()
    }

    fn write(&self, grant: Entry) -> Result<(), StateError> {
        if let Some(tree) = &self.tree {
            tree.insert(self.key(Some(grant.slot)), written(&grant))?;
        }
        Ok(())
    }

    fn keep_note(&mut self, note: &[u8]) -> Result<(), StateError> {
        if let Some(tree) = &self.tree {
            tree.insert(self.note_key(), note)?;
        }
        self.note = Some(note.to_vec());
        Ok(())
    }

    /// Whether the grant left the window.
    fn is_past(&self, grant: &Entry, now: Timestamp) -> bool {
        now.duration_since(grant.at) > self.window
    }

    /// Lets a grant count from a later time than it was taken at; the order by time is kept.
    fn counts_from(&mut self, slot: u32, at: Timestamp) {
        if let Some(place) = self.grants.iter().position(|grant| grant.slot == slot) {
            self.grants[place].at = self.grants[place].at.max(at);
            self.grants.make_contiguous().sort_by_key(|grant| grant.at);
        }
    }

    /// Counts grants from the future as made now: the clock was set back. The even pace goes on from there; its place
    /// of before may be as far ahead as the clock was.
    fn clock_is(&mut self, now: Timestamp) {
        for grant in self.grants.iter_mut().rev().take_while(|grant| grant.at > now) {
            grant.at = now;
            self.even = None;
        }
    }

    /// The key of a slot, or what the keys of all slots begin with.
    fn key(&self, slot: Option<u32>) -> Vec<u8> {
        let mut key = self.name.clone().into_bytes();
        key.push(0);
        key.extend(slot.iter().flat_map(|slot| slot.to_be_bytes()));
        key
    }

    /// The key of the note.
    fn note_key(&self) -> Vec<u8> {
        let mut key = self.name.clone().into_bytes();
        key.push(1);
        key
    }
}

/// A grant as it lies on disk: its time, and its class unless that is 0, as it was before there were classes.
fn written(grant: &Entry) -> Vec<u8> {
    let mut value = grant.at.as_microsecond().to_be_bytes().to_vec();
    value.extend(Some(grant.class).filter(|class| *class > 0));
    value
}

/// Its time and its class.
fn read(value: &[u8]) -> Option<(Timestamp, u8)> {
    let (at, class) = value.split_first_chunk::<8>()?;
    let class = match class {
        [] => 0,
        [class] if usize::from(*class) < CLASSES => *class,
        _ => return None,
    };
    Some((Timestamp::from_microsecond(i64::from_be_bytes(*at)).ok()?, class))
}

/// A later point in time; the end of time if there is none.
fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// An earlier point in time; the beginning of time if there is none.
fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
