//! What becomes of a delivery, and how many there are.
//!
//! An acknowledgement is not answered: it counts as given once it is written to the connection. If it is lost, the
//! message comes again, and its conversation is found final. A deferral is published and confirmed before the
//! original is acknowledged: a crash in between leaves both, never none.
//!
//! A delivery is ours while its channel stands and its consumer was not cancelled by the broker. After that the
//! broker gives the message to another: nothing is answered any more, and every settle fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use model::{ContactEvent, Lane, Settle, SettleError};
use runtime::task;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::ownership::Ownership;
use super::suspects::{Record, Suspect, SuspectMarks};
use super::{ANSWER_TIMEOUT, Inner, RabbitError};
use crate::retry::{intervals, pause};
use crate::{Backlog, QueueDelivery};

/// Messages that the broker has sent to this process and that are not settled.
#[derive(Default)]
pub(super) struct DeliveryCounters {
    live: AtomicU64,
    backfill: AtomicU64,
    in_flight: AtomicU64,
}

impl DeliveryCounters {
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
enum MessagePhase {
    Waiting(Lane),
    InFlight,
}

/// Counts a message in one place until it is dropped.
struct CountGuard {
    counters: Arc<DeliveryCounters>,
    place: MessagePhase,
}

impl CountGuard {
    fn new(counters: Arc<DeliveryCounters>, place: MessagePhase) -> Self {
        let counted = Self { counters, place };
        counted.counter().fetch_add(1, Ordering::SeqCst);
        counted
    }

    fn counter(&self) -> &AtomicU64 {
        match self.place {
            MessagePhase::Waiting(Lane::Live) => &self.counters.live,
            MessagePhase::Waiting(Lane::Backfill) => &self.counters.backfill,
            MessagePhase::InFlight => &self.counters.in_flight,
        }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long a delivery waits for the broker to take its deferral, before it is handed back. A broker waits for the
/// answer half an hour by default, and then takes back all that its consumer holds.
const HELD_FOR_DEFERRAL: Duration = Duration::from_secs(300);

/// What is known of a suspect, and where it is noted.
pub(super) struct Suspicion {
    /// The message.
    pub suspect: Suspect,
    /// What others left at it.
    pub record: Record,
    /// The marks.
    pub marks: Arc<SuspectMarks>,
}

/// A message that the broker awaits an answer for. Dropping it hands it back.
pub(super) struct HeldMessage {
    ownership: Ownership,
    tag: u64,
    body: Bytes,
    suspicion: Option<Suspicion>,
    answered: bool,
    counted: CountGuard,
}

impl HeldMessage {
    /// A message that has just come.
    pub(super) fn new(
        ownership: Ownership,
        delivery: lapin::message::Delivery,
        lane: Lane,
        counters: Arc<DeliveryCounters>,
    ) -> Self {
        let counted = CountGuard::new(counters, MessagePhase::Waiting(lane));
        let (tag, body) = (delivery.delivery_tag, delivery.data.into());
        Self { ownership, tag, body, suspicion: None, answered: false, counted }
    }

    /// The same message, as a suspect.
    pub(super) fn suspected(mut self, suspicion: Suspicion) -> Self {
        self.suspicion = Some(suspicion);
        self
    }

    /// What is known of a suspect.
    pub(super) fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref()
    }

    /// Marks a suspect before it is worked on.
    pub(super) async fn begin(&self, queue: &Inner) -> Result<(), RabbitError> {
        let Some(Suspicion { suspect, record, marks }) = &self.suspicion else { return Ok(()) };
        let begun = async {
            let connection = queue.consuming.connection().await.map_err(|error| RabbitError::Failed(error.0))?;
            marks.begin(&connection, suspect, *record, &self.ownership).await
        };
        let begun = timeout(ANSWER_TIMEOUT, begun).await;
        begun.map_err(|_| RabbitError::Failed(format!("no answer within {ANSWER_TIMEOUT:?}")))?
    }

    /// The delivery of the message.
    pub(super) fn deliver(mut self, queue: Arc<Inner>, permit: OwnedSemaphorePermit) -> QueueDelivery {
        self.counted = CountGuard::new(self.counted.counters.clone(), MessagePhase::InFlight);
        let (body, over_limit) = (self.body.clone(), self.is_over_limit());
        let lost = self.ownership.lost();
        let settle = RabbitSettle { held: self, queue, _permit: permit };
        QueueDelivery { body, over_limit, lost, settle: Box::new(settle) }
    }

    fn is_over_limit(&self) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.record.is_over_limit())
    }

