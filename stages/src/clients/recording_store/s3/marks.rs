//! Marks on the local disk of the uploads in parts that are under way.
//!
//! A mark is a file that holds the object's key and is locked as long as its process lives. The system lets go of
//! the lock whenever the process ends, by kill -9 too: a mark without a lock tells, at once, what was left open.
//! It is not synced: after a power cut, or on another machine, the age of an upload tells the same some time later.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// No key is longer.
const MOST_KEY: u64 = 1024;

/// A folder of marks; several processes may share it.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    dir: PathBuf,
    /// Tells the marks of this process from those of others.
    run: u64,
    next: Arc<AtomicU64>,
}

impl Marks {
    /// Opens the folder, and makes it where it does not exist.
    pub(super) fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned(), run: rand::random(), next: Arc::default() })
    }

    /// Marks an upload to `key`.
    pub(super) fn set(&self, key: &str) -> std::io::Result<Mark> {
        let path = self.dir.join(format!("{:016x}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(key.as_bytes())?;
        Ok(Mark { path, key: key.to_owned(), _file: file })
    }

    /// The marks of processes that are gone. Each is locked now, so that only one process sees to it.
    pub(super) fn left(&self) -> std::io::Result<Vec<Mark>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // For writing: a network file system grants the lock only then.
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // removed meanwhile
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut key = Vec::new();
            (&file).take(MOST_KEY).read_to_end(&mut key)?;
            let key = String::from_utf8(key).unwrap_or_default();
            left.push(Mark { path, key, _file: file });
        }
        Ok(left)
    }
}

/// A mark. Dropped, it stays without a lock, as after a crash, and the next sweep sees to what it names.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    key: String,
    /// Holds the lock.
    _file: File,
}

impl Mark {
    /// The key of the object; empty where a crash came before it was written, and so before the upload began.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Removes it: nothing is open any more.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the mark of an upload is not removed, the next sweep does");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_left_only_by_who_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Marks::open(dir.path()).unwrap(), Marks::open(dir.path()).unwrap());
        let under_way = one.set("a").unwrap();
        drop(one.set("b").unwrap());
        one.set("c").unwrap().remove();
        let left = other.left().unwrap();
        assert_eq!(left.iter().map(Mark::key).collect::<Vec<_>>(), ["b"]);
        assert!(one.left().unwrap().is_empty(), "one process sees to it");
        left.into_iter().for_each(Mark::remove);
        under_way.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
