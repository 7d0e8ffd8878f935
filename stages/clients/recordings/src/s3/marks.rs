//! Marks on the local disk of the uploads in parts that are under way.
//!
//! A mark is a file that holds the object's key and is locked as long as its process lives. The system lets go of
//! the lock whenever the process ends, by kill -9 too: a mark without a lock tells, at once, what was left open.
//! It is not synced: after a power cut, or on another machine, the age of an upload tells the same some time later.
//!
//! A request that begins an upload may be carried out although its answer never came, and long after whoever sent it
//! gave up: by a server that stood still. Its id is known to nobody then. A mark therefore outlives the first look for
//! what is open under its key, until every such request has expired: only then is nothing open for certain.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use runtime::chance;

/// No key is longer; the time of the first look follows it.
const MOST_CONTENT: u64 = 1024 + 24;

/// S3 refuses a request whose signature is older than a quarter of an hour, by its own clock, which may be as far from
/// ours: after this no request that was sent before is carried out any more.
const EXPIRED_AFTER: SignedDuration = SignedDuration::from_mins(31);

/// A folder of marks; several processes may share it.
#[derive(Debug, Clone)]
pub(super) struct UploadMarks {
    dir: PathBuf,
    /// Tells the marks of this process from those of others.
    run: u64,
    next: Arc<AtomicU64>,
}

impl UploadMarks {
    /// Opens the folder, and makes it where it does not exist.
    pub(super) fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned(), run: chance::random(), next: Arc::default() })
    }

    /// Marks an upload to `key`.
    pub(super) fn set(&self, key: &str) -> std::io::Result<UploadMark> {
        let path = self.dir.join(format!("{:016x}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(key.as_bytes())?;
        Ok(UploadMark { path, key: key.to_owned(), looked_at: None, file })
    }

    /// The marks of processes that are gone, and those in doubt. Each is locked now, so that only one process sees to
    /// it. Left out is one whose key another process of this machine uploads to: its turn comes when that is over.
    pub(super) fn left(&self) -> std::io::Result<Vec<UploadMark>> {
        let (mut left, mut under_way) = (Vec::new(), HashSet::new());
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // For writing: a network file system grants the lock only then.
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // removed meanwhile
                Err(error) => return Err(error),
            };
            let is_left = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            };
            let mut content = Vec::new();
            (&file).take(MOST_CONTENT).read_to_end(&mut content)?;
            let content = String::from_utf8(content).unwrap_or_default();
            let mut lines = content.lines();
            let key = lines.next().unwrap_or_default().to_owned();
            let looked_at = lines.next().and_then(|at| Timestamp::from_second(at.parse().ok()?).ok());
            if is_left {
                left.push(UploadMark { path, key, looked_at, file });
            } else {
                under_way.insert(key);
            }
        }
        left.retain(|mark| !under_way.contains(&mark.key));
        Ok(left)
    }
}

/// A mark. Dropped, it stays without a lock, as after a crash, and the next sweep sees to what it names.
#[derive(Debug)]
pub(super) struct UploadMark {
    path: PathBuf,
    key: String,
    /// When somebody looked first for what was left open.
    looked_at: Option<Timestamp>,
    /// Holds the lock.
    file: File,
}

impl UploadMark {
    /// The key of the object; empty where a crash came before it was written, and so before the upload began.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether somebody has looked for what was left open, and aborted it.
    pub(super) fn was_looked_at(&self) -> bool {
        self.looked_at.is_some()
    }

    /// Lets go of it after what is open under the key was aborted at `now`. The first time the mark stays, without a
    /// lock, for what is carried out late; it goes once nothing can be.
    pub(super) fn looked(mut self, now: Timestamp) {
        let Some(since) = self.looked_at else {
            if let Err(error) = write!(self.file, "\n{}", now.as_second()) {
                tracing::warn!(%error, "the mark of an upload is not written, the next sweep does");
            }
            return;
        };
        // A clock that was set back does not keep it for ever.
        if now.duration_since(since).abs() >= EXPIRED_AFTER {
            self.remove();
        }
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
        let (one, other) = (UploadMarks::open(dir.path()).unwrap(), UploadMarks::open(dir.path()).unwrap());
        let under_way = one.set("a").unwrap();
        drop(one.set("b").unwrap());
        one.set("c").unwrap().remove();
        let left = other.left().unwrap();
        assert_eq!(left.iter().map(UploadMark::key).collect::<Vec<_>>(), ["b"]);
        assert!(one.left().unwrap().is_empty(), "one process sees to it");
        left.into_iter().for_each(UploadMark::remove);
        under_way.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mark_stays_until_what_was_sent_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let marks = UploadMarks::open(dir.path()).unwrap();
        drop(marks.set("a").unwrap());
        let now: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let left = || {
            let mut left = marks.left().unwrap();
            assert!(left.len() <= 1);
            left.pop()
        };
        assert!(!left().unwrap().was_looked_at());
        for minutes in [0, 1, 30] {
            left().unwrap().looked(now + SignedDuration::from_mins(minutes));
            let mark = left().expect("it stays");
            assert!(mark.was_looked_at() && mark.key() == "a");
        }
        let again = marks.set("a").unwrap();
        assert!(left().is_none(), "the key is uploaded to");
        again.remove();
        left().unwrap().looked(now + SignedDuration::from_mins(31));
        assert!(left().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
