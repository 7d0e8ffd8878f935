//! `docs/METRICS.md`, written from what a running daemon shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::dashboards;
use crate::harness::{Bed, PATIENCE, hurried};

const HEAD: &str = "\
# Metrics

This page is written from the page of a running daemon: `WRITE_DOCS=1 cargo test -p nice-knovvu --test it metrics_page`.

Prometheus reads `/metrics` at `[admin] listen`. Our names begin with `nice_knovvu_`; those of the process are Prometheus'
own. Labels come from fixed lists, except `tenant`, the id of a tenant, and `status`, an HTTP status or the reason why
there was none. No id of a call, an agent or a person is ever a label. A process names 200 tenants; the values of further
ones stand under `tenant=\"other\"`. What only the producer of a tenant knows is shown by producers alone. A gauge whose
value a process does not know is not shown by it: 0 is a value.

The format is Prometheus' text format 0.0.4, or OpenMetrics 1.0 for a reader whose header `Accept` prefers it, as Prometheus
does. There the buckets of the histograms have exemplars while [traces](TRACES.md) are on.
[dashboards/README.md](../dashboards/README.md) tells of the dashboards and alerts that the last column names.

| metric | type | unit | labels | meaning | seen in |
|---|---|---|---|---|---|
";

/// Gauges are set every few seconds; what is not shown by then is not written.
const UNTIL_WRITTEN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_what_a_daemon_shows() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let writes = std::env::var_os("WRITE_DOCS").is_some();
    let bed = Bed::new(hurried(83, 10)).await;
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert_eq!(bed.ended(&["reconcile"]).code, Some(0));
    let begun = Instant::now();
    let seen = dashboards::readers();
    loop {
        let (_, shown) = daemon.get("/metrics").await.expect("the daemon answers");
        let page = page(&shown, &seen);
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        if written == page {
            return;
        }
        if writes && begun.elapsed() > UNTIL_WRITTEN {
            std::fs::write(&file, page).unwrap();
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "docs/METRICS.md is stale; it says how it is written\n{page}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The document of what is shown in Prometheus' text format.
fn page(shown: &str, seen: &[(String, String)]) -> String {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in shown.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = sample.split_once('{') else { continue };
        let set = rest.split_once('}').map_or(rest, |(set, _)| set);
        let names = set.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        labels.entry(name).or_default().extend(names.filter(|name| *name != "le"));
    }
    let types: BTreeMap<&str, &str> =
        shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let helps: BTreeMap<&str, &str> =
        shown.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let mut page = HEAD.to_owned();
    for (name, help) in helps {
        let labels = labels.get(name).into_iter().flatten();
        let labels = labels.map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (unit, help, seen) = (unit(name), help.replace('|', "\\|"), seen_in(name, seen));
        writeln!(page, "| `{name}` | {} | {unit} | {labels} | {help} | {seen} |", types[name]).unwrap();
    }
    page
}

/// What its name says of its unit.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [("_timestamp_seconds", "Unix time"), ("_seconds", "seconds"), ("_bytes", "bytes")];
    units.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| unit)
}

/// The dashboards and alerts whose expressions name the metric.
fn seen_in(name: &str, seen: &[(String, String)]) -> String {
    let names = |expression: &str| {
        let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let ends = ["_bucket", "_sum", "_count"];
        words.into_iter().any(|word| word == name || ends.iter().any(|end| word.strip_suffix(end) == Some(name)))
    };
    let seen: BTreeSet<_> =
        seen.iter().filter(|(_, expression)| names(expression)).map(|(of, _)| of.as_str()).collect();
    seen.into_iter().collect::<Vec<_>>().join(", ")
}

#[test]
fn a_page_has_a_line_for_each_metric() {
    let shown = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\na_seconds_bucket{stage=\"x,y\",le=\"1\"} 2\n\
                 a_seconds_sum{stage=\"x,y\"} 3\n# HELP b One | other.\n# TYPE b gauge\nb 1\n";
    let seen = [
        ("flow".to_owned(), "sum(b{c=\"d\"}) + b_total".to_owned()),
        ("Slow".to_owned(), "rate(a_seconds_sum[5m])".to_owned()),
    ];
    let page = page(shown, &seen);
    let lines: Vec<_> = page.lines().skip(HEAD.lines().count()).collect();
    assert_eq!(
        lines,
        [
            "| `a_seconds` | histogram | seconds | `stage` | How long. | Slow |",
            "| `b` | gauge |  |  | One \\| other. | flow |"
        ]
    );
}
