//! What a source hands to the dedupe, and how it learns that this is settled.
//!
//! In: an event, made once by its source. Out: the same event, carried to the dedupe with a [`Receipt`]. After a crash
//! no receipt is left, and the source finds again what was not settled.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use model::ContactEvent;
use tokio::sync::mpsc;

use crate::Context;

/// An event, and the source's wish to learn that it is settled.
#[derive(Debug)]
pub struct FoundEvent {
    /// What was found.
    pub event: ContactEvent,
    /// Told once the event needs no further care of the source.
    pub receipt: Receipt,
    /// What the dedupe remembers of it is wrong: the catalog does not have it, and it is not on its way.
    pub heals: bool,
}

impl FoundEvent {
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
pub(super) struct ReceiptTally {
    issued: usize,
    settled: Arc<AtomicUsize>,
    alive: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

impl ReceiptTally {
    pub(super) fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { issued: 0, settled: Arc::default(), alive, gone }
    }

    pub(super) fn receipt(&mut self) -> Receipt {
        self.issued += 1;
        let (settled, alive) = (self.settled.clone(), self.alive.clone());
        Receipt::new(move || {
            settled.fetch_add(1, Ordering::SeqCst);
            drop(alive);
        })
    }

    /// Waits until every receipt is settled or dropped; true if none was dropped.
    pub(super) async fn all_settled(self) -> bool {
        let Self { issued, settled, alive, mut gone } = self;
        drop(alive);
        // No value is ever sent: this returns when the last receipt is gone.
        gone.recv().await;
        settled.load(Ordering::SeqCst) == issued
    }
}

/// Counts what a source has read, by what became of it there.
pub(super) fn count(context: &Context, outcome: &str) {
    context.metrics.flow.stage_items.with_label_values(&["source", outcome]).inc();
}
