//! The body of a recording as it arrives: hashed, and cut into parts.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::S3Store;
use super::memory::{BodyPart, Gathering};
use crate::{RecordingBody, RecordingStoreError};

/// The most parts that S3 takes.
pub(super) const MOST_PARTS: u32 = 10_000;

/// After so many parts their size doubles, so that they suffice for 183 GiB in parts of 5 MiB at first.
const PARTS_OF_A_SIZE: u32 = 2_500;

/// How large the parts are, which are counted from 1.
fn part_size(first: usize, number: u32) -> usize {
    first << ((number - 1) / PARTS_OF_A_SIZE)
}

/// The body as it arrives, cut into parts and hashed.
pub(super) struct Source<'a> {
    body: RecordingBody<'a>,
    /// What arrived and belongs to the next part.
    rest: Bytes,
    sha256: Sha256,
    /// How many bytes came so far.
    pub(super) length: u64,
    /// How long the part that is gathered waited for the body.
    awaited: Duration,
    store: &'a S3Store,
}

impl<'a> Source<'a> {
    /// Nothing read yet.
    pub(super) fn new(store: &'a S3Store, body: RecordingBody<'a>) -> Self {
        Self { body, rest: Bytes::new(), sha256: Sha256::new(), length: 0, awaited: Duration::ZERO, store }
    }

    /// The next part. It knows whether it is the last one: what follows it has been seen.
    pub(super) async fn part(&mut self, number: u32) -> Result<BodyPart, RecordingStoreError> {
        let size = part_size(self.store.options.part_size, number);
        let mut part = Gathering::new(&self.store.memory);
        self.awaited = Duration::ZERO;
        while self.arrives().await? {
            if part.length() == size {
                return Ok(part.finish(false));
            }
            let fits = self.rest.len().min(size - part.length());
            part.add(&self.rest[..fits]).await;
            drop(self.rest.split_to(fits));
        }
        Ok(part.finish(true))
    }

    /// Waits for more of the body; false at its end. What is gathered takes memory that other puts wait for, and an
    /// upload that gets no part for so long is taken for nobody's: a body that trickles fails instead, which is not the
    /// store's fault.
    async fn arrives(&mut self) -> Result<bool, RecordingStoreError> {
        while self.rest.is_empty() {
            let begun = Instant::now();
            let left = self.store.options.stale_after.saturating_sub(self.awaited);
            let next = timeout(left, self.body.next()).await;
            let next = next.map_err(|_| RecordingStoreError::SlowBody)?;
            self.awaited += begun.elapsed();
            let Some(bytes) = next else { return Ok(false) };
            self.rest = bytes?;
            self.sha256.update(&self.rest);
            self.length += self.rest.len() as u64;
        }
        Ok(true)
    }

    /// SHA-256 of what came so far, in hex.
    pub(super) fn sha256(&self) -> String {
        hex::encode(self.sha256.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_any_recording() {
        let least = 5 * 1024 * 1024;
        let parts: Vec<_> = (1..=MOST_PARTS).map(|number| part_size(least, number)).collect();
        assert!(parts[..2_500].iter().all(|&size| size == least));
        assert_eq!(parts.iter().sum::<usize>() >> 30, 183);
        assert_eq!(parts.iter().max(), Some(&(least * 8)));
    }
}
