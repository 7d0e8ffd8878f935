//! The services that run. No other process can open this catalog, so that its one row dies with a crash, as it should.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::EmbeddedCatalog;
use crate::{CatalogError, FORGOTTEN_AFTER, Heartbeat, KnownService, Services};

#[async_trait]
impl Services for EmbeddedCatalog {
    async fn enlist(&self, beat: &Heartbeat, now: Timestamp) -> Result<(), CatalogError> {
        let mut services = self.inner.services();
        services.retain(|_, (_, seen_at)| silent_for(*seen_at, now) < FORGOTTEN_AFTER);
        services.insert(beat.id.clone(), (beat.clone(), now));
        Ok(())
    }

    async fn beat(&self, beat: &Heartbeat, now: Timestamp) -> Result<bool, CatalogError> {
        let is_noted = self.inner.services().contains_key(&beat.id);
        if is_noted {
            self.enlist(beat, now).await?;
        }
        Ok(is_noted)
    }

    async fn services(&self, now: Timestamp, limit: usize) -> Result<Vec<KnownService>, CatalogError> {
        let services = self.inner.services();
        let known = services
            .values()
            .map(|(beat, seen_at)| KnownService { beat: beat.clone(), silent_for: silent_for(*seen_at, now) });
        let mut known: Vec<_> = known.filter(|service| service.silent_for < FORGOTTEN_AFTER).collect();
        known.sort_by(|one, other| (one.silent_for, &one.beat.id).cmp(&(other.silent_for, &other.beat.id)));
        known.truncate(limit);
        Ok(known)
    }

    async fn retire(&self, id: &str) -> Result<(), CatalogError> {
        self.inner.services().remove(id);
        Ok(())
    }
}

fn silent_for(seen_at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(seen_at)).unwrap_or_default()
}
