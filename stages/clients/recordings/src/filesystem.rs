//! Recordings as files: `{dir}/{object key}`, and `conversation.json` beside them.
//!
//! A file is written under `{dir}/.partial/`, synced, and renamed into place; its folders are synced after it. A
//! crash leaves at most a file under `.partial`, which the next start removes. A file that is being written is
//! locked, so that the start of one process spares what another one writes.
//!
//! Renaming replaces whatever is there. Who may replace only what it has seen looks again and renames under one lock,
//! which every writer of the folder takes.

use std::fs::TryLockError;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use model::{ConversationKey, ObjectKey};
use runtime::{chance, task};
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::{CurrentObject, PutOutput, RecordingBody, RecordingStore, RecordingStoreError};

/// Bytes gathered before each write, so that small network chunks do not become small writes.
const WRITE_BUFFER: usize = 256 * 1024;

/// The description for people, beside a conversation's recordings.
pub const DESCRIPTION: &str = "conversation.json";

const PARTIAL: &str = ".partial";

/// Pieces in which a file is read.
const READ_BUFFER: usize = 256 * 1024;

/// Folders from a tenant to a day: year, month, day.
const DAY_DEPTH: usize = 3;

/// A folder that holds the recordings.
#[derive(Debug)]
pub struct FilesystemStore {
    dir: PathBuf,
    name: String,
    /// Tells the files of this process from those of others.
    run: u64,
    next_partial: AtomicU64,
}

impl FilesystemStore {
    /// Opens the folder, and makes it where it does not exist.
    pub async fn open(dir: &Path) -> std::io::Result<Self> {
        private_folders(&dir.join(PARTIAL)).await?;
        let name = fs::canonicalize(dir).await?.display().to_string();
        Ok(Self { dir: dir.to_owned(), name, run: chance::random(), next_partial: AtomicU64::new(0) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates a file to write to. Both go with the future that is dropped: a file that was just being created is
    /// removed by the thread that created it.
    async fn partial(&self) -> std::io::Result<(fs::File, Partial)> {
        let number = self.next_partial.fetch_add(1, Ordering::Relaxed);
        // Process ids repeat, in containers at every start.
        let name = format!("{:016x}-{number}", self.run);
        let partial = Partial { path: self.dir.join(PARTIAL).join(name), kept: false };
        let created = task::blocking(move || {
            let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&partial.path)?;
            file.lock()?;
            Ok::<_, std::io::Error>((file, partial))
        });
        let (file, partial) = created.await.map_err(std::io::Error::other)??;
        Ok((fs::File::from_std(file), partial))
    }

    /// Syncs the finished file, moves it into place, and syncs the folders above it, whoever made them: another
    /// put may have made one and not synced it yet.
    /// False, and nothing is moved, where something else lies there than was `found`.
    async fn publish(
        &self,
        file: fs::File,
        mut partial: Partial,
        key: &str,
        found: Option<&CurrentObject>,
    ) -> std::io::Result<bool> {
        file.sync_all().await?;
        let target = self.dir.join(key);
        let folder = target.parent().unwrap_or(&self.dir);
        private_folders(folder).await?;
        let (dir, to, found) = (self.dir.clone(), target.clone(), found.cloned());
        let moving = task::blocking(move || {
            // One process at a time looks and moves. A network file system may lock no folder: there the attempt's
            // number in the catalog is what tells, and a moment is left between look and move.
            let lock = std::fs::File::open(dir)?;
            if let Err(error) = lock.lock() {
                tracing::debug!(%error, "the folder of recordings cannot be locked");
            }
            if let Some(found) = found
                && find(&to)? != found
            {
                return Ok((partial, false));
            }
            std::fs::rename(&partial.path, &to)?;
            partial.kept = true;
            Ok::<_, std::io::Error>((partial, true))
        });
        let (_partial, moved) = moving.await.map_err(std::io::Error::other)??;
        if !moved {
            return Ok(false);
        }
        // Only now, since it holds the lock.
        drop(file);
        for folder in folder.ancestors() {
            fs::File::open(folder).await?.sync_all().await?;
            if folder == self.dir {
                break;
            }
        }
        Ok(true)
    }
}

/// A file is told from another one in its place by its number, its time and its length.
fn find(path: &Path) -> std::io::Result<CurrentObject> {
    match std::fs::metadata(path) {
        Ok(file) => {
            let name = format!("{}-{}.{:09}-{}", file.ino(), file.ctime(), file.ctime_nsec(), file.len());
            Ok(CurrentObject::Object(name))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(CurrentObject::Nothing),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl RecordingStore for FilesystemStore {
    fn bucket(&self) -> &str {
        &self.name
    }

    async fn put_if_unchanged(
        &self,
        key: &ObjectKey,
        _content_type: &str,
        found: Option<&CurrentObject>,
        mut body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        let (file, partial) = self.partial().await.map_err(|error| failed("create", &error))?;
        let mut writer = BufWriter::with_capacity(WRITE_BUFFER, file);
        let (mut size_bytes, mut sha256) = (0, Sha256::new());
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            size_bytes += bytes.len() as u64;
            sha256.update(&bytes);
            writer.write_all(&bytes).await.map_err(|error| failed("write", &error))?;
        }
        writer.flush().await.map_err(|error| failed("write", &error))?;
        let file = writer.into_inner();
        let held = file.metadata().await.map_err(|error| failed("look at", &error))?.len();
        if held != size_bytes {
            return Err(RecordingStoreError::unavailable(
                "the folder of recordings holds another length than was written",
            ));
        }
        let published = self.publish(file, partial, &key.to_string(), found).await;
        if !published.map_err(|error| failed("finish", &error))? {
            let reason = "another recording was stored there meanwhile".to_owned();
            return Err(RecordingStoreError::Overtaken(reason));
        }
        Ok(PutOutput { size_bytes, sha256: hex::encode(sha256.finalize()) })
    }

    async fn find(&self, key: &ObjectKey) -> Result<CurrentObject, RecordingStoreError> {
        let path = self.dir.join(key.to_string());
        blocking("look at", move || find(&path)).await
    }

    async fn read(&self, key: &str) -> Result<Option<RecordingBody<'static>>, RecordingStoreError> {
        let file = match fs::File::open(self.dir.join(key)).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &error)),
        };
        let pieces = tokio_util::io::ReaderStream::with_capacity(file, READ_BUFFER);
        Ok(Some(pieces.map(|piece| piece.map_err(|error| failed("read", &error).into())).boxed()))
    }

