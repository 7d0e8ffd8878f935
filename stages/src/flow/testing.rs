//! What tests of the flow share: a context on a local state of its own, and deliveries that tell their fate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use model::{ContactEvent, EventSource, Settle, SettleError};
use runtime::Clock;
use tokio_util::sync::CancellationToken;

use super::{Blame, Delivery, FlowContext, Freshness, Metrics, Outside, RetryPolicy};
use crate::clients::{
    catalog::{Catalog, EmbeddedCatalog},
    test_state::TestState,
};

/// A context, and the state under its catalog.
pub(crate) struct TestFlow {
    pub(crate) state: TestState,
    pub(crate) context: FlowContext,
}

impl TestFlow {
    /// With this many items at a time in each stage.
    pub(crate) fn new(concurrency: usize) -> Self {
        let state = TestState::new();
        let catalog = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
        let (clock, metrics) = (Clock::fixed("2026-04-01T17:00:00Z".parse().unwrap()), Metrics::new());
        let context = FlowContext {
            outside: Outside::new(clock.clone()),
            blame: Blame::new(metrics.clone()),
            clock,
            metrics,
            catalog,
            retry: RetryPolicy {
                not_ready_delays: vec![Duration::from_secs(30), Duration::from_secs(60)],
                recording_deadline: Duration::from_secs(48 * 3600),
                error_delay_min: Duration::from_millis(1),
                error_delay_max: Duration::from_millis(4),
            },
            freshness: Freshness::default(),
            concurrency,
            stopping: CancellationToken::new(),
        };
        Self { state, context }
    }

    /// How many items a stage has finished with in this way.
    pub(crate) fn finished(&self, stage: &str, outcome: &str) -> u64 {
        self.context.metrics.stage_items.with_label_values(&[stage, outcome]).get()
    }
}

/// An event of a call that ended shortly before the context's clock.
pub(crate) fn event(id: u64) -> ContactEvent {
    let conversation = id.to_string().parse().unwrap();
    let mut event = ContactEvent::new("acme".parse().unwrap(), conversation, EventSource::Poll);
    event.ended_at = Some("2026-04-01T16:34:25Z".parse::<Timestamp>().unwrap());
    event
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test has few of them")]
pub(crate) enum Fate {
    Acked { shelved: usize },
    AckFailed,
    Deferred { event: ContactEvent, delay: Duration },
    HandedBack,
}

/// The fates of deliveries, by conversation, in the order in which they came.
#[derive(Clone, Default)]
pub(crate) struct Fates {
    told: Arc<Mutex<Vec<(u64, Fate)>>>,
}

impl Fates {
    /// A delivery that tells its fate. At its acknowledgement it notes how many dead letters stand by then.
    pub(crate) fn delivery(&self, event: ContactEvent, catalog: &Arc<dyn Catalog>) -> Delivery<ContactEvent> {
        self.delivery_with(event, catalog, false)
    }

    /// As [`Fates::delivery`], but its acknowledgement may fail.
    pub(crate) fn delivery_with(
        &self,
        event: ContactEvent,
        catalog: &Arc<dyn Catalog>,
        ack_fails: bool,
    ) -> Delivery<ContactEvent> {
        let id = event.conversation.get();
        let settle = TellingSettle { fates: self.clone(), id, catalog: catalog.clone(), ack_fails, settled: false };
        Delivery::new(event.clone(), event, Box::new(settle))
    }

    /// All fates so far.
    pub(crate) fn all(&self) -> Vec<(u64, Fate)> {
        self.told.lock().unwrap().clone()
    }

    fn tell(&self, id: u64, fate: Fate) {
        self.told.lock().unwrap().push((id, fate));
    }
}

struct TellingSettle {
    fates: Fates,
    id: u64,
    catalog: Arc<dyn Catalog>,
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
        let shelved = self.catalog.dead_letters(0, usize::MAX).await.unwrap().len();
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
