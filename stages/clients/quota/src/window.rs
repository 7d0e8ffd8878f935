//! The requests that count at present: when each was granted and answered, and for whom.
//!
//! Times are exact up to some hundred requests. Of a larger limit they are rounded up to a 256th of the window, so that
//! the record stays small whatever the limit: never more than [`EXACT`] entries, or 257 for each class and window of
//! time; the grants of a process that died stand for a minute longer.

use std::collections::VecDeque;

use model::QuotaClass;
use serde::{Deserialize, Serialize};

use super::Micros;

/// Up to this limit each request has its own entry.
const EXACT: u32 = 400;

/// The parts of a window that are told apart above it: each is less than half a percent.
const PARTS: Micros = 256;

/// A request is answered, or given up, within this time after its grant, or its process is gone. The gate gives a
/// request five seconds to leave, the client thirty for the answer.
pub(super) const UNDER_WAY: Micros = 60_000_000;

/// Some requests of a class at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowEntry {
    at: Micros,
    class: u8,
    /// Granted then, and not answered yet.
    open: u32,
    /// Answered then.
    done: u32,
}

/// What counts, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u8, u32, u32)>", into = "Vec<(u64, u8, u32, u32)>")]
pub(super) struct Window {
    entries: VecDeque<WindowEntry>,
}

/// How finely times are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    /// How long a request counts after its answer.
    pub(super) counted: Micros,
    /// Times are rounded up to a multiple of it.
    width: Micros,
}

impl Grain {
    /// The grain of a limit.
    pub(super) fn new(limit: u32, counted: Micros) -> Self {
        Self { counted, width: if limit <= EXACT { 1 } else { (counted / PARTS).max(1) } }
    }

    /// A time as it is kept: never earlier than it is.
    pub(super) fn kept(self, at: Micros) -> Micros {
        at.div_ceil(self.width).saturating_mul(self.width)
    }
}

impl Window {
    /// Forgets what counts no longer.
    pub(super) fn expire(&mut self, now: Micros, grain: Grain) {
        // Both ends of the window count, as they may on the other side.
        let is_past = |at: Micros, for_long: Micros| at.saturating_add(for_long) < now;
        self.entries.retain_mut(|entry| {
            if is_past(entry.at, grain.counted) {
                entry.done = 0;
            }
            if is_past(entry.at, grain.counted + UNDER_WAY) {
                entry.open = 0;
            }
            entry.open + entry.done > 0
        });
    }

    /// How many requests count.
    pub(super) fn used(&self) -> u32 {
        self.entries.iter().map(|entry| entry.open + entry.done).sum()
    }

    /// How many of them are of one of these classes.
    pub(super) fn used_by(&self, is_meant: impl Fn(QuotaClass) -> bool) -> u32 {
        self.of(is_meant).map(|entry| entry.open + entry.done).sum()
    }

    fn of(&self, is_meant: impl Fn(QuotaClass) -> bool) -> impl Iterator<Item = &WindowEntry> {
        let classes = QuotaClass::ALL.map(is_meant);
        self.entries.iter().filter(move |entry| classes.get(usize::from(entry.class)) == Some(&true))
    }

    /// Grants requests; the time under which they are settled.
    pub(super) fn grant(&mut self, now: Micros, grain: Grain, class: QuotaClass, count: u32) -> Micros {
        let at = grain.kept(now);
        self.entry(at, class).open += count;
        at
    }

    /// A request that was granted under `at` is over: answered at `answered`, or it never left. One that was taken for
    /// over, and was not, counts from its answer all the same.
    pub(super) fn settle(&mut self, at: Micros, class: QuotaClass, answered: Option<Micros>, grain: Grain) {
        if let Ok(index) = self.find(at, class) {
            let entry = &mut self.entries[index];
            entry.open = entry.open.saturating_sub(1);
            if entry.open + entry.done == 0 {
                self.entries.remove(index);
            }
        }
        if let Some(answered) = answered {
            self.entry(grain.kept(answered.max(at)), class).done += 1;
        }
    }

    /// When at least `count` of the requests of these classes have left, if those under way are answered now.
    pub(super) fn leaves(
        &self,
        count: u32,
        now: Micros,
        grain: Grain,
        is_meant: impl Fn(QuotaClass) -> bool,
    ) -> Micros {
        let mut left = count;
        for entry in self.of(is_meant) {
            left = left.saturating_sub(entry.done);
            if left == 0 {
                return entry.at + grain.counted + 1;
            }
        }
        now + grain.counted + 1
    }

    fn find(&self, at: Micros, class: QuotaClass) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&(at, class as u8), |entry| (entry.at, entry.class))
    }

    fn entry(&mut self, at: Micros, class: QuotaClass) -> &mut WindowEntry {
        let index = self.find(at, class).unwrap_or_else(|index| {
            self.entries.insert(index, WindowEntry { at, class: class as u8, open: 0, done: 0 });
            index
        });
        &mut self.entries[index]
    }
}

/// As it is saved: the first time, then each one's distance from the one before; class; open; done.
impl From<Window> for Vec<(u64, u8, u32, u32)> {
    fn from(window: Window) -> Self {
        let mut before = 0;
        let saved = |entry: &WindowEntry| {
            let since = entry.at - before;
            before = entry.at;
            (since, entry.class, entry.open, entry.done)
        };
        window.entries.iter().map(saved).collect()
    }
}

impl From<Vec<(u64, u8, u32, u32)>> for Window {
    fn from(saved: Vec<(u64, u8, u32, u32)>) -> Self {
        let mut at = 0_u64;
        let entry = |(since, class, open, done): (u64, u8, u32, u32)| {
            at = at.saturating_add(since);
            WindowEntry { at, class, open, done }
        };
        Self { entries: saved.into_iter().map(entry).collect() }
    }
}
