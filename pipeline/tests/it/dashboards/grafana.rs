//! Dashboards as Grafana reads them, made from the tables beside this file: one look, one set of units and colours.
//!
//! In an expression `{T}` stands for the tenants and `{I}` for the processes that are chosen above the dashboard
//! (`{T,lane="live"}` with more), and `[R]` for the span of a rate. `or none(label)` at its end shows a line at zero, called
//! none, where nothing else is shown.

use serde_json::{Value, json};

pub(crate) const GREEN: &str = "green";
pub(crate) const ORANGE: &str = "orange";
pub(crate) const RED: &str = "red";

/// Seconds, shown as what is readable.
pub(crate) const SECONDS: &str = "s";
/// A whole number.
pub(crate) const COUNT: &str = "short";
/// From 0 to 1, shown in percent.
pub(crate) const SHARE: &str = "percentunit";
/// Bytes, in powers of 1024.
pub(crate) const BYTES: &str = "bytes";
/// Bytes a second.
pub(crate) const BYTES_A_SECOND: &str = "binBps";
/// How many a second.
pub(crate) const A_SECOND: &str = "ops";
/// How many a minute.
pub(crate) const A_MINUTE: &str = "opm";
/// A time in milliseconds, shown as how long ago.
pub(crate) const AGO: &str = "dateTimeFromNow";

/// Where the links of dashboards and alerts to runbooks lead: the page of a process at its usual address. README.md says
/// how an installation replaces it.
pub(super) const RUNBOOKS: &str = "http://127.0.0.1:9464/runbooks";

