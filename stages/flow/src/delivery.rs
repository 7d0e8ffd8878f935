//! An item and the duty to settle it once.
//!
//! A delivery is acknowledged, deferred, or dropped. Dropping it hands the item back to where it came from: the
//! queue delivers it again, the source finds it again. So a task that is aborted, a panic, or a process that is
//! killed repeats an item and never loses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{ContactEvent, Settle, SettleError, Trouble};
use runtime::TraceSpan;
use tokio_util::sync::CancellationToken;

/// Why an item is to be delivered again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deferral {
    /// An error: one attempt more.
    Error(Trouble),
    /// Its dead letter could not be written: it comes again as it is.
    AsItIs,
    /// The recording is not ready: one attempt more, and one look.
    NotReady,
    /// The same, and NICE does not even know the contact.
    Unknown,
    /// It was not its turn: no attempt, and the time does not count against the call.
    Busy,
    /// Its recording is not likely there yet: as [`Deferral::Busy`], and the wait is for NICE, not for us.
    Early,
}

/// What a delivery holds until it is settled or dropped, and then gives back: a place, a count.
pub trait Hold: Send + Sync {
    /// The queue has confirmed that the item comes again as `event`.
    fn deferred(&self, _event: &ContactEvent) {}
}

/// An item on its way through the flow.
#[must_use = "a delivery that is dropped comes again"]
pub struct Delivery<T = ()> {
    /// What the stages have made of the event so far.
    pub item: T,
    /// The event that the item began as: what is deferred, and what logs and dead letters name.
    pub event: ContactEvent,
    /// The span of this attempt, below which those of the stages stand.
    pub trace: TraceSpan,
    settle: Box<dyn Settle>,
    lost: CancellationToken,
    /// Given back after the item is settled.
    holds: Vec<Box<dyn Hold>>,
}

impl Delivery {
    /// An event that `settle` answers for.
    pub fn new(event: ContactEvent, settle: Box<dyn Settle>) -> Self {
        let (trace, lost) = (TraceSpan::default(), CancellationToken::new());
        Self { item: (), event, trace, settle, lost, holds: Vec::new() }
    }
}

impl<T> Delivery<T> {
    /// Ends with `lost`: its origin has taken it back, and another may be working on it.
    pub fn lost_with(self, lost: CancellationToken) -> Self {
        Self { lost, ..self }
    }

    /// Is worked on within this span, which ends with it.
    pub fn traced(self, trace: TraceSpan) -> Self {
        Self { trace, ..self }
    }

    /// Holds this from now on, until it is settled or dropped.
    pub fn hold(&mut self, hold: impl Hold + 'static) {
        self.holds.push(Box::new(hold));
    }

    /// Ends when the origin has taken the item back, as far as that is noticed. Never by itself.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Splits off the item, so that a stage can consume it.
    pub fn take(self) -> (T, Delivery<()>) {
        let Self { item, event, trace, settle, lost, holds } = self;
        (item, Delivery { item: (), event, trace, settle, lost, holds })
    }

    /// The same duty with the next stage's item.
    pub fn with<U>(self, item: U) -> Delivery<U> {
        let Self { item: _, event, trace, settle, lost, holds } = self;
        Delivery { item, event, trace, settle, lost, holds }
    }

    /// Never deliver it again.
    pub async fn ack(self) -> Result<(), SettleError> {
        self.settle.ack().await
    }

    /// Deliver it again after `delay` from `now`, with the reason counted in the event.
    pub async fn defer(self, reason: Deferral, delay: Duration, now: Timestamp) -> Result<(), SettleError> {
        let mut event = self.event;
        event.deferrals = event.deferrals.saturating_add(1);
        if matches!(reason, Deferral::NotReady | Deferral::Unknown | Deferral::Early) {
            event.due_at = now.checked_add(delay).ok();
        }
        let is_unknown = reason == Deferral::Unknown;
        if matches!(reason, Deferral::NotReady | Deferral::Unknown | Deferral::Early) {
            // As long as was meant, however long the message lies there: outages are nobody's waiting for a recording.
            let meant = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            event.awaited_millis = event.awaited_millis.saturating_add(meant);
        }
        match reason {
            Deferral::AsItIs => {}
            Deferral::Error(trouble) => {
                event.attempt = event.attempt.saturating_add(1);
                event.troubles.note(trouble.waiting(delay));
            }
            Deferral::NotReady | Deferral::Unknown => {
                event.unknown = event.unknown.saturating_add(u32::from(is_unknown));
                event.attempt = event.attempt.saturating_add(1);
                event.not_ready = event.not_ready.saturating_add(1);
                event.looked_at = Some(now);
                event.troubles.nice_answered();
            }
            Deferral::Busy | Deferral::Early => {
                event.busy_secs = event.busy_secs.saturating_add(delay.as_secs().max(1))
            }
        }
        self.settle.defer(&event, delay).await?;
        self.holds.iter().for_each(|hold| hold.deferred(&event));
        Ok(())
    }
}

/// An item that a stage may be given once more: after a system was away, in place.
pub trait Again: Sized {
    /// The same item, or none where a stage cannot begin it anew.
    fn again(&self) -> Option<Self>;
}

impl Again for () {
    fn again(&self) -> Option<Self> {
        Some(())
    }
}

impl<T> Again for Arc<T> {
    fn again(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<T> std::fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("key", &self.event.key()).finish_non_exhaustive()
    }
}
