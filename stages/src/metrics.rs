//! Every metric of the project, on one page.

use catalog::{RunKind, Tallied};
use flow::FlowMetrics;
use jiff::Timestamp;
use model::TenantId;
use nice::NiceMetrics;
use queue::QueueMetrics;
use quota::QuotaMetrics;
use recordings::StoreMetrics;
use runtime::{metrics, metrics::Page};

/// Whether a call was ready in time: the values of the label `freshness`.
pub const FRESHNESS: [&str; 2] = ["within_goal", "beyond_goal"];

runtime::metrics! {
    /// Every metric of the project.
    pub struct Metrics {
        parts {
            /// All of them, as Prometheus reads them.
            page: Page,
            /// Of every stage.
            flow: FlowMetrics,
            /// Of the door to NICE.
            nice: NiceMetrics,
            /// Of the door to the queue.
            queue: QueueMetrics,
            /// Of the rate budgets.
            quota: QuotaMetrics,
            /// Of the door to the recording store.
            recordings: StoreMetrics,
        }
        /// Time from the end of a call until it is ready for analysis.
        end_to_ready: histogram("call_end_to_ready_seconds", metrics::long_seconds()),
        /// `[flow] freshness_goal`: a call is to be ready within this time after its end.
        freshness_goal: float_gauge("freshness_goal_seconds"),
        /// Calls that became ready, by tenant and by whether that was within the goal (within_goal) or not (beyond_goal);
        /// those of backfills, which are old by intention, are not counted.
        calls_ready: counters_by_tenant("calls_ready_total", &["freshness"]),
        /// 1, with what this process is: version, service, and the kinds of queue, catalog and recording store.
        build_info: gauges("build_info", &["version", "service", "queue", "catalog", "recordings"]),
        /// Lines of the log that were lost, since whoever reads stderr stood still.
        log_lines_dropped: counter("log_lines_dropped_total"),
        /// Spans of traces that the collector has taken.
        trace_spans_exported: counter("trace_spans_exported_total"),
        /// Spans of traces that were lost, since the collector was away or too slow.
        trace_spans_dropped: counter("trace_spans_dropped_total"),
        /// Bytes of recordings stored whole.
        recording_bytes: counter("recording_stored_bytes_total"),
        /// Recordings that were read back and compared with their rows, by result: same, or how they differ.
        recordings_verified: counters("recordings_verified_total", &["result"]),
        /// Dead letters on the shelf now.
        dead_letters_shelved: gauge("dead_letters_shelved"),
        /// Dead letters of passing causes that went back to the queue by themselves.
        dead_letters_replayed: counter("dead_letters_replayed_total"),
        /// Dead letters dropped because they stood for too long.
        dead_letters_dropped: counter("dead_letters_dropped_total"),
        /// Entries of the analysis queue by state: waiting, claimed, failed (on the shelf); each counted up to 10,000.
        analysis_entries: gauges("analysis_entries", &["state"]),
        /// Webhook requests by status.
        webhook_requests: own_counters("webhook_requests_total", &["status"]),
        /// The agents of the group by state.
        agents: own_gauges("agents", &["state"]),
        /// While a reading of the group is held: agents that would leave if it were accepted, hidden ones included; else 0.
        agents_held: own_gauge("agents_held"),
        /// When the group was last read whole (Unix time).
        agents_last_sync: own_float_gauge("agents_last_sync_timestamp_seconds"),
        /// 1 where NICE's list did not add up at the poll's last listing.
        poll_list_doubtful: own_gauge("poll_list_doubtful"),
        /// When the poll last read NICE's list of completed calls whole, or its turn began (Unix time).
        poll_last_listing: own_float_gauge("poll_last_listing_timestamp_seconds"),
        /// Everything that NICE changed before this time is found and committed (Unix time).
        poll_watermark: own_float_gauge("poll_watermark_timestamp_seconds"),
        /// Ids in the processed-id log.
        processed_ids: gauge("processed_ids"),
        /// Bytes that are free on the disk of the local state. Not shown where the process keeps no local state.
        state_disk_free_bytes: gauge_if_known("state_disk_free_bytes"),
        /// Bytes of the local state on disk.
        state_disk_bytes: gauge("state_disk_bytes"),
        /// Stores that did not open and were set aside since the start.
        state_set_aside: counter("state_set_aside_total"),
        /// 1 while this process is the tenant's producer, 0 while it waits.
        producer_lease_held: own_gauge("producer_lease_held"),
        /// Turns of this process that ended because another producer's had begun.
        producer_turns_refused: own_counter("producer_turns_refused_total"),
        /// Conversations that replays have compared with the catalog, by what became of them.
        replay_conversations: own_counters("replay_conversations_total", &["kind", "verdict"]),
        /// When a run of the kind was last finished (Unix time).
        replay_last_finished: own_float_gauges("replay_last_finished_timestamp_seconds", &["kind"]),
        /// Pieces of NICE's list that did not add up in the last finished run of the kind.
        replay_last_doubtful: own_gauges("replay_last_doubtful", &["kind"]),
        /// What the last finished run of the kind found missing.
        replay_last_missing: own_gauges("replay_last_missing", &["kind"]),
        /// Calls of backfills under way that are not on the queue yet.
        backfill_remaining: own_gauge("backfill_remaining_conversations"),
        /// Agents whose session is listened to (state=joined), and who are not logged in or wait (state=absent).
        agent_sessions: own_gauges("agent_sessions", &["state"]),
        /// Events of agents' sessions by type.
        agent_session_events: own_counters("agent_session_events_total", &["type"]),
        /// Looks for a conversation's recording at NICE, by what they found: there, not_ready, given_up.
        recording_looks: counters("recording_looks_total", &["found"]),
        /// Recordings that NICE named and did not give when their conversation was made ready without them.
        recordings_missing: counters_by_tenant("recordings_missing_total", &[]),
        /// Recordings that a recheck brought in after their conversation was final.
        recordings_late: counters_by_tenant("recordings_late_total", &[]),
        /// The learned time from the end of a call until the first look for its recording.
        recording_first_look: float_gauges_by_tenant("recording_first_look_seconds", &[]),
        /// Conversations erased for good, by reason.
        conversations_erased: counters("conversations_erased_total", &["reason"]),
        /// Erasures that are looked at again until nothing of the conversation can appear any more.
        erasures_pending: gauge("erasures_pending"),
        /// When all that is beyond the retention of its tenant was last erased (Unix time).
        retention_last_sweep: float_gauge("retention_last_sweep_timestamp_seconds"),
    }
}

