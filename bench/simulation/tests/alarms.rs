//! The alerts of a run: what is recorded fires as it would on a real installation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};
use simulation::alarms::{AlarmRecorder, Firing, Target};
use stages::metrics::Metrics;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The beginning of each run but one.
fn monday() -> Timestamp {
    "2026-01-05T00:00:00Z".parse().unwrap()
}

/// The moment that many minutes after it.
fn minute(minutes: i64) -> Timestamp {
    monday() + MINUTE * i32::try_from(minutes).unwrap()
}

/// A tenant's producer, its stand-by, and a consumer, each with the metrics that it has when all is well.
struct Installation {
    recorder: AlarmRecorder,
    producer: (Target, Metrics),
    waiting: (Target, Metrics),
    consumer: (Target, Metrics),
}

impl Installation {
    fn new() -> Self {
        let mut recorder = AlarmRecorder::new(MINUTE).unwrap();
        let acme = "acme".parse().unwrap();
        let producer = (Target::new("producer-1"), Metrics::of(Some(&acme)));
        let waiting = (Target::new("producer-2"), Metrics::of(Some(&acme)));
        let consumer = (Target::new("consumer-1"), Metrics::new());
        for (target, metrics) in [&producer, &waiting, &consumer] {
            recorder.started(target, monday());
            for system in ["queue", "catalog", "recording_store"] {
                metrics.flow.outside_system_up.with_label_values(&[system]).set(1);
            }
            metrics.state_disk_free_bytes.set(Some(1e11));
        }
        producer.1.producer_lease_held.set(1);
        Self { recorder, producer, waiting, consumer }
    }

    /// A minute in which all do their work.
    fn work(&self, at: Timestamp) {
        let (producer, consumer) = (&self.producer.1, &self.consumer.1);
        let now = at.as_millisecond() as f64 / 1e3;
        producer.poll_last_listing.set(now);
        producer.poll_watermark.set(now);
        producer.agents_last_sync.set(now);
        if at.as_second() % 86_400 == 2 * 3_600 {
            producer.replay_finished("reconciliation", at, 0, 0);
        }
        for stage in ["source", "dedupe", "enqueue"] {
            producer.flow.stage_finished(stage, "ok", Duration::from_millis(3));
        }
        for stage in ["dequeue", "fetch_metadata", "download_recording", "persist", "upload"] {
            consumer.flow.stage_finished(stage, "ok", Duration::from_millis(30));
        }
        producer.nice.answered("completed-contacts", "200", Duration::from_millis(80));
        consumer.nice.answered("playback-contact", "200", Duration::from_millis(80));
        // One recording in six is not there at the first look.
        if at.as_second() % 360 == 0 {
            consumer.nice.answered("playback-contact", "404", Duration::from_millis(80));
            consumer.flow.stage_finished("await_recording", "not_ready", Duration::from_millis(90));
        }
        consumer.queue.backlog.with_label_values(&["live"]).set(2);
    }

    /// All three answer.
    fn scrape(&mut self, at: Timestamp) {
        for (target, metrics) in [&self.producer, &self.waiting, &self.consumer] {
            self.recorder.scrape(target, at, &metrics.render()).unwrap();
        }
    }

    /// Lives through minutes in which nothing else happens.
    fn live(&mut self, minutes: std::ops::Range<i64>) {
        for at in minutes.map(minute) {
            self.work(at);
            self.scrape(at);
        }
    }

    fn firing(self) -> Vec<Firing> {
        self.recorder.firing().unwrap()
    }
}

/// What the test expects to have fired; the labels beside.
fn firing(alert: &str, labels: &[(&str, &str)], from: i64, to: Option<i64>) -> Firing {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Firing { alert: alert.to_owned(), labels, from: minute(from), to: to.map(minute) }
}

const CRITICAL: (&str, &str) = ("severity", "critical");
const WARNING: (&str, &str) = ("severity", "warning");

#[test]
fn a_quiet_week_raises_no_alert() {
    let mut installation = Installation::new();
    // Every other minute is enough for the rules, and a page takes a while to write.
    for at in (0..7 * 24 * 60).step_by(2).map(minute) {
        installation.work(at);
        installation.scrape(at);
    }
    assert_eq!(installation.firing(), []);
}

