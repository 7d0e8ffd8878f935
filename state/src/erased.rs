//! What was erased on purpose, and must not come back: a key, and a list of digests made with it.
//!
//! Both are plain files in the state directory, beside the database and not in it: a damaged database is set aside
//! and rebuilt from what lies around, and the list must outlive that. In: digests of 32 bytes, of which nobody but
//! the holder of the key can tell what they stand for. Out: whether a digest is on the list.
//!
//! - `erasure.key`: 32 random bytes in hex, made at the first erasure.
//! - `erased`: a line of hex for each digest; lines are added, never changed.
//!
//! # After a crash
//! A digest that was added is there. Half a line at the end was not acknowledged, and is cut off.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::StateError;

/// Bytes of a digest and of the key.
const LENGTH: usize = 32;

/// A digest in hex and its line feed.
const LINE: usize = 2 * LENGTH + 1;

/// The list; clones share it.
#[derive(Clone)]
pub struct ErasureList {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    key: OnceLock<[u8; LENGTH]>,
    digests: Mutex<HashSet<[u8; LENGTH]>>,
}

impl ErasureList {
    /// Reads the list in `dir`; there need be none yet. Blocks.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let inner = Inner { dir: dir.to_owned(), key: OnceLock::new(), digests: Mutex::default() };
        if let Some(key) = inner.read_key()? {
            inner.key.get_or_init(|| key);
        }
        let digests = inner.read_list()?;
        if !digests.is_empty() && inner.key.get().is_none() {
            let missing = std::io::Error::new(
                ErrorKind::NotFound,
                "the list beside it cannot be read without this key: restore it from a backup",
            );
            return Err(StateError::io("read", &inner.key_path(), missing));
        }
        *inner.digests() = digests;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The key, if there is one yet: without it nothing is on the list.
    pub fn key(&self) -> Option<&[u8; LENGTH]> {
        self.inner.key.get()
    }

    /// The key, made from these random bytes where there is none yet. Durable once it returns. Blocks.
    pub fn key_or(&self, random: [u8; LENGTH]) -> Result<&[u8; LENGTH], StateError> {
        // One makes it.
        let _digests = self.inner.digests();
        if self.inner.key.get().is_none() {
            self.inner.write_key(&random)?;
        }
        Ok(self.inner.key.get_or_init(|| random))
    }

    /// Whether a digest is on the list.
    pub fn contains(&self, digest: &[u8; LENGTH]) -> bool {
        self.inner.digests().contains(digest)
    }

    /// Puts a digest on the list. Durable once it returns. Blocks.
    pub fn add(&self, digest: &[u8; LENGTH]) -> Result<(), StateError> {
        let mut digests = self.inner.digests();
        if digests.contains(digest) {
            return Ok(());
        }
        self.inner.append(digest)?;
        digests.insert(*digest);
        Ok(())
    }
}

