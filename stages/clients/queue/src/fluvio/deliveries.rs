//! Deliveries: what waits in the pool, at most so many at a time.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Inner;
use super::settle::FluvioSettle;
use crate::{QueueDelivery, QueueError};

/// Deliveries as they become due, live before backfill.
pub(super) fn deliveries(inner: Arc<Inner>, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
    inner.start_member();
    let room = Arc::new(Semaphore::new(prefetch));
    stream::unfold((inner, room, true), |(inner, room, is_first)| async move {
        if is_first {
            inner.catch_up().await;
        }
        let permit = room.clone().acquire_owned().await.ok()?;
        let delivery = next(&inner, permit).await;
        Some((Ok(delivery), (inner, room, false)))
    })
    .boxed()
}

async fn next(inner: &Arc<Inner>, permit: OwnedSemaphorePermit) -> QueueDelivery {
    let pool = &inner.context.pool;
    loop {
        // Before the look, so that a change during it is not missed.
        let mut changed = std::pin::pin!(pool.changed());
        changed.as_mut().enable();
        if let Some((waiting, lost)) = pool.take() {
            let body = waiting.record.body.clone();
            let over_limit = waiting.over_limit;
            let settle = FluvioSettle::new(inner.context.clone(), waiting, lost.clone(), permit);
            return QueueDelivery { body, over_limit, lost, settle: Box::new(settle) };
        }
        changed.await;
    }
}
