//! What the budgets count.

use std::time::Duration;

use model::{ApiFamily, QuotaClass, TenantId};
use prometheus::IntGauge;
use runtime::metrics::Page;

use super::Usage;

runtime::metrics! {
    /// What the budgets count.
    pub struct QuotaMetrics {
        /// Requests that the tenant's rate budget admitted, by API family and class.
        requests: counters("nice_quota_requests_total", &["family", "class"]),
        /// Time spent waiting for the tenant's rate budget, by API family and class.
        wait: float_counters("nice_quota_wait_seconds_total", &["family", "class"]),
        /// Requests that the budget admitted and NICE refused (429), by API family.
        refusals: counters("nice_quota_refusals_total", &["family"]),
        /// Requests that wait in this process for the tenant's rate budget, by API family and class.
        waiting: gauges_by_tenant("nice_quota_waiting_requests", &["family", "class"]),
        /// The most requests in a window, by the settings.
        limit: own_float_gauges("nice_quota_limit_requests", &["family"]),
        /// The most requests in a window at present: the limit of the settings, or less after a 429.
        limit_now: own_float_gauges("nice_quota_limit_now_requests", &["family"]),
        /// Requests of the present window, of all processes, by class.
        used: own_float_gauges("nice_quota_used_requests", &["family", "class"]),
        /// Until the limit is that of the settings again, if NICE refuses nothing more; 0 at full pace.
        full_pace: own_float_gauges("nice_quota_full_pace_in_seconds", &["family"]),
        /// 1 at the word that says why the limit is where it is: full_pace, paused (NICE refused a request, nothing is
        /// sent) or recovering (NICE refused some, the limit grows back).
        pace: own_gauges("nice_quota_pace", &["family", "pace"]),
    }
}

impl QuotaMetrics {
    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        for family in [ApiFamily::Acd, ApiFamily::MediaPlayback].map(ApiFamily::as_str) {
            metrics.refusals.with_label_values(&[family]);
            for class in QuotaClass::ALL.map(QuotaClass::as_str) {
                metrics.requests.with_label_values(&[family, class]);
                metrics.wait.with_label_values(&[family, class]);
            }
        }
        metrics
    }

    /// Counts a wish to send a request to NICE, and how long it waited.
    pub(super) fn asked(&self, family: &str, class: &str, waited: Duration, admitted: bool) {
        self.wait.with_label_values(&[family, class]).inc_by(waited.as_secs_f64());
        self.requests.with_label_values(&[family, class]).inc_by(u64::from(admitted));
    }

    /// Counts a request of a tenant as waiting until the answer is dropped.
    pub(super) fn waits(&self, tenant: &TenantId, family: ApiFamily, class: QuotaClass) -> Waiting {
        let waiting = self.waiting.of(tenant.as_str(), &[family.as_str(), class.as_str()]);
        waiting.inc();
        Waiting { waiting }
    }

    /// Shows how a rate budget stands.
    pub fn show(&self, family: &str, usage: &Usage) {
        self.limit.with_label_values(&[family]).set(f64::from(usage.limit));
        self.limit_now.with_label_values(&[family]).set(f64::from(usage.limit_now));
        for class in QuotaClass::ALL {
            let used = usage.by_class.iter().find(|(used_by, _)| *used_by == class).map_or(0, |(_, used)| *used);
            self.used.with_label_values(&[family, class.as_str()]).set(f64::from(used));
        }
        let full_pace_in = usage.refused.map_or(0.0, |refused| refused.full_pace_in.as_secs_f64());
        self.full_pace.with_label_values(&[family]).set(full_pace_in);
        for pace in Usage::PACES {
            self.pace.with_label_values(&[family, pace]).set(i64::from(pace == usage.pace()));
        }
    }
}

/// A request that waits; not any more when it is dropped.
pub(super) struct Waiting {
    waiting: IntGauge,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}
