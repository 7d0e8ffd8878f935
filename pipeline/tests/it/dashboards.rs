//! The dashboards and alerts against a real Prometheus that reads the real daemon, and what Grafana asks of a dashboard.
//!
//! The tables of the panels are beside this file: one each for `dashboards/*.json`, and one of what is promised, for the
//! panels and the alerts. `WRITE_DOCS=1 cargo test -p nice-knovvu --test it the_dashboards_are` writes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Bed, Ended, hurried};
use expressions::{assert_exported, exported};
use grafana::{Dashboard, RUNBOOKS};
pub(crate) use {
    expressions::selectors_of,
    prometheus::{Is, Prometheus},
};

mod expressions;
mod grafana;
mod prometheus;
mod schema;
mod service_levels;

mod completeness;
mod flow;
mod nice;
mod overview;
mod servers;
mod tenant;

/// The directory of the dashboards.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(file: &str) -> String {
    let path = folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn all() -> [Dashboard; 6] {
    [
        overview::dashboard(),
        flow::dashboard(),
        nice::dashboard(),
        servers::dashboard(),
        completeness::dashboard(),
        tenant::dashboard(),
    ]
}

#[test]
fn the_dashboards_are_the_tables() {
    for dashboard in all() {
        let file = format!("{}.json", dashboard.file);
        let text = serde_json::to_string_pretty(&dashboard.json()).expect("it is JSON") + "\n";
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(folder().join(&file), &text).unwrap();
        }
        assert_eq!(read(&file), text, "dashboards/{file} is stale; dashboards/README.md says how it is written");
    }
    let alerts = service_levels::written_into(&read("alerts.yaml"));
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(folder().join("alerts.yaml"), &alerts).unwrap();
    }
    assert_eq!(read("alerts.yaml"), alerts, "dashboards/README.md says how the alerts of what is promised are written");
}

#[test]
fn the_alerts_fire_when_they_shall_and_only_then() {
    promtool(&["check", "config", "prometheus.yaml"]);
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
}

#[test]
fn every_alert_is_tested_where_it_fires_and_where_it_does_not() {
    let tests = read("alerts_test.yaml");
    for name in alert_names() {
        let asked = tests.split("alertname: ").skip(1).filter(|asked| asked.starts_with(&name));
        let asked = asked.filter(|asked| !asked[name.len()..].starts_with(char::is_alphanumeric));
        let (fires, does_not): (Vec<_>, Vec<_>) =
            asked.partition(|asked| asked[name.len()..].trim_start().starts_with("exp_alerts:"));
        assert!(!fires.is_empty(), "{name}: no test in which it fires");
        assert!(!does_not.is_empty(), "{name}: no test in which it does not fire");
    }
}

#[test]
fn every_alert_says_whose_it_is_and_has_a_runbook() {
    let alerts = read("alerts.yaml");
    for block in alerts.split("- alert: ").skip(1) {
        let name = block.lines().next().unwrap_or_default();
        let link = format!("runbook_url: {RUNBOOKS}/{name}.md\n");
        assert!(block.contains(&link), "{name} does not link to its runbook");
        assert!(
            block.contains("description: \"Whose: ") && block.contains(" First: "),
            "{name} does not say whose it is"
        );
        let runbook = read(&format!("runbooks/{name}.md"));
        let headings: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(
            headings,
            ["What it means", "Look here", "Do this", "How to see that it is over"],
            "runbooks/{name}.md"
        );
    }
    let pages = std::fs::read_dir(folder().join("runbooks")).unwrap();
    let pages: BTreeSet<_> =
        pages.filter_map(|page| Some(page.ok()?.file_name().to_str()?.strip_suffix(".md")?.to_owned())).collect();
    assert_eq!(alert_names(), pages, "alerts.yaml on the left, runbooks/ on the right");
    let readme = read("README.md");
    for name in pages {
        assert!(readme.contains(&format!("(runbooks/{name}.md)")), "README.md does not list {name}");
    }
}

#[test]
fn runbooks_name_panels_and_panels_name_alerts_that_there_are() {
    let panels: Vec<Value> = all().iter().flat_map(|dashboard| panels_of(dashboard.file)).collect();
    let titles: BTreeSet<_> = panels.iter().map(|panel| text(panel, "title")).collect();
    let alerts = alert_names();
    for name in &alerts {
        let runbook = read(&format!("runbooks/{name}.md"));
        // What is between backticks is no panel.
        let words: String = runbook.split('`').step_by(2).collect();
        for title in words.split('"').skip(1).step_by(2) {
            let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(titles.contains(&title), "runbooks/{name}.md: no panel {title:?}");
        }
    }
    for panel in &panels {
        let about = panel["description"].as_str().unwrap_or_default();
        let words = about.split(|letter: char| !letter.is_ascii_alphabetic());
        for alert in words.filter(|word| word.chars().filter(char::is_ascii_uppercase).count() > 1) {
            // MiB and NICE are none.
            let is_name = alert.len() > 5 && alert.chars().any(|letter| letter.is_ascii_lowercase());
            assert!(!is_name || alerts.contains(alert), "{}: no alert {alert}", panel["title"]);
        }
    }
}

fn alert_names() -> BTreeSet<String> {
    let alerts = read("alerts.yaml");
    alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
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

    let mut exported = exported(&page);
    exported.insert("ALERTS".to_owned());
    for (panel, expression) in panels() {
        assert_exported(&expression, &exported);
        // The others may be empty where nothing happens; what they show under faults is another test's.
        if panel.starts_with("stat ") {
            // All calls had come before Prometheus looked: a share of none is no number, and not 100 %.
            let wanted = if expression.contains("$__range") { Is::Empty } else { Is::Shown };
            prometheus.until(&chosen(&expression), wanted).await;
        }
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
    let expression = prometheus.alert("ProcessDown").await;
    prometheus.until(&expression, Is::Empty).await;
    daemon.kill();
    prometheus.until(&expression, Is::Shown).await;
}

/// Runs promtool among the dashboards; it must be content.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command.current_dir(folder()).args(arguments);
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

/// Every expression of every panel of the files, with the panel's kind and title.
pub(crate) fn panels() -> Vec<(String, String)> {
    let mut expressions = Vec::new();
    for panel in all().iter().flat_map(|dashboard| panels_of(dashboard.file)) {
        let name = format!("{} {}", text(&panel, "type"), text(&panel, "title"));
        let targets = panel["targets"].as_array().into_iter().flatten();
        expressions.extend(targets.map(|target| (name.clone(), text(target, "expr"))));
    }
    assert!(expressions.len() >= 80, "panels are missing: {expressions:?}");
    expressions
}

fn panels_of(file: &str) -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read(&format!("{file}.json"))).expect("the dashboard is JSON");
    dashboard["panels"].as_array().expect("it has panels").clone()
}

/// Every dashboard and every alert, with what it asks for.
pub(crate) fn readers() -> Vec<(String, String)> {
    let dashboards = all().map(|dashboard| (dashboard.file.to_owned(), read(&format!("{}.json", dashboard.file))));
    let alerts = read("alerts.yaml");
    let blocks = alerts.split("- alert: ").skip(1).filter_map(|block| block.split_once('\n'));
    dashboards.into_iter().chain(blocks.map(|(name, block)| (name.to_owned(), block.to_owned()))).collect()
}

/// An expression as Grafana sends it while all tenants and processes are chosen.
pub(crate) fn chosen(expression: &str) -> String {
    let spans = expression.replace("$__rate_interval", "10m").replace("$__range", "10m");
    spans.replace("$instance", ".*").replace("$tenant", ".*")
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing: {value}")).to_owned()
}
