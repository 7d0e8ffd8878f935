//! What becomes of a delivery.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{ContactEvent, Lane, Settle, SettleError};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Inner,
    entry::{QueueKey, body_of, count_of, entry_value},
};

/// Answers for one delivery; dropping it puts the message back at once.
pub(super) struct EmbeddedSettle {
    pub(super) inner: Arc<Inner>,
    pub(super) key: QueueKey,
    pub(super) count: u32,
    pub(super) settled: bool,
    pub(super) _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for EmbeddedSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.inner.tree.remove(self.key).map_err(|error| SettleError(self.inner.broken(error)))?;
        // Not awaited: an acknowledgement that a power cut undoes brings a message whose conversation is final.
        self.inner.store.commit_soon();
        self.settled = true;
        Ok(())
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        let key = self
            .inner
            .new_key(Lane::of(event), self.inner.due(delay))
            .map_err(|error| SettleError(self.inner.broken(error)))?;
        let mut exchange = sled::Batch::default();
        exchange.remove(&self.key);
        exchange.insert(&key, entry_value(0, &event.encode()));
        self.inner.tree.apply_batch(exchange).map_err(|error| SettleError(self.inner.broken(error)))?;
        self.settled = true;
        self.inner.store.commit().await.map_err(|error| SettleError(error.to_string()))?;
        self.inner.changed.notify_waiters();
        Ok(())
    }
}

impl EmbeddedSettle {
    /// Handed back on purpose: only deliveries that end in a crash count towards the limit.
    fn uncount(&self) -> Result<(), sled::Error> {
        let uncounted = self.inner.tree.update_and_fetch(self.key, |value| {
            let value = value?;
            Some(entry_value(count_of(value).saturating_sub(1), body_of(value)))
        });
        uncounted?;
        self.inner.store.commit_soon();
        Ok(())
    }
}

impl Drop for EmbeddedSettle {
    fn drop(&mut self) {
        if !self.settled
            && let Err(error) = self.uncount()
        {
            tracing::warn!(%error, "delivery count not lowered");
        }
        self.inner.give_back(&self.key, self.count);
        self.inner.changed.notify_waiters();
    }
}
