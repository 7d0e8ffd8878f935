//! Brings back what the local state knew, after it was set aside or lost.
//!
//! The conversations come back from the descriptions beside the recordings. The dedupe asks the catalog about calls
//! that a lost processed-id log does not know. The poll finds what the catalog does not know: its first listing goes
//! back by the whole recovery window. What was erased does not come back: the list of it is a file beside the state.
//! The set-aside directory keeps the rest (dead letters, timelines) for a person to look at.
//!
//! # After a crash
//! A mark in the local state says that it is whole. Without it the next start, or the next command, rebuilds again.

use std::path::{Path, PathBuf};

use catalog::{Catalog, ConversationRow, EmbeddedCatalog, ProducerTurns};
use jiff::Timestamp;
use model::{ConversationKey, TenantId};
use runtime::task;
use state::State;
use tracing::{info, warn};

use crate::command_error::CommandError;
use crate::turns;

/// The depth of `{tenant}/{yyyy}/{mm}/{dd}/{external_id}` below the recordings' folder.
const DEPTH: usize = 5;

/// A description is metadata: some kilobytes.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// The tree that holds the mark, and the mark.
const TREE: &str = "rebuild";
const WHOLE: &str = "catalog";

/// Restores the conversations that are described beside their recordings in a folder, unless that was done before.
/// Where any were, or a state was set aside, the poll's first listing begins at `since`.
pub(crate) async fn catalog(
    state: &State,
    catalog: &EmbeddedCatalog,
    recordings: Option<&Path>,
    tenant: Option<&TenantId>,
    since: Timestamp,
) -> Result<(), CommandError> {
    let marks = state.store().tree(TREE)?;
    if marks.contains_key(WHOLE).map_err(CommandError::failed)? {
        return Ok(());
    }
    let restored = match recordings {
        Some(folder) => restore_from(catalog, folder).await?,
        None => 0,
    };
    if restored > 0 {
        info!(count = restored, "conversations restored from the descriptions beside their recordings");
    }
    // Also if an earlier start set the state aside, and ended before it had rebuilt it.
    let was_lost = restored > 0 || !set_aside(state.store().dir()).is_empty();
    if was_lost
        && let Some(tenant) = tenant
        && turns::earlier_watermark(state)?.is_none()
        && catalog.producer_memory(tenant).await.map_err(CommandError::failed)?.poll_watermark.is_none()
    {
        catalog.advance_poll(tenant, since, None).await.map_err(CommandError::failed)?;
    }
    marks.insert(WHOLE, b"").map_err(CommandError::failed)?;
    catalog.check().await.map_err(CommandError::failed)
}

