//! What the door counts.

use runtime::metrics::Page;

runtime::metrics! {
    /// What the door to the queue counts.
    pub struct QueueMetrics {
        /// Messages on the queue, by lane.
        backlog: gauges("queue_backlog_messages", &["lane"]),
        /// 1 while the broker takes no messages because it is short of memory or disk.
        connection_blocked: gauge("queue_connection_blocked"),
        /// Connections to the broker that were made again.
        reconnects: counter("queue_reconnects_total"),
    }
}

impl QueueMetrics {
    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        for lane in ["live", "backfill", "delayed", "in_flight"] {
            metrics.backlog.with_label_values(&[lane]);
        }
        metrics
    }
}
