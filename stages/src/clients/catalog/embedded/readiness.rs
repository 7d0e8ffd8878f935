//! The learned delay of first looks.

use std::time::Duration;

use super::{CatalogError, Inner, kind, tenant_prefix, write};
use crate::model::TenantId;

/// Changes the delay, and gives it as it is then. The next commit makes it durable.
pub(super) fn note(
    inner: &Inner,
    tenant: &TenantId,
    factor: f64,
    first_look: Duration,
) -> Result<Duration, CatalogError> {
    let _writing = inner.lock();
    let own = first_look.as_secs_f64();
    let key = tenant_prefix(kind::READINESS, tenant);
    let secs = match inner.get::<f64>(&key)? {
        Some(stored) => (stored * factor).min(stored.max(own)),
        None => own,
    };
    inner.tree.insert(key, write(&secs)?).map_err(|error| inner.broken(error))?;
    inner.store.commit_soon();
    duration(secs)
}

/// The delay, if one was ever noted.
pub(super) fn read(inner: &Inner, tenant: &TenantId) -> Result<Option<Duration>, CatalogError> {
    inner.get(&tenant_prefix(kind::READINESS, tenant))?.map(duration).transpose()
}

fn duration(secs: f64) -> Result<Duration, CatalogError> {
    Duration::try_from_secs_f64(secs).map_err(|error| CatalogError(format!("unreadable learned delay: {error}")))
}
