//! What Grafana asks of a dashboard, after its published schema (`kinds/dashboard`) and its list of units.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{all, read};

/// Units of Grafana's list that we use.
const UNITS: &[&str] = &["none", "short", "s", "percentunit", "bytes", "binBps", "ops", "opm", "dateTimeFromNow"];

const COLOURS: &[&str] = &["green", "orange", "red", "text"];

#[test]
fn the_dashboards_are_as_grafana_wants_them() {
    let mut ids = BTreeSet::new();
    for dashboard in all() {
        let file = format!("{}.json", dashboard.file);
        let json: Value = serde_json::from_str(&read(&file)).expect("the dashboard is JSON");
        let uid = json["uid"].as_str().expect("an uid");
        assert!(uid.len() <= 40 && ids.insert(uid.to_owned()), "{file}: {uid}");
        assert_eq!(json["schemaVersion"], 39, "{file}");
        assert_eq!(json["tags"], serde_json::json!(["nice-knovvu"]), "{file}: links find it by its tag");
        check_variables(&file, &json);
        let panels = json["panels"].as_array().expect("panels");
        let known: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(known.len(), panels.len(), "{file}: an id is there twice");
        check_places(&file, panels);
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            check_panel(&file, panel);
        }
    }
}

fn check_variables(file: &str, json: &Value) {
    let variables = json["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "tenant", "instance", "runbooks"], "{file}");
    for variable in variables {
        let kind = variable["type"].as_str().unwrap_or_default();
        assert!(["query", "datasource", "textbox"].contains(&kind), "{file}: {variable}");
    }
    for link in json["links"].as_array().expect("links") {
        assert!(["link", "dashboards"].contains(&link["type"].as_str().unwrap_or_default()), "{file}: {link}");
        for key in ["title", "icon", "tooltip", "url", "tags", "asDropdown", "targetBlank", "includeVars", "keepTime"] {
            assert!(!link[key].is_null(), "{file}: {key} is missing in {link}");
        }
    }
}

/// Every panel is within 24 columns, and none lies on another.
fn check_places(file: &str, panels: &[Value]) {
    let mut taken = BTreeSet::new();
    for panel in panels {
        let number = |key| panel["gridPos"][key].as_u64().expect("a place");
        let (x, y, width, height) = (number("x"), number("y"), number("w"), number("h"));
        assert!(width > 0 && height > 0 && x + width <= 24, "{file}: {} is too wide", panel["title"]);
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{file}: {} lies on another panel", panel["title"]);
        }
    }
}

fn check_panel(file: &str, panel: &Value) {
    let name = format!("{file}: {}", panel["title"]);
    assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{name}");
    let about = panel["description"].as_str().expect("a description");
    assert!(about.len() > 30 && about.ends_with('.'), "{name}: {about}");
    let kind = panel["type"].as_str().unwrap_or_default();
    assert!(["stat", "timeseries", "table"].contains(&kind), "{name}: {kind}");
    let defaults = &panel["fieldConfig"]["defaults"];
    let unit = defaults["unit"].as_str().expect("a unit");
    assert!(UNITS.contains(&unit), "{name}: {unit}");
    if let Some(words) = defaults.get("noValue").filter(|_| kind == "stat") {
        let is_now = panel["targets"].as_array().is_some_and(|all| all.iter().all(|target| target["instant"] == true));
        assert!(is_now, "{name}: an older number would stand in place of {words}");
    }
    let steps = defaults["thresholds"]["steps"].as_array().expect("thresholds");
    assert!(steps[0]["value"].is_null(), "{name}: the first threshold is without a value");
    let values: Vec<_> = steps[1..].iter().map(|step| step["value"].as_f64().expect("a value")).collect();
    assert!(values.is_sorted(), "{name}: {values:?}");
    for step in steps {
        assert!(COLOURS.contains(&step["color"].as_str().unwrap_or_default()), "{name}: {step}");
    }
    let targets = panel["targets"].as_array().expect("targets");
    let refs: BTreeSet<_> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
    assert!(!targets.is_empty() && refs.len() == targets.len(), "{name}: {refs:?}");
    for source in targets.iter().chain([panel]).map(|part| &part["datasource"]) {
        assert_eq!(*source, serde_json::json!({ "type": "prometheus", "uid": "${datasource}" }), "{name}");
    }
    for target in targets {
        let shows_spread = target["expr"].as_str().is_some_and(|asked| asked.contains("_bucket"));
        assert_eq!(target["exemplar"] == true, shows_spread, "{name}: a bucket leads to its traces");
        let expression = target["expr"].as_str().expect("an expression");
        assert!(!expression.contains("{I") && !expression.contains("{T") && !expression.contains("[R]"), "{name}");
        assert!(
            expression.contains("$tenant") || expression.contains("$instance") || !expression.contains("nice_knovvu_"),
            "{name}: {expression}"
        );
    }
}

#[test]
fn every_metric_that_is_for_a_person_is_on_a_dashboard_or_in_an_alert() {
    let shown: String = all().iter().map(|dashboard| read(&format!("{}.json", dashboard.file))).collect();
    let shown = shown + &read("alerts.yaml");
    let page = std::fs::read_to_string(super::folder().join("../docs/METRICS.md")).unwrap();
    let metrics = page.lines().filter_map(|line| line.strip_prefix("| `nice_knovvu_")?.split('`').next());
    // It says the same as the watermark of `status`, which moves only when calls end.
    let unseen: Vec<_> = metrics
        .filter(|name| *name != "poll_watermark_timestamp_seconds")
        .filter(|name| !shown.contains(&format!("nice_knovvu_{name}")))
        .collect();
    assert!(unseen.is_empty(), "nobody sees {unseen:?}");
}
