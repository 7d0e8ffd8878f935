//! Named watermarks: the time up to which nothing is missing.
//!
//! In: a point in time, moved forward once all before it is settled. Out: where to begin after a restart.
//!
//! Whoever moves it forward works for a while before: [`Watermark::position`] is where that work began. Once it was
//! held back meanwhile, what was worked on is not the whole any more, and [`Watermark::advance_from`] moves nothing.
//!
//! # After a crash
//! A watermark stands where the last [`Watermark::advance`] that resolved put it, or further where one was under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::store::Store;
use crate::{StateError, keyspace};

/// A named point in time on disk; clones share it.
#[derive(Debug, Clone)]
pub struct Watermark {
    cell: Arc<Cell>,
    store: Store,
}

/// One watermark, shared by all handles of its name.
#[derive(Debug)]
struct Cell {
    name: String,
    tree: sled::Tree,
    /// Orders the writers: the next begins once the commit of the one before is through.
    writing: Arc<tokio::sync::Mutex<()>>,
    durable: Mutex<Option<Timestamp>>,
    /// How often it was held back.
    held_back: AtomicU64,
}

/// Where a watermark stood when a piece of work began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The time; `None` if it was never moved.
    pub at: Option<Timestamp>,
    held_back: u64,
}

/// Keeps a watermark from moving forward until it is dropped. Work that began before then no longer moves it.
#[derive(Debug)]
#[must_use = "the watermark is held back only as long as this lives"]
pub struct HeldBack {
    cell: Arc<Cell>,
    _writing: tokio::sync::OwnedMutexGuard<()>,
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // Before the lock is returned: fields go after this.
        self.cell.held_back.fetch_add(1, Ordering::SeqCst);
    }
}

impl Watermark {
    /// Reads the watermark of this name.
    pub(crate) fn open(store: &Store, name: &str) -> Result<Self, StateError> {
        let tree = store.own_tree(keyspace::WATERMARKS)?;
        let durable = match tree.get(name)? {
            None => None,
            Some(bytes) => Some(decode(&bytes).ok_or_else(|| StateError::damaged("a watermark is unreadable"))?),
        };
        let cell = Cell {
            name: name.to_owned(),
            tree,
            writing: Default::default(),
            durable: Mutex::new(durable),
            held_back: AtomicU64::new(0),
        };
        Ok(Self { cell: Arc::new(cell), store: store.clone() })
    }

    /// Where it stands, durably; `None` until it was first moved.
    pub fn get(&self) -> Option<Timestamp> {
        *self.cell.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves it forward, durable when it resolves; an earlier time than it has moves nothing.
    pub async fn advance(&self, to: Timestamp) -> Result<(), StateError> {
        let _writing = self.cell.writing.lock().await;
        if self.get().is_some_and(|at| at >= to) {
            return Ok(());
        }
        self.write(to).await
    }

    /// Where work begins that is to move it forward.
    pub fn position(&self) -> Position {
        let held_back = self.cell.held_back.load(Ordering::SeqCst);
        Position { at: self.get(), held_back }
    }

    /// As [`Watermark::advance`], unless it was held back since `begun`; false then, and nothing moves.
    pub async fn advance_from(&self, begun: Position, to: Timestamp) -> Result<bool, StateError> {
        let _writing = self.cell.writing.lock().await;
        if self.cell.held_back.load(Ordering::SeqCst) != begun.held_back {
            return Ok(false);
        }
        if self.get().is_none_or(|at| at < to) {
            self.write(to).await?;
        }
        Ok(true)
    }

    /// Moves it back to `to`, durable when it resolves, and keeps it there until the guard is dropped. One that was
    /// never moved, or stands before `to`, is only kept.
    pub async fn hold_back(&self, to: Timestamp) -> Result<HeldBack, StateError> {
        let writing = Arc::clone(&self.cell.writing).lock_owned().await;
        if self.get().is_some_and(|at| at > to) {
            self.write(to).await?;
        }
        Ok(HeldBack { cell: Arc::clone(&self.cell), _writing: writing })
    }

    async fn write(&self, to: Timestamp) -> Result<(), StateError> {
        self.cell.tree.insert(&self.cell.name, to.as_nanosecond().to_be_bytes().as_slice())?;
        self.store.commit().await?;
        *self.cell.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from_be_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::test_support::Bench;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 123_456_789).unwrap()
    }

    #[tokio::test]
    async fn it_moves_forward_and_stays_there() {
        let bench = Bench::new();
        let state = bench.open();
        let poll = state.watermark("poll").unwrap();
        assert_eq!(poll.get(), None);
        poll.advance(at(100)).await.unwrap();
        poll.advance(at(50)).await.unwrap();
        assert_eq!(poll.get(), Some(at(100)));
        assert_eq!(state.watermark("poll").unwrap().get(), Some(at(100)));
        assert_eq!(state.watermark("other").unwrap().get(), None);
        drop((state, poll));
        assert_eq!(bench.open().watermark("poll").unwrap().get(), Some(at(100)));
    }

    #[tokio::test]
    async fn it_goes_back_only_when_told_so() {
        let bench = Bench::new();
        let state = bench.open();
        let poll = state.watermark("poll").unwrap();
        drop(poll.hold_back(at(50)).await.unwrap());
        assert_eq!(poll.get(), None, "what was never moved is not moved by holding it back");
        poll.advance(at(100)).await.unwrap();
        drop(poll.hold_back(at(200)).await.unwrap());
        assert_eq!(poll.get(), Some(at(100)), "holding back never moves forward");
        drop(poll.hold_back(at(-5)).await.unwrap());
        assert_eq!(poll.get(), Some(at(-5)));
        drop((state, poll));
        assert_eq!(bench.open().watermark("poll").unwrap().get(), Some(at(-5)));
    }

    #[tokio::test]
    async fn work_that_began_before_it_was_released_moves_nothing() {
        let bench = Bench::new();
        let poll = bench.open().watermark("poll").unwrap();
        poll.advance(at(100)).await.unwrap();
        let before = poll.position();
        let held = poll.hold_back(at(50)).await.unwrap();
        let during = poll.position();
        assert_eq!(during.at, Some(at(50)));
        drop(held);
        assert!(!poll.advance_from(before, at(200)).await.unwrap());
        assert!(!poll.advance_from(during, at(200)).await.unwrap());
        assert_eq!(poll.get(), Some(at(50)));
        let after = poll.position();
        assert!(poll.advance_from(after, at(200)).await.unwrap());
        assert!(poll.advance_from(after, at(150)).await.unwrap(), "never back");
        assert_eq!(poll.get(), Some(at(200)));
    }

    #[tokio::test]
    async fn it_does_not_move_without_the_disk() {
        let bench = Bench::new();
        let state = bench.open();
        let poll = state.watermark("poll").unwrap();
        state.store().fail_next_sync();
        assert!(poll.advance(at(100)).await.is_err());
        assert_eq!(poll.get(), None);
    }
}
