//! What the door counts.

use runtime::metrics::Page;

runtime::metrics! {
    /// What the door to the recording store counts.
    pub struct StoreMetrics {
        /// Requests to the recording store that failed and were sent again in place, by operation.
        retries: counters("recording_store_retries_total", &["operation"]),
    }
}

impl StoreMetrics {
    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        // The usual one; a store that knows more starts them itself.
        metrics.retries.with_label_values(&["put"]);
        metrics
    }
}
