//! Stage 4, dequeue: queue messages → deliveries of conversations that are not finished.
//!
//! # Contract
//! A malformed body, an unknown schema, a message that was delivered too often: a dead letter, and its neighbours are
//! not delayed. Nothing begins its way while a system is away that every call needs: what was delivered waits, and goes
//! back unasked before the broker loses patience. Where a stage fails for many calls of a tenant, one of them at a time
//! goes on. Each tenant has its share of what is worked on at a time ([`FairShare`]), and of several copies of one
//! message only one goes on ([`Copies`]). A redelivery of a conversation that is final is acknowledged at once, and so
//! is any message of one that was erased. A recheck passes where the final row lacks recordings, and nowhere else;
//! delivered too often, it ends, for its row stands.

use std::sync::Arc;
use std::time::Duration;

use catalog::{ConversationStatus, Conversations};
use flow::{
    Blame, Copies, Deferral, Delivery, FairShare, FlowContext, Outcome, RetryPolicy, Stage, StageError,
    copies::CopyCheck,
    fair_share::{SentBack, Slot},
    record::acknowledge,
    traced,
};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use model::{ContactEvent, DeadLetter, Lane, Settle, System};
use queue::{Destination, Queue, QueueDelivery, QueueError};
use runtime::{Clock, TraceSpan, crash, traces};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Context;
use crate::download_recording::DownloadRecording;
use crate::fetch_metadata::FetchMetadata;
use crate::persist::Persist;
use crate::recheck::NOTHING_NEW;
use crate::tenants::{Tenant, Tenants};
use crate::upload::Upload;
use crate::watermark::is_beyond;

/// Takes messages off the queue until the service drains, each for a slot of its tenant. `failed` learns of an error
/// that ends the queue.
pub fn dequeue(
    queue: &dyn Queue,
    share: &FairShare,
    context: &Context,
    failed: impl Fn(QueueError) + Send + 'static,
) -> impl Stream<Item = Delivery> + Send + 'static {
    let context = Arc::new(context.clone());
    let stopping = context.flow.stopping.clone();
    let (share, copies) = (share.clone(), Copies::default());
    let prefetch = FairShare::prefetch(context.flow.concurrency);
    let lanes: Lanes = Arc::new([Lane::Live, Lane::Backfill].map(|lane| (lane, queue.destination(lane))));
    queue
        .deliveries(prefetch)
        .take_until(stopping.cancelled_owned())
        .filter_map(move |delivery| {
            let delivery = delivery.map_err(&failed).ok();
            std::future::ready(delivery)
        })
        .map({
            let context = context.clone();
            move |delivery| {
                let (context, share, copies) = (context.clone(), share.clone(), copies.clone());
                let lanes = lanes.clone();
                async move { decode(delivery, &lanes, &share, &copies, &context).await }
            }
        })
        .buffer_unordered(prefetch)
        .filter_map(std::future::ready)
}

async fn decode(
    delivery: QueueDelivery,
    lanes: &Lanes,
    share: &FairShare,
    copies: &Copies,
    context: &Context,
) -> Option<Delivery> {
    let since = Instant::now();
    crash::point("message_dequeued");
    let flow = &context.flow;
    let QueueDelivery { body, over_limit, lost, settle } = delivery;
    let now = flow.clock.now();
    let letter = match ContactEvent::decode(&body) {
        Ok(mut event) if !over_limit => {
            // Another program may write none, and no deadline would ever pass. One in the future was written by a wrong
            // clock, and the deadline would start too late.
            event.queued_at = Some(event.queued_at.filter(|queued_at| !is_beyond(*queued_at, now)).unwrap_or(now));
            let trace = received(&event, lanes, now);
            let admitted = lost.run_until_cancelled(admit(event, settle, lost.clone(), share, copies, flow)).await;
            if admitted.is_none() {
                warn!("the queue has taken the message back while it waited");
                flow.metrics.stage_finished(STAGE, "handed_back", since.elapsed());
            }
            return admitted.flatten().map(|delivery| delivery.traced(trace));
        }
        Ok(event) if event.recheck => {
            flow.give_recheck_up(&event, STAGE, TOO_OFTEN, since.elapsed()).await;
            acknowledge(settle).await;
            return None;
        }
        Ok(event) => DeadLetter::of_event(&event, STAGE, TOO_OFTEN, now),
        Err(error) => DeadLetter::of_body(&body, None, STAGE, &error.to_string(), now),
    };
    if let Err(error) = flow.shelve(STAGE, letter).await {
        // The delivery is dropped, and the message comes again; not at once, lest it spin.
        warn!(%error, "dead letter not written, the message will come again");
        tokio::time::sleep(flow.retry.error_delay_min).await;
        flow.metrics.stage_finished(STAGE, "handed_back", since.elapsed());
        return None;
    }
    flow.metrics.stage_finished(STAGE, "dead_letter", since.elapsed());
    acknowledge(settle).await;
    None
}