    /// What the message says.
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    /// See [`Ownership::is_ours`].
    pub(super) fn is_ours(&self) -> bool {
        self.ownership.is_ours()
    }

    async fn ack(&mut self) -> Result<(), SettleError> {
        if !self.is_ours() {
            return Err(handed_out());
        }
        // Even if it fails: an answer after an answer would end the channel, and with it other deliveries.
        self.answered = true;
        let acking = self.ownership.channel().basic_ack(self.tag, BasicAckOptions::default());
        timeout(ANSWER_TIMEOUT, acking)
            .await
            .map_err(|_| SettleError(format!("not written within {ANSWER_TIMEOUT:?}")))?
            .map_err(|error| SettleError(error.to_string()))
    }
}

fn handed_out() -> SettleError {
    SettleError("the broker has already handed it out again".to_owned())
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        if self.answered || !self.is_ours() {
            return;
        }
        if let Some(Suspicion { suspect, marks, .. }) = &self.suspicion {
            marks.hand_back(suspect, &self.ownership);
        }
        // The first poll puts it on its way. An error says that the channel is gone, and so has handed it back.
        let options = BasicNackOptions { requeue: true, multiple: false };
        drop(self.ownership.channel().basic_nack(self.tag, options).now_or_never());
    }
}

/// Answers for one delivery.
struct RabbitSettle {
    held: HeldMessage,
    queue: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for RabbitSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.finish().await
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        // Its place is taken already, and another message would be a second one of the same call.
        if !self.held.is_ours() {
            return Err(handed_out());
        }
        let (lane, body) = (Lane::of(event), Bytes::from(event.encode()));
        let queue = self.queue.clone();
        let (answering, answer) = oneshot::channel();
        // It keeps its place among the unsettled, so there are never more such tasks than those.
        let deferral = async move { drop(answering.send(self.defer_insisting(lane, body, delay).await)) };
        drop(task::spawn("deferral", deferral).detach());
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(deferred)) => deferred,
            Ok(Err(_)) => Err(SettleError("the deferral was broken off".to_owned())),
            Err(_) => {
                let trouble = queue.publisher.link().trouble();
                let trouble = trouble.unwrap_or_else(|| "the broker does not answer".to_owned());
                Err(SettleError(format!("{trouble}; it is deferred as soon as the broker takes it")))
            }
        }
    }
}

impl RabbitSettle {
    /// Defers as soon as the broker takes it, for as long as the delivery is ours. Handed back at once it would come
    /// again at once, for a trouble of the broker; held for too long, it would be taken back with all the others.
    async fn defer_insisting(mut self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), SettleError> {
        let until = Instant::now() + HELD_FOR_DEFERRAL;
        let mut intervals = intervals();
        let mut reason = "the broker takes no messages".to_owned();
        while Instant::now() < until {
            if !matches!(timeout_at(until, self.queue.publisher.link().unblocked()).await, Ok(Ok(_))) {
                break;
            }
            if !self.held.is_ours() {
                return Err(handed_out());
            }
            match self.queue.publisher.publish_until(lane, &body, delay, until).await {
                Ok(()) => return self.finish().await,
                Err(error) => {
                    debug!(%error, "deferral failed, will try again");
                    reason = error.to_string();
                }
            }
            pause(&mut intervals).await;
        }
        warn!(reason, "not deferred, the item is handed back");
        Err(SettleError(format!("{reason}; it is handed back")))
    }

    /// Acknowledges the message; marks at it have no meaning any more.
    async fn finish(&mut self) -> Result<(), SettleError> {
        if !self.held.is_ours() {
            return Err(handed_out());
        }
        let is_over_limit = self.held.is_over_limit();
        // Before the acknowledgement, lest a crash leave them for good. Those of a message over the limit stay until
        // it is gone for certain.
        if !is_over_limit {
            self.clear_marks().await;
        }
        let acked = self.held.ack().await;
        if is_over_limit && acked.is_ok() {
            self.clear_marks().await;
        }
        acked
    }

    async fn clear_marks(&self) {
        let Some(Suspicion { suspect, marks, .. }) = &self.held.suspicion else { return };
        let cleared = async {
            let connection = self.queue.consuming.connection().await.map_err(|error| RabbitError::Failed(error.0))?;
            marks.clear(&connection, suspect).await
        };
        match timeout(ANSWER_TIMEOUT, cleared).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "marks at a suspect not taken away"),
            Err(_) => warn!("marks at a suspect not taken away: the broker does not answer"),
        }
    }
}
