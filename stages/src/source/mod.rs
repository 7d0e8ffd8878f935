//! Stage 1, source: where conversations that ended are found.
//!
//! - [`poll`]: NICE's completed contacts, the truth.
//! - [`webhook`]: what a Studio script posts to us, for speed.
//! - [`replay`]: a range that is listed again: what the catalog does not have of it.
//! - [`agent_sessions`]: the event feed of every agent who is logged in, for speed.
//! - [`roster`]: the group's agents, by which the sources filter.
//!
//! [`listing`] reads a range of NICE's calls, [`compare`] says what became of each; the completeness report stands on
//! the same two.
//!
//! Every source emits [`Found`] into the same dedupe; nothing after it knows which one an event came from.

pub mod agent_sessions;
mod changes;
pub mod compare;
pub mod listing;
mod pages;
pub mod poll;
pub mod replay;
pub mod roster;
#[cfg(test)]
pub(crate) mod test_nice;
pub mod webhook;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use flow::{JournalError, RetryPolicy, StageError, retry::MAX_RETRY_AFTER};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, DeadLetter, EventSource, Members, TenantId};
use nice::{BadRow, NiceError, REFUSED_DELAY};
use tokio::sync::mpsc;

use self::{listing::Listed, roster::Roster};
use crate::Context;

pub use self::pages::Doubt;

/// NICE's completed contacts reach back this far.
pub const REACH: SignedDuration = SignedDuration::from_hours(30 * 24);

/// An event, and the source's wish to learn that it is settled.
#[derive(Debug)]
pub struct Found {
    /// What was found.
    pub event: ContactEvent,
    /// Told once the event needs no further care of the source.
    pub receipt: Receipt,
    /// What the dedupe remembers of it is wrong: the catalog does not have it, and it is not on its way.
    pub heals: bool,
}

impl Found {
    /// What a source found that knows nothing of the catalog.
    pub fn new(event: ContactEvent, receipt: Receipt) -> Self {
        Self { event, receipt, heals: false }
    }
}

/// Tells a source that its event is committed, or was known before. Dropping it says that it must come again.
#[must_use = "a receipt that is dropped makes the source repeat the event"]
pub struct Receipt(Box<dyn FnOnce() + Send + Sync>);

impl Receipt {
    /// A receipt that calls back when the event is settled.
    pub fn new(on_settled: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Box::new(on_settled))
    }

    /// The event is durable further down, or was known before.
    pub fn settled(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}

/// Counts the receipts of a listing until all of them are gone.
struct Tally {
    issued: usize,
    settled: Arc<AtomicUsize>,
    alive: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

impl Tally {
    fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { issued: 0, settled: Arc::default(), alive, gone }
    }

    fn receipt(&mut self) -> Receipt {
        self.issued += 1;
        let (settled, alive) = (self.settled.clone(), self.alive.clone());
        Receipt::new(move || {
            settled.fetch_add(1, Ordering::SeqCst);
            drop(alive);
        })
    }

    /// Waits until every receipt is settled or dropped; true if none was dropped.
    async fn all_settled(self) -> bool {
        let Self { issued, settled, alive, mut gone } = self;
        drop(alive);
        // No value is ever sent: this returns when the last receipt is gone.
        gone.recv().await;
        settled.load(Ordering::SeqCst) == issued
    }
}

/// The event of a listed call, if it is a phone call of an agent who was in the group when it ended.
pub(crate) fn event_of(call: &Listed, tenant: &TenantId, source: EventSource, roster: &Roster) -> Option<ContactEvent> {
    event_of_members(call, tenant, source, roster, Members::Then)
}

/// The event of a listed call, if it is a phone call of one of these members.
pub(crate) fn event_of_members(
    call: &Listed,
    tenant: &TenantId,
    source: EventSource,
    roster: &Roster,
    members: Members,
) -> Option<ContactEvent> {
    let agent = call.agent_id.filter(|_| call.is_phone_call)?;
    let admitted = match (members, call.ended_at, call.started_at) {
        (Members::Now, ..) => roster.is_active(agent),
        // Where only NICE's own record knows the end, the consumer decides.
        (Members::Then, None, Some(started_at)) => roster.may_admit(agent, started_at),
        (Members::Then, ended_at, _) => roster.admits(agent, ended_at),
    };
    if !admitted {
        return None;
    }
    let mut event = ContactEvent::new(tenant.clone(), call.contact_id, source);
    event.master = Some(call.master_contact_id);
    event.agent = Some(agent);
    event.ended_at = call.ended_at;
    event.members_now = members == Members::Now;
    Some(event)
}

/// The event of a row that cannot be read and tells whose it is: the consumer asks NICE for that contact alone.
pub(crate) fn event_of_bad_row(row: &BadRow, tenant: &TenantId, source: EventSource) -> Option<ContactEvent> {
    Some(ContactEvent::new(tenant.clone(), row.contact_id?, source))
}

/// A row whose id breaks the grammar can never be imported: a dead letter, once.
async fn set_aside(context: &Context, tenant: &TenantId, reason: &str) -> Result<(), JournalError> {
    let letter = DeadLetter::of_body(reason.as_bytes(), Some(tenant), "source", reason, context.flow.clock.now());
    context.flow.shelve("source", letter).await?;
    context.metrics.flow.stage_items.with_label_values(&["source", "dead_letter"]).inc();
    Ok(())
}

/// Why NICE's list could not be read; it is read again.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// NICE did not answer as it should.
    #[error(transparent)]
    Nice(#[from] NiceError),
    /// The tenant's settings cannot be had.
    #[error("{0}")]
    Settings(StageError),
}

impl ListError {
    /// How long to wait at least.
    fn asks_for(&self, retry: &RetryPolicy) -> Duration {
        match self {
            Self::Nice(
                NiceError::Transient { retry_after, .. }
                | NiceError::Media { retry_after, .. }
                | NiceError::Quota { retry_after, .. },
            ) => retry_after.unwrap_or_default(),
            Self::Nice(NiceError::Refused { .. }) => REFUSED_DELAY,
            Self::Nice(
                NiceError::NotReady { .. }
                | NiceError::TooMuch { .. }
                | NiceError::Permanent { .. }
                | NiceError::Odd { .. }
                | NiceError::LinkExpired,
            ) => Duration::ZERO,
            Self::Settings(StageError::Transient { retry_after, .. }) => retry_after.unwrap_or_default(),
            Self::Settings(_) => retry.error_delay_max.min(MAX_RETRY_AFTER),
        }
    }
}

fn back(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}
