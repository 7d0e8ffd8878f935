//! Syncs the files that sled writes and does not sync itself.
//!
//! sled keeps everything in `db`, except pages above 128 KiB: each of those is a file in `blobs/`, named by its
//! position in the log and never changed once written. A pointer in `db` is worth nothing without its file, so
//! new files and their directory are synced first, then `db`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::StateError;

/// Handles of the files to sync, and how far they are synced already.
pub(super) struct SyncedFiles {
    log_path: PathBuf,
    log: File,
    blobs_path: PathBuf,
    blobs: File,
    synced_blobs: HashSet<OsString>,
    synced_position: i64,
}

impl SyncedFiles {
    /// Opens the files of a database and syncs them once, with the directory that names them.
    pub(super) fn open(path: &Path, database: &sled::Db) -> Result<Self, StateError> {
        let open = |path: &Path| File::open(path).map_err(|error| StateError::io("open", path, error));
        let sync = |file: &File, path: &Path| file.sync_all().map_err(|error| StateError::io("sync", path, error));
        let (log_path, blobs_path) = (path.join("db"), path.join("blobs"));
        let (log, blobs) = (open(&log_path)?, open(&blobs_path)?);

        let mut files =
            Self { log_path, log, blobs_path, blobs, synced_blobs: HashSet::new(), synced_position: i64::MIN };
        database.flush()?;
        files.sync(database)?;
        let conf = path.join("conf");
        sync(&open(&conf)?, &conf)?;
        sync(&open(path)?, path)?;
        Ok(files)
    }

    /// Makes what sled has flushed durable; returns the number of syncs that took, 0 where nothing was written.
    pub(super) fn sync(&mut self, database: &sled::Db) -> Result<u64, StateError> {
        // Read before the sync: what is flushed meanwhile belongs to the next one.
        let position = database.context.pagecache.log.stable_offset();
        if position == self.synced_position {
            return Ok(0);
        }
        let blobs = self.sync_blobs()?;
        self.log.sync_data().map_err(|error| StateError::io("sync", &self.log_path, error))?;
        self.synced_position = position;
        Ok(blobs + 1)
    }

    /// Syncs the files of large pages that are new since the last time.
    fn sync_blobs(&mut self) -> Result<u64, StateError> {
        let failed = |error| StateError::io("sync", &self.blobs_path, error);
        let mut present = HashSet::new();
        let mut syncs = 0;
        for entry in std::fs::read_dir(&self.blobs_path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !self.synced_blobs.contains(&name) {
                match File::open(self.blobs_path.join(&name)) {
                    Ok(blob) => blob.sync_data().map_err(failed)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // replaced meanwhile
                    Err(error) => return Err(failed(error)),
                }
                syncs += 1;
            }
            present.insert(name);
        }
        if syncs > 0 {
            self.blobs.sync_all().map_err(failed)?;
            syncs += 1;
        }
        self.synced_blobs = present;
        Ok(syncs)
    }
}
