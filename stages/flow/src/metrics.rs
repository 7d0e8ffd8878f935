//! What the flow counts of every stage.

use std::time::Duration;

use model::TenantId;
use runtime::metrics::{self, Page};

/// The stages in the order of the flow: the values of the label `stage`.
pub const STAGES: &[&str] = &[
    "source",
    "dedupe",
    "enqueue",
    "dequeue",
    "await_recording",
    "fetch_metadata",
    "download_recording",
    "persist",
    "upload",
    "sync_agents",
];

/// What a stage can make of an item: the values of the label `outcome`.
pub const OUTCOMES: &[&str] = &["ok", "done", "retry", "busy", "not_ready", "dead_letter", "handed_back"];

/// What can become of a call: the values of the label `result`.
pub const RESULTS: &[&str] = &["ready", "no_recording", "dead"];

runtime::metrics! {
    /// What the flow counts.
    pub struct FlowMetrics {
        /// Items that a stage has finished with, by outcome.
        stage_items: counters("stage_items_total", &["stage", "outcome"]),
        /// Time that a stage took for one item.
        stage_duration: histograms("stage_duration_seconds", &["stage"], metrics::seconds()),
        /// Items that a stage is working on now.
        stage_in_flight: gauges("stage_in_flight", &["stage"]),
        /// Time that items waited because the next stage was full.
        stage_wait: float_counters("stage_wait_seconds_total", &["stage"]),
        /// Conversations that needed no further work, by reason: no_recording, already_final, copy, erased, not_in_group and others.
        conversations_done: counters("conversations_done_total", &["reason"]),
        /// Calls that came to their end, by tenant and by what became of them: ready, no_recording or dead (a dead letter).
        calls_finished: counters_by_tenant("calls_finished_total", &["result"]),
        /// Age of the oldest call that is due and in hand: since it ended, or since its wait for NICE was over. A call that was put off before the process began is not known before it comes back.
        /// Not shown where the process has none in hand while calls wait on the queue, or may wait there.
        freshness_lag: gauge_if_known("freshness_lag_seconds"),
        /// Dead letters written, by stage.
        dead_letters: counters("dead_letters_total", &["stage"]),
        /// 1 while the system works that every call needs: queue (the broker), catalog (the database), recording_store.
        outside_system_up: gauges("outside_system_up", &["system"]),
        /// 0 while a tenant's nice or media_host fails for many of its calls.
        tenant_system_up: gauges_by_tenant("tenant_system_up", &["system"]),
    }
}

impl FlowMetrics {
    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        for stage in STAGES {
            for outcome in OUTCOMES {
                metrics.stage_items.with_label_values(&[stage, outcome]);
            }
            metrics.stage_duration.start(&[stage]);
            metrics.stage_in_flight.with_label_values(&[stage]);
            metrics.stage_wait.with_label_values(&[stage]);
            metrics.dead_letters.with_label_values(&[stage]);
        }
        for reason in [
            "already_final",
            "copy",
            "beyond_retention",
            "nothing_new",
            "not_lined_up",
            "recheck_given_up",
            "erased",
            "never_answered",
            "no_recording",
            "not_a_phone_call",
            "not_in_group",
            "unconfirmed",
        ] {
            metrics.conversations_done.with_label_values(&[reason]);
        }
        metrics
    }

    /// Counts an item that `stage` has finished with.
    pub fn stage_finished(&self, stage: &str, outcome: &str, took: Duration) {
        self.stage_items.with_label_values(&[stage, outcome]).inc();
        self.stage_duration.observe(&[stage], took.as_secs_f64());
    }

    /// Starts what is counted of a tenant at zero, so that a rate is right from its first call on.
    pub fn meet(&self, tenant: &TenantId) {
        for result in RESULTS {
            self.calls_finished.of(tenant.as_str(), &[result]);
        }
    }

    /// Counts a call that came to its end, by one of [`RESULTS`].
    pub fn call_finished(&self, tenant: &str, result: &'static str) {
        self.calls_finished.of(tenant, &[result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_series_start_at_zero() {
        let page = Page::default();
        FlowMetrics::register(&page);
        let page = page.render();
        for stage in STAGES {
            assert!(
                page.contains(&format!("nice_knovvu_stage_items_total{{outcome=\"ok\",stage=\"{stage}\"}} 0")),
                "{page}"
            );
        }
    }
}
