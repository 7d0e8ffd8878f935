//! What the machinery needs besides the stage.

use std::sync::Arc;

use runtime::Clock;
use tokio_util::sync::CancellationToken;

use super::{Blame, FlowMetrics, Freshness, Journal, Outside, RetryPolicy};

/// What the machinery needs besides the stage.
#[derive(Clone)]
pub struct FlowContext {
    /// The time.
    pub clock: Clock,
    /// Every metric.
    pub metrics: FlowMetrics,
    /// Takes dead letters and the timeline.
    pub journal: Arc<dyn Journal>,
    /// Delays and deadlines.
    pub retry: RetryPolicy,
    /// How the systems stand that every call needs.
    pub outside: Outside,
    /// What became of other calls lately.
    pub blame: Blame,
    /// The calls that the consumer is working on.
    pub freshness: Freshness,
    /// Items a stage works on at a time.
    pub concurrency: usize,
    /// Set when the service drains: work that is repeated in place ends.
    pub stopping: CancellationToken,
}

impl FlowContext {
    /// A machinery of its own, that knows nothing yet and runs until it is told to stop.
    pub fn new(
        clock: Clock,
        metrics: FlowMetrics,
        journal: Arc<dyn Journal>,
        retry: RetryPolicy,
        concurrency: usize,
    ) -> Self {
        Self {
            outside: Outside::new(clock.clone()),
            blame: Blame::new(metrics.clone()),
            clock,
            metrics,
            journal,
            retry,
            freshness: Freshness::default(),
            concurrency,
            stopping: CancellationToken::new(),
        }
    }
}
