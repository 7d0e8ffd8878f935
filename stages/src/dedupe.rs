//! Stage 2, dedupe: found events → deliveries not seen before.
//!
//! NICE repeats itself: listings overlap, a contact comes again whenever it changes, a webhook tells what the
//! poll will tell, and the nightly comparison lists the whole last day again. This stage lets each conversation
//! through once.
//!
//! # Contract
//! In: events in any order, any number of times. Out: one [`Delivery`] for each key that is neither in the
//! processed-id log nor in flight. Of two equal events in flight the second waits for the fate of the first.
//!
//! # After a crash
//! A claim is committed only after the queue has confirmed the message. A crash in between lets the event
//! through again: a repeat in the queue, never a loss.
//!
//! # Beyond the hot window
//! The log forgets ids after its retention. For a call that ended before that, the catalog decides. A replay has
//! compared its calls with the catalog before; what the log remembers of them was wrong.
//!
//! # Another producer's calls
//! The log of a producer that was passive lacks what another one found meanwhile. Of a call that may be of that time
//! the catalog and the timeline are asked: what is known or on its way is dropped, and marked.
//!
//! # Hearsay
//! The consumer drops what only a webhook told and NICE does not know after an hour. The first time that another source
//! finds it after that, it passes again. So it does where the consumer saw a record that was not the group's, and
//! another source lists the call as the group's later.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flow::{Delivery, traced};
use futures::{Stream, StreamExt};
use hearsay::{Hearsay, HearsayCheck};
use jiff::Timestamp;
use model::{ContactEvent, EventSource, Hop, Settle, SettleError};
use runtime::crash;
use state::{Claim, ClaimOutcome, ProcessedLog};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::Context;
use crate::source::{FoundEvent, Receipt};

mod foreign;
mod hearsay;

pub use foreign::Foreign;

/// Why the consumer drops a call by a record of NICE that may say otherwise later.
const REOPENED: [&str; 4] = ["never_answered", "not_a_phone_call", "not_in_group", "unconfirmed"];

/// Passes each conversation on once and holds its claim until the delivery is settled.
pub fn dedupe(
    found: impl Stream<Item = FoundEvent> + Send + 'static,
    processed: ProcessedLog,
    retention: Duration,
    context: &Context,
) -> impl Stream<Item = Delivery> + Send + 'static {
    dedupe_after(None, found, processed, retention, context)
}

/// The same after another producer, whose calls the processed-id log lacks.
pub fn dedupe_after(
    foreign: Option<Foreign>,
    found: impl Stream<Item = FoundEvent> + Send + 'static,
    processed: ProcessedLog,
    retention: Duration,
    context: &Context,
) -> impl Stream<Item = Delivery> + Send + 'static {
    let hearsay = Arc::new(Hearsay::default());
    let told = match foreign {
        None => found.map(|found| (found, false)).left_stream(),
        Some(foreign) => foreign.told(found, processed.clone(), context.clone()).right_stream(),
    };
    let stage = Arc::new(Dedupe { processed, retention, hearsay, context: context.clone() });
    told.map(move |(found, is_foreign)| {
        let stage = stage.clone();
        async move { stage.admit(found, is_foreign).await }
    })
    .buffer_unordered(context.flow.concurrency)
    .filter_map(std::future::ready)
}

struct Dedupe {
    processed: ProcessedLog,
    retention: Duration,
    hearsay: Arc<Hearsay>,
    context: Context,
}