/// The lanes, and what they are called in a trace.
type Lanes = Arc<[(Lane, Destination); 2]>;

/// The span of an attempt, from the moment at which its message is here.
fn received(event: &ContactEvent, lanes: &Lanes, now: Timestamp) -> TraceSpan {
    let lane = Lane::of(event);
    let Some((_, lane)) = lanes.iter().find(|(known, _)| traces::is_on() && *known == lane) else {
        return TraceSpan::default();
    };
    let span = traced::received(event, format!("process {}", lane.name), now);
    lane.describe(&span, "process");
    span
}

const STAGE: &str = SkipFinal::NAME;

const TOO_OFTEN: &str = "delivered too often without being settled: working on it may crash the consumer";

/// Why a message goes back to the queue before anything is done with it.
struct GoesBack {
    reason: &'static str,
    waits_for: Option<System>,
    away: Duration,
}

/// A slot of the tenant's once every system is here, or why the message goes back and for how long; none where the
/// service drains.
async fn slot(event: &ContactEvent, share: &FairShare, flow: &FlowContext) -> Option<Result<Slot, GoesBack>> {
    Some(match flow.stopping.run_until_cancelled(flow.outside.wait_until_up(HELD)).await? {
        false => Err(GoesBack {
            reason: "a system is away that every call needs",
            waits_for: System::SHARED.into_iter().find(|system| flow.outside.is_down(*system)),
            away: flow.retry.held_back(),
        }),
        true => {
            let slot = flow.stopping.run_until_cancelled(share.admit(event)).await?;
            slot.map_err(|SentBack(away)| GoesBack {
                reason: "other calls of the tenant take long",
                waits_for: None,
                away,
            })
        }
    })
}

/// How long a delivery waits for a system that is away. The broker takes back what is not settled after half an hour.
const HELD: Duration = Duration::from_secs(600);

/// Waits until the systems are here that every call needs, then for a slot of the delivery's tenant. What has waited
/// for long goes back to the queue for a while: nothing can be done with it, or the tenant's work is slow and holds its
/// share. Where the service drains, it goes back at once.
async fn admit(
    event: ContactEvent,
    settle: Box<dyn Settle>,
    lost: CancellationToken,
    share: &FairShare,
    copies: &Copies,
    flow: &FlowContext,
) -> Option<Delivery> {
    let since = Instant::now();
    let (is_first, in_hand) = match flow.stopping.run_until_cancelled(copies.admit(&event)).await? {
        CopyCheck::Copy => {
            debug!(conversation.id = %event.conversation, "a copy of a message that was put back with a delay");
            flow.metrics.stage_finished(STAGE, "done", since.elapsed());
            flow.metrics.conversations_done.with_label_values(&["copy"]).inc();
            acknowledge(settle).await;
            return None;
        }
        CopyCheck::First(in_hand) => (true, in_hand),
        CopyCheck::Waits(in_hand) => (false, in_hand),
    };
    let in_flight = flow.freshness.count(&event);
    let mut delivery = Delivery::new(event, settle).lost_with(lost);
    delivery.hold(in_hand);
    // From here on, also while it waits.
    delivery.hold(in_flight);
    let found = match is_first {
        true => slot(&delivery.event, share, flow).await?,
        false => Err(GoesBack {
            reason: "another message of the same call is worked on",
            waits_for: None,
            away: flow.retry.held_back(),
        }),
    };
    let GoesBack { reason, waits_for, away } = match found {
        Ok(slot) => {
            delivery.hold(slot);
            return Some(delivery);
        }
        Err(goes_back) => goes_back,
    };
    flow.tell_of_waiting(&delivery.event, STAGE, reason, away, since.elapsed()).await;
    debug!(reason, delay_secs = away.as_secs_f64(), "waits for its turn");
    if let Err(error) = delivery.defer(Deferral::Busy(waits_for), away, flow.clock.now()).await {
        warn!(%error, "deferral failed, the message will come again");
    }
    None
}

/// The stages that a call has yet to pass.
const AHEAD: [&str; 4] = [FetchMetadata::NAME, DownloadRecording::NAME, Persist::NAME, Upload::NAME];

