//! What becomes of a delivery.
//!
//! A message that is done with is settled in memory, and the offset follows within a moment. A deferral is stored in
//! its delay step before the original is settled: a crash in between leaves both, never none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::{ContactEvent, Lane, Settle, SettleError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::context::QueueContext;
use super::pool::WaitingRecord;
use crate::retry::{intervals, pause};

/// How long a delivery waits for the cluster to take its deferral, before it is handed back.
const HELD_FOR_DEFERRAL: Duration = Duration::from_secs(300);

/// Answers for one delivery; dropping it hands the message back.
pub(super) struct FluvioSettle {
    context: Arc<QueueContext>,
    /// None once it is settled.
    waiting: Option<WaitingRecord>,
    lost: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl FluvioSettle {
    /// For a record that was handed out.
    pub(super) fn new(
        context: Arc<QueueContext>,
        waiting: WaitingRecord,
        lost: CancellationToken,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { context, waiting: Some(waiting), lost, _permit: permit }
    }

    fn settle(&mut self) -> Result<(), SettleError> {
        if self.lost.is_cancelled() {
            return Err(taken_back());
        }
        match &self.waiting {
            Some(waiting) => waiting.owned.settle(waiting.record.offset)?,
            None => return Ok(()),
        }
        self.waiting = None;
        Ok(())
    }
}

fn taken_back() -> SettleError {
    SettleError("the message was taken back, and comes again".to_owned())
}

#[async_trait]
impl Settle for FluvioSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.settle()
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        let (lane, body) = (Lane::of(event), Bytes::from(event.encode()));
        let deadline = Instant::now() + HELD_FOR_DEFERRAL;
        let mut intervals = intervals();
        loop {
            if self.lost.is_cancelled() {
                return Err(taken_back());
            }
            match self.context.publisher.publish(lane, body.clone(), delay).await {
                Ok(()) => return self.settle(),
                Err(error) if Instant::now() >= deadline => {
                    return Err(SettleError(format!("not deferred, and handed back: {error}")));
                }
                Err(error) => debug!(%error, "not deferred, trying on"),
            }
            pause(&mut intervals).await;
        }
    }
}

impl Drop for FluvioSettle {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take()
            && !self.lost.is_cancelled()
            && waiting.owned.take_back(waiting.record.offset)
        {
            self.context.pool.push_back_first(waiting);
        }
    }
}
