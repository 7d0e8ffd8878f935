//! The local state, and what brings it back after it was lost.

use catalog::EmbeddedCatalog;
use jiff::{SignedDuration, Timestamp};
use runtime::{Clock, task};
use stages::metrics::Metrics;
use state::{Opened, State, StateOptions};

use super::translate::{recovery_window, tenant};
use crate::command_error::CommandError;
use crate::config::{Config, RecordingsKind};
use crate::rebuild;

/// Opens the stores; what cannot be opened is set aside.
pub(crate) async fn open_state(
    config: &Config,
    options: StateOptions,
    metrics: &Metrics,
) -> Result<Opened, CommandError> {
    let dir = config.state.dir.clone();
    let retention = SignedDuration::try_from(config.state.retention).map_err(CommandError::usage)?;
    let options = StateOptions { retention, ..options };
    let opened = task::blocking(move || State::open(&dir, options)).await.map_err(CommandError::failed)??;
    if let Some(aside) = &opened.set_aside {
        metrics.state_set_aside.inc();
        tracing::error!(
            set_aside = %aside.display(),
            "the local state was damaged and is set aside; it is rebuilt from the recordings and from NICE"
        );
    }
    Ok(opened)
}

/// Brings back the embedded catalog.
pub(super) async fn embedded(
    config: &Config,
    opened: Opened,
    catalog: &EmbeddedCatalog,
    clock: &Clock,
) -> Result<State, CommandError> {
    let recordings =
        (config.recordings.kind == RecordingsKind::Filesystem).then(|| config.recordings.dir(&config.state));
    let since = clock.now().checked_sub(recovery_window(config)).unwrap_or(Timestamp::MIN);
    let tenant = tenant(config).ok();
    rebuild::catalog(&opened.state, catalog, recordings.as_deref(), tenant.as_ref(), since).await?;
    Ok(opened.state)
}
