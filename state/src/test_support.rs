//! What the tests of several modules need: a state in a temporary directory, and a clock they move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use model::Key;
use runtime::Clock;

use crate::{State, StateOptions};

/// A clock that stands still until a test moves it.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<AtomicI64>);

impl HandClock {
    /// Noon of 22 November 2026.
    pub(crate) fn noon() -> Self {
        Self(Arc::new(AtomicI64::new(1_795_348_800_000_000)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).expect("a test stays within time")
    }

    pub(crate) fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

/// A state that a test may close and open again.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) clock: HandClock,
    pub(crate) options: StateOptions,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let clock = HandClock::noon();
        let asked = clock.clone();
        let options = StateOptions { clock: Clock::asking(move || asked.now()), ..StateOptions::default() };
        Self { dir: tempfile::tempdir().expect("a temporary directory"), clock, options }
    }

    /// The same, without a committer.
    pub(crate) fn inline() -> Self {
        let mut bench = Self::new();
        bench.options.inline_commits = true;
        bench
    }

    /// Opens the state, which was not damaged.
    pub(crate) fn open(&self) -> State {
        let opened = State::open(self.dir.path(), self.options.clone()).expect("an undamaged state opens");
        assert_eq!(opened.set_aside, None);
        opened.state
    }
}

pub(crate) fn key(n: u64) -> Key {
    Key::of(&["test", &n.to_string()])
}
