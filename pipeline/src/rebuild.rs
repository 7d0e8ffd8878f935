//! Brings back what the local state knew, after it was set aside or lost.
//!
//! The conversations come back from the descriptions beside the recordings; the processed-id log from the
//! catalog. What neither knows is found again by the poll, whose first listing then reaches back over the whole
//! hot window. The set-aside directory keeps the rest (dead letters, timelines) for a person to look at.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use stages::clients::catalog::{Catalog, ConversationRow, EmbeddedCatalog};
use stages::flow::Clock;
use state::State;
use tracing::{error, info, warn};

use crate::failure::Failure;

/// The depth of `{tenant}/{yyyy}/{mm}/{dd}/{external_id}` below the recordings' folder.
const DEPTH: usize = 5;

/// A description is metadata: some kilobytes.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// Keys taken from the catalog at a time.
const PAGE: usize = 10_000;

/// Restores the conversations that are described beside their recordings.
pub(crate) async fn catalog(catalog: &EmbeddedCatalog, recordings: &Path, aside: &Path) -> Result<(), Failure> {
    error!(
        set_aside = %aside.display(),
        "the local state was damaged and is set aside; it is rebuilt from the recordings and from NICE"
    );
    let (restoring, recordings) = (catalog.clone(), recordings.to_owned());
    let restored = tokio::task::spawn_blocking(move || restore(&restoring, &recordings, 0))
        .await
        .map_err(Failure::failed)?
        .map_err(|error| Failure::failed(format!("the recordings cannot be read: {error}")))?;
    catalog.check().await.map_err(Failure::failed)?;
    info!(restored, "conversations restored from the descriptions beside their recordings");
    Ok(())
}

fn restore(catalog: &EmbeddedCatalog, folder: &Path, depth: usize) -> std::io::Result<u64> {
    let mut restored = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if depth < DEPTH && entry.file_type()?.is_dir() {
            restored += restore(catalog, &entry.path(), depth + 1)?;
        } else if depth == DEPTH && entry.file_name() == "conversation.json" {
            match read(&entry.path()) {
                Some(row) => match catalog.restore(&row) {
                    Ok(()) => restored += 1,
                    Err(error) => warn!(%error, "conversation not restored; the poll finds it again"),
                },
                None => warn!(path = %entry.path().display(), "unreadable description; the poll finds the call again"),
            }
        }
    }
    Ok(restored)
}

fn read(path: &Path) -> Option<ConversationRow> {
    let length = std::fs::metadata(path).ok()?.len();
    let text = (length <= MAX_DESCRIPTION).then(|| std::fs::read(path).ok()).flatten()?;
    let row: ConversationRow = serde_json::from_slice(&text).ok()?;
    row.state.is_final().then_some(row)
}

/// Seeds an empty processed-id log with what the catalog knows of the hot window; true if it was empty.
pub(crate) async fn processed_log(
    state: &State,
    catalog: &dyn Catalog,
    retention: Duration,
    clock: &Clock,
) -> Result<bool, Failure> {
    if !state.processed().is_empty() {
        return Ok(false);
    }
    let since = clock.now().checked_sub(retention).unwrap_or(Timestamp::MIN);
    let mut after = None;
    let mut seeded = 0;
    loop {
        let keys = catalog.ended_since(since, after.as_ref(), PAGE).await.map_err(Failure::failed)?;
        let Some(last) = keys.last().cloned() else { break };
        let log = state.processed().clone();
        let digests: Vec<_> = keys.iter().map(|key| key.digest()).collect();
        seeded += tokio::task::spawn_blocking(move || log.seed(digests)).await.map_err(Failure::failed)??;
        after = Some(last);
    }
    if seeded > 0 {
        state.store().commit().await?;
        info!(seeded, "processed-id log seeded from the catalog");
    }
    Ok(true)
}
