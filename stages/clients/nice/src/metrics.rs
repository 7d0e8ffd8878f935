//! What the door counts.

use std::time::Duration;

use runtime::metrics::{self, Page};

use super::wire::playback;

runtime::metrics! {
    /// What the door to NICE counts.
    pub struct NiceMetrics {
        /// Requests to NICE by endpoint and answer (a status, or why there was none).
        requests: counters("nice_requests_total", &["endpoint", "status"]),
        /// Time until NICE's answer was whole.
        request_duration: histograms("nice_request_duration_seconds", &["endpoint"], metrics::seconds()),
        /// Tokens that were requested from NICE.
        token_renewals: counter("nice_token_renewals_total"),
        /// Downloads that broke and were resumed or begun again.
        recording_resumes: counter("recording_resumes_total"),
        /// Interactions that were passed over in NICE's answers about recordings, at every look, by media type.
        interactions_skipped: counters("interactions_skipped_total", &["type"]),
    }
}

impl NiceMetrics {
    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        for kind in playback::TYPES.into_iter().filter(|kind| !kind.starts_with("voice")).chain([playback::OTHER]) {
            metrics.interactions_skipped.with_label_values(&[kind]);
        }
        metrics
    }

    /// Counts a request to NICE.
    pub fn answered(&self, endpoint: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[endpoint, status]).inc();
        self.request_duration.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }
}
