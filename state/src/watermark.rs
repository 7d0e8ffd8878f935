//! Named watermarks: the time up to which nothing is missing.
//!
//! In: a point in time, moved forward once all before it is settled. Out: where to begin after a restart.
//!
//! # After a crash
//! A watermark stands where the last [`Watermark::advance`] that resolved put it, or further where one was under way.

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
    writing: tokio::sync::Mutex<()>,
    durable: Mutex<Option<Timestamp>>,
}

impl Watermark {
    /// Reads the watermark of this name.
    pub(crate) fn open(store: &Store, name: &str) -> Result<Self, StateError> {
        let tree = store.own_tree(keyspace::WATERMARKS)?;
        let durable = match tree.get(name)? {
            None => None,
            Some(bytes) => Some(decode(&bytes).ok_or_else(|| StateError::damaged("a watermark is unreadable"))?),
        };
        let cell = Cell { name: name.to_owned(), tree, writing: Default::default(), durable: Mutex::new(durable) };
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

    /// Moves it to `to` even if that is back: everything since will be read again. Durable when it resolves.
    pub async fn rewind(&self, to: Timestamp) -> Result<(), StateError> {
        let _writing = self.cell.writing.lock().await;
        self.write(to).await
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
        poll.advance(at(100)).await.unwrap();
        poll.rewind(at(-5)).await.unwrap();
        assert_eq!(poll.get(), Some(at(-5)));
        drop((state, poll));
        assert_eq!(bench.open().watermark("poll").unwrap().get(), Some(at(-5)));
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
