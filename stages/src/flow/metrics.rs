//! Every metric of the project, on one page.
//!
//! Labels come from enums and constants; no id of a call, an agent or a person is ever a label.

use std::time::Duration;

use jiff::Timestamp;
use model::{ApiFamily, QuotaClass};
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, exponential_buckets,
};

use crate::clients::{
    catalog::{RunKind, Tallied},
    nice::wire::playback,
    quota::Usage,
};

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

/// All metrics, registered once and shared by every part.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Items that a stage has finished with, by outcome.
    pub stage_items: IntCounterVec,
    /// Time that a stage took for one item.
    pub stage_duration: HistogramVec,
    /// Items that a stage is working on now.
    pub stage_in_flight: IntGaugeVec,
    /// Time that items waited because the next stage was full.
    pub stage_wait: prometheus::CounterVec,
    /// Items that needed no further work, by reason.
    pub conversations_done: IntCounterVec,
    /// Messages on the queue, by lane: live, backfill, delayed, in_flight.
    pub queue_backlog: IntGaugeVec,
    /// 1 while the broker takes no messages because it is short of memory or disk.
    pub queue_connection_blocked: IntGauge,
    /// Connections to the broker that were made again after they were lost.
    pub queue_reconnects: IntCounter,
    /// Age of the oldest conversation that is due on the queue.
    pub freshness_lag: prometheus::Gauge,
    /// Time from the end of a call until it is ready for analysis.
    pub end_to_ready: Histogram,
    /// Requests to NICE by endpoint and answer.
    pub nice_requests: IntCounterVec,
    /// Time until NICE's answer was whole.
    pub nice_request_duration: HistogramVec,
    /// Tokens that were requested from NICE.
    pub token_renewals: IntCounter,
    /// Lines of the log that nobody read in time.
    pub log_lines_dropped: IntCounter,
    /// Bytes of recordings stored whole.
    pub recording_bytes: IntCounter,
    /// Downloads that broke and were resumed or begun again.
    pub recording_resumes: IntCounter,
    /// Requests to the recording store that failed and were sent again in place, by operation.
    pub recording_store_retries: IntCounterVec,
    /// Recordings that were read back and compared with their rows, by what was found.
    pub recordings_verified: IntCounterVec,
    /// Dead letters written, by stage.
    pub dead_letters: IntCounterVec,
    /// Dead letters on the shelf now.
    pub dead_letters_shelved: IntGauge,
    /// Dead letters that went back to the queue by themselves.
    pub dead_letters_replayed: IntCounter,
    /// Dead letters that stood for too long.
    pub dead_letters_dropped: IntCounter,
    /// Entries of the analysis queue by state.
    pub analysis_entries: IntGaugeVec,
    /// Webhook requests by status.
    pub webhook_requests: IntCounterVec,
    /// The agents of the group by state: active, inactive.
    pub agents: IntGaugeVec,
    /// Agents that a held reading would take from the group, hidden ones among them; 0 when none is held.
    pub agents_held: IntGauge,
    /// When the group was last read whole (Unix time).
    pub agents_last_sync: prometheus::Gauge,
    /// Whether NICE's list did not add up at the poll's last listing.
    pub poll_list_doubtful: IntGauge,
    /// When the poll last read NICE's list whole, or its turn began (Unix time).
    pub poll_last_listing: prometheus::Gauge,
    /// The watermark of the poll (Unix time): everything before it is found and committed.
    pub poll_watermark: prometheus::Gauge,
    /// Ids in the processed-id log.
    pub processed_ids: IntGauge,
    /// Whether a system works that every call needs: when it was last asked, and for those who use it.
    pub outside_system_up: IntGaugeVec,
    /// Whether a tenant's NICE, and the host of its recordings, work for its calls.
    pub tenant_system_up: IntGaugeVec,
    /// Bytes that are free on the disk of the local state.
    pub state_disk_free_bytes: IntGauge,
    /// Bytes of the local state on disk.
    pub state_disk_bytes: IntGauge,
    /// Stores that did not open and were set aside since the start.
    pub state_set_aside: IntCounter,
    /// Whether this process is the tenant's producer: 1, or 0 while it waits for the lease.
    pub producer_lease_held: IntGauge,
    /// Turns of this process that ended because another producer's had begun.
    pub producer_turns_refused: IntCounter,
    /// Conversations that replays have compared, by kind (reconciliation, backfill) and what became of them.
    pub replay_conversations: IntCounterVec,
    /// When a run of the kind was last finished (Unix time).
    pub replay_last_finished: GaugeVec,
    /// Pieces of NICE's list that did not add up in the last finished run of the kind.
    pub replay_last_doubtful: IntGaugeVec,
    /// What the last finished run of the kind found missing.
    pub replay_last_missing: IntGaugeVec,
    /// Calls of backfills under way that are not on the queue yet.
    pub backfill_remaining: IntGauge,
    /// The agents whose sessions are listened to by state: joined, absent.
    pub agent_sessions: IntGaugeVec,
    /// Events of agents' sessions by type.
    pub agent_session_events: IntCounterVec,
    /// Looks for a recording, by what they found.
    pub recording_looks: IntCounterVec,
    /// Interactions that were passed over in the answers about recordings, by media type.
    pub interactions_skipped: IntCounterVec,
    /// Recordings that NICE named and did not give when their conversation was made ready.
    pub recordings_missing: IntCounter,
    /// Recordings that came to a conversation after it was final.
    pub recordings_late: IntCounter,
    /// The learned time from the end of a call until the first look for its recording.
    pub recording_first_look: prometheus::Gauge,
    /// Conversations erased for good, by reason: operator, retention.
    pub conversations_erased: IntCounterVec,
    /// Erasures that are looked at again until nothing of the conversation can appear any more.
    pub erasures_pending: IntGauge,
    /// When all that is beyond the retention of its tenant was last erased (Unix time).
    pub retention_last_sweep: prometheus::Gauge,
    /// Requests that the tenant's rate budget admitted, by API family and class.
    pub quota_requests: IntCounterVec,
    /// Time spent waiting for the tenant's rate budget, by API family and class.
    pub quota_wait: prometheus::CounterVec,
    /// Requests that the budget admitted and NICE refused (429), by API family.
    pub quota_refusals: IntCounterVec,
    /// The most requests in a window at present, by API family.
    pub quota_limit: GaugeVec,
    /// Requests of the present window, by API family.
    pub quota_used: GaugeVec,
    /// Until a budget is back at its full pace.
    pub quota_full_pace: GaugeVec,
    /// Why a budget's limit is where it is, one word of several.
    pub quota_pace: IntGaugeVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric; series that can be known beforehand start at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let page = Page { registry: &registry };
        let seconds = exponential_buckets(0.005, 2.5, 12).expect("constants are in range");
        let long = exponential_buckets(1.0, 2.5, 13).expect("constants are in range");
        let metrics = Self {
            stage_items: page.counters(
                "stage_items_total",
                "Items that a stage has finished with, by outcome.",
                &["stage", "outcome"],
            ),
            stage_duration: page.histograms(
                "stage_duration_seconds",
                "Time that a stage took for one item.",
                &["stage"],
                seconds.clone(),
            ),
            stage_in_flight: page.gauges("stage_in_flight", "Items that a stage is working on now.", &["stage"]),
            stage_wait: page.float_counters(
                "stage_wait_seconds_total",
                "Time that items waited because the next stage was full.",
                &["stage"],
            ),
            conversations_done: page.counters(
                "conversations_done_total",
                "Items that needed no further work, by reason.",
                &["reason"],
            ),
            queue_backlog: page.gauges("queue_backlog_messages", "Messages on the queue, by lane.", &["lane"]),
            queue_connection_blocked: page.gauge(
                "queue_connection_blocked",
                "1 while the broker takes no messages because it is short of memory or disk.",
            ),
            queue_reconnects: page.counter("queue_reconnects_total", "Connections to the broker that were made again."),
            freshness_lag: page.float_gauge(
                "freshness_lag_seconds",
                "Age, since its call ended or its wait for NICE was over, of the oldest conversation that is due.",
            ),
            end_to_ready: page.histogram(
                "call_end_to_ready_seconds",
                "Time from the end of a call until it is ready for analysis.",
                long,
            ),
            nice_requests: page.counters(
                "nice_requests_total",
                "Requests to NICE by endpoint and answer (a status, or why there was none).",
                &["endpoint", "status"],
            ),
            nice_request_duration: page.histograms(
                "nice_request_duration_seconds",
                "Time until NICE's answer was whole.",
                &["endpoint"],
                seconds,
            ),
            log_lines_dropped: page.counter(
                "log_lines_dropped_total",
                "Lines of the log that were lost, since whoever reads stderr stood still.",
            ),
            token_renewals: page.counter("nice_token_renewals_total", "Tokens that were requested from NICE."),
            recording_bytes: page.counter("recording_stored_bytes_total", "Bytes of recordings stored whole."),
            recording_resumes: page
                .counter("recording_resumes_total", "Downloads that broke and were resumed or begun again."),
            recording_store_retries: page.counters(
                "recording_store_retries_total",
                "Requests to the recording store that failed and were sent again in place, by operation.",
                &["operation"],
            ),
            recordings_verified: page.counters(
                "recordings_verified_total",
                "Recordings that were read back and compared with their rows, by result: same, or how they differ.",
                &["result"],
            ),
            dead_letters: page.counters("dead_letters_total", "Dead letters written, by stage.", &["stage"]),
            dead_letters_shelved: page.gauge("dead_letters_shelved", "Dead letters on the shelf now."),
            dead_letters_replayed: page.counter(
                "dead_letters_replayed_total",
                "Dead letters of passing causes that went back to the queue by themselves.",
            ),
            dead_letters_dropped: page
                .counter("dead_letters_dropped_total", "Dead letters dropped because they stood for too long."),
            analysis_entries: page.gauges(
                "analysis_entries",
                "Entries of the analysis queue by state: waiting, claimed, failed (on the shelf); each counted up to 10,000.",
                &["state"],
            ),
            webhook_requests: page.counters("webhook_requests_total", "Webhook requests by status.", &["status"]),
            agents: page.gauges("agents", "The agents of the group by state.", &["state"]),
            agents_held: page.gauge(
                "agents_held",
                "Agents that a reading of the group would take from it which is held, hidden ones among them; 0 when \
                 none is held.",
            ),
            agents_last_sync: page
                .float_gauge("agents_last_sync_timestamp_seconds", "When the group was last read whole (Unix time)."),
            poll_list_doubtful: page
                .gauge("poll_list_doubtful", "1 where NICE's list did not add up at the poll's last listing."),
            poll_last_listing: page.float_gauge(
                "poll_last_listing_timestamp_seconds",
                "When the poll last read NICE's list of completed calls whole, or its turn began (Unix time).",
            ),
            poll_watermark: page.float_gauge(
                "poll_watermark_timestamp_seconds",
                "Everything that NICE changed before this time is found and committed (Unix time).",
            ),
            processed_ids: page.gauge("processed_ids", "Ids in the processed-id log."),
            outside_system_up: page.gauges(
                "outside_system_up",
                "1 while the system works that every call needs: queue (the broker), catalog (the database), \
                 recording_store.",
                &["system"],
            ),
            tenant_system_up: page.gauges(
                "tenant_system_up",
                "0 while a tenant's nice or media_host fails for many of its calls.",
                &["system", "tenant"],
            ),
            state_disk_free_bytes: page
                .gauge("state_disk_free_bytes", "Bytes that are free on the disk of the local state."),
            state_disk_bytes: page.gauge("state_disk_bytes", "Bytes of the local state on disk."),
            state_set_aside: page
                .counter("state_set_aside_total", "Stores that did not open and were set aside since the start."),
            producer_lease_held: page
                .gauge("producer_lease_held", "1 while this process is the tenant's producer, 0 while it waits."),
            producer_turns_refused: page.counter(
                "producer_turns_refused_total",
                "Turns of this process that ended because another producer's had begun.",
            ),
            replay_conversations: page.counters(
                "replay_conversations_total",
                "Conversations that replays have compared with the catalog, by what became of them.",
                &["kind", "verdict"],
            ),
            replay_last_finished: page.float_gauges(
                "replay_last_finished_timestamp_seconds",
                "When a run of the kind was last finished (Unix time).",
                &["kind"],
            ),
            replay_last_doubtful: page.gauges(
                "replay_last_doubtful",
                "Pieces of NICE's list that did not add up in the last finished run of the kind.",
                &["kind"],
            ),
            replay_last_missing: page.gauges(
                "replay_last_missing",
                "What the last finished run of the kind found missing.",
                &["kind"],
            ),
            backfill_remaining: page.gauge(
                "backfill_remaining_conversations",
                "Calls of backfills under way that are not on the queue yet.",
            ),
            agent_sessions: page.gauges(
                "agent_sessions",
                "Agents whose session is listened to (state=joined), and who are not logged in or wait (state=absent).",
                &["state"],
            ),
            agent_session_events: page.counters(
                "agent_session_events_total",
                "Events of agents' sessions by type.",
                &["type"],
            ),
            recording_looks: page.counters(
                "recording_looks_total",
                "Looks for a conversation's recording at NICE, by what they found: there, not_ready, given_up.",
                &["found"],
            ),
            interactions_skipped: page.counters(
                "interactions_skipped_total",
                "Interactions that were passed over in NICE's answers about recordings, at every look, by media type.",
                &["type"],
            ),
            recordings_missing: page.counter(
                "recordings_missing_total",
                "Recordings that NICE named and did not give when their conversation was made ready without them.",
            ),
            recordings_late: page.counter(
                "recordings_late_total",
                "Recordings that a recheck brought in after their conversation was final.",
            ),
            recording_first_look: page.float_gauge(
                "recording_first_look_seconds",
                "The learned time from the end of a call until the first look for its recording; of several tenants, \
                 the longest.",
            ),
            conversations_erased: page.counters(
                "conversations_erased_total",
                "Conversations erased for good, by reason.",
                &["reason"],
            ),
            erasures_pending: page.gauge(
                "erasures_pending",
                "Erasures that are looked at again until nothing of the conversation can appear any more.",
            ),
            retention_last_sweep: page.float_gauge(
                "retention_last_sweep_timestamp_seconds",
                "When all that is beyond the retention of its tenant was last erased (Unix time).",
            ),
            quota_requests: page.counters(
                "nice_quota_requests_total",
                "Requests that the tenant's rate budget admitted, by API family and class.",
                &["family", "class"],
            ),
            quota_wait: page.float_counters(
                "nice_quota_wait_seconds_total",
                "Time spent waiting for the tenant's rate budget, by API family and class.",
                &["family", "class"],
            ),
            quota_refusals: page.counters(
                "nice_quota_refusals_total",
                "Requests that the budget admitted and NICE refused (429), by API family.",
                &["family"],
            ),
            quota_limit: page.float_gauges(
                "nice_quota_limit",
                "The most requests in a window at present: the limit of the settings, or less after a 429.",
                &["family"],
            ),
            quota_used: page.float_gauges("nice_quota_used", "Requests of the present window.", &["family"]),
            quota_full_pace: page.float_gauges(
                "nice_quota_full_pace_in_seconds",
                "Until the limit is that of the settings again, if NICE refuses nothing more; 0 at full pace.",
                &["family"],
            ),
            quota_pace: page.gauges(
                "nice_quota_pace",
                "1 at the word that says why the limit is where it is: full_pace, paused (NICE refused a request, nothing \
                 is sent) or recovering (NICE refused some, the limit grows back).",
                &["family", "pace"],
            ),
            registry: registry.clone(),
        };
        metrics.start_at_zero();
        #[cfg(target_os = "linux")]
        page.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        metrics
    }

    fn start_at_zero(&self) {
        for kind in RunKind::ALL {
            self.replay_advanced(kind.as_str(), &Tallied::default());
        }
        for stage in STAGES {
            for outcome in OUTCOMES {
                self.stage_items.with_label_values(&[stage, outcome]);
            }
            self.stage_duration.with_label_values(&[stage]);
            self.stage_in_flight.with_label_values(&[stage]);
            self.stage_wait.with_label_values(&[stage]);
            self.dead_letters.with_label_values(&[stage]);
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
            self.conversations_done.with_label_values(&[reason]);
        }
        for found in ["there", "not_ready", "given_up"] {
            self.recording_looks.with_label_values(&[found]);
        }
        for kind in playback::TYPES.into_iter().filter(|kind| !kind.starts_with("voice")).chain([playback::OTHER]) {
            self.interactions_skipped.with_label_values(&[kind]);
        }
        for lane in ["live", "backfill", "delayed", "in_flight"] {
            self.queue_backlog.with_label_values(&[lane]);
        }
        for status in ["202", "400", "401", "408", "413", "503"] {
            self.webhook_requests.with_label_values(&[status]);
        }
        for family in [ApiFamily::Acd, ApiFamily::MediaPlayback].map(ApiFamily::as_str) {
            self.quota_refusals.with_label_values(&[family]);
            for class in QuotaClass::ALL.map(QuotaClass::as_str) {
                self.quota_requests.with_label_values(&[family, class]);
                self.quota_wait.with_label_values(&[family, class]);
            }
        }
        // The usual one; a store that knows more starts them itself.
        self.recording_store_retries.with_label_values(&["put"]);
        for reason in ["operator", "retention"] {
            self.conversations_erased.with_label_values(&[reason]);
        }
        for state in ["waiting", "claimed", "failed"] {
            self.analysis_entries.with_label_values(&[state]);
        }
        for result in ["same", "missing", "length", "sha256"] {
            self.recordings_verified.with_label_values(&[result]);
        }
        for state in ["active", "inactive"] {
            self.agents.with_label_values(&[state]);
        }
        for state in ["joined", "absent"] {
            self.agent_sessions.with_label_values(&[state]);
        }
        for kind in ["call", "session_start", "session_end", "state", "other"] {
            self.agent_session_events.with_label_values(&[kind]);
        }
    }

    /// Counts an item that `stage` has finished with.
    pub fn stage_finished(&self, stage: &str, outcome: &str, took: Duration) {
        self.stage_items.with_label_values(&[stage, outcome]).inc();
        self.stage_duration.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// Counts a request to NICE.
    pub fn nice_request(&self, endpoint: &str, status: &str, took: Duration) {
        self.nice_requests.with_label_values(&[endpoint, status]).inc();
        self.nice_request_duration.with_label_values(&[endpoint]).observe(took.as_secs_f64());
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

    /// Counts a wish to send a request to NICE, and how long it waited.
    pub fn quota_asked(&self, family: &str, class: &str, waited: Duration, admitted: bool) {
        self.quota_wait.with_label_values(&[family, class]).inc_by(waited.as_secs_f64());
        self.quota_requests.with_label_values(&[family, class]).inc_by(u64::from(admitted));
    }

    /// Shows how a rate budget stands.
    pub fn show_quota(&self, family: &str, usage: &Usage) {
        self.quota_limit.with_label_values(&[family]).set(f64::from(usage.limit_now));
        self.quota_used.with_label_values(&[family]).set(f64::from(usage.used()));
        let full_pace_in = usage.refused.map_or(0.0, |refused| refused.full_pace_in.as_secs_f64());
        self.quota_full_pace.with_label_values(&[family]).set(full_pace_in);
        for pace in Usage::PACES {
            self.quota_pace.with_label_values(&[family, pace]).set(i64::from(pace == usage.pace()));
        }
    }

    /// The page that Prometheus reads (text format 0.0.4).
    pub fn render(&self) -> String {
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            Ok(()) => String::from_utf8(page).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "metrics could not be written");
                String::new()
            }
        }
    }
}

/// Makes and registers; names are constants of this page, so a clash is a mistake found by the first test.
struct Page<'a> {
    registry: &'a Registry,
}

impl Page<'_> {
    fn register(&self, collector: Box<dyn prometheus::core::Collector>) {
        self.registry.register(collector).expect("each metric is registered once");
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let metric = IntCounter::new(name, help).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::CounterVec {
        let metric = prometheus::CounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let metric = IntGauge::new(name, help).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn float_gauge(&self, name: &str, help: &str) -> prometheus::Gauge {
        let metric = prometheus::Gauge::new(name, help).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let metric = GaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
        let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect("a valid name");
        self.register(Box::new(metric.clone()));
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_series_start_at_zero() {
        let page = Metrics::new().render();
        for stage in STAGES {
            assert!(page.contains(&format!("stage_items_total{{outcome=\"ok\",stage=\"{stage}\"}} 0")), "{page}");
        }
        assert!(page.contains("process_resident_memory_bytes"));
    }
}
