//! The one thread that makes writes durable: requests in, one flush and one sync for all of them, replies out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{mpsc, oneshot};

use super::files::SyncedFiles;
use super::open::mark_damaged;
use crate::StateError;

/// The most requests that share one commit; bounds the replies held in memory.
const BATCH_LIMIT: usize = 8192;

/// What the committer may be asked for.
pub(super) enum CommitRequest {
    /// Commit and reply.
    Wait(oneshot::Sender<Result<(), StateError>>),
    /// Commit and reply to a thread that blocks.
    Block(SyncSender<Result<(), StateError>>),
    /// Commit; nobody waits.
    Soon,
    /// Commit, reply and end.
    Close(oneshot::Sender<Result<(), StateError>>),
}

/// Writes on behalf of many just before a commit, and learns what became of it.
pub(crate) trait CommitHook: Send + Sync {
    /// Writes what was gathered since the last commit.
    fn before_flush(&self) -> Result<(), StateError>;

    /// What was written by the last `before_flush` is durable now, or will never be acknowledged.
    fn settled(&self, durable: bool);
}

/// What the committer and the handles of the store share.
pub(super) struct StoreCore {
    path: PathBuf,
    database: sled::Db,
    /// Nothing is made durable.
    volatile: bool,
    hooks: Mutex<Vec<Weak<dyn CommitHook>>>,
    files: Mutex<SyncedFiles>,
    failure: OnceLock<StateError>,
    syncs: AtomicU64,
    #[cfg(test)]
    fail_next_sync: std::sync::atomic::AtomicBool,
    // Declared after the database: fields are dropped in order, and the lock goes last.
    _lock: Arc<std::fs::File>,
}

impl StoreCore {
    /// The directory of the database.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn new(
        database: sled::Db,
        path: &Path,
        lock: Arc<std::fs::File>,
        volatile: bool,
    ) -> Result<Self, StateError> {
        let files = SyncedFiles::open(path, &database)?;
        Ok(Self {
            path: path.to_owned(),
            database,
            volatile,
            hooks: Mutex::default(),
            files: Mutex::new(files),
            failure: OnceLock::new(),
            syncs: AtomicU64::new(0),
            #[cfg(test)]
            fail_next_sync: Default::default(),
            _lock: lock,
        })
    }

    pub(super) fn database(&self) -> &sled::Db {
        &self.database
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), StateError> {
        self.failure.get().cloned().map_or(Ok(()), Err)
    }

    pub(super) fn add_hook(&self, hook: Weak<dyn CommitHook>) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    #[cfg(test)]
    pub(super) fn fail_next_sync(&self) {
        self.fail_next_sync.store(true, Ordering::Relaxed);
    }

    /// Makes everything written so far durable, or poisons the store.
    pub(super) fn commit(&self) -> Result<(), StateError> {
        let hooks: Vec<_> = {
            let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            hooks.retain(|hook| hook.strong_count() > 0);
            hooks.iter().filter_map(Weak::upgrade).collect()
        };
        // sled panics on some broken pages; whoever waits must learn of it, not hang.
        let result = catch_unwind(AssertUnwindSafe(|| self.flush_and_sync(&hooks)))
            .unwrap_or_else(|_| Err(StateError::storage("the database panicked")));
        if let Err(error) = &result {
            self.poison(error);
        }
        for hook in &hooks {
            hook.settled(result.is_ok());
        }
        result
    }

    /// The commit after which nobody is left to be told.
    pub(super) fn commit_last(&self) {
        if let Err(error) = self.commit() {
            tracing::error!(%error, "the last commit of the local store failed");
        }
    }

    /// Fails everything from now on, and leaves word for the next start if the content is damaged.
    pub(super) fn poison(&self, error: &StateError) {
        if self.failure.set(error.clone()).is_err() {
            return;
        }
        tracing::error!(%error, "the local store is poisoned");
        if let StateError::Damaged { reason } = error
            && let Err(error) = mark_damaged(&self.path, reason)
        {
            tracing::error!(%error, "the next start will not know that the local store is damaged");
        }
    }

    fn flush_and_sync(&self, hooks: &[Arc<dyn CommitHook>]) -> Result<(), StateError> {
        self.check()?;
        for hook in hooks {
            hook.before_flush()?;
        }
        if self.volatile {
            return Ok(());
        }
        self.database.flush()?;
        #[cfg(test)]
        if self.fail_next_sync.swap(false, Ordering::Relaxed) {
            return Err(StateError::storage("a test wished it"));
        }
        let synced = self.files.lock().unwrap_or_else(PoisonError::into_inner).sync(&self.database)?;
        self.syncs.fetch_add(synced, Ordering::Relaxed);
        Ok(())
    }
}

/// Serves requests until the last handle is gone or one of them closes the store.
pub(super) fn run(shared: &StoreCore, mut requests: mpsc::Receiver<CommitRequest>) {
    let mut waiting = Vec::new();
    while let Some(first) = requests.blocking_recv() {
        waiting.push(first);
        while waiting.len() < BATCH_LIMIT
            && let Ok(next) = requests.try_recv()
        {
            waiting.push(next);
        }
        if waiting.iter().any(|request| matches!(request, CommitRequest::Close(_))) {
            requests.close(); // what stands in line already is still served
        }
        let result = shared.commit();
        for request in waiting.drain(..) {
            // Whoever stopped waiting does not want to know.
            match request {
                CommitRequest::Wait(reply) | CommitRequest::Close(reply) => drop(reply.send(result.clone())),
                CommitRequest::Block(reply) => drop(reply.send(result.clone())),
                CommitRequest::Soon => {}
            }
        }
    }
    shared.commit_last();
}