impl Metrics {
    /// Every metric, on a page of its own, of a process that is nobody's producer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every metric, on a page of its own, of a process that is the producer of `tenant`, or of none.
    pub fn of(tenant: Option<&TenantId>) -> Self {
        Self::register(&Page::of(tenant.map(TenantId::as_str)))
    }

    /// Registers them; what can be known beforehand starts at zero.
    pub fn register(page: &Page) -> Self {
        let metrics = Self::registered(page);
        page.add_process();
        for kind in RunKind::ALL {
            metrics.replay_advanced(kind.as_str(), &Tallied::default());
        }
        for found in ["there", "not_ready", "given_up"] {
            metrics.recording_looks.with_label_values(&[found]);
        }
        for status in ["202", "400", "401", "408", "413", "503"] {
            metrics.webhook_requests.with_label_values(&[status]);
        }
        for reason in ["operator", "retention"] {
            metrics.conversations_erased.with_label_values(&[reason]);
        }
        for state in ["waiting", "claimed", "failed"] {
            metrics.analysis_entries.with_label_values(&[state]);
        }
        for result in ["same", "missing", "length", "sha256"] {
            metrics.recordings_verified.with_label_values(&[result]);
        }
        for state in ["active", "inactive"] {
            metrics.agents.with_label_values(&[state]);
        }
        for state in ["joined", "absent"] {
            metrics.agent_sessions.with_label_values(&[state]);
        }
        for kind in ["call", "session_start", "session_end", "state", "other"] {
            metrics.agent_session_events.with_label_values(&[kind]);
        }
        if let Some(own) = page.own().and_then(|own| own.parse().ok()) {
            metrics.meet(&own);
        }
        metrics
    }

