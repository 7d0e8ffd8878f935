//! The one sled database, and the only place that makes anything durable.
//!
//! In: writes to any tree, by anyone. Out: a promise. [`Store::commit`] resolves once everything written to any
//! tree before the call survives a power cut. All who wait at one time share one flush and one `fdatasync`.
//!
//! # After a crash
//! What was acknowledged is there. What was written and not acknowledged may be there, in the order of writing:
//! sled recovers a prefix of its log.
//!
//! # After an I/O error
//! The store is poisoned: that commit and every later one fail. After a failed `fsync` nobody knows what reached
//! the disk, so the process must be restarted, never told that all is well.
//!
//! # Why not sled's own flush
//! On Linux it ends in `sync_file_range`, which flushes neither the file's length nor the disk's cache.

mod committer;
mod files;
mod open;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

pub(crate) use committer::CommitHook;
use committer::{Request, Shared};
pub(crate) use open::{OpenFailure, lock_directory, open_database, panic_text, set_aside};

use crate::{StateError, keyspace};

/// How many callers may wait for the committer before the next one has to wait for a place in the line. More
/// than the items that a daemon has in flight; the rest is back-pressure.
const WAITING_LIMIT: usize = 4096;

/// How long a blocking caller waits before it looks for a place in a full line again: less than a sync takes.
const LINE_IS_FULL: Duration = Duration::from_millis(1);

/// A handle to the local database; clones share it. The last one to go closes it cleanly.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The database, its committer, and the way to reach it.
struct Inner {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Starts the committer on an open database.
    pub(crate) fn start(database: sled::Db, path: PathBuf, lock: Arc<std::fs::File>) -> Result<Self, StateError> {
        let shared = Arc::new(Shared::new(database, &path, lock)?);
        let (requests, inbox) = mpsc::channel(WAITING_LIMIT);
        let committer = std::thread::Builder::new()
            .name("state-commit".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || committer::run(&shared, inbox)
            })
            .map_err(|error| StateError::io("start a thread for", &path, error))?;
        let inner = Inner { shared, requests: Some(requests), committer: Mutex::new(Some(committer)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens or creates a tree for the caller's own use; the names on the page of `keyspace` are refused.
    ///
    /// Keep values below [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES), and drop the tree before the store.
    pub fn tree(&self, name: &str) -> Result<sled::Tree, StateError> {
        if keyspace::is_reserved(name) {
            return Err(StateError::ReservedName);
        }
        self.own_tree(name)
    }

    /// Removes a tree of the caller with all that is in it; effective at the next commit.
    pub fn drop_tree(&self, name: &str) -> Result<bool, StateError> {
        if keyspace::is_reserved(name) {
            return Err(StateError::ReservedName);
        }
        Ok(self.database().drop_tree(name)?)
    }

    /// Resolves once everything written to any tree before this call survives a power cut.
    ///
    /// Dropping the future takes nothing back: the commit may happen or not.
    pub async fn commit(&self) -> Result<(), StateError> {
        let (reply, result) = oneshot::channel();
        self.requests()?.send(Request::Wait(reply)).await.map_err(|_| StateError::Closed)?;
        result.await.map_err(|_| StateError::storage("the committer ended"))?
    }

    /// As [`Store::commit`], for a thread that may block.
    pub fn commit_blocking(&self) -> Result<(), StateError> {
        let (reply, result) = std::sync::mpsc::sync_channel(1);
        let mut request = Request::Block(reply);
        // Not tokio's blocking calls: they panic on an asynchronous thread, where this is merely unwise.
        while let Err(error) = self.requests()?.try_send(request) {
            match error {
                TrySendError::Closed(_) => return Err(StateError::Closed),
                TrySendError::Full(refused) => request = refused,
            }
            std::thread::sleep(LINE_IS_FULL);
        }
        result.recv().map_err(|_| StateError::storage("the committer ended"))?
    }

    /// Asks for a commit without waiting for it; any number of such calls share one.
    pub fn commit_soon(&self) {
        if let Ok(requests) = self.requests() {
            // A full line means that commits which cover this call are already asked for.
            requests.try_send(Request::Soon).ok();
        }
    }

    /// Makes everything durable and refuses all later commits. Idempotent; also done when the last handle is dropped.
    pub async fn close(&self) -> Result<(), StateError> {
        let (reply, result) = oneshot::channel();
        let sent = self.requests()?.send(Request::Close(reply)).await;
        if sent.is_err() {
            return self.check();
        }
        result.await.map_err(|_| StateError::storage("the committer ended"))?
    }

    /// Fails once the store is poisoned.
    pub fn check(&self) -> Result<(), StateError> {
        self.inner.shared.check()
    }

    /// Poisons the store if `error` says that it failed or cannot be read; for those who use a tree of their own.
    ///
    /// Without it a page that cannot be read would fail the daemon again after every restart.
    pub fn report(&self, error: &StateError) {
        if matches!(error, StateError::Damaged { .. } | StateError::Storage { .. }) {
            self.inner.shared.poison(error);
        }
    }

    /// The state directory, for what must outlive a database that is set aside.
    pub fn dir(&self) -> &Path {
        let path = self.inner.shared.path();
        path.parent().unwrap_or(path)
    }

    /// The bytes that the database takes on disk.
    pub fn size_on_disk(&self) -> Result<u64, StateError> {
        Ok(self.database().size_on_disk()?)
    }

    /// How often a file of the database was synced since it was opened.
    pub fn syncs(&self) -> u64 {
        self.inner.shared.syncs()
    }

    /// Removes a tree of the state itself that an earlier version wrote.
    pub(crate) fn forget_tree(&self, name: &str) -> Result<bool, StateError> {
        Ok(self.database().drop_tree(name)?)
    }

    /// Opens a tree of the state itself.
    pub(crate) fn own_tree(&self, name: &str) -> Result<sled::Tree, StateError> {
        Ok(self.database().open_tree(name)?)
    }

    /// The database under the store.
    pub(crate) fn database(&self) -> &sled::Db {
        self.inner.shared.database()
    }

    /// Lets `hook` take part in every commit from now on, for as long as it lives.
    pub(crate) fn add_hook(&self, hook: Weak<dyn CommitHook>) {
        self.inner.shared.add_hook(hook);
    }

    /// Makes the next commit fail as if the disk had.
    #[cfg(test)]
    pub(crate) fn fail_next_sync(&self) {
        self.inner.shared.fail_next_sync();
    }

    fn requests(&self) -> Result<&mpsc::Sender<Request>, StateError> {
        self.inner.requests.as_ref().ok_or(StateError::Closed)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("syncs", &self.syncs()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None; // the committer sees the end of its line, commits once more and ends
        let committer = self.committer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = committer
            && committer.join().is_err()
        {
            tracing::error!("the committer of the local store panicked");
        }
    }
}

#[cfg(test)]
mod tests;
