//! The local state, and what brings it back after it was lost.

use jiff::{SignedDuration, Timestamp};
use stages::clients::catalog::{Catalog, EmbeddedCatalog};
use stages::flow::{Clock, Metrics};
use state::{Opened, State, StateOptions, Watermark};

use crate::config::{Config, RecordingsConfig};
use crate::failure::Failure;
use crate::rebuild;

/// What a process keeps on its local disk.
#[derive(Clone)]
pub(crate) struct Local {
    /// The stores.
    pub(crate) state: State,
    /// Up to where the poll has found everything.
    pub(crate) poll_watermark: Watermark,
    /// Since when nightly comparisons are due here.
    pub(crate) reconciled_since: Watermark,
}

/// The producer's name for its place in NICE's changes.
const POLL_WATERMARK: &str = "poll";

/// The producer's name for its first turn.
const RECONCILED_SINCE: &str = "reconciliation";

/// Opens the stores; what cannot be opened is set aside.
pub(crate) async fn open_state(config: &Config, metrics: &Metrics) -> Result<Opened, Failure> {
    let dir = config.state.dir.clone();
    let retention = SignedDuration::try_from(config.state.retention).map_err(Failure::usage)?;
    let options = StateOptions { retention, ..StateOptions::default() };
    let opened = tokio::task::spawn_blocking(move || State::open(&dir, options)).await.map_err(Failure::failed)??;
    if let Some(aside) = &opened.set_aside {
        metrics.state_set_aside.inc();
        tracing::error!(
            set_aside = %aside.display(),
            "the local state was damaged and is set aside; it is rebuilt from the recordings and from NICE"
        );
    }
    Ok(opened)
}

/// Brings back the embedded catalog, then the processed ids.
pub(super) async fn embedded(
    config: &Config,
    opened: Opened,
    catalog: &EmbeddedCatalog,
    clock: &Clock,
) -> Result<Local, Failure> {
    if let Some(RecordingsConfig::Filesystem { dir }) = &config.recordings {
        let since = clock.now().checked_sub(super::hot_window(config)).unwrap_or(Timestamp::MIN);
        let poll = opened.state.watermark(POLL_WATERMARK)?;
        rebuild::catalog(&opened.state, catalog, dir, &poll, since).await?;
    }
    on_server(config, opened, catalog, clock).await
}

/// Brings back the processed ids of a state whose catalog is elsewhere.
pub(super) async fn on_server(
    config: &Config,
    opened: Opened,
    catalog: &dyn Catalog,
    clock: &Clock,
) -> Result<Local, Failure> {
    let tenant = super::tenant(config).ok();
    rebuild::processed_log(&opened.state, catalog, tenant.as_ref(), config.state.retention, clock).await?;
    Ok(Local {
        poll_watermark: opened.state.watermark(POLL_WATERMARK)?,
        reconciled_since: opened.state.watermark(RECONCILED_SINCE)?,
        state: opened.state,
    })
}
