//! The one sled database, and the only place that makes anything durable.
//!
//! In: writes to any tree, by anyone. Out: a promise. [`Store::commit`] resolves once everything written to any
//! tree before the call survives a power cut. All who wait at one time share one flush and one `fdatasync`.
//!
//! # After a crash
//! What was acknowledged is there. What was written and not acknowledged may be there, in the order of writing:
//! sled recovers a prefix of its log.
//!
//! # Without a thread
//! [`StateOptions::inline_commits`](crate::StateOptions) commits in the calling task, one after the other, so that a
//! simulation on one thread repeats itself. All else is the same.
//!
//! [`StateOptions::volatile`](crate::StateOptions) commits nothing at all: what stands in for a server in a simulation
//! outlives every process there, and would spend most of its time on disks.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use runtime::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

pub(crate) use committer::CommitHook;
use committer::{CommitRequest, StoreCore};
pub(crate) use open::{OpenFailure, lock_directory, open_database, panic_text, set_aside};

use crate::{StateError, StateOptions, keyspace};

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

/// The database, and the way to commit it.
struct Inner {
    shared: Arc<StoreCore>,
    commits: Commits,
    clock: Clock,
}

/// Who commits.
enum Commits {
    /// A thread, on behalf of all who wait.
    Committer { requests: Option<mpsc::Sender<CommitRequest>>, thread: Mutex<Option<JoinHandle<()>>> },
    /// Whoever asks, until the store is closed.
    Inline { closed: AtomicBool },
}

impl Store {
    /// Starts the committer on an open database; commits in place need none.
    pub(crate) fn start(
        database: sled::Db,
        path: PathBuf,
        lock: Arc<std::fs::File>,
        options: &StateOptions,
    ) -> Result<Self, StateError> {
        let shared = Arc::new(StoreCore::new(database, &path, lock, options.volatile)?);
        let commits = match options.inline_commits {
            true => Commits::Inline { closed: AtomicBool::new(false) },
            false => Commits::start(&shared, &path)?,
        };
        Ok(Self { inner: Arc::new(Inner { shared, commits, clock: options.clock.clone() }) })
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
        if let Some(committed) = self.commit_inline() {
            // Others have their turn, as they would while a committer is at work.
            tokio::task::yield_now().await;
            return committed;
        }
        let (reply, result) = oneshot::channel();
        self.requests()?.send(CommitRequest::Wait(reply)).await.map_err(|_| StateError::Closed)?;
        result.await.map_err(|_| StateError::storage("the committer ended"))?
    }

    /// As [`Store::commit`], for a thread that may block.
    pub fn commit_blocking(&self) -> Result<(), StateError> {
        if let Some(committed) = self.commit_inline() {
            return committed;
        }
        let (reply, result) = std::sync::mpsc::sync_channel(1);
        let mut request = CommitRequest::Block(reply);
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
        if self.commit_inline().is_some() {
            return; // who waits for the next one learns of a failure
        }
        if let Ok(requests) = self.requests() {
            // A full line means that commits which cover this call are already asked for.
            requests.try_send(CommitRequest::Soon).ok();
        }
    }

    /// Makes everything durable and refuses all later commits. Idempotent; also done when the last handle is dropped.
    pub async fn close(&self) -> Result<(), StateError> {
        if let Commits::Inline { closed } = &self.inner.commits {
            let committed = match closed.swap(true, Ordering::Relaxed) {
                true => self.check(),
                false => self.inner.shared.commit(),
            };
            tokio::task::yield_now().await;
            return committed;
        }
        let (reply, result) = oneshot::channel();
        let sent = self.requests()?.send(CommitRequest::Close(reply)).await;
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

    /// Where the time comes from.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
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

    fn requests(&self) -> Result<&mpsc::Sender<CommitRequest>, StateError> {
        match &self.inner.commits {
            Commits::Committer { requests, .. } => requests.as_ref().ok_or(StateError::Closed),
            Commits::Inline { .. } => Err(StateError::Closed),
        }
    }

    /// Commits in place; `None` where the committer does it.
    fn commit_inline(&self) -> Option<Result<(), StateError>> {
        let Commits::Inline { closed } = &self.inner.commits else { return None };
        Some(match closed.load(Ordering::Relaxed) {
            true => Err(StateError::Closed),
            false => self.inner.shared.commit(),
        })
    }
}

impl Commits {
    /// Starts the thread.
    fn start(shared: &Arc<StoreCore>, path: &Path) -> Result<Self, StateError> {
        let (requests, inbox) = mpsc::channel(WAITING_LIMIT);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("state-commit".to_owned())
            .spawn(move || committer::run(&shared, inbox))
            .map_err(|error| StateError::io("start a thread for", path, error))?;
        Ok(Self::Committer { requests: Some(requests), thread: Mutex::new(Some(thread)) })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("syncs", &self.syncs()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &mut self.commits {
            Commits::Committer { requests, thread } => {
                *requests = None; // the committer sees the end of its line, commits once more and ends
                let thread = thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
                if thread.is_some_and(|thread| thread.join().is_err()) {
                    tracing::error!("the committer of the local store panicked");
                }
            }
            Commits::Inline { closed } => {
                if !*closed.get_mut() {
                    self.shared.commit_last();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
