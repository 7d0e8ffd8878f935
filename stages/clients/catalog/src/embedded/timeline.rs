//! What became of conversations, hop by hop: for people.

use async_trait::async_trait;
use model::{ConversationKey, Hop};

use super::{EmbeddedCatalog, keyed, kind};
use crate::{CatalogError, Timelines};

#[async_trait]
impl Timelines for EmbeddedCatalog {
    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        // Held to the end: an erasure that comes meanwhile finds the hop.
        let mut counters = self.inner.lock();
        if self.inner.is_erased(key) {
            return;
        }
        counters.next_hop += 1;
        let sequence = counters.next_hop;
        let mut at = keyed(kind::HOP, &key.tenant, key.external_id.get());
        at.extend_from_slice(&sequence.to_be_bytes());
        if let Err(error) = self.inner.put(&at, &hop) {
            tracing::warn!(%error, "timeline not written");
        }
    }

    async fn hops(&self, key: &ConversationKey) -> Result<Vec<Hop>, CatalogError> {
        let prefix = keyed(kind::HOP, &key.tenant, key.external_id.get());
        self.inner.read_all(self.inner.tree.scan_prefix(prefix).values()).collect()
    }

    async fn last_hops(&self, keys: &[ConversationKey]) -> Result<Vec<Option<Hop>>, CatalogError> {
        let last = |key: &ConversationKey| {
            let prefix = keyed(kind::HOP, &key.tenant, key.external_id.get());
            let last = self.inner.tree.scan_prefix(prefix).values().next_back();
            self.inner.read_all(last.into_iter()).next().transpose()
        };
        keys.iter().map(last).collect()
    }
}
