//! Recordings as files: `{dir}/{object key}`, and `conversation.json` beside them.
//!
//! A file is written under `{dir}/.partial/`, synced, and renamed into place; the folder is synced after it. A
//! crash leaves at most a file under `.partial`, which the next start removes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::fs;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::{Body, RecordingStore};
use crate::flow::StageError;
use crate::model::ObjectKey;

/// Bytes gathered before each write, so that small network chunks do not become small writes.
const WRITE_BUFFER: usize = 256 * 1024;

/// The description for people, beside a conversation's recordings.
pub const DESCRIPTION: &str = "conversation.json";

const PARTIAL: &str = ".partial";

/// A folder that holds the recordings.
#[derive(Debug)]
pub struct FilesystemStore {
    dir: PathBuf,
    name: String,
    next_partial: AtomicU64,
}

impl FilesystemStore {
    /// Opens the folder, and makes it where it does not exist.
    pub async fn open(dir: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(dir.join(PARTIAL)).await?;
        let name = fs::canonicalize(dir).await?.display().to_string();
        Ok(Self { dir: dir.to_owned(), name, next_partial: AtomicU64::new(0) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn partial(&self) -> Partial {
        let number = self.next_partial.fetch_add(1, Ordering::Relaxed);
        Partial { path: self.dir.join(PARTIAL).join(format!("{}-{number}", std::process::id())), kept: false }
    }

    /// Syncs the finished file, moves it into place, and syncs every folder that the path made.
    async fn publish(&self, file: fs::File, mut partial: Partial, key: &str) -> std::io::Result<()> {
        file.sync_all().await?;
        drop(file);
        let target = self.dir.join(key);
        let folder = target.parent().unwrap_or(&self.dir);
        let was_new = !fs::try_exists(folder).await?;
        fs::create_dir_all(folder).await?;
        fs::rename(&partial.path, &target).await?;
        partial.kept = true;
        let topmost = if was_new { self.dir.as_path() } else { folder };
        for folder in folder.ancestors() {
            fs::File::open(folder).await?.sync_all().await?;
            if folder == topmost {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl RecordingStore for FilesystemStore {
    fn bucket(&self) -> &str {
        &self.name
    }

    async fn put(&self, key: &ObjectKey, _content_type: &str, mut body: Body<'_>) -> Result<u64, StageError> {
        let partial = self.partial();
        let file = fs::File::create_new(&partial.path).await.map_err(|error| failed("create", &error))?;
        let mut writer = BufWriter::with_capacity(WRITE_BUFFER, file);
        let mut size = 0;
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            size += bytes.len() as u64;
            writer.write_all(&bytes).await.map_err(|error| failed("write", &error))?;
        }
        writer.flush().await.map_err(|error| failed("write", &error))?;
        self.publish(writer.into_inner(), partial, &key.to_string()).await.map_err(|error| failed("finish", &error))?;
        Ok(size)
    }

    async fn describe(&self, folder: &str, description: &[u8]) -> Result<(), StageError> {
        let partial = self.partial();
        let mut file = fs::File::create_new(&partial.path).await.map_err(|error| failed("create", &error))?;
        file.write_all(description).await.map_err(|error| failed("write", &error))?;
        let key = format!("{folder}/{DESCRIPTION}");
        self.publish(file, partial, &key).await.map_err(|error| failed("finish", &error))
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StageError> {
        match fs::metadata(self.dir.join(key.to_string())).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at", &error)),
        }
    }

    async fn sweep(&self) -> Result<u64, StageError> {
        let mut removed = 0;
        let mut entries = fs::read_dir(self.dir.join(PARTIAL)).await.map_err(|error| failed("list", &error))?;
        while let Some(entry) = entries.next_entry().await.map_err(|error| failed("list", &error))? {
            fs::remove_file(entry.path()).await.map_err(|error| failed("remove", &error))?;
            removed += 1;
        }
        Ok(removed)
    }

    async fn check(&self) -> Result<(), StageError> {
        let partial = self.partial();
        fs::write(&partial.path, b"check").await.map_err(|error| failed("write", &error))
    }
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

fn failed(what: &str, error: &std::io::Error) -> StageError {
    StageError::transient(format!("recording store: cannot {what} a file: {error}"))
}
