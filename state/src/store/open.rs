//! Opens the database, whatever state a crash or a bad disk left it in.
//!
//! sled 0.34.7 reports damage in three ways: an error, a panic, or silence. The first two end here: the database
//! is renamed to `set-aside-<UTC time>` and an empty one takes its place, since all in it can be had again. The
//! third is harmless for the same reason. A lock, a missing permission or a full disk is no damage: those are
//! returned, and the database stays where it is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::StateError;
use crate::error::means_damage;

/// How long a lock of sled may outlive our own: its I/O threads let go of the file a moment after the database.
const LOCK_LINGERS: Duration = Duration::from_secs(5);

/// In the directory of a database that opens and cannot be read; goes aside with it.
const DAMAGED: &str = "damaged";

/// Why the database did not open.
pub(crate) enum OpenFailure {
    /// The content is damaged: set it aside.
    Damaged(String),
    /// The surroundings are at fault: report it and leave the content alone.
    Refused(StateError),
}

/// Creates the state directory where it is missing and takes it for this process.
pub(crate) fn lock_directory(dir: &Path) -> Result<File, StateError> {
    create_private(dir)?;
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| StateError::io("open", &path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StateError::io("lock", &path, error)),
    }
}

/// Opens the database at `path`, without the snapshots that cannot be read if need be.
pub(crate) fn open_database(path: &Path, cache_bytes: u64) -> Result<sled::Db, OpenFailure> {
    create_private(path)?;
    if path.join(DAMAGED).exists() {
        return Err(OpenFailure::Damaged("a page was found unreadable in the last run".to_owned()));
    }
    remove_snapshots(path, |name, bytes| name.ends_with(".generating") || bytes == 0)?;
    let database = match open_once(path, cache_bytes) {
        Err(OpenFailure::Damaged(reason)) => {
            // A snapshot only shortens the reading of the log: without it all of the log is read.
            let removed = remove_snapshots(path, |_, _| true)?;
            if removed == 0 {
                return Err(OpenFailure::Damaged(reason));
            }
            tracing::warn!(reason, "the local store does not open with its snapshot, trying without");
            open_once(path, cache_bytes)?
        }
        other => other?,
    };
    make_private(path)?;
    Ok(database)
}

/// Leaves word for the next start that the database is damaged: it opens, but cannot be read.
pub(super) fn mark_damaged(path: &Path, reason: &str) -> Result<(), StateError> {
    let mark = path.join(DAMAGED);
    let written =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&mark).and_then(|mut file| {
            file.write_all(reason.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| StateError::io("write", &mark, error))
}

/// Renames a damaged database out of the way and says so loudly; returns where it is now.
pub(crate) fn set_aside(dir: &Path, path: &Path, now: Timestamp, reason: &str) -> Result<PathBuf, StateError> {
    let stamp = now.strftime("%Y-%m-%dT%H-%M-%S%.3fZ").to_string();
    let mut aside = dir.join(format!("set-aside-{stamp}"));
    let mut repeat = 1;
    while aside.exists() {
        repeat += 1;
        aside = dir.join(format!("set-aside-{stamp}-{repeat}"));
    }
    std::fs::rename(path, &aside).map_err(|error| StateError::io("set aside", path, error))?;
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| StateError::io("sync", dir, error))?;
    tracing::error!(
        reason,
        set_aside = %aside.display(),
        "the local store is damaged and was set aside: starting with an empty one, processed ids are checked \
         against the catalog until it is filled again"
    );
    Ok(aside)
}

fn open_once(path: &Path, cache_bytes: u64) -> Result<sled::Db, OpenFailure> {
    let patience = Instant::now() + LOCK_LINGERS;
    loop {
        // No flusher thread: the committer alone decides when to flush, and sled cleans its segments as it writes.
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .unwrap_or_else(|panic| Err(sled::Error::ReportableBug(panic_text(panic.as_ref()))));
        match opened {
            Ok(database) => return Ok(database),
            Err(sled::Error::Io(error)) if error.to_string().starts_with("could not acquire lock") => {
                if Instant::now() > patience {
                    return Err(OpenFailure::Refused(StateError::Locked { dir: path.to_owned() }));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(sled::Error::Io(error)) if !means_damage(error.kind()) => {
                return Err(OpenFailure::Refused(StateError::io("open", path, error)));
            }
            Err(error) => return Err(OpenFailure::Damaged(error.to_string())),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}

/// Removes those snapshots that `which` picks by name and size; returns how many.
fn remove_snapshots(path: &Path, which: impl Fn(&str, u64) -> bool) -> Result<usize, StateError> {
    let failed = |error| StateError::io("remove a snapshot in", path, error);
    let mut removed = 0;
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && which(&name, entry.metadata().map_err(failed)?.len()) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
            tracing::warn!(path = %name, "removed an unusable snapshot of the local store");
            removed += 1;
        }
    }
    Ok(removed)
}

fn create_private(dir: &Path) -> Result<(), StateError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| StateError::io("create", dir, error))?;
    // The entry of a new directory is durable only once its parent is.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| StateError::io("sync", parent, error))?;
    }
    Ok(())
}

/// sled creates its files by the umask; nobody else has any business with them.
fn make_private(path: &Path) -> Result<(), StateError> {
    let failed = |error| StateError::io("protect", path, error);
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let mode = if entry.file_type().map_err(failed)?.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(entry.path(), Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}
