//! Stage 4, dequeue: queue messages → deliveries of conversations that are not finished.
//!
//! # Contract
//! A malformed body, an unknown schema, a message that was delivered too often: a dead letter, and its
//! neighbours are not delayed. Nothing begins its way while a system is away that every call needs: what was delivered
//! waits, and goes back unasked before the broker loses patience. Where a stage fails for many calls of a tenant, one of
//! them at a time goes on. A redelivery of a conversation that is final is acknowledged at once, and so is any message
//! of one that was erased. A recheck passes where the final row lacks recordings, and nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use tracing::{error, warn};

use crate::clients::catalog::{Catalog, DeadLetter, Standing};
use crate::clients::queue::{Queue, QueueDelivery, QueueError};
use crate::clients::tenants::Tenants;
use crate::download_recording::DownloadRecording;
use crate::fetch_metadata::FetchMetadata;
use crate::flow::{Blame, Clock, Deferral, Delivery, FlowContext, Outcome, RetryPolicy, Stage, StageError, crash};
use crate::model::ContactEvent;
use crate::persist::Persist;
use crate::recheck::NOTHING_NEW;
use crate::upload::Upload;

/// Takes messages off the queue until the service drains. `failed` learns of an error that ends the queue.
pub fn dequeue(
    queue: &dyn Queue,
    context: &FlowContext,
    failed: impl Fn(QueueError) + Send + 'static,
) -> impl Stream<Item = Delivery<ContactEvent>> + Send + 'static {
    let context = Arc::new(context.clone());
    let stopping = context.stopping.clone();
    queue
        .deliveries(context.concurrency)
        .take_until(stopping.cancelled_owned())
        .filter_map(move |delivery| {
            let delivery = delivery.map_err(&failed).ok();
            std::future::ready(delivery)
        })
        .map({
            let context = context.clone();
            move |delivery| {
                let context = context.clone();
                async move { decode(delivery, &context).await }
            }
        })
        .buffer_unordered(context.concurrency)
        .filter_map(std::future::ready)
}

async fn decode(delivery: QueueDelivery, context: &FlowContext) -> Option<Delivery<ContactEvent>> {
    let since = Instant::now();
    crash::point("message_dequeued");
    let event = match ContactEvent::decode(&delivery.body) {
        Ok(mut event) if !delivery.over_limit => {
            // Of a message that others wrote; without it no deadline would ever pass.
            event.queued_at.get_or_insert(context.clock.now());
            let delivery = context.freshness.track(event, delivery.settle);
            return match context.stopping.run_until_cancelled(context.outside.all_here(HELD)).await {
                Some(true) => Some(delivery),
                Some(false) => hold_back(delivery, since, context).await,
                // Handed back: the service drains.
                None => None,
            };
        }
        Ok(event) => Ok(event),
        Err(error) => Err(error.to_string()),
    };
    let now = context.clock.now();
    let letter = match &event {
        Ok(event) => {
            let reason = "delivered too often without being settled: working on it may crash the consumer";
            DeadLetter::of_event(event, "dequeue", reason, now)
        }
        Err(reason) => DeadLetter::of_body(&delivery.body, None, "dequeue", reason, now),
    };
    error!(reason = letter.reason, stage = "dequeue", "dead letter");
    if let Err(error) = context.catalog.add_dead_letter(letter).await {
        // The delivery is dropped, and the message comes again; not at once, lest it spin.
        warn!(%error, "dead letter not written, the message will come again");
        tokio::time::sleep(context.retry.error_delay_min).await;
        context.metrics.stage_finished("dequeue", "handed_back", since.elapsed());
        return None;
    }
    context.metrics.stage_finished("dequeue", "dead_letter", since.elapsed());
    context.metrics.dead_letters.with_label_values(&["dequeue"]).inc();
    if let Err(error) = delivery.settle.ack().await {
        warn!(%error, "acknowledgement failed, the message will come again");
    }
    None
}

/// How long a delivery waits for a system that is away. The broker takes back what is not settled after half an hour.
const HELD: Duration = Duration::from_secs(600);

/// Puts a delivery back that has waited long enough.
async fn hold_back(
    delivery: Delivery<ContactEvent>,
    since: Instant,
    context: &FlowContext,
) -> Option<Delivery<ContactEvent>> {
    context.metrics.stage_finished("dequeue", "busy", since.elapsed());
    let (delay, now) = (context.retry.held_back(), context.clock.now());
    if let Err(error) = delivery.defer(Deferral::Busy, delay, now).await {
        warn!(%error, "deferral failed, the message will come again");
    }
    None
}

/// The stages that a call has yet to pass.
const AHEAD: [&str; 4] = [FetchMetadata::NAME, DownloadRecording::NAME, Persist::NAME, Upload::NAME];

/// Lets a conversation of a known tenant pass that is neither final nor erased.
/// Lets a conversation of a known tenant pass that is neither final nor erased, or that is rechecked.
pub struct SkipFinal {
    /// The tenants whose NICE is known.
    pub tenants: Arc<Tenants>,
    /// Knows what is final, and what was erased.
    pub catalog: Arc<dyn Catalog>,
    /// Knows what fails for many.
    pub blame: Blame,
    /// How long who is held back waits.
    pub retry: RetryPolicy,
    /// The time.
    pub clock: Clock,
}

impl Stage<ContactEvent> for SkipFinal {
    const NAME: &'static str = "dequeue";
    type Out = ContactEvent;

    async fn process(&self, event: ContactEvent) -> Result<Outcome<ContactEvent>, StageError> {
        match self.catalog.standing(&event.key()).await? {
            Standing::Erased => return Ok(Outcome::Done("erased")),
            _ if event.recheck => {
                let row = self.catalog.conversation(&event.key()).await?;
                if !row.is_some_and(|row| row.lacks_recordings()) {
                    return Ok(Outcome::Done(NOTHING_NEW));
                }
            }
            Standing::Stands(state) if state.is_final() => return Ok(Outcome::Done("already_final")),
            Standing::Stands(_) | Standing::Unknown => {}
        }
        self.tenants.get(&event.tenant).await?;
        self.blame.admit(&event.tenant, &AHEAD, &self.retry, self.clock.now())?;
        Ok(Outcome::Next(event))
    }
}
