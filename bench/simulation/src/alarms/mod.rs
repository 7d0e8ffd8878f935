//! Which alerts fire in a simulated run: what its processes export is recorded, and judged by the rules of
//! `dashboards/`.
//!
//! A run hands over each process's page of metrics at its simulated minutes, as Prometheus would read it. The
//! [`AlarmRecorder`] writes to a file what the rules name. At the end a real Prometheus reads the file and evaluates
//! each rule at each step of the simulated time: no part of its language is imitated here. Only `for` is applied
//! here, to the moments at which a rule's expression gave something; a test holds all of it against `promtool`.
//!
//! # As Prometheus does it
//! A page carries job and instance of its target, and what the page itself calls so becomes `exported_…`. Each scrape
//! writes `up`. What a page does not show any more, and all of a process that did not answer, is over at once.
//!
//! # What is left out
//! The families `process_…` say something of the process that simulates, not of the simulated one. In their place
//! the recorder writes when the simulated process began, if it is [told](AlarmRecorder::started).

mod engine;
mod exposition;
mod firing;
mod remote_write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};

use exposition::Labels;
use remote_write::Record;

/// The job of all our processes in `dashboards/prometheus.yaml`.
const JOB: &str = "nice-knovvu";

/// What says when a process began.
const STARTED: &str = "process_start_time_seconds";

/// The families that a page has from the process that simulates.
const OF_THE_PROCESS: &str = "process_";

/// An alert that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// Its name.
    pub alert: String,
    /// What it says of whom, and its severity.
    pub labels: BTreeMap<String, String>,
    /// The first evaluation at which it fired: the rule's `for` is over.
    pub from: Timestamp,
    /// The first evaluation at which it did not fire any more; none while it does at the last one.
    pub to: Option<Timestamp>,
}

/// A process that Prometheus reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    labels: Labels,
}

impl Target {
    /// A target of `dashboards/prometheus.yaml`, by its address.
    pub fn new(instance: &str) -> Self {
        let labels = [("job", JOB), ("instance", instance)];
        Self { labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into() }
    }

    /// A series as it is stored: the labels of the target hold.
    fn series(&self, name: &str, own: Labels) -> Labels {
        let mut labels = self.labels.clone();
        for (name, value) in own {
            let name = if self.labels.contains_key(&name) { format!("exported_{name}") } else { name };
            labels.insert(name, value);
        }
        labels.insert("__name__".to_owned(), name.to_owned());
        labels
    }
}

/// What is known of a target.
#[derive(Default)]
struct Known {
    /// The series by their text on the page; none for what no rule names.
    series: HashMap<String, Option<usize>>,
    /// Those that were there at the last scrape, in the order of the page.
    shown: Vec<usize>,
    up: Option<usize>,
    began: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// Records what the alert rules need to know of a run.
pub struct AlarmRecorder {
    rules: PathBuf,
    /// Every word of the rules: what is none of them is no metric that they name.
    words: HashSet<String>,
    every: SignedDuration,
    targets: HashMap<Target, Known>,
    record: Record,
}

impl AlarmRecorder {
    /// For the rules of this repository, evaluated as often as that.
    pub fn new(every: SignedDuration) -> anyhow::Result<Self> {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/alerts.yaml");
        Self::with_rules(&rules, every)
    }

    /// For the rules of another file.
    pub fn with_rules(rules: &Path, every: SignedDuration) -> anyhow::Result<Self> {
        ensure!(
            every >= SignedDuration::from_secs(1),
            "alerts are evaluated once a second at most, not every {every:#}"
        );
        let rules = rules.canonicalize().with_context(|| format!("find the rules {}", rules.display()))?;
        let text = std::fs::read_to_string(&rules).with_context(|| format!("read the rules {}", rules.display()))?;
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
        let words = words.map(str::to_owned).collect();
        Ok(Self { rules, words, every, targets: HashMap::new(), record: Record::new()? })
    }

    /// A target's process began at that time.
    pub fn started(&mut self, target: &Target, at: Timestamp) {
        self.targets.entry(target.clone()).or_default().began = Some(at);
    }

    /// A target answered with its page.
    pub fn scrape(&mut self, target: &Target, at: Timestamp, page: &str) -> anyhow::Result<()> {
        self.enter(target, at, 1.0, page)
    }

    /// A target did not answer: its process is away, or stands still.
    pub fn scrape_failed(&mut self, target: &Target, at: Timestamp) -> anyhow::Result<()> {
        self.enter(target, at, 0.0, "")
    }

    /// A target is none any more: somebody took it from Prometheus' settings.
    pub fn removed(&mut self, target: &Target, at: Timestamp) -> anyhow::Result<()> {
        let Some(known) = self.targets.remove(target) else { return Ok(()) };
        check_order(target, known.last, at)?;
        for series in known.shown.into_iter().chain(known.up) {
            self.record.ends(series, at)?;
        }
        Ok(())
    }

    fn enter(&mut self, target: &Target, at: Timestamp, up: f64, page: &str) -> anyhow::Result<()> {
        let known = self.targets.entry(target.clone()).or_default();
        check_order(target, known.last, at)?;
        known.last = Some(at);
        let record = &mut self.record;
        let series = *known.up.get_or_insert_with(|| record.series(&target.series("up", Labels::new())));
        record.enter(series, at, up)?;

        let mut shown = Vec::with_capacity(known.shown.len());
        for sample in exposition::samples(page) {
            let entered = sample.and_then(|(text, value)| {
                let series = match known.series.get(text) {
                    Some(series) => *series,
                    None => {
                        let (name, labels) = exposition::series(text)?;
                        let is_named = self.words.contains(name) && !name.starts_with(OF_THE_PROCESS);
                        let series = is_named.then(|| record.series(&target.series(name, labels)));
                        known.series.insert(text.to_owned(), series);
                        series
                    }
                };
                Some((series, value.parse().ok()?))
            });
            let (series, value) = entered
                .with_context(|| format!("the page of {:?} is not in Prometheus' text format", target.labels))?;
            let Some(series) = series else { continue };
            record.enter(series, at, value)?;
            shown.push(series);
        }
        if let (true, Some(began)) = (up == 1.0, known.began) {
            let series = record.series(&target.series(STARTED, Labels::new()));
            record.enter(series, at, began.as_millisecond() as f64 / 1e3)?;
            shown.push(series);
        }
        if shown != known.shown {
            let still: HashSet<_> = shown.iter().collect();
            for series in known.shown.iter().filter(|series| !still.contains(series)) {
                record.ends(*series, at)?;
            }
            known.shown = shown;
        }
        Ok(())
    }

    /// Every alert that fired, in the order of time, between the first scrape and the last.
    ///
    /// The real time of it is some seconds. It does its work on a thread and a runtime of its own, so that it can be
    /// asked where the clock of tokio is paused.
    pub fn firing(self) -> anyhow::Result<Vec<Firing>> {
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(engine::evaluate(&self.rules, self.every, self.record.finish()?))
        };
        match std::thread::spawn(work).join() {
            Ok(firing) => firing,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn check_order(target: &Target, last: Option<Timestamp>, at: Timestamp) -> anyhow::Result<()> {
    let later = last.is_none_or(|last| last.as_millisecond() < at.as_millisecond());
    ensure!(
        later,
        "{:?} was scraped at {at} already, or later: hand over its pages in the order of time",
        target.labels
    );
    Ok(())
}
