//! The servers of production, in an executable without their clients: each is refused with what to choose instead.

use std::path::PathBuf;
use std::sync::Arc;

use model::TenantId;
use stages::clients::catalog::Catalog;
use stages::clients::queue::Queue;
use stages::clients::quota::Stores;
use stages::clients::recording_store::RecordingStore;
use stages::clients::tenants::SettingsSource;
use stages::flow::Metrics;

use crate::config::{CatalogKind, Config, QueueKind, RecordingsKind};
use crate::failure::Failure;
use crate::lease::Lease;

/// There is none.
pub(crate) enum Database {}

/// Nothing needs it.
pub(crate) fn install_crypto() {}

pub(crate) fn database(config: &Config) -> Result<Option<Database>, Failure> {
    built(config).map(|()| None)
}

pub(crate) async fn catalog(_config: &Config, database: &Database) -> Result<Arc<dyn Catalog>, Failure> {
    match *database {}
}

pub(super) async fn queue(_config: &Config, _metrics: &Metrics) -> Result<Arc<dyn Queue>, Failure> {
    Err(not_built("queue", "rabbitmq", "embedded"))
}

pub(super) async fn recordings(
    _config: &Config,
    _marks: Option<PathBuf>,
    _metrics: &Metrics,
) -> Result<Arc<dyn RecordingStore>, Failure> {
    Err(not_built("recordings", "s3", "filesystem"))
}

pub(super) fn budgets(database: &Database) -> Arc<dyn Stores> {
    match *database {}
}

pub(super) fn settings_source(_config: &Config, database: &Database) -> Arc<dyn SettingsSource> {
    match *database {}
}

pub(crate) async fn check_session(database: &Database) -> Result<(), Failure> {
    match *database {}
}

pub(super) fn lease(_database: Option<&Database>, _tenant: &TenantId) -> Lease {
    Lease::Sole
}

/// Refuses the kinds that are not there.
pub(super) fn built(config: &Config) -> Result<(), Failure> {
    if config.queue.kind == QueueKind::Rabbitmq {
        return Err(not_built("queue", "rabbitmq", "embedded"));
    }
    if config.catalog.kind == CatalogKind::Postgres {
        return Err(not_built("catalog", "postgres", "embedded"));
    }
    if config.recordings.kind == RecordingsKind::S3 {
        return Err(not_built("recordings", "s3", "filesystem"));
    }
    Ok(())
}

fn not_built(section: &str, kind: &str, instead: &str) -> Failure {
    Failure::usage(format!(
        "[{section}] kind: \"{kind}\" is not part of this executable; choose kind = \"{instead}\" and `nice-knovvu run`"
    ))
}
