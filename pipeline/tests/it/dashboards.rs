//! The dashboards and alerts against a real Prometheus that reads the real daemon.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bed, Daemon, Ended, PATIENCE, http_client, hurried, tail};

/// The directory of the dashboards.
fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(file: &str) -> String {
    let path = dashboards().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_alerts_fire_when_they_shall_and_only_then() {
    promtool(&["check", "config", "prometheus.yaml"]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_and_alerts_ask_for_what_the_daemon_exports_and_a_healthy_one_raises_no_alert() {
    let mut config = hurried(81, 20);
    config.day.never_recorded_share = 0.0;
    let bed = Bed::new(config).await;
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert_eq!(bed.ended(&["reconcile"]).code, Some(0));
    let (_, page) = daemon.get("/metrics").await.expect("the daemon answers");
    lint(&bed, &page);
    let prometheus = Prometheus::reading(&mut daemon).await;

    let exported = exported(&page);
    for expression in panels() {
        assert_exported(&expression, &exported);
        // What Grafana fills in.
        prometheus.until(&expression.replace("$__rate_interval", "1m").replace("$instance", ".*"), Is::Shown).await;
    }
    let alerts = prometheus.alerts().await;
    assert!(!alerts.is_empty(), "the alerts are not read");
    for alert in &alerts {
        let expression = text(alert, "query");
        assert_exported(&expression, &exported);
        prometheus.until(&expression, Is::Empty).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_gone_raises_an_alert() {
    let bed = Bed::new(hurried(82, 0)).await;
    let mut daemon = bed.start();
    let prometheus = Prometheus::reading(&mut daemon).await;
    let alerts = prometheus.alerts().await;
    let down = alerts.iter().find(|alert| text(alert, "name") == "ProcessDown").expect("the alert exists");
    let expression = text(down, "query");
    prometheus.until(&expression, Is::Empty).await;
    daemon.kill();
    prometheus.until(&expression, Is::Shown).await;
}

#[test]
fn every_alert_has_its_page_in_the_runbook() {
    let alerts = read("alerts.yaml");
    let named: BTreeSet<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let readme = read("README.md");
    let pages: BTreeSet<_> = readme.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(named, pages, "alerts.yaml on the left, the headings of README.md on the right");
    for name in named {
        let link = format!("runbook: dashboards/README.md#{}", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} does not link to its page");
    }
}

/// Runs promtool among the dashboards; it must be content.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command.current_dir(dashboards()).args(arguments);
    let ended = Ended::of(command);
    assert_eq!(ended.code, Some(0), "promtool {arguments:?}: {}", ended.said());
}

/// The names and helps on the daemon's page follow Prometheus' conventions.
fn lint(bed: &Bed, page: &str) {
    let file = bed.dir.path().join("metrics");
    std::fs::write(&file, page).unwrap();
    let lint = Command::new("promtool").args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()).output();
    let lint = lint.expect("promtool runs");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stderr));
}

/// Every expression of every panel.
fn panels() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("overview.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<_> = targets.map(|target| text(target, "expr")).collect();
    assert!(expressions.len() >= 20, "panels are missing: {expressions:?}");
    expressions
}

/// Every name of a series on the daemon's page, and what Prometheus itself adds.
fn exported(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    names.chain(["up"]).map(str::to_owned).collect()
}

fn assert_exported(expression: &str, exported: &BTreeSet<String>) {
    for name in metrics_of(expression) {
        assert!(exported.contains(&name), "{name} is exported by nobody: {expression}");
    }
}

/// The metrics that an expression names: its words but for functions, keywords, and what stands in `{}`, `[]`, `""`
/// and in the label lists of `by`, `on` and the like.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if let Some(end) = matching(first) {
            rest = rest[1..].split_once(end).map_or("", |(_, after)| after);
            continue;
        }
        let length = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
        let (word, after) = rest.split_at(length.unwrap_or(rest.len()).max(first.len_utf8()));
        rest = after;
        let is_word = first.is_ascii_alphabetic() || first == '_';
        let is_called = ["(", "by ", "without "].iter().any(|next| after.trim_start().starts_with(next));
        if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&word) {
            rest = rest.trim_start().strip_prefix('(').and_then(|list| list.split_once(')')).map_or(rest, |(_, r)| r);
        } else if is_word && !["and", "or", "unless", "bool", "offset"].contains(&word) && !is_called {
            names.insert(word.to_owned());
        }
    }
    names
}

/// What ends a part of an expression that names no metric.
fn matching(first: char) -> Option<char> {
    match first {
        '{' => Some('}'),
        '[' => Some(']'),
        '"' => Some('"'),
        _ => None,
    }
}

#[test]
fn the_metrics_of_an_expression_are_its_names_only() {
    let names = |expression| metrics_of(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        names(r#"sum by (le, stage) (rate(a_total{b="c",d=~"e.."}[5m])) / on () group_left b > 0.5"#),
        ["a_total", "b"]
    );
    assert_eq!(names("time() - max(a_seconds > 1e3) and absent(b:c) or vector(0)"), ["a_seconds", "b:c"]);
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing: {value}")).to_owned()
}

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Shown,
    Empty,
}

/// A Prometheus of the test's own, with the repository's settings; ends with the test.
struct Prometheus {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it and waits until it has read the daemon often enough for a rate.
    async fn reading(daemon: &mut Daemon) -> Self {
        daemon.ready().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = settings(&daemon.admin_address());
        std::fs::write(dir.path().join("prometheus.yaml"), config).unwrap();
        std::fs::copy(dashboards().join("alerts.yaml"), dir.path().join("alerts.yaml")).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts: ./test installs it");
        let prometheus = Self { child, address, dir };
        prometheus.until(r#"min(sum_over_time(up{job="nice-knovvu"}[1m])) >= 3"#, Is::Shown).await;
        prometheus
    }

    /// Waits until an expression gives something, or nothing: a busy machine may miss a scrape.
    async fn until(&self, expression: &str, wanted: Is) {
        let begun = Instant::now();
        loop {
            // Nothing while it starts.
            let answer = self.get("query", &[("query", expression)]).await.unwrap_or_default();
            assert_ne!(answer["status"], "error", "{expression}: {answer}");
            match answer["data"]["result"].as_array() {
                Some(series) if series.is_empty() == (wanted == Is::Empty) => return,
                _ => {}
            }
            let log = tail(&self.dir.path().join("log"));
            assert!(begun.elapsed() < PATIENCE, "never {wanted:?}: {expression}\n{answer}\n{log}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Every alert as Prometheus understands it.
    async fn alerts(&self) -> Vec<Value> {
        let answer = self.get("rules", &[("type", "alert")]).await.expect("prometheus answers");
        let groups = answer["data"]["groups"].as_array().expect("groups of rules");
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
    }

    /// A question to its API; none while it does not answer.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = http_client().timeout(Duration::from_secs(10)).build().ok()?;
        let answer = client.get(format!("http://{}/api/v1/{path}", self.address)).query(query).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The repository's settings, with this target in place of each, and as often as a test can wait for.
fn settings(target: &str) -> String {
    let mut settings = read("prometheus.yaml").replace("interval: 15s", "interval: 1s");
    for usual in ["127.0.0.1:9464", "127.0.0.1:9471", "127.0.0.1:9472"] {
        assert!(settings.contains(usual), "{usual} is no target: {settings}");
        settings = settings.replace(usual, target);
    }
    settings
}