#[test]
fn a_system_that_is_away_for_an_hour_raises_its_alert_until_it_is_back() {
    let mut installation = Installation::new();
    installation.live(0..60);
    let catalog = installation.consumer.1.flow.outside_system_up.with_label_values(&["catalog"]);
    catalog.set(0);
    installation.live(60..120);
    catalog.set(1);
    installation.live(120..180);

    let labels = [CRITICAL, ("job", "nice-knovvu"), ("instance", "consumer-1"), ("system", "catalog")];
    assert_eq!(installation.firing(), [firing("OutsideSystemAway", &labels, 62, Some(120))]);
}

#[test]
fn what_a_dead_process_said_last_does_not_hide_that_it_is_dead() {
    let mut installation = Installation::new();
    installation.live(0..30);
    for at in (30..60).map(minute) {
        installation.work(at);
        let Installation { recorder, producer, waiting, consumer } = &mut installation;
        recorder.scrape_failed(&producer.0, at).unwrap();
        recorder.scrape(&waiting.0, at, &waiting.1.render()).unwrap();
        recorder.scrape(&consumer.0, at, &consumer.1.render()).unwrap();
    }

    let down = [CRITICAL, ("job", "nice-knovvu"), ("instance", "producer-1")];
    // Nobody has the lease from the first minute on, not only when Prometheus would have forgotten the dead holder.
    let nobody = [CRITICAL, ("tenant", "acme")];
    // The other has never read NICE's list.
    let asks = [CRITICAL];
    let expected = [
        firing("NobodyProduces", &nobody, 32, None),
        firing("ProcessDown", &down, 32, None),
        firing("NobodyAsksNice", &asks, 45, None),
    ];
    assert_eq!(installation.firing(), expected);
}

#[test]
fn a_process_that_begins_again_and_again_raises_an_alert_and_the_simulating_one_says_nothing() {
    let mut installation = Installation::new();
    for began in 0..5 {
        installation.recorder.started(&installation.consumer.0, minute(began * 5));
        installation.live(began * 5..began * 5 + 5);
    }
    installation.live(25..120);

    let labels = [WARNING, ("job", "nice-knovvu"), ("instance", "consumer-1")];
    assert_eq!(installation.firing(), [firing("ProcessRestartsOften", &labels, 20, Some(65))]);
}

#[test]
fn a_target_that_was_taken_away_is_not_missed() {
    let mut installation = Installation::new();
    installation.live(0..10);
    let Installation { recorder, waiting, .. } = &mut installation;
    recorder.scrape_failed(&waiting.0, minute(10)).unwrap();
    recorder.removed(&waiting.0, minute(11)).unwrap();
    let (_, metrics) = &installation.waiting;
    metrics.producer_lease_held.set(0);
    for at in (11..60).map(minute) {
        installation.work(at);
        let Installation { recorder, producer, consumer, .. } = &mut installation;
        recorder.scrape(&producer.0, at, &producer.1.render()).unwrap();
        recorder.scrape(&consumer.0, at, &consumer.1.render()).unwrap();
    }
    assert_eq!(installation.firing(), []);
}

#[test]
fn a_label_of_the_page_gives_way_to_the_targets() {
    let mut recorder = AlarmRecorder::new(MINUTE).unwrap();
    let target = Target::new("producer-1");
    for at in (0..4).map(minute) {
        let page = "nice_knovvu_tenant_system_up{instance=\"beta\",system=\"nice\"} 0\n\
                    nice_knovvu_poll_last_listing_timestamp_seconds 1\n";
        recorder.scrape(&target, at, page).unwrap();
    }
    let labels = [
        CRITICAL,
        ("job", "nice-knovvu"),
        ("instance", "producer-1"),
        ("exported_instance", "beta"),
        ("system", "nice"),
    ];
    assert_eq!(recorder.firing().unwrap(), [firing("TenantSystemFails", &labels, 2, None)]);
}

#[test]
fn pages_out_of_order_and_pages_that_are_none_are_refused() {
    let mut recorder = AlarmRecorder::new(MINUTE).unwrap();
    let target = Target::new("consumer-1");
    recorder.scrape(&target, minute(1), "").unwrap();
    for at in [0, 1] {
        let error = recorder.scrape_failed(&target, minute(at)).unwrap_err().to_string();
        assert!(error.contains("in the order of time"), "{error}");
    }
    let error = recorder.scrape(&target, minute(2), "<html>").unwrap_err().to_string();
    assert!(error.contains("not in Prometheus' text format"), "{error}");
}

