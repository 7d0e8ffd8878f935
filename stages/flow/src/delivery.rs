//! An item and the duty to settle it once.
//!
//! A delivery is acknowledged, deferred, or dropped. Dropping it hands the item back to where it came from: the
//! queue delivers it again, the source finds it again. So a task that is aborted, a panic, or a process that is
//! killed repeats an item and never loses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{ContactEvent, Settle, SettleError, System, Trouble};
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
    /// It was not its turn: no attempt, and the time does not count against the call. Named is the system that fails
    /// for others, where that is why.
    Busy(Option<System>),
    /// Its recording is not likely there yet: as [`Deferral::Busy`], and the wait is for NICE, not for us.
    Early,
}

impl Deferral {
    /// The system whose failure keeps the item.
    fn waits_for(&self) -> Option<System> {
        match self {
            Self::Error(trouble) => Some(trouble.system),
            Self::Busy(system) => *system,
            Self::AsItIs => Some(System::Catalog),
            Self::NotReady | Self::Unknown | Self::Early => None,
        }
    }

    /// Whether NICE has yet to process the call: then it is not due before the wait is over.
    fn is_for_recording(&self) -> bool {
        matches!(self, Self::NotReady | Self::Unknown | Self::Early)
    }
}

/// What is known of an item that was put off.
#[derive(Debug)]
pub struct PutOff<'a> {
    /// The event as it comes again.
    pub event: &'a ContactEvent,
    /// When it comes again.
    pub until: Timestamp,
    /// Whether it could be worked on now, and something else than NICE's processing keeps it.
    pub is_due: bool,
    /// The system whose failure keeps it.
    pub waits_for: Option<System>,
}

/// What a delivery holds until it is settled or dropped, and then gives back: a place, a count.
pub trait Hold: Send + Sync {
    /// The queue has confirmed that the item comes again.
    fn deferred(&self, _item: &PutOff<'_>) {}
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
        let until = now.checked_add(delay).unwrap_or(Timestamp::MAX);
        let (is_unknown, is_due, waits_for) =
            (reason == Deferral::Unknown, !reason.is_for_recording(), reason.waits_for());
        if !is_due {
            event.due_at = Some(until);
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
            Deferral::Busy(_) | Deferral::Early => {
                event.busy_secs = event.busy_secs.saturating_add(delay.as_secs().max(1))
            }
        }
        self.settle.defer(&event, delay).await?;
        let put_off = PutOff { event: &event, until, is_due, waits_for };
        self.holds.iter().for_each(|hold| hold.deferred(&put_off));
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