/// A dashboard; its file is `uid` without what all have in common.
pub(crate) struct Dashboard {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<(&'static str, Vec<Panel>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Graph,
    Table,
}

/// A panel: what it shows, what that means, and what is well.
pub(crate) struct Panel {
    kind: Kind,
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    width: u8,
    queries: Vec<(String, &'static str)>,
    steps: Vec<(Option<f64>, &'static str)>,
    words: Vec<(&'static str, &'static str, &'static str)>,
    is_stacked: bool,
    least: i8,
    without: Option<&'static str>,
    link: Option<(&'static str, &'static str)>,
}

impl Panel {
    fn new(kind: Kind, width: u8, title: &'static str, unit: &'static str, about: &'static str) -> Self {
        let steps = vec![(None, if kind == Kind::Number { GREEN } else { "text" })];
        Self {
            kind,
            title,
            about,
            unit,
            width,
            queries: Vec::new(),
            steps,
            words: Vec::new(),
            is_stacked: false,
            least: 0,
            without: None,
            link: None,
        }
    }

    /// One number, or one for each series.
    pub(crate) fn number(title: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Number, 4, title, unit, about)
    }

    /// Lines over time.
    pub(crate) fn graph(title: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Graph, 8, title, unit, about)
    }

    /// A line for each series, with its labels.
    pub(crate) fn table(title: &'static str, about: &'static str) -> Self {
        Self::new(Kind::Table, 12, title, "none", about)
    }

    /// What is asked, and how each series is called.
    pub(crate) fn of(mut self, expression: impl Into<String>, legend: &'static str) -> Self {
        self.queries.push((expression.into(), legend));
        self
    }

    /// How many of the 24 columns it takes.
    pub(crate) fn wide(self, width: u8) -> Self {
        Self { width, ..self }
    }

    /// Green below the first number, red from the second on.
    pub(crate) fn low_is_well(self, orange: f64, red: f64) -> Self {
        Self { steps: vec![(None, GREEN), (Some(orange), ORANGE), (Some(red), RED)], ..self }
    }

    /// Green from the first number on, red below the second.
    pub(crate) fn high_is_well(self, green: f64, orange: f64) -> Self {
        Self { steps: vec![(None, RED), (Some(orange), ORANGE), (Some(green), GREEN)], ..self }
    }

    /// Green at zero.
    pub(crate) fn none_is_well(self, colour: &'static str) -> Self {
        Self { steps: vec![(None, GREEN), (Some(1.0), colour)], ..self }
    }

    /// Words for numbers, with their colours.
    pub(crate) fn words(self, words: &[(&'static str, &'static str, &'static str)]) -> Self {
        Self { words: words.to_vec(), ..self }
    }

    /// The series stand on each other.
    pub(crate) fn stacked(self) -> Self {
        Self { is_stacked: true, ..self }
    }

    /// The axis begins there.
    pub(crate) fn from(self, least: i8) -> Self {
        Self { least, ..self }
    }

    /// Says so, and shows no older number, where there is none now.
    pub(crate) fn without(self, words: &'static str) -> Self {
        Self { without: Some(words), ..self }
    }

    /// A click on a value leads there.
    pub(crate) fn leads_to(self, title: &'static str, url: &'static str) -> Self {
        Self { link: Some((title, url)), ..self }
    }

    /// Whether a query asks for a word.
    pub(crate) fn asks_of(&self, word: &str) -> bool {
        self.queries.iter().any(|(expression, _)| expression.contains(word))
    }

    fn height(&self) -> u64 {
        match self.kind {
            Kind::Number => 4,
            Kind::Table => 6,
            Kind::Graph => 8,
        }
    }

    fn json(&self, id: usize, x: u8, y: u64, height: u64) -> Value {
        let kind = match self.kind {
            Kind::Number => "stat",
            Kind::Graph => "timeseries",
            Kind::Table => "table",
        };
        let mut panel = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.about,
            "datasource": datasource(),
            "gridPos": { "h": height, "w": self.width, "x": x, "y": y },
            "targets": self.targets(),
            "fieldConfig": { "defaults": self.field(), "overrides": [] },
            "options": self.options(),
        });
        if self.kind == Kind::Table {
            let hidden = json!({ "Time": true, "Value": true, "job": true, "__name__": true });
            panel["transformations"] = json!([{ "id": "organize", "options": { "excludeByName": hidden } }]);
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let targets = self.queries.iter().zip('A'..).map(|((expression, legend), id)| {
            let mut target = json!({
                "refId": id.to_string(),
                "datasource": datasource(),
                "expr": filled(expression),
                "legendFormat": legend,
            });
            if self.kind == Kind::Table {
                target["format"] = "table".into();
            }
            if self.kind == Kind::Table || self.without.is_some() {
                target["instant"] = true.into();
            }
            // From a slow bucket to the trace of a call in it.
            if self.kind == Kind::Graph && expression.contains("_bucket{") {
                target["exemplar"] = true.into();
            }
            target
        });
        targets.collect()
    }

    fn field(&self) -> Value {
        let steps: Vec<_> = self.steps.iter().map(|(value, color)| json!({ "value": value, "color": color })).collect();
        let mut field = json!({ "unit": self.unit, "thresholds": { "mode": "absolute", "steps": steps } });
        match self.kind {
            Kind::Graph => {
                let fill = if self.is_stacked { 30 } else { 0 };
                let stacking = if self.is_stacked { "normal" } else { "none" };
                let lines = if self.steps.len() > 1 { "dashed" } else { "off" };
                field["min"] = self.least.into();
                field["color"] = json!({ "mode": "palette-classic" });
                field["custom"] = json!({
                    "lineWidth": 1,
                    "fillOpacity": fill,
                    "showPoints": "never",
                    "stacking": { "mode": stacking, "group": "A" },
                    "thresholdsStyle": { "mode": lines },
                });
            }
            Kind::Number | Kind::Table => field["color"] = json!({ "mode": "thresholds" }),
        }
        let none = (self.kind == Kind::Table).then_some("none");
        if let Some(words) = self.without.or(none) {
            field["noValue"] = words.into();
        }
        if !self.words.is_empty() {
            let mapped = self
                .words
                .iter()
                .map(|(value, text, color)| ((*value).to_owned(), json!({ "text": text, "color": color })));
            let mapped: serde_json::Map<_, _> = mapped.collect();
            field["mappings"] = json!([{ "type": "value", "options": mapped }]);
        }
        if let Some((title, url)) = self.link {
            field["links"] = json!([{ "title": title, "url": url, "targetBlank": true }]);
        }
        field
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Number => json!({
                "colorMode": "value",
                "graphMode": if self.words.is_empty() && self.without.is_none() && self.unit != AGO { "area" } else { "none" },
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            }),
            Kind::Graph => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Table => json!({ "showHeader": true }),
        }
    }
}

impl Dashboard {
    /// The file as Grafana provisions it.
    pub(crate) fn json(&self) -> Value {
        let mut panels = Vec::new();
        let mut y = 0;
        for (title, row) in &self.rows {
            let grid = json!({ "h": 1, "w": 24, "x": 0, "y": y });
            let id = panels.len() + 1;
            panels.push(
                json!({ "id": id, "type": "row", "title": title, "collapsed": false, "panels": [], "gridPos": grid }),
            );
            y += 1;
            for line in lines(row) {
                let (mut x, height) = (0, line.iter().map(Panel::height).max().unwrap_or_default());
                for panel in line {
                    panels.push(panel.json(panels.len() + 1, x, y, height));
                    x += panel.width;
                }
                y += height;
            }
        }
        json!({
            "uid": self.uid(),
            "title": self.title,
            "description": self.about,
            "tags": ["nice-knovvu"],
            "editable": true,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "refresh": "30s",
            "timezone": "",
            "time": { "from": "now-3h", "to": "now" },
            "links": links(),
            "templating": { "list": variables() },
            "annotations": { "list": [] },
            "panels": panels,
        })
    }

