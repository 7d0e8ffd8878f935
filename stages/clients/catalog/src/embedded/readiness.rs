//! The learned delay of first looks.

use std::time::Duration;

use async_trait::async_trait;
use model::TenantId;
use serde::{Deserialize, Serialize};

use super::{EmbeddedCatalog, kind, tenant_prefix};
use crate::{CatalogError, FirstLooks, LearnedDelay, Lessons};

#[async_trait]
impl FirstLooks for EmbeddedCatalog {
    async fn note_readiness(&self, tenant: &TenantId, lessons: Lessons) -> Result<LearnedDelay, CatalogError> {
        let inner = &self.inner;
        let _writing = inner.lock();
        let Lessons { factor, shortened, own } = lessons;
        let key = tenant_prefix(kind::READINESS, tenant);
        let known = match inner.get::<StoredDelay>(&key)?.map(known).transpose()? {
            Some(stored) => {
                let (before, wished) = (stored.first_look.as_secs_f64(), own.first_look.as_secs_f64());
                let secs = if shortened { before.min(wished) } else { (before * factor).min(before.max(wished)) };
                LearnedDelay { first_look: duration(secs)?, found: stored.found.max(own.found), ..own }
            }
            None => own,
        };
        let stored = StoredDelay::Known {
            first_look_secs: known.first_look.as_secs_f64(),
            usual_secs: known.usual.as_secs_f64(),
            learned_secs: known.learned_for.as_secs_f64(),
            found: known.found,
        };
        inner.put(&key, &stored)?;
        inner.store.commit_soon();
        Ok(known)
    }

    async fn readiness(&self, tenant: &TenantId) -> Result<Option<LearnedDelay>, CatalogError> {
        self.inner.get::<StoredDelay>(&tenant_prefix(kind::READINESS, tenant))?.map(known).transpose()
    }
}

/// As it lies on the disk. Before more than the delay was learned, that was the one number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredDelay {
    Known { first_look_secs: f64, usual_secs: f64, learned_secs: f64, found: u64 },
    OfBefore(f64),
}

fn known(stored: StoredDelay) -> Result<LearnedDelay, CatalogError> {
    Ok(match stored {
        StoredDelay::OfBefore(secs) => LearnedDelay::of_before(duration(secs)?),
        StoredDelay::Known { first_look_secs, usual_secs, learned_secs, found } => LearnedDelay {
            first_look: duration(first_look_secs)?,
            usual: duration(usual_secs)?,
            learned_for: duration(learned_secs)?,
            found,
        },
    })
}

fn duration(secs: f64) -> Result<Duration, CatalogError> {
    Duration::try_from_secs_f64(secs).map_err(|error| CatalogError(format!("unreadable learned delay: {error}")))
}