    /// Starts what is counted of a tenant at zero, so that a rate is right from its first call on.
    pub fn meet(&self, tenant: &TenantId) {
        self.flow.meet(tenant);
        self.nice.meet(tenant);
        for freshness in FRESHNESS {
            self.calls_ready.of(tenant.as_str(), &[freshness]);
        }
        self.recordings_missing.of(tenant.as_str(), &[]);
        self.recordings_late.of(tenant.as_str(), &[]);
    }

    /// Counts a call that is ready so long after its end. One that is `fresh` by intention counts towards the goal.
    pub fn call_ready(&self, tenant: &TenantId, after: f64, fresh: bool) {
        self.end_to_ready.observe(after);
        self.flow.call_finished(tenant.as_str(), "ready");
        if fresh {
            let [within, beyond] = FRESHNESS;
            let freshness = if after <= self.freshness_goal.get() { within } else { beyond };
            self.calls_ready.of(tenant.as_str(), &[freshness]).inc();
        }
    }

    /// Counts what a slice of a replay brought.
    pub fn replay_advanced(&self, kind: &str, slice: &Tallied) {
        let counted = [
            ("ready", slice.ready),
            ("no_recording", slice.no_recording),
            ("dead", slice.dead),
            ("excluded", slice.excluded),
            ("in_flight", slice.in_flight),
            ("missing", slice.missing),
            ("marked", slice.marked),
        ];
        for (verdict, count) in counted {
            self.replay_conversations.with_label_values(&[kind, verdict]).inc_by(count);
        }
    }

    /// Notes that a replay is done.
    pub fn replay_finished(&self, kind: &str, at: Timestamp, missing: u64, doubtful: u64) {
        self.replay_last_finished.with_label_values(&[kind]).set(at.as_millisecond() as f64 / 1e3);
        self.replay_last_missing.with_label_values(&[kind]).set(i64::try_from(missing).unwrap_or(i64::MAX));
        self.replay_last_doubtful.with_label_values(&[kind]).set(i64::try_from(doubtful).unwrap_or(i64::MAX));
    }

    /// The page that Prometheus reads (text format 0.0.4).
    pub fn render(&self) -> String {
        self.page.render()
    }

    /// The same page in the format OpenMetrics 1.0, with exemplars.
    pub fn render_open_metrics(&self) -> String {
        self.page.render_open_metrics()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn acme() -> TenantId {
        "acme".parse().unwrap()
    }

    #[test]
    fn the_page_tells_of_the_process() {
        assert!(Metrics::new().render().contains("process_resident_memory_bytes"));
    }

    #[test]
    fn in_open_metrics_each_family_has_a_name_of_its_own() {
        let page = Metrics::of(Some(&acme())).render_open_metrics();
        let families = || page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        assert_eq!(families().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), families().count(), "{page}");
        assert!(families().all(|(_, kind)| kind != "unknown"), "{page}");
    }

    #[test]
    fn a_producer_tells_of_its_tenant_and_a_consumer_of_whom_it_meets() {
        let producer = Metrics::of(Some(&acme())).render();
        for line in [
            "poll_watermark_timestamp_seconds{tenant=\"acme\"} 0",
            "calls_finished_total{result=\"dead\",tenant=\"acme\"} 0",
        ] {
            assert!(producer.contains(&format!("nice_knovvu_{line}\n")), "{producer}");
        }
        let consumer = Metrics::new();
        assert!(!consumer.render().contains("acme"));
        assert!(!consumer.render().contains("poll_watermark"));
        consumer.meet(&acme());
        assert!(consumer.render().contains("calls_finished_total{result=\"ready\",tenant=\"acme\"} 0\n"));
    }

    #[test]
    fn a_call_is_within_the_goal_or_beyond_it_and_an_old_one_is_neither() {
        let metrics = Metrics::new();
        metrics.freshness_goal.set(3_600.0);
        for (after, fresh) in [(60.0, true), (3_600.0, true), (3_601.0, true), (90_000.0, false)] {
            metrics.call_ready(&acme(), after, fresh);
        }
        let ready = |freshness| metrics.calls_ready.of("acme", &[freshness]).get();
        assert_eq!((ready("within_goal"), ready("beyond_goal")), (2, 1));
        assert_eq!(metrics.flow.calls_finished.of("acme", &["ready"]).get(), 4);
        assert_eq!(metrics.end_to_ready.count(), 4);
    }
}
