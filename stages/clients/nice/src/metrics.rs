//! What the door counts.

use std::time::Duration;

use model::TenantId;
use runtime::metrics::{self, Page};

use super::wire::playback;

/// What NICE's answers come to: the values of the label `answer`.
const ANSWERS: [&str; 5] = ["ok", "not_there", "refused", "throttled", "failed"];

/// What an answer comes to that has this status, or none.
fn answer(status: &str) -> &'static str {
    match status {
        "404" => "not_there",
        "401" | "403" => "refused",
        "429" => "throttled",
        _ if status.len() == 3 && status.starts_with(['2', '3']) => "ok",
        _ => "failed",
    }
}

runtime::metrics! {
    /// What the door to NICE counts.
    pub struct NiceMetrics {
        /// Requests to NICE by endpoint and answer (a status, or why there was none).
        requests: counters("nice_requests_total", &["endpoint", "status"]),
        /// Time until NICE's answer was whole.
        request_duration: histograms("nice_request_duration_seconds", &["endpoint"], metrics::seconds()),
        /// Answers of NICE by tenant: ok, not_there (404), refused (401, 403), throttled (429), failed (no answer, or
        /// another). Long polls and the hosts of recordings are not counted.
        answers: counters_by_tenant("nice_answers_total", &["answer"]),
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

    /// The same metrics in the hands of a tenant's client.
    pub fn belonging_to(&self, tenant: &TenantId) -> Self {
        Self { answers: self.answers.belonging_to(tenant.as_str()), ..self.clone() }
    }

    /// Starts what is counted of a tenant at zero.
    pub fn meet(&self, tenant: &TenantId) {
        for answer in ANSWERS {
            self.answers.of(tenant.as_str(), &[answer]);
        }
    }

    /// Counts an answer of NICE's to the tenant.
    pub(super) fn answered_to_tenant(&self, status: &str) {
        if let Some(count) = self.answers.own(&[answer(status)]) {
            count.inc();
        }
    }

    /// Counts a request to NICE.
    pub fn answered(&self, endpoint: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[endpoint, status]).inc();
        self.request_duration.observe(&[endpoint], took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_answers_are_counted_by_what_they_come_to() {
        let metrics = NiceMetrics::default();
        // Nobody's client, as `settings check` has one.
        metrics.answered_to_tenant("200");
        let acme = metrics.belonging_to(&"acme".parse().unwrap());
        for status in ["200", "204", "302", "404", "401", "403", "429", "500", "400", "timeout"] {
            acme.answered_to_tenant(status);
        }
        let counted = ANSWERS.map(|answer| metrics.answers.of("acme", &[answer]).get());
        assert_eq!(counted, [3, 1, 2, 1, 3]);
    }
}
