//! Who waits for a permit, and the permit that the keeper hands out.

use std::time::Duration;

use model::{Permit, QuotaClass, QuotaError};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::debug;

use super::{GrantOutcome, GrantReport};

/// How long a request may wait in place for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes: who asks has nothing else to do.
    Endless,
    /// For so long; then it is told when to come again, and whoever asked is free for other tenants' requests.
    UpTo(Duration),
}

impl Patience {
    /// What a worker of the consumer has, which holds a conversation that can wait on the queue as well.
    pub const WORKER: Self = Self::UpTo(Duration::from_secs(2));

    /// Whether somebody who has waited since `since` would wait until `until`.
    pub(super) fn lasts(self, since: Instant, until: Instant) -> bool {
        match self {
            Self::Endless => true,
            Self::UpTo(longest) => until <= since + longest,
        }
    }
}

/// A granted request leaves within this time, or asks again: see `UNDER_WAY` in `window`.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// What the keeper is told.
pub(super) enum GateMessage {
    /// Somebody wants to send a request.
    Wait(PermitWaiter),
    /// A granted request is over.
    Report(GrantReport),
}

/// Somebody who waits for a permit.
pub(super) struct PermitWaiter {
    pub(super) class: QuotaClass,
    pub(super) since: Instant,
    pub(super) patience: Patience,
    pub(super) reply: oneshot::Sender<Result<Box<dyn Permit>, QuotaError>>,
}

/// A permit of this gate.
#[derive(Debug)]
pub(super) struct GrantedPermit {
    pub(super) words: mpsc::Sender<GateMessage>,
    pub(super) report: GrantReport,
    /// When the process began to live, and when this was asked for.
    pub(super) begun: Instant,
    pub(super) asked_at: Instant,
    pub(super) refusals: prometheus::IntCounter,
}

impl Permit for GrantedPermit {
    fn leave(&mut self) -> bool {
        if self.asked_at.elapsed() > LEAVES_WITHIN {
            return false;
        }
        // Until it is known better; what counts is when the permit is dropped.
        self.report.outcome = GrantOutcome::Over(Duration::ZERO);
        true
    }

    fn refused(mut self: Box<Self>, retry_after: Option<Duration>) {
        self.report.outcome = GrantOutcome::Refused(retry_after);
    }
}

impl Drop for GrantedPermit {
    fn drop(&mut self) {
        match &mut self.report.outcome {
            GrantOutcome::Unsent => {}
            GrantOutcome::Over(at) => *at = self.begun.elapsed(),
            GrantOutcome::Refused(_) => self.refusals.inc(),
        }
        if self.words.try_send(GateMessage::Report(self.report)).is_err() {
            debug!("the fate of a request goes untold, its place stays taken for a minute more");
        }
    }
}

impl PermitWaiter {
    /// A waiter that is gone needs none; a permit that it did not take gives its place back.
    pub(super) fn answer(self, answer: Result<Box<dyn Permit>, QuotaError>) {
        drop(self.reply.send(answer));
    }
}