    fn takes_descriptions(&self) -> bool {
        true
    }

    async fn describe(&self, folder: &str, description: &[u8]) -> Result<(), RecordingStoreError> {
        let (mut file, partial) = self.partial().await.map_err(|error| failed("create", &error))?;
        file.write_all(description).await.map_err(|error| failed("write", &error))?;
        file.flush().await.map_err(|error| failed("write", &error))?;
        let key = format!("{folder}/{DESCRIPTION}");
        self.publish(file, partial, &key, None).await.map(drop).map_err(|error| failed("finish", &error))
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, RecordingStoreError> {
        match fs::metadata(self.dir.join(key.to_string())).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at", &error)),
        }
    }

    /// A folder that was moved took its files along.
    async fn keeps(&self, bucket: &str, object_key: &str) -> Result<bool, RecordingStoreError> {
        if bucket == self.name || !Path::new(bucket).is_absolute() {
            return Ok(bucket == self.name);
        }
        let kept = match fs::canonicalize(bucket).await {
            Ok(folder) => Ok(folder.display().to_string() == self.name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::try_exists(self.dir.join(object_key)).await
            }
            Err(error) => Err(error),
        };
        kept.map_err(|error| failed("look for", &error))
    }

    async fn erase(&self, conversation: &ConversationKey, started_at: Timestamp) -> Result<u64, RecordingStoreError> {
        let folder = self.dir.join(ObjectKey::folder_of(conversation, started_at));
        blocking("erase", move || erase(&folder)).await
    }

    async fn erase_of_any_day(&self, conversation: &ConversationKey) -> Result<Option<u64>, RecordingStoreError> {
        let tenant = self.dir.join(conversation.tenant.as_str());
        let id = conversation.external_id.to_string();
        blocking("erase", move || erase_below(&tenant, DAY_DEPTH, &id)).await.map(Some)
    }

    async fn sweep(&self) -> Result<u64, RecordingStoreError> {
        let partial = self.dir.join(PARTIAL);
        blocking("sweep", move || sweep(&partial)).await
    }

    async fn check(&self) -> Result<(), RecordingStoreError> {
        let (mut file, _partial) = self.partial().await.map_err(|error| failed("create", &error))?;
        file.write_all(b"check").await.map_err(|error| failed("write", &error))?;
        file.flush().await.map_err(|error| failed("write", &error))
    }
}

/// Removes a folder with all that is in it, and counts the files. The folder of its day stays: it names no call.
fn erase(folder: &Path) -> std::io::Result<u64> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let files = match std::fs::read_dir(folder) {
        Ok(entries) => entries.count() as u64,
        Err(error) if gone(&error) => 0,
        Err(error) => return Err(error),
    };
    match std::fs::remove_dir_all(folder) {
        Err(error) if !gone(&error) => return Err(error),
        _ => {}
    }
    // Also where it was gone: an earlier attempt may have been cut off before this.
    match folder.parent().map(std::fs::File::open) {
        Some(Ok(day)) => day.sync_all()?,
        Some(Err(error)) if !gone(&error) => return Err(error),
        _ => {}
    }
    Ok(files)
}

/// Erases the folder of a conversation in every day below `folder`.
fn erase_below(folder: &Path, depth: usize, id: &str) -> std::io::Result<u64> {
    if depth == 0 {
        let conversation = folder.join(id);
        return if conversation.try_exists()? { erase(&conversation) } else { Ok(0) };
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut erased = 0;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            erased += erase_below(&entry.path(), depth - 1, id)?;
        }
    }
    Ok(erased)
}

/// Removes every file that nobody writes to.
fn sweep(partial: &Path) -> std::io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(partial)? {
        let path = entry?.path();
        let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        // For writing: a network file system grants the lock only then.
        let file = match std::fs::File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if gone(&error) => continue, // finished meanwhile
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        match std::fs::remove_file(&path) {
            Ok(()) => removed += 1,
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Makes folders that only this user can look into: they hold call audio and customers' numbers.
async fn private_folders(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await
}

/// A file under `.partial`, removed unless it was moved into place.
struct Partial {
    path: PathBuf,
    kept: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "half-written recording not removed; the next start does");
        }
    }
}

/// Works with files on a thread that may block.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, RecordingStoreError> {
    let done = task::blocking(work).await.map_err(std::io::Error::other);
    done.and_then(|done| done).map_err(|error| failed(what, &error))
}

fn failed(what: &str, error: &std::io::Error) -> RecordingStoreError {
    RecordingStoreError::unavailable(format!("recording store: cannot {what} a file: {error}"))
}

#[cfg(test)]
mod tests;