/// The stores that were set aside in a state directory.
pub(crate) fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_one = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with("set-aside-"));
    let mut found: Vec<_> =
        entries.flatten().filter(|entry| is_one(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

async fn restore_from(catalog: &EmbeddedCatalog, recordings: &Path) -> Result<u64, CommandError> {
    let (restoring, folder) = (catalog.clone(), recordings.to_owned());
    // A command, and the very first start, may come before there is any recording.
    let restored = task::blocking(move || match folder.try_exists()? {
        true => restore(&restoring, &folder, 0),
        false => Ok(0),
    });
    restored.await.map_err(CommandError::failed)?.map_err(|error| {
        let remedy = "let this user read it, then start again";
        CommandError::failed(format!("[recordings] dir: {}: {error}; {remedy}", recordings.display()))
    })
}

fn restore(catalog: &EmbeddedCatalog, folder: &Path, depth: usize) -> std::io::Result<u64> {
    let mut restored = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Beside the tenants there are `.partial`, and whatever a file system keeps in its root.
        let is_tenant = || entry.file_name().to_str().is_some_and(|name| name.parse::<TenantId>().is_ok());
        if depth == 0 && !is_tenant() {
            continue;
        }
        if depth + 1 == DEPTH && key_of(&entry.path()).is_some_and(|key| catalog.is_erased(&key)) {
            // A crash came between the tombstone and the deletion of the recordings.
            std::fs::remove_dir_all(entry.path())?;
            info!("finished an erasure that was begun before the state was lost");
        } else if depth < DEPTH && entry.file_type()?.is_dir() {
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

/// The conversation whose folder this is.
fn key_of(folder: &Path) -> Option<ConversationKey> {
    let name = |depth: usize| folder.ancestors().nth(depth)?.file_name()?.to_str();
    Some(ConversationKey { tenant: name(DEPTH - 1)?.parse().ok()?, external_id: name(0)?.parse().ok()? })
}

fn read(path: &Path) -> Option<ConversationRow> {
    let length = std::fs::metadata(path).ok()?.len();
    let text = (length <= MAX_DESCRIPTION).then(|| std::fs::read(path).ok()).flatten()?;
    let row: ConversationRow = serde_json::from_slice(&text).ok()?;
    row.state.is_final().then_some(row)
}

#[cfg(test)]
mod tests {
    use catalog::EmbeddedCatalog;
    use catalog::roles::*;
    use state::StateOptions;

    use super::*;

    const DESCRIPTION: &str = r#"{
        "id": "1", "tenant_id": "acme", "integration_type": "nice-cxone", "external_id": "5",
        "master_external_id": "5", "agent_external_id": "7", "started_at": "2026-04-01T12:00:00Z",
        "ended_at": "2026-04-01T12:01:00Z", "direction": null, "customer_number": null, "metadata": {},
        "state": "ready", "source": "poll", "recordings": [], "enqueued_at": "2026-04-01T12:05:00Z",
        "claimed_at": null
    }"#;

    #[tokio::test]
    async fn what_a_crash_left_undone_is_done_by_the_next_start_and_not_twice() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = dir.path().join("recordings");
        let call = recordings.join("acme/2026/04/01/5");
        std::fs::create_dir_all(&call).unwrap();
        std::fs::create_dir_all(recordings.join("lost+found/a")).unwrap();
        std::fs::write(call.join("conversation.json"), DESCRIPTION).unwrap();
        let state = State::open(&dir.path().join("state"), StateOptions::default()).unwrap().state;
        let embedded = EmbeddedCatalog::open(state.store()).unwrap();
        let acme = "acme".parse().unwrap();
        let since = "2026-03-29T00:00:00Z".parse().unwrap();

        // Nothing was set aside in this run: an earlier one ended before it had restored anything.
        catalog(&state, &embedded, Some(&recordings), Some(&acme), since).await.unwrap();
        let key = ConversationKey { tenant: "acme".parse().unwrap(), external_id: "5".parse().unwrap() };
        assert!(embedded.conversation(&key).await.unwrap().is_some());
        let known = embedded.producer_memory(&acme).await.unwrap();
        assert_eq!((embedded.counts().await.unwrap().ready, known.poll_watermark), (1, Some(since)));

        std::fs::remove_dir_all(&recordings).unwrap();
        catalog(&state, &embedded, Some(&recordings), Some(&acme), since).await.unwrap();
    }

    #[tokio::test]
    async fn a_state_that_was_set_aside_sends_the_poll_back_though_nothing_is_restored() {
        let since = "2026-03-29T00:00:00Z".parse().unwrap();
        let acme = "acme".parse().unwrap();
        for (is_lost, expected) in [(true, Some(since)), (false, None)] {
            let dir = tempfile::tempdir().unwrap();
            if is_lost {
                std::fs::create_dir(dir.path().join("set-aside-2026-04-01T12-00-00.000Z")).unwrap();
            }
            let state = State::open(dir.path(), StateOptions::default()).unwrap().state;
            let embedded = EmbeddedCatalog::open(state.store()).unwrap();
            catalog(&state, &embedded, None, Some(&acme), since).await.unwrap();
            assert_eq!(embedded.producer_memory(&acme).await.unwrap().poll_watermark, expected);
        }
    }
}