impl Dedupe {
    /// `is_foreign`: another producer found it, and it needs nothing more.
    async fn admit(&self, found: FoundEvent, is_foreign: bool) -> Option<Delivery> {
        let since = Instant::now();
        let FoundEvent { event, receipt, heals: mut despite_memory } = found;
        let digest = event.key().digest();
        let is_hearsay = event.source == EventSource::Webhook;
        let now = self.context.flow.clock.now();
        let claim = loop {
            let outcome = match despite_memory {
                true => self.processed.claim_again(digest),
                false => self.processed.claim(digest),
            };
            match outcome {
                Ok(ClaimOutcome::Claimed(claim)) => break claim,
                Ok(ClaimOutcome::Processed) if !is_hearsay && self.was_dropped(&event, &digest, now).await => {
                    despite_memory = true;
                }
                Ok(ClaimOutcome::Processed) => return self.drop_known(receipt, since),
                Ok(ClaimOutcome::InFlight(waiter)) => {
                    waiter.settled().await;
                    // What is remembered from here on is true.
                    despite_memory = false;
                }
                Err(error) => {
                    error!(%error, "claim failed, the event will come again");
                    self.context.metrics.flow.stage_finished("dedupe", "handed_back", since.elapsed());
                    return None;
                }
            }
        };
        crash::point("claim_taken");
        if !is_replay(&event) && self.is_beyond_window(&event) && self.catalog_knows(&event).await? {
            return self.drop_known(receipt, since);
        }
        if is_foreign && !despite_memory {
            if let Err(error) = claim.commit().await {
                warn!(%error, "what another producer found is not marked, it will be asked for again");
            }
            return self.drop_known(receipt, since);
        }
        self.context.metrics.flow.stage_finished("dedupe", "ok", since.elapsed());
        let told = HearsayNote { hearsay: self.hearsay.clone(), key: digest, by_webhook_at: is_hearsay.then_some(now) };
        let settle = ClaimSettle { claim, receipt, told };
        let trace = traced::found(&event, now);
        Some(Delivery::new(event, Box::new(settle)).traced(trace))
    }

    fn drop_known(&self, receipt: Receipt, since: Instant) -> Option<Delivery> {
        self.context.metrics.flow.stage_finished("dedupe", "done", since.elapsed());
        receipt.settled();
        None
    }

    /// Whether the consumer has dropped what a webhook told, now that another source lists it as the group's.
    async fn was_dropped(&self, event: &ContactEvent, digest: &model::Key, now: Timestamp) -> bool {
        match self.hearsay.doubt(digest, now) {
            HearsayCheck::None => return false,
            HearsayCheck::Dropped => return true,
            HearsayCheck::Ask => {}
        }
        // A catalog that does not answer is asked again: the call is listed again.
        let Ok(hops) = self.context.catalog.last_hops(&[event.key()]).await else { return false };
        let Some(Some(Hop { stage, outcome, detail, .. })) = hops.first() else { return false };
        let was_dropped = outcome == "done" && detail.as_deref().is_some_and(|reason| REOPENED.contains(&reason));
        let is_over = matches!((stage.as_str(), outcome.as_str()), (_, "done" | "dead_letter") | ("upload", "ok"));
        if is_over && !was_dropped {
            self.hearsay.forget(digest);
        }
        was_dropped
    }

    fn is_beyond_window(&self, event: &ContactEvent) -> bool {
        let horizon = self.context.flow.clock.now().checked_sub(self.retention);
        matches!((event.ended_at, horizon), (Some(ended_at), Ok(horizon)) if ended_at < horizon)
    }

    /// Asks the catalog until it answers; none when the service drains first.
    async fn catalog_knows(&self, event: &ContactEvent) -> Option<bool> {
        let key = [event.key()];
        let known = self.context.flow.insist("catalog does not answer", || self.context.catalog.known(&key)).await?;
        Some(known.first().copied().unwrap_or(false))
    }
}

/// Whether the catalog was asked for it a moment ago.
fn is_replay(event: &ContactEvent) -> bool {
    matches!(event.source, EventSource::Reconciliation | EventSource::Backfill)
}

/// Commits the claim, then tells the source.
struct ClaimSettle {
    claim: Claim,
    receipt: Receipt,
    told: HearsayNote,
}

/// Whether only a webhook has told of an event so far.
struct HearsayNote {
    hearsay: Arc<Hearsay>,
    key: model::Key,
    by_webhook_at: Option<Timestamp>,
}

#[async_trait]
impl Settle for ClaimSettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.claim.commit().await.map_err(|error| SettleError(error.to_string()))?;
        crash::point("claim_committed");
        let HearsayNote { hearsay, key, by_webhook_at } = self.told;
        match by_webhook_at {
            Some(now) => hearsay.tell(key, now),
            None => hearsay.forget(&key),
        }
        self.receipt.settled();
        Ok(())
    }

    async fn defer(self: Box<Self>, _event: &ContactEvent, _delay: Duration) -> Result<(), SettleError> {
        // The source repeats what is not settled, at its own pace.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