/// Series that come, go, rise, fall, and break off, all from the seed, handed over minute by minute to the recorder
/// and, as a test of rules, to promtool, which judges by the rules and by the engine of Prometheus alone.
#[test]
fn promtool_sees_the_same_alerts_at_each_minute() {
    const MINUTES: usize = 240;
    let mut chance = StdRng::seed_from_u64(7);
    let mut recorder = AlarmRecorder::new(MINUTE).unwrap();
    let mut series: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let targets = [
        (Target::new("p"), r#"instance="p",job="nice-knovvu""#),
        (Target::new("q"), r#"instance="q",job="nice-knovvu""#),
        (Target::new("c"), r#"instance="c",job="nice-knovvu""#),
    ];
    let mut worlds: Vec<_> = targets.iter().map(|_| Erratic::default()).collect();
    for number in 0..MINUTES {
        let at = Timestamp::UNIX_EPOCH + MINUTE * i32::try_from(number).unwrap();
        for ((target, labels), world) in targets.iter().zip(&mut worlds) {
            let samples = world.minute(&mut chance);
            let up = samples.is_some();
            let mut page = String::new();
            let mut now = vec![(format!("up{{{labels}}}"), f64::from(u8::from(up)))];
            for (name, own, value) in samples.into_iter().flatten() {
                writeln!(page, "{name}{{{own}}} {value}").unwrap();
                now.push((format!("{name}{{{own},{labels}}}").replace("{,", "{"), value));
            }
            for (name, value) in now {
                let values = series.entry(name).or_default();
                values.resize(number, None);
                values.push(Some(value));
            }
            let taken = if up { recorder.scrape(target, at, &page) } else { recorder.scrape_failed(target, at) };
            taken.unwrap();
        }
    }
    let fired = recorder.firing().unwrap();
    let names: std::collections::BTreeSet<_> = fired.iter().map(|firing| firing.alert.as_str()).collect();
    assert!(names.len() >= 15, "too few alerts to compare: {names:?}");
    judge(&series, &fired, MINUTES);
}

/// A process whose metrics do what they like.
#[derive(Default)]
struct Erratic {
    away: usize,
    counters: BTreeMap<usize, f64>,
    modes: BTreeMap<usize, u8>,
}

/// What an erratic process shows: those that count, and those that go up and down.
const COUNTERS: [(&str, &str); 17] = [
    ("nice_knovvu_stage_items_total", r#"stage="dequeue",outcome="ok""#),
    ("nice_knovvu_stage_items_total", r#"stage="upload",outcome="ok""#),
    ("nice_knovvu_stage_items_total", r#"stage="upload",outcome="retry""#),
    ("nice_knovvu_recording_store_retries_total", r#"operation="put""#),
    ("nice_knovvu_recordings_verified_total", r#"result="length""#),
    ("nice_knovvu_dead_letters_total", r#"stage="persist""#),
    ("nice_knovvu_nice_answers_total", r#"answer="ok",tenant="acme""#),
    ("nice_knovvu_nice_answers_total", r#"answer="refused",tenant="acme""#),
    ("nice_knovvu_nice_answers_total", r#"answer="throttled",tenant="acme""#),
    ("nice_knovvu_nice_answers_total", r#"answer="failed",tenant="acme""#),
    ("nice_knovvu_calls_ready_total", r#"freshness="within_goal",tenant="acme""#),
    ("nice_knovvu_calls_ready_total", r#"freshness="beyond_goal",tenant="acme""#),
    ("nice_knovvu_calls_finished_total", r#"result="ready",tenant="acme""#),
    ("nice_knovvu_calls_finished_total", r#"result="dead",tenant="acme""#),
    ("nice_knovvu_nice_quota_wait_seconds_total", r#"family="acd",class="live""#),
    ("nice_knovvu_webhook_requests_total", r#"status="400""#),
    ("nice_knovvu_queue_reconnects_total", ""),
];
const GAUGES: [(&str, &str, [f64; 2]); 14] = [
    ("nice_knovvu_producer_lease_held", r#"tenant="acme""#, [1.0, 0.0]),
    ("nice_knovvu_poll_last_listing_timestamp_seconds", r#"tenant="acme""#, [0.0, 60.0]),
    ("nice_knovvu_agents_last_sync_timestamp_seconds", r#"tenant="acme""#, [0.0, 60.0]),
    ("nice_knovvu_agents_held", r#"tenant="acme""#, [0.0, 7.0]),
    ("nice_knovvu_poll_list_doubtful", r#"tenant="acme""#, [0.0, 1.0]),
    ("nice_knovvu_freshness_lag_seconds", "", [3.0, 1_000.0]),
    ("nice_knovvu_queue_backlog_messages", r#"lane="live""#, [0.0, 4.0]),
    ("nice_knovvu_outside_system_up", r#"system="queue""#, [1.0, 0.0]),
    ("nice_knovvu_outside_system_up", r#"system="catalog""#, [1.0, 0.0]),
    ("nice_knovvu_queue_connection_blocked", "", [0.0, 1.0]),
    ("nice_knovvu_nice_quota_full_pace_in_seconds", r#"family="acd",tenant="acme""#, [0.0, 12.5]),
    ("nice_knovvu_nice_quota_used_requests", r#"class="live",family="acd",tenant="acme""#, [99.0, 10.0]),
    ("nice_knovvu_nice_quota_limit_now_requests", r#"family="acd",tenant="acme""#, [100.0, 90.0]),
    ("nice_knovvu_state_disk_free_bytes", "", [1e12, 0.0]),
];

impl Erratic {
    /// What its page shows; none where it does not answer.
    fn minute(&mut self, chance: &mut StdRng) -> Option<Vec<(&'static str, &'static str, f64)>> {
        if chance.random_bool(0.02) {
            self.away = chance.random_range(1..12);
            // It begins anew.
            self.counters.clear();
        }
        if self.away > 0 {
            self.away -= 1;
            return None;
        }
        let mut samples = Vec::new();
        for (number, (name, labels)) in COUNTERS.into_iter().enumerate() {
            let mode = self.mode(number, chance);
            let step = if mode.is_multiple_of(2) { 0.0 } else { f64::from(chance.random_range(0..20_u8)) };
            let value = self.counters.entry(number).or_default();
            *value += step;
            samples.extend((mode != 4).then_some((name, labels, *value)));
        }
        for (number, (name, labels, values)) in GAUGES.into_iter().enumerate() {
            let mode = self.mode(COUNTERS.len() + number, chance);
            samples.extend((mode != 4).then_some((name, labels, values[usize::from(mode % 2)])));
        }
        Some(samples)
    }

    /// Each series goes on as it does for some while: the modes 0 to 3, and 4, in which the page does not show it.
    fn mode(&mut self, number: usize, chance: &mut StdRng) -> u8 {
        let mode = self.modes.entry(number).or_default();
        if chance.random_bool(0.04) {
            *mode = chance.random_range(0..5);
        }
        *mode
    }
}

/// Has promtool say at each minute whether exactly these alerts fire.
fn judge(series: &BTreeMap<String, Vec<Option<f64>>>, fired: &[Firing], minutes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/alerts.yaml");
    let rules = std::fs::read_to_string(rules).unwrap();
    // A test of promtool would have to foretell the texts too.
    let is_text = |line: &&str| {
        ["annotations:", "summary:", "description:", "runbook_url:"].iter().any(|key| line.trim().starts_with(key))
    };
    let rules: Vec<_> = rules.lines().filter(|line| !is_text(line)).collect();
    std::fs::write(dir.path().join("alerts.yaml"), rules.join("\n")).unwrap();

    let mut test = String::from("rule_files: [alerts.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n");
    test += "  input_series:\n";
    for (name, values) in series {
        let mut values = values.clone();
        values.resize(minutes, None);
        // What is not shown any more is over.
        let values = values.iter().map(|value| value.map_or("stale".to_owned(), |value| value.to_string()));
        writeln!(test, "  - series: '{name}'\n    values: '{}'", values.collect::<Vec<_>>().join(" ")).unwrap();
    }
    test += "  alert_rule_test:\n";
    let alerts = rules.iter().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        for number in 0..minutes {
            let at = Timestamp::UNIX_EPOCH + MINUTE * i32::try_from(number).unwrap();
            let expected: Vec<_> = fired
                .iter()
                .filter(|firing| firing.alert == alert && firing.from <= at && firing.to.is_none_or(|to| at < to))
                .map(|firing| format!("{{ exp_labels: {} }}", serde_json::to_string(&firing.labels).unwrap()))
                .collect();
            let expected = expected.join(", ");
            writeln!(test, "  - {{ eval_time: {number}m, alertname: {alert}, exp_alerts: [{expected}] }}").unwrap();
        }
    }
    std::fs::write(dir.path().join("test.yaml"), test).unwrap();
    let judged = Command::new("promtool").current_dir(dir.path()).args(["test", "rules", "test.yaml"]).output();
    let judged = judged.expect("promtool runs: ./test installs it");
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "promtool sees others: {}", said.chars().take(4_000).collect::<String>());
}
