//! The line of those in this process who wait to send a request to NICE.
//!
//! One task asks the budget for all of them, tells it what became of what it granted, and hands out [`Permit`]s: first
//! come, first served within a class. Who has not the patience is sent away with the time at which to come again: a
//! minute later at most, and each a place later than the one before, so that they do not come back together.
//!
//! # After a crash
//! What was granted and not told counts as if it were under way until it must be over.
//!
//! # Without the store
//! Nothing is sent without a grant: who waits is told within seconds, and asks again as after any failure.

use std::sync::Arc;

use model::{ApiFamily, Permit, QuotaClass, QuotaError};
use runtime::task;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::keeper::Keeper;
use super::permit::{GateMessage, Patience, PermitWaiter};
use super::{BudgetStore, Terms};
use crate::QuotaMetrics;

/// More words than a process has requests under way or waiting; beyond it who asks waits to be heard, and a fate goes
/// untold, which costs its place for a minute.
const WORDS: usize = 4096;

/// One process's way to one budget; it ends when dropped.
#[derive(Debug)]
pub struct QuotaGate {
    words: mpsc::Sender<GateMessage>,
    family: ApiFamily,
    metrics: QuotaMetrics,
    _keeper: AbortOnDropHandle<()>,
}

impl QuotaGate {
    /// Opens a way to the budget in `store`.
    pub fn new(store: Arc<dyn BudgetStore>, family: ApiFamily, terms: Terms, metrics: QuotaMetrics) -> Self {
        let (words, heard) = mpsc::channel(WORDS);
        let keeper = Keeper::new(store, family, terms, words.downgrade(), &metrics);
        let keeper = task::spawn("rate_budget", keeper.run(heard));
        Self { words, family, metrics, _keeper: keeper }
    }

    /// Returns when one more request of the class may leave, or when the patience does not last.
    pub async fn admit(&self, class: QuotaClass, patience: Patience) -> Result<Box<dyn Permit>, QuotaError> {
        let since = Instant::now();
        let (reply, answer) = oneshot::channel();
        let asked = self.words.send(GateMessage::Wait(PermitWaiter { class, since, patience, reply })).await;
        let ended = |_| QuotaError { what: "the rate budget has no keeper".to_owned(), retry_after: None };
        let admitted = match asked {
            Ok(()) => answer.await.unwrap_or_else(|error| Err(ended(error.to_string()))),
            Err(error) => Err(ended(error.to_string())),
        };
        self.metrics.asked(self.family.as_str(), class.as_str(), since.elapsed(), admitted.is_ok());
        admitted
    }
}
