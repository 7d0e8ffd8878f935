//! A key taken to be worked on, and those who wait for it.

use model::Key;
use tokio::sync::watch;

use super::ProcessedLog;
use crate::StateError;
use crate::store::Store;

/// What became of a wish to work on a key.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// It is the caller's: work, then commit it.
    Claimed(Claim),
    /// It was committed before.
    Processed,
    /// Somebody else works on it.
    InFlight(ClaimWaiter),
}

/// A key taken but not yet committed; dropping it gives the key back.
pub struct Claim {
    processed: ProcessedLog,
    key: Key,
    /// Not yet handed in for a commit.
    open: bool,
}

/// Waits for the claim of somebody else.
#[derive(Debug)]
pub struct ClaimWaiter(watch::Receiver<()>);

impl Claim {
    /// A key that was entered as in flight just now.
    pub(super) fn new(processed: ProcessedLog, key: Key) -> Self {
        Self { processed, key, open: true }
    }

    /// The key that is claimed.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Remembers the key for good; durable when it resolves.
    ///
    /// Once polled there is no way back: dropping the future leaves the key to the next commit, which is asked for.
    /// After an error nobody may say that the key was processed.
    pub async fn commit(mut self) -> Result<(), StateError> {
        self.open = false;
        self.processed.log.index().pending.push(self.key);
        let asked = CommitAsked(&self.processed.store);
        let result = self.processed.store.commit().await;
        std::mem::forget(asked);
        if result.is_err() {
            // Nobody will settle it any more: the store is poisoned or closed.
            let mut index = self.processed.log.index();
            index.pending.retain(|key| *key != self.key);
            index.in_flight.remove(&self.key);
        }
        result
    }
}

/// Asks for a commit if the one who waits for it goes away.
struct CommitAsked<'a>(&'a Store);

impl Drop for CommitAsked<'_> {
    fn drop(&mut self) {
        self.0.commit_soon();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.open {
            self.processed.log.index().in_flight.remove(&self.key);
        }
    }
}

impl ClaimWaiter {
    /// Waits for the other end to go.
    pub(super) fn new(settled: watch::Receiver<()>) -> Self {
        Self(settled)
    }

    /// Resolves when that claim is committed or given back; claim again to learn which.
    pub async fn settled(mut self) {
        // Nothing is ever sent: the channel closes when the claim goes.
        while self.0.changed().await.is_ok() {}
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claim").field(&self.key).finish()
    }
}
