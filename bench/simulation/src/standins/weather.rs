//! The weather between the machines and one server. A driver lets spells of bad weather begin and end while the program
//! runs; spells may overlap, and may be one machine's alone. Without any the weather is clear.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;

/// What a spell of bad weather does to requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// Every connection breaks, and none is made: nothing is done, and whoever asks learns it at once.
    Away,
    /// Nothing is heard any more, in neither direction: what was asked may be done or not.
    Silent,
    /// A request and its answer take about so much longer together.
    Slow(Duration),
    /// This share of requests fails, from 0 to 1; half of them are done all the same.
    Refuses(f64),
    /// What would be written is refused, what is read is answered.
    Full,
}

/// The weather of one server; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Weather(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many spells there are now, and how many breaks there were: mostly none, and every request asks.
    spells: AtomicUsize,
    breaks: AtomicU64,
    all: Mutex<Spells>,
}

#[derive(Debug, Default)]
struct Spells {
    begun: u64,
    /// How often all connections of a machine broke; none: of every machine.
    breaks: BTreeMap<Option<u32>, u64>,
    now: Vec<(u64, Option<u32>, Condition)>,
}

/// A spell of bad weather: it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the spell ends when this is dropped"]
pub struct Spell {
    weather: Weather,
    number: u64,
}

/// All that holds for one machine at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sky {
    /// Connections are refused.
    pub is_away: bool,
    /// Nothing is heard.
    pub is_silent: bool,
    /// Nothing is written.
    pub is_full: bool,
    /// A request and its answer take so much longer.
    pub slow: Duration,
    /// This share of requests fails.
    pub refuses: f64,
}

impl Sky {
    /// Whether a connection that stands goes on.
    pub fn carries(&self) -> bool {
        !self.is_away && !self.is_silent
    }
}

impl Weather {
    /// Clear weather.
    pub fn clear() -> Self {
        Self::default()
    }

    /// Bad weather for every machine.
    pub fn begin(&self, condition: Condition) -> Spell {
        self.add(None, condition)
    }

    /// Bad weather for one machine alone.
    pub fn begin_for(&self, machine: u32, condition: Condition) -> Spell {
        self.add(Some(machine), condition)
    }

    fn add(&self, machine: Option<u32>, condition: Condition) -> Spell {
        let mut spells = lock(&self.0.all);
        spells.begun += 1;
        let number = spells.begun;
        if condition == Condition::Away {
            *spells.breaks.entry(machine).or_default() += 1;
            self.0.breaks.fetch_add(1, Ordering::Relaxed);
        }
        spells.now.push((number, machine, condition));
        self.0.spells.store(spells.now.len(), Ordering::Relaxed);
        Spell { weather: self.clone(), number }
    }

    /// How often the connections of a machine broke so far: each time that the server went away, however shortly.
    pub fn breaks(&self, machine: u32) -> u64 {
        if self.0.breaks.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let spells = lock(&self.0.all);
        [None, Some(machine)].iter().filter_map(|whose| spells.breaks.get(whose)).sum()
    }

    /// The weather as one machine has it now.
    pub fn of(&self, machine: u32) -> Sky {
        let mut sky = Sky::default();
        if self.0.spells.load(Ordering::Relaxed) == 0 {
            return sky;
        }
        let mut passes = 1.0;
        for (_, whose, condition) in &lock(&self.0.all).now {
            if whose.is_some_and(|whose| whose != machine) {
                continue;
            }
            match condition {
                Condition::Away => sky.is_away = true,
                Condition::Silent => sky.is_silent = true,
                Condition::Slow(by) => sky.slow += *by,
                Condition::Refuses(share) => passes *= 1.0 - share.clamp(0.0, 1.0),
                Condition::Full => sky.is_full = true,
            }
        }
        sky.refuses = 1.0 - passes;
        sky
    }
}

impl Drop for Spell {
    fn drop(&mut self) {
        let mut spells = lock(&self.weather.0.all);
        spells.now.retain(|(number, ..)| *number != self.number);
        self.weather.0.spells.store(spells.now.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_overlap_and_end_one_by_one() {
        let weather = Weather::clear();
        let half = weather.begin(Condition::Refuses(0.5));
        let away = weather.begin_for(2, Condition::Away);
        let slow = [1, 2].map(|secs| weather.begin(Condition::Slow(Duration::from_secs(secs))));
        let again = weather.begin(Condition::Refuses(0.5));
        assert_eq!((weather.of(1).is_away, weather.of(2).is_away), (false, true));
        assert_eq!((weather.breaks(1), weather.breaks(2)), (0, 1));
        assert_eq!((weather.of(1).slow, weather.of(1).refuses), (Duration::from_secs(3), 0.75));
        drop((again, away));
        assert_eq!((weather.of(2).carries(), weather.of(2).refuses), (true, 0.5));
        drop((slow, half));
        assert_eq!(weather.of(2), Sky::default());
    }
}
