//! Deliveries: what waits in the pool, at most so many at a time.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tracing::debug;

use super::Inner;
use super::partition::OwnedPartition;
use super::settle::FluvioSettle;
use super::topics::TopicRole;
use crate::retry::{intervals, pause};
use crate::{QueueDelivery, QueueError};

/// Deliveries as they become due, live before backfill.
pub(super) fn deliveries(inner: Arc<Inner>, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
    inner.start_member();
    let room = Arc::new(Semaphore::new(prefetch));
    stream::unfold((inner, room, true), |(inner, room, is_first)| async move {
        if is_first {
            inner.catch_up().await;
        }
        let delivery = next(&inner, &room).await?;
        Some((Ok(delivery), (inner, room, false)))
    })
    .boxed()
}

/// The next one. None once the room is closed, which it never is.
async fn next(inner: &Arc<Inner>, room: &Arc<Semaphore>) -> Option<QueueDelivery> {
    let pool = &inner.context.pool;
    let mut permit = room.clone().acquire_owned().await.ok()?;
    let mut intervals = intervals();
    loop {
        // Before the look, so that a change during it is not missed.
        let mut changed = std::pin::pin!(pool.changed());
        changed.as_mut().enable();
        if let Some((waiting, lost)) = pool.take() {
            let body = waiting.record.body.clone();
            let (owned, offset, over_limit) = (waiting.owned.clone(), waiting.record.offset, waiting.over_limit);
            let settle = FluvioSettle::new(inner.context.clone(), waiting, lost.clone(), permit);
            if owned.role != TopicRole::Suspects || counts(inner, &owned, offset).await {
                return Some(QueueDelivery { body, over_limit, lost, settle: Box::new(settle) });
            }
            // Handed back, for its crash would not count.
            drop(settle);
            pause(&mut intervals).await;
            permit = room.clone().acquire_owned().await.ok()?;
            continue;
        }
        changed.await;
    }
}

/// Whether the ledger has noted that a suspect is in hand: from now on a crash is counted as its doing.
async fn counts(inner: &Arc<Inner>, owned: &OwnedPartition, offset: i64) -> bool {
    owned.begin_up_to(offset + 1);
    match inner.context.ledger.commit(&[owned.progress()]).await {
        Ok(lost) => lost.is_empty(),
        Err(error) => {
            debug!(%error, "it is not noted that a suspect is in hand, trying on");
            false
        }
    }
}
