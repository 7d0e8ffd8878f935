//! What must survive a restart of the daemon, in one directory, behind [`State::open`].
//!
//! ```text
//!  processed ids ─┐                    one commit for all who wait
//!  inbox ─────────┼─► trees of sled ─► flush + fdatasync ─► acknowledged
//!  queue, catalog,┤
//!  rate budgets ──┘  (embedded, written by their owners through `Store`)
//! ```
//!
//! Everything here can be had again from the outside: what is damaged is set aside and rebuilt. [`Store`] says what
//! an acknowledgement means, the page `keyspace` what lies on disk.

mod erased;
mod error;
mod inbox;
mod keyspace;
mod processed_log;
mod store;
#[cfg(test)]
mod test_support;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::SignedDuration;
use runtime::Clock;

pub use erased::ErasureList;
pub use error::{InboxError, StateError};
pub use inbox::{Inbox, InboxId, MAX_EVENT_BYTES};
pub use keyspace::MAX_VALUE_BYTES;
pub use processed_log::{Claim, ClaimOutcome, ClaimWaiter, ProcessedLog};
use store::OpenFailure;
pub use store::Store;

/// What may be chosen about the local state.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// How long processed ids are remembered, to the day.
    pub retention: SignedDuration,
    /// How many processed ids are remembered at most: about 40 bytes of memory each.
    pub max_ids: u64,
    /// How many events the inbox holds.
    pub inbox_capacity: usize,
    /// The page cache of the database; its tables come on top.
    pub cache_bytes: u64,
    /// Where the time comes from.
    pub clock: Clock,
    /// Commits in the calling task and not in a thread for all who wait: for a simulation, which runs on one thread.
    pub inline_commits: bool,
    /// A commit makes nothing durable: for the servers of a simulation, which outlive every process.
    pub volatile: bool,
}

/// The local state; clones share it.
#[derive(Debug, Clone)]
pub struct State {
    store: Store,
    clock: Clock,
    processed: ProcessedLog,
    inbox: Inbox,
}

/// The state, and what had to be put out of its way.
#[derive(Debug)]
pub struct Opened {
    /// The state, ready for use.
    pub state: State,
    /// Where the damaged database is now; the state is empty then and wants to be seeded.
    pub set_aside: Option<PathBuf>,
}

impl State {
    /// Opens the state in `dir`, which is created where it is missing. Blocks: reads every processed id.
    ///
    /// A damaged database is set aside and an empty one opened. [`StateError::Locked`] means that another process
    /// has the directory.
    pub fn open(dir: &Path, options: StateOptions) -> Result<Opened, StateError> {
        let lock = Arc::new(store::lock_directory(dir)?);
        let path = dir.join("sled");
        match Self::open_once(&path, &lock, &options) {
            Ok(state) => Ok(Opened { state, set_aside: None }),
            Err(OpenFailure::Refused(error)) => Err(error),
            Err(OpenFailure::Damaged(reason)) => {
                let aside = store::set_aside(dir, &path, options.clock.now(), &reason)?;
                match Self::open_once(&path, &lock, &options) {
                    Ok(state) => Ok(Opened { state, set_aside: Some(aside) }),
                    Err(OpenFailure::Refused(error)) => Err(error),
                    Err(OpenFailure::Damaged(reason)) => Err(StateError::damaged(reason)),
                }
            }
        }
    }

    /// Where the time comes from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The processed-id log.
    pub fn processed(&self) -> &ProcessedLog {
        &self.processed
    }

    /// The webhook events not yet in the flow.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// The database, for those who keep trees of their own in it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn open_once(path: &Path, lock: &Arc<std::fs::File>, options: &StateOptions) -> Result<Self, OpenFailure> {
        let database = store::open_database(path, options.cache_bytes)?;
        // A page may prove unreadable only now, with an error or a panic.
        catch_unwind(AssertUnwindSafe(|| Self::load(database, path, lock, options)))
            .unwrap_or_else(|panic| Err(OpenFailure::Damaged(store::panic_text(panic.as_ref()))))
    }

    fn load(
        database: sled::Db,
        path: &Path,
        lock: &Arc<std::fs::File>,
        options: &StateOptions,
    ) -> Result<Self, OpenFailure> {
        check_format(&database)?;
        let store = Store::start(database, path.to_owned(), Arc::clone(lock), options)?;
        store.forget_tree(keyspace::RATES)?;
        let clock = options.clock.clone();
        let processed = ProcessedLog::open(&store, clock.clone(), options.retention, options.max_ids)?;
        let inbox = Inbox::open(&store, options.inbox_capacity)?;
        store.commit_blocking()?;
        Ok(Self { store, clock, processed, inbox })
    }
}

/// Refuses what a newer version wrote; marks a new database with the format of this one.
fn check_format(database: &sled::Db) -> Result<(), StateError> {
    let meta = database.open_tree(keyspace::META)?;
    let Some(found) = meta.get(keyspace::META_FORMAT)? else {
        meta.insert(keyspace::META_FORMAT, &keyspace::FORMAT.to_be_bytes())?;
        return Ok(());
    };
    let found = found.as_ref().try_into().map(u32::from_be_bytes);
    match found.map_err(|_| StateError::damaged("the format version is unreadable"))? {
        keyspace::FORMAT => Ok(()),
        found => Err(StateError::NewerFormat { found, ours: keyspace::FORMAT }),
    }
}

impl From<StateError> for OpenFailure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damaged { reason } => Self::Damaged(reason.to_string()),
            other => Self::Refused(other),
        }
    }
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            retention: SignedDuration::from_hours(72),
            max_ids: 20_000_000,
            inbox_capacity: 100_000,
            cache_bytes: 32 * 1024 * 1024,
            clock: Clock::default(),
            inline_commits: false,
            volatile: false,
        }
    }
}