    /// By which links find it.
    pub(crate) fn uid(&self) -> String {
        format!("nice-knovvu-{}", self.file)
    }
}

/// As many panels beside each other as there is room for.
fn lines(row: &[Panel]) -> Vec<&[Panel]> {
    let (mut lines, mut rest) = (Vec::new(), row);
    while !rest.is_empty() {
        let mut width = 0;
        let fits = rest.iter().take_while(|panel| {
            width += panel.width;
            width <= 24
        });
        let (line, after) = rest.split_at(fits.count().max(1));
        lines.push(line);
        rest = after;
    }
    lines
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// To the other dashboards, to the runbooks, and to the operator page of the chosen process.
fn links() -> Value {
    let link = |title: &str, url: &str, tooltip: &str| {
        json!({
            "type": "link",
            "title": title,
            "url": url,
            "tooltip": tooltip,
            "icon": "external link",
            "tags": [],
            "asDropdown": false,
            "targetBlank": true,
            "includeVars": false,
            "keepTime": false,
        })
    };
    let mut dashboards = link("Dashboards", "", "The other dashboards, with the same tenant, process and time");
    for (key, value) in [
        ("type", json!("dashboards")),
        ("tags", json!(["nice-knovvu"])),
        ("icon", json!("dashboard")),
        ("targetBlank", json!(false)),
        ("includeVars", json!(true)),
        ("keepTime", json!(true)),
    ] {
        dashboards[key] = value;
    }
    json!([
        dashboards,
        link("Runbooks", "${runbooks}", "What each alert means, and what to do"),
        link("Operator page", "http://${instance}/", "Of the process that is chosen above; choose one"),
    ])
}

fn variables() -> Value {
    let query = |name: &str, label: &str, query: &str| {
        json!({
            "name": name,
            "label": label,
            "type": "query",
            "datasource": datasource(),
            "query": { "query": query, "refId": name },
            "refresh": 2,
            "sort": 1,
            "multi": false,
            "includeAll": true,
            "allValue": ".*",
            "current": { "text": "All", "value": "$__all" },
        })
    };
    json!([
        { "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" },
        query("tenant", "Tenant", "label_values(nice_knovvu_calls_finished_total, tenant)"),
        query("instance", "Process", "label_values(up{job=\"nice-knovvu\"}, instance)"),
        {
            "name": "runbooks",
            "label": "Runbooks at",
            "type": "textbox",
            "query": RUNBOOKS,
            "current": { "text": RUNBOOKS, "value": RUNBOOKS },
        },
    ])
}

fn filled(expression: &str) -> String {
    let mut filled = expression.replace("[R]", "[$__rate_interval]");
    if let Some((shown, label)) = expression.strip_suffix(')').and_then(|start| start.rsplit_once(" or none(")) {
        let none = format!(" or on () label_replace(vector(0), \"{label}\", \"none\", \"\", \"\")");
        filled = shown.replace("[R]", "[$__rate_interval]") + &none;
    }
    for (short, label) in [("{T", "{tenant=~\"$tenant\""), ("{I", "{instance=~\"$instance\"")] {
        for end in ["}", ","] {
            filled = filled.replace(&format!("{short}{end}"), &format!("{label}{end}"));
        }
    }
    filled
}
