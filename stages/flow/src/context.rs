//! What every stage runs with.

use std::sync::Arc;

use runtime::Clock;
use tokio_util::sync::CancellationToken;

use super::{Blame, FlowMetrics, Freshness, Journal, Outside, RetryPolicy};

/// What every stage runs with.
#[derive(Clone)]
pub struct FlowContext {
    /// The time.
    pub clock: Clock,
    /// Counts what the stages do.
    pub metrics: FlowMetrics,
    /// Takes dead letters and the timeline.
    pub journal: Arc<dyn Journal>,
    /// Delays and deadlines.
    pub retry: RetryPolicy,
    /// The health of the systems that every call needs.
    pub outside: Outside,
    /// What became of other calls lately: whether a failure counts against its call.
    pub blame: Blame,
    /// The calls that the consumer is working on.
    pub freshness: Freshness,
    /// Items a stage works on at a time.
    pub concurrency: usize,
    /// Set when the service drains: work that is repeated in place ends.
    pub stopping: CancellationToken,
}

impl FlowContext {
    /// A new context that knows nothing yet; its stages run until they are told to stop.
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