/// Lets a conversation of a known tenant pass that is neither final nor erased, or that is rechecked.
pub struct SkipFinal {
    /// The tenants whose NICE is known.
    pub tenants: Arc<Tenants>,
    /// Knows what is final, and what was erased.
    pub catalog: Arc<dyn Conversations>,
    /// Knows what fails for many.
    pub blame: Blame,
    /// How long who is held back waits.
    pub retry: RetryPolicy,
    /// The time.
    pub clock: Clock,
}

/// A tenant that nobody knows may be known tomorrow.
fn until_it_is_known(error: StageError) -> StageError {
    match error {
        StageError::Permanent { reason } => StageError::SetAside { system: System::Catalog, reason },
        other => other,
    }
}

impl Stage<()> for SkipFinal {
    const NAME: &'static str = "dequeue";
    type Out = Arc<Tenant>;

    async fn process(&self, event: &ContactEvent, (): ()) -> Result<Outcome<Arc<Tenant>>, StageError> {
        match self.catalog.status(&event.key()).await? {
            ConversationStatus::Erased => return Ok(Outcome::Done("erased")),
            _ if event.recheck => {
                let row = self.catalog.conversation(&event.key()).await?;
                if !row.is_some_and(|row| row.lacks_recordings()) {
                    return Ok(Outcome::Done(NOTHING_NEW));
                }
            }
            ConversationStatus::Saved(state) if state.is_final() => return Ok(Outcome::Done("already_final")),
            ConversationStatus::Saved(_) | ConversationStatus::Unknown => {}
        }
        let tenant = self.tenants.get(&event.tenant).await.map_err(until_it_is_known)?;
        self.blame.admit(&event.tenant, &AHEAD, &self.retry, self.clock.now())?;
        Ok(Outcome::Next(tenant))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use flow::testing::event;
    use model::SettleError;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::testing::TestFlow;

    /// Counts acknowledgements.
    struct Counting(Arc<AtomicUsize>);

    #[async_trait]
    impl Settle for Counting {
        async fn ack(self: Box<Self>) -> Result<(), SettleError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        async fn defer(self: Box<Self>, _: &ContactEvent, _: Duration) -> Result<(), SettleError> {
            panic!("it is over");
        }
    }

    fn lanes() -> Lanes {
        Arc::new([Lane::Live, Lane::Backfill].map(|lane| (lane, Destination { system: "test", name: String::new() })))
    }

    #[tokio::test]
    async fn a_message_of_a_clock_that_ran_ahead_was_queued_now() {
        let flow = TestFlow::new(1);
        let now = flow.context.flow.clock.now();
        let hour = jiff::SignedDuration::from_hours(1);
        let moment = now + jiff::SignedDuration::from_millis(300);
        for (queued_at, believed) in
            [(None, now), (Some(now + hour), now), (Some(now - hour), now - hour), (Some(moment), moment)]
        {
            let event = ContactEvent { queued_at, ..event(1) };
            let settle = Box::new(Counting(Arc::default()));
            let body = event.encode().into();
            let delivery = QueueDelivery { body, over_limit: false, lost: CancellationToken::new(), settle };
            let delivery =
                decode(delivery, &lanes(), &FairShare::new(1), &Copies::default(), &flow.context).await.unwrap();
            assert_eq!(delivery.event.queued_at, Some(believed));
        }
    }

    #[tokio::test]
    async fn a_recheck_that_was_delivered_too_often_ends_without_a_dead_letter() {
        let flow = TestFlow::new(1);
        let (context, acked) = (&flow.context, Arc::new(AtomicUsize::new(0)));
        let share = FairShare::new(1);
        for (id, recheck, letters) in [(1, true, 0), (2, false, 1)] {
            let event = ContactEvent { recheck, ..event(id) };
            let settle = Box::new(Counting(acked.clone()));
            let body = event.encode().into();
            let delivery = QueueDelivery { body, over_limit: true, lost: CancellationToken::new(), settle };
            assert!(decode(delivery, &lanes(), &share, &Copies::default(), context).await.is_none());
            assert_eq!(context.catalog.counts().await.unwrap().dead_letters, letters);
        }
        assert_eq!(acked.load(Ordering::SeqCst), 2);
        let hops = context.catalog.hops(&event(1).key()).await.unwrap();
        assert!(hops[0].detail.as_deref().is_some_and(|detail| detail.contains("too often")), "`trace` tells of it");
    }
}
