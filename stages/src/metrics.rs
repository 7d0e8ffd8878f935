//! Every metric of the project, on one page.

use catalog::{RunKind, Tallied};
use flow::FlowMetrics;
use jiff::Timestamp;
use nice::NiceMetrics;
use queue::QueueMetrics;
use quota::QuotaMetrics;
use recordings::StoreMetrics;
use runtime::{metrics, metrics::Page};

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
        webhook_requests: counters("webhook_requests_total", &["status"]),
        /// The agents of the group by state.
        agents: gauges("agents", &["state"]),
        /// While a reading of the group is held: agents that would leave if it were accepted, hidden ones included; else 0.
        agents_held: gauge("agents_held"),
        /// When the group was last read whole (Unix time).
        agents_last_sync: float_gauge("agents_last_sync_timestamp_seconds"),
        /// 1 where NICE's list did not add up at the poll's last listing.
        poll_list_doubtful: gauge("poll_list_doubtful"),
        /// When the poll last read NICE's list of completed calls whole, or its turn began (Unix time).
        poll_last_listing: float_gauge("poll_last_listing_timestamp_seconds"),
        /// Everything that NICE changed before this time is found and committed (Unix time).
        poll_watermark: float_gauge("poll_watermark_timestamp_seconds"),
        /// Ids in the processed-id log.
        processed_ids: gauge("processed_ids"),
        /// Bytes that are free on the disk of the local state.
        state_disk_free_bytes: gauge("state_disk_free_bytes"),
        /// Bytes of the local state on disk.
        state_disk_bytes: gauge("state_disk_bytes"),
        /// Stores that did not open and were set aside since the start.
        state_set_aside: counter("state_set_aside_total"),
        /// 1 while this process is the tenant's producer, 0 while it waits.
        producer_lease_held: gauge("producer_lease_held"),
        /// Turns of this process that ended because another producer's had begun.
        producer_turns_refused: counter("producer_turns_refused_total"),
        /// Conversations that replays have compared with the catalog, by what became of them.
        replay_conversations: counters("replay_conversations_total", &["kind", "verdict"]),
        /// When a run of the kind was last finished (Unix time).
        replay_last_finished: float_gauges("replay_last_finished_timestamp_seconds", &["kind"]),
        /// Pieces of NICE's list that did not add up in the last finished run of the kind.
        replay_last_doubtful: gauges("replay_last_doubtful", &["kind"]),
        /// What the last finished run of the kind found missing.
        replay_last_missing: gauges("replay_last_missing", &["kind"]),
        /// Calls of backfills under way that are not on the queue yet.
        backfill_remaining: gauge("backfill_remaining_conversations"),
        /// Agents whose session is listened to (state=joined), and who are not logged in or wait (state=absent).
        agent_sessions: gauges("agent_sessions", &["state"]),
        /// Events of agents' sessions by type.
        agent_session_events: counters("agent_session_events_total", &["type"]),
        /// Looks for a conversation's recording at NICE, by what they found: there, not_ready, given_up.
        recording_looks: counters("recording_looks_total", &["found"]),
        /// Recordings that NICE named and did not give when their conversation was made ready without them.
        recordings_missing: counter("recordings_missing_total"),
        /// Recordings that a recheck brought in after their conversation was final.
        recordings_late: counter("recordings_late_total"),
        /// The learned time from the end of a call until the first look for its recording; of several tenants, the
        /// longest.
        recording_first_look: float_gauge("recording_first_look_seconds"),
        /// Conversations erased for good, by reason.
        conversations_erased: counters("conversations_erased_total", &["reason"]),
        /// Erasures that are looked at again until nothing of the conversation can appear any more.
        erasures_pending: gauge("erasures_pending"),
        /// When all that is beyond the retention of its tenant was last erased (Unix time).
        retention_last_sweep: float_gauge("retention_last_sweep_timestamp_seconds"),
    }
}

impl Metrics {
    /// Every metric, on a page of its own.
    pub fn new() -> Self {
        Self::default()
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
        metrics
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_the_process() {
        assert!(Metrics::new().render().contains("process_resident_memory_bytes"));
    }
}