impl std::fmt::Debug for ErasureList {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasureList").field("digests", &self.inner.digests().len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn digests(&self) -> MutexGuard<'_, HashSet<[u8; LENGTH]>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_path(&self) -> PathBuf {
        self.dir.join("erasure.key")
    }

    fn list_path(&self) -> PathBuf {
        self.dir.join("erased")
    }

    fn read_key(&self) -> Result<Option<[u8; LENGTH]>, StateError> {
        let path = self.key_path();
        let Some(text) = read(&path)? else { return Ok(None) };
        let key = decode(text.trim_ascii_end());
        key.map(Some).ok_or_else(|| StateError::io("read", &path, damaged("it is no key: restore it from a backup")))
    }

    /// Whole or not at all: a key that was cut short would leave the list unreadable.
    fn write_key(&self, key: &[u8; LENGTH]) -> Result<(), StateError> {
        let (path, making) = (self.key_path(), self.dir.join("erasure.key.new"));
        let written = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&making)
            .and_then(|mut file| {
                file.write_all(hex::encode(key).as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&making, &path));
        written.map_err(|error| StateError::io("write", &path, error))?;
        self.sync_dir()
    }

    fn read_list(&self) -> Result<HashSet<[u8; LENGTH]>, StateError> {
        let path = self.list_path();
        let Some(text) = read(&path)? else { return Ok(HashSet::new()) };
        let (lines, half) = text.split_at(text.len() - text.len() % LINE);
        if !half.is_empty() {
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
                file.set_len(lines.len() as u64)?;
                file.sync_all()
            });
            cut.map_err(|error| StateError::io("cut", &path, error))?;
        }
        let line = |line: &[u8]| line.strip_suffix(b"\n").and_then(decode);
        let digests = lines.chunks(LINE).map(line).collect::<Option<_>>();
        let remedy = "a line of it is no digest: restore it from a backup, or what was erased comes back";
        digests.ok_or_else(|| StateError::io("read", &path, damaged(remedy)))
    }

    fn append(&self, digest: &[u8; LENGTH]) -> Result<(), StateError> {
        let path = self.list_path();
        let is_new = !path.exists();
        let appended = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).and_then(|mut file| {
            let before = file.metadata()?.len();
            let written =
                file.write_all(format!("{}\n", hex::encode(digest)).as_bytes()).and_then(|()| file.sync_all());
            if written.is_err() {
                // What comes after half a line could not be read.
                file.set_len(before)?;
            }
            written
        });
        appended.map_err(|error| StateError::io("write", &path, error))?;
        if is_new { self.sync_dir() } else { Ok(()) }
    }

    fn sync_dir(&self) -> Result<(), StateError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| StateError::io("sync", &self.dir, error))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("read", path, error)),
    }
}

fn damaged(remedy: &'static str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, remedy)
}

fn decode(text: &[u8]) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_added_is_there_after_a_restart_and_the_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let erased = ErasureList::open(dir.path()).unwrap();
        assert!(erased.key().is_none() && !erased.contains(&[1; 32]));
        assert_eq!(erased.key_or([7; 32]).unwrap(), &[7; 32]);
        for _ in 0..2 {
            erased.add(&[1; 32]).unwrap();
            erased.add(&[2; 32]).unwrap();
        }
        drop(erased);
        let erased = ErasureList::open(dir.path()).unwrap();
        assert_eq!(erased.key_or([8; 32]).unwrap(), &[7; 32]);
        assert!(erased.contains(&[1; 32]) && erased.contains(&[2; 32]) && !erased.contains(&[3; 32]));
        assert_eq!(std::fs::metadata(dir.path().join("erased")).unwrap().len(), 2 * LINE as u64);
        for file in ["erased", "erasure.key"] {
            let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert!(!format!("{erased:?}").contains('7'));
    }

    #[test]
    fn half_a_line_is_cut_off_and_the_next_one_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let erased = ErasureList::open(dir.path()).unwrap();
        erased.key_or([7; 32]).unwrap();
        erased.add(&[1; 32]).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join("erased")).unwrap();
        file.write_all(b"0202").unwrap();
        ErasureList::open(dir.path()).unwrap().add(&[3; 32]).unwrap();
        let erased = ErasureList::open(dir.path()).unwrap();
        assert!(erased.contains(&[1; 32]) && erased.contains(&[3; 32]));
    }

    #[test]
    fn a_list_or_key_that_cannot_be_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let erased = ErasureList::open(dir.path()).unwrap();
        erased.key_or([7; 32]).unwrap();
        erased.add(&[1; 32]).unwrap();
        let (key, list) = (dir.path().join("erasure.key"), dir.path().join("erased"));
        let damage = |path: &Path, text: &str| {
            let before = std::fs::read(path).unwrap();
            std::fs::write(path, text).unwrap();
            let refused = ErasureList::open(dir.path()).unwrap_err().to_string();
            assert!(refused.contains("restore it from a backup"), "{refused}");
            std::fs::write(path, before).unwrap();
        };
        damage(&list, &format!("{}\n", "x".repeat(64)));
        damage(&key, "0707");
        std::fs::remove_file(&key).unwrap();
        let refused = ErasureList::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("erasure.key") && refused.contains("restore it from a backup"), "{refused}");
    }
}
