//! What becomes of a delivery, and how many there are.
//!
//! An acknowledgement is not answered: it counts as given once it is written to the connection. If it is lost, the
//! message comes again, and its conversation is found final. A deferral is published and confirmed before the
//! original is acknowledged: a crash in between leaves both, never none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::{intervals, pause};
use super::{ANSWER_TIMEOUT, Inner};
use crate::clients::queue::{Backlog, Lane, QueueDelivery};
use crate::flow::delivery::SettleError;
use crate::flow::{Settle, task};
use crate::model::ContactEvent;

/// Messages that the broker has sent to this process and that are not settled.
#[derive(Default)]
pub(super) struct Counters {
    live: AtomicU64,
    backfill: AtomicU64,
    in_flight: AtomicU64,
}

impl Counters {
    /// The broker's count, with what was sent here: what is not begun still waits.
    pub(super) fn with(&self, mut waiting: Backlog) -> Backlog {
        waiting.live += self.live.load(Ordering::SeqCst);
        waiting.backfill += self.backfill.load(Ordering::SeqCst);
        waiting.in_flight = self.in_flight.load(Ordering::SeqCst);
        waiting
    }
}

/// Where a message is counted.
#[derive(Debug, Clone, Copy)]
enum Place {
    Waiting(Lane),
    InFlight,
}

/// Counts a message in one place until it is dropped.
struct Counted {
    counters: Arc<Counters>,
    place: Place,
}

impl Counted {
    fn new(counters: Arc<Counters>, place: Place) -> Self {
        let counted = Self { counters, place };
        counted.counter().fetch_add(1, Ordering::SeqCst);
        counted
    }

    fn counter(&self) -> &AtomicU64 {
        match self.place {
            Place::Waiting(Lane::Live) => &self.counters.live,
            Place::Waiting(Lane::Backfill) => &self.counters.backfill,
            Place::InFlight => &self.counters.in_flight,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::SeqCst);
    }
}

/// A message that the broker awaits an answer for. Dropping it hands it back.
pub(super) struct Held {
    channel: Channel,
    tag: u64,
    body: Bytes,
    over_limit: bool,
    answered: bool,
    counted: Counted,
}

impl Held {
    /// A message that has just come.
    pub(super) fn new(
        channel: Channel,
        delivery: lapin::message::Delivery,
        lane: Lane,
        over_limit: bool,
        counters: Arc<Counters>,
    ) -> Self {
        let counted = Counted::new(counters, Place::Waiting(lane));
        Self { channel, tag: delivery.delivery_tag, body: delivery.data.into(), over_limit, answered: false, counted }
    }

    /// The delivery of the message.
    pub(super) fn deliver(mut self, queue: Arc<Inner>, permit: OwnedSemaphorePermit) -> QueueDelivery {
        self.counted = Counted::new(self.counted.counters.clone(), Place::InFlight);
        let (body, over_limit) = (self.body.clone(), self.over_limit);
        let settle = RabbitSettle { held: self, queue, _permit: permit };
        QueueDelivery { body, over_limit, settle: Box::new(settle) }
    }

    /// What the message says.
    #[cfg(test)]
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the broker still awaits our answer. It hands a message out again once the channel is gone: with the
    /// connection, or because the broker waited too long for the answer to any message of the channel.
    fn is_ours(&self) -> bool {
        self.channel.status().connected()
    }

    async fn ack(&mut self) -> Result<(), SettleError> {
        // Even if it fails: an answer after an answer would end the channel, and with it other deliveries.
        self.answered = true;
        let acked = timeout(ANSWER_TIMEOUT, self.channel.basic_ack(self.tag, BasicAckOptions::default())).await;
        acked
            .map_err(|_| SettleError(format!("not written within {ANSWER_TIMEOUT:?}")))?
            .map_err(|error| SettleError(error.to_string()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            // The first poll puts it on its way. An error says that the channel is gone, and so has handed it back.
            let options = BasicNackOptions { requeue: true, multiple: false };
            drop(self.channel.basic_nack(self.tag, options).now_or_never());
        }
    }
}

/// Answers for one delivery.
struct RabbitSettle {
    held: Held,
    queue: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for RabbitSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.held.ack().await
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        // Its place is taken already, and another message would be a second one of the same call.
        if !self.held.is_ours() {
            return Err(SettleError("the broker has already handed it out again".to_owned()));
        }
        let (lane, body) = (Lane::of(event), Bytes::from(event.encode()));
        match self.queue.publisher.publish(lane, &body, delay).await {
            Ok(()) => self.held.ack().await,
            Err(error) => {
                // Handed back at once, it would come again at once and soon be over the limit, for a trouble of the
                // broker. It keeps its place among the unsettled, so there are never more such tasks than those.
                let insisting = self.defer_insisting(lane, body, delay);
                drop(task::spawn("deferral", insisting).detach());
                Err(SettleError(format!("{error}; it is deferred as soon as the broker takes it")))
            }
        }
    }
}

impl RabbitSettle {
    /// Defers for as long as the delivery is ours; when its channel is gone, the broker delivers it again.
    async fn defer_insisting(mut self, lane: Lane, body: Bytes, delay: Duration) {
        let mut intervals = intervals();
        loop {
            pause(&mut intervals).await;
            if !self.held.is_ours() {
                return;
            }
            match self.queue.publisher.publish(lane, &body, delay).await {
                Ok(()) => {
                    if let Err(error) = self.held.ack().await {
                        warn!(%error, "acknowledgement failed, the item will come again");
                    }
                    return;
                }
                Err(error) => debug!(%error, "deferral failed again"),
            }
        }
    }
}
