//! The memory that recordings take on their way into the store: one budget for all puts of a process.
//!
//! A body is gathered until it makes a part, since S3 wants its length and MD5 before its first byte. Gathered
//! bytes are paid for in grains, so that a small recording takes little. When the grains are used up, one put at
//! a time may gather on credit until its part is whole: without it, puts that each hold half a part would wait
//! for each other for ever. The others wait, and NICE's bodies with them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are gathered in pieces of this size.
const GRAIN: usize = 64 * 1024;

/// What all puts together may hold.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    grains: Arc<Semaphore>,
    credit: Arc<Semaphore>,
}

impl MemoryBudget {
    /// Room for `bytes`, and for one part above them.
    pub(super) fn new(bytes: usize) -> Self {
        Self { grains: Arc::new(Semaphore::new((bytes / GRAIN).max(1))), credit: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until there is room for one grain more.
    async fn grain(&self, room: &mut Room) {
        if room.credit.is_some() {
            return;
        }
        // Neither is ever closed.
        tokio::select! {
            biased;
            Ok(grain) = self.grains.clone().acquire_owned() => match &mut room.grains {
                Some(grains) => grains.merge(grain),
                None => room.grains = Some(grain),
            },
            Ok(credit) = self.credit.clone().acquire_owned() => room.credit = Some(credit),
            else => {}
        }
    }
}

/// What a part holds of the budget; given back when the part is dropped.
#[derive(Debug, Default)]
struct Room {
    grains: Option<OwnedSemaphorePermit>,
    credit: Option<OwnedSemaphorePermit>,
}

/// A body, or a piece of one, that can be sent any number of times.
#[derive(Debug)]
pub(super) struct BodyPart {
    /// Its bytes, in pieces.
    pub(super) pieces: Arc<[Bytes]>,
    /// Their number.
    pub(super) length: usize,
    /// Their MD5.
    pub(super) md5: [u8; 16],
    /// Whether the body ends here.
    pub(super) is_last: bool,
    _room: Room,
}

/// A part that is being gathered.
pub(super) struct Gathering<'a> {
    memory: &'a MemoryBudget,
    room: Room,
    pieces: Vec<Bytes>,
    piece: BytesMut,
    length: usize,
    md5: Md5,
}

impl<'a> Gathering<'a> {
    /// An empty part.
    pub(super) fn new(memory: &'a MemoryBudget) -> Self {
        let (pieces, piece) = (Vec::new(), BytesMut::new());
        Self { memory, room: Room::default(), pieces, piece, length: 0, md5: Md5::new() }
    }

    /// How many bytes it has.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Copies `bytes` to it, once there is room. A copy, for what arrives may be a slice of something larger.
    pub(super) async fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.piece.len() == self.piece.capacity() {
                self.memory.grain(&mut self.room).await;
                let full = std::mem::replace(&mut self.piece, BytesMut::with_capacity(GRAIN));
                self.keep(full);
            }
            let fits = bytes.len().min(self.piece.capacity() - self.piece.len());
            let (now, later) = bytes.split_at(fits);
            self.piece.extend_from_slice(now);
            self.md5.update(now);
            self.length += now.len();
            bytes = later;
        }
    }

    /// The part, to be sent.
    pub(super) fn finish(mut self, is_last: bool) -> BodyPart {
        let piece = std::mem::take(&mut self.piece);
        self.keep(piece);
        BodyPart {
            pieces: self.pieces.into(),
            length: self.length,
            md5: self.md5.finalize().into(),
            is_last,
            _room: self.room,
        }
    }

    fn keep(&mut self, piece: BytesMut) {
        if !piece.is_empty() {
            self.pieces.push(piece.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_part_holds_what_was_added_and_its_md5() {
        let memory = MemoryBudget::new(GRAIN);
        let content: Vec<u8> = (0..3 * GRAIN + 5).map(|place| (place % 251) as u8).collect();
        let mut gathering = Gathering::new(&memory);
        for chunk in content.chunks(1000) {
            gathering.add(chunk).await;
        }
        let part = gathering.finish(true);
        assert!(part.pieces.concat() == content);
        assert_eq!(part.length, content.len());
        assert_eq!(part.md5, <[u8; 16]>::from(Md5::digest(&content)));
    }

    #[tokio::test]
    async fn puts_that_fill_the_memory_together_all_finish() {
        let memory = MemoryBudget::new(10 * GRAIN);
        let puts = (0..8).map(|_| async {
            for _ in 0..5 {
                let mut gathering = Gathering::new(&memory);
                for _ in 0..40 {
                    gathering.add(&[7; GRAIN / 2]).await;
                    tokio::task::yield_now().await;
                }
                drop(gathering.finish(false));
            }
        });
        join_all(puts).await;
        assert_eq!((memory.grains.available_permits(), memory.credit.available_permits()), (10, 1));
    }

    #[tokio::test]
    async fn no_more_is_held_than_the_budget_and_one_part_on_credit() {
        let memory = MemoryBudget::new(4 * GRAIN);
        let mut first = Gathering::new(&memory);
        first.add(&[1; 6 * GRAIN]).await;
        let mut second = Gathering::new(&memory);
        assert!(futures::poll!(std::pin::pin!(second.add(&[2]))).is_pending());
        drop(first.finish(true));
        second.add(&[2]).await;
        assert!(second.room.credit.is_none());
    }
}
