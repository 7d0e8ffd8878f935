//! Recheck: final calls that lack recordings are put on the queue once more.
//!
//! # Contract
//! In: a conversation, or a range of starts. Out: a message on the lane of replays for each that is `no_recording`, or
//! `ready` without all recordings that NICE names. The consumer looks once, adds what is there by then, and leaves the
//! row as it is where that is nothing: a recheck never makes a dead letter, and takes nothing away.
//!
//! # Once by itself
//! The nightly run looks at each such call when it is as old as `[reconciliation] recheck`. The catalog keeps the start
//! up to which that is done, so that no night is left out, and no call is looked at every night.
//!
//! # After a crash
//! The messages of a range are published again from its beginning: a look more, and no recording twice.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, CatalogError, Lacking};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, EventSource, Hop, Lane, TenantId};
use queue::{Queue, QueueError};
use runtime::Clock;

/// Why a recheck ends without a change.
pub const NOTHING_NEW: &str = "nothing_new";

/// Calls that are read at a time.
const PAGE: usize = 500;

/// How far back the first nightly look reaches: what is older comes by the command.
const FIRST_REACH: SignedDuration = SignedDuration::from_hours(24);

/// Why calls are not rechecked, or not all; repeating is harmless.
#[derive(Debug, thiserror::Error)]
pub enum RecheckError {
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The queue did not answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Puts calls on the queue once more.
#[derive(Clone)]
pub struct Recheck {
    /// Knows what lacks recordings.
    pub catalog: Arc<dyn Catalog>,
    /// Where the messages go.
    pub queue: Arc<dyn Queue>,
    /// The time.
    pub clock: Clock,
}

impl Recheck {
    /// Puts one call on the queue.
    pub async fn one(&self, call: &Lacking, source: EventSource) -> Result<(), RecheckError> {
        let mut event = ContactEvent::new(call.tenant.clone(), call.external_id, source);
        event.master = Some(call.master);
        event.agent = Some(call.agent);
        event.ended_at = Some(call.ended_at);
        event.queued_at = Some(self.clock.now());
        event.late = true;
        event.recheck = true;
        self.queue.publish(Lane::of(&event), event.encode().into()).await?;
        let (stage, outcome, detail) = ("enqueue".to_owned(), "ok".to_owned(), Some("recheck".to_owned()));
        let hop = Hop { at: self.clock.now(), stage, outcome, attempt: 0, took_millis: 0, detail };
        self.catalog.record_hop(&event.key(), hop).await;
        Ok(())
    }

    /// Puts every call of the tenant on the queue that began in `[from, to)` and lacks recordings; how many.
    pub async fn range(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
        source: EventSource,
    ) -> Result<u64, RecheckError> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.catalog.lacking(tenant, from, to, after.as_ref(), PAGE).await?;
            for call in &page {
                self.one(call, source).await?;
                count += 1;
            }
            after = page.into_iter().last();
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Puts every call on the queue that has come to the age `age` by `now` since the last night; how many.
    pub async fn due(&self, tenant: &TenantId, age: Duration, now: Timestamp) -> Result<u64, RecheckError> {
        let to = now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let done = self.catalog.producer_memory(tenant).await?.rechecked_to;
        let from = done.unwrap_or_else(|| to.checked_sub(FIRST_REACH).unwrap_or(Timestamp::MIN));
        // Also after a setting became longer, or a clock was set back.
        if from >= to {
            return Ok(0);
        }
        let count = self.range(tenant, from, to, EventSource::Reconciliation).await?;
        self.catalog.advance_rechecks(tenant, to).await?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
