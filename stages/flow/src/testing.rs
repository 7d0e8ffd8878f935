//! What tests of the flow share: a context with a journal in memory, and deliveries that tell their fate.

#![allow(clippy::unwrap_used, clippy::new_without_default, reason = "a test fails loudly")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ContactEvent, ConversationKey, DeadLetter, EventSource, Hop, Settle, SettleError};
use runtime::Clock;

use super::{Delivery, FlowContext, FlowMetrics, Journal, JournalError, RetryPolicy};

/// A context, and its journal.
pub struct TestFlow {
    /// What it wrote down.
    pub journal: Arc<MemoryJournal>,
    /// The context.
    pub context: FlowContext,
}

impl TestFlow {
    /// With this many items at a time in each stage.
    pub fn new(concurrency: usize) -> Self {
        let journal = Arc::new(MemoryJournal::default());
        let context = FlowContext::new(clock(), FlowMetrics::default(), journal.clone(), retry_policy(), concurrency);
        Self { journal, context }
    }

    /// How many items a stage has finished with in this way.
    pub fn finished(&self, stage: &str, outcome: &str) -> u64 {
        self.context.metrics.stage_items.with_label_values(&[stage, outcome]).get()
    }
}

/// The time at which tests of the flow stand still.
pub fn clock() -> Clock {
    Clock::fixed("2026-04-01T17:00:00Z".parse().unwrap())
}

/// Short delays.
pub fn retry_policy() -> RetryPolicy {
    RetryPolicy {
        not_ready_delays: vec![Duration::from_secs(30), Duration::from_secs(60)],
        recording_deadline: Duration::from_secs(48 * 3600),
        error_delay_min: Duration::from_millis(1),
        error_delay_max: Duration::from_millis(4),
    }
}

/// A journal in memory.
#[derive(Default)]
pub struct MemoryJournal {
    hops: Mutex<Vec<(ConversationKey, Hop)>>,
    letters: Mutex<Vec<DeadLetter>>,
    /// While set, no dead letter can be written.
    pub fails: AtomicBool,
}

impl MemoryJournal {
    /// The timeline of a conversation.
    pub fn hops(&self, key: &ConversationKey) -> Vec<Hop> {
        self.hops.lock().unwrap().iter().filter(|(of, _)| of == key).map(|(_, hop)| hop.clone()).collect()
    }

    /// The dead letters.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.letters.lock().unwrap().clone()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn record_hop(&self, key: &ConversationKey, hop: Hop) {
        self.hops.lock().unwrap().push((key.clone(), hop));
    }

    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, JournalError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(JournalError("as the test wished".to_owned()));
        }
        let mut letters = self.letters.lock().unwrap();
        letters.retain(|other| other.digest() != letter.digest());
        letters.push(letter);
        Ok(true)
    }
}

/// Where dead letters lie, to be counted.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// How many there are.
    async fn shelved(&self) -> usize;
}

#[async_trait]
impl Shelf for MemoryJournal {
    async fn shelved(&self) -> usize {
        self.dead_letters().len()
    }
}

/// An event of a call that ended shortly before the context's clock.
pub fn event(id: u64) -> ContactEvent {
    let conversation = id.to_string().parse().unwrap();
    let mut event = ContactEvent::new("acme".parse().unwrap(), conversation, EventSource::Poll);
    event.ended_at = Some("2026-04-01T16:34:25Z".parse::<Timestamp>().unwrap());
    event
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test has few of them")]
pub enum Fate {
    /// Acknowledged; so many dead letters stood by then.
    Acked {
        /// How many.
        shelved: usize,
    },
    /// Its acknowledgement failed.
    AckFailed,
    /// It comes again.
    Deferred {
        /// As this.
        event: ContactEvent,
        /// After this time.
        delay: Duration,
    },
    /// It was dropped.
    HandedBack,
}

/// The fates of deliveries, by conversation, in the order in which they came.
#[derive(Clone, Default)]
pub struct Fates {
    told: Arc<Mutex<Vec<(u64, Fate)>>>,
}

impl Fates {
    /// A delivery that tells its fate. At its acknowledgement it notes how many dead letters stand by then.
    pub fn delivery(&self, event: ContactEvent, shelf: &Arc<impl Shelf>) -> Delivery {
        self.delivery_with(event, shelf, false)
    }

    /// As [`Fates::delivery`], but its acknowledgement may fail.
    pub fn delivery_with(&self, event: ContactEvent, shelf: &Arc<impl Shelf>, ack_fails: bool) -> Delivery {
        let id = event.conversation.get();
        let settle = TellingSettle { fates: self.clone(), id, shelf: shelf.clone(), ack_fails, settled: false };
        Delivery::new(event, Box::new(settle))
    }

    /// All fates so far.
    pub fn all(&self) -> Vec<(u64, Fate)> {
        self.told.lock().unwrap().clone()
    }

    fn tell(&self, id: u64, fate: Fate) {
        self.told.lock().unwrap().push((id, fate));
    }
}

struct TellingSettle {
    fates: Fates,
    id: u64,
    shelf: Arc<dyn Shelf>,
    ack_fails: bool,
    settled: bool,
}

#[async_trait]
impl Settle for TellingSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.settled = true;
        if self.ack_fails {
            self.fates.tell(self.id, Fate::AckFailed);
            return Err(SettleError("as the test wished".to_owned()));
        }
        let shelved = self.shelf.shelved().await;
        self.fates.tell(self.id, Fate::Acked { shelved });
        Ok(())
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        self.settled = true;
        self.fates.tell(self.id, Fate::Deferred { event: event.clone(), delay });
        Ok(())
    }
}

impl Drop for TellingSettle {
    fn drop(&mut self) {
        if !self.settled {
            self.fates.tell(self.id, Fate::HandedBack);
        }
    }
}
