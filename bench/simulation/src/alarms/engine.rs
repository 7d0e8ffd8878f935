//! The rules are evaluated by a real Prometheus that is given the recorded series.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use test_servers::Prometheus;

use super::Firing;
use super::firing::spans;
use super::remote_write::Recorded;

/// How many evaluations are asked for at once; Prometheus gives 11,000 at most.
const EVALUATIONS: i64 = 10_000;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

type Labels = BTreeMap<String, String>;

/// Every alert that fires, in the order of time.
pub(super) async fn evaluate(
    rules: &Path,
    every: SignedDuration,
    mut recorded: Recorded,
) -> anyhow::Result<Vec<Firing>> {
    let Some((first, last)) = recorded.span else { return Ok(Vec::new()) };
    let step = i64::try_from(every.as_millis()).context("how often alerts are evaluated")?;
    let engine = Engine::start(rules).await?;
    while let Some(request) = recorded.next()? {
        engine.write(request).await?;
    }
    let times = Times { first: first.as_millisecond(), last: last.as_millisecond(), step };
    let mut firing = Vec::new();
    for rule in engine.rules().await? {
        for (labels, moments) in engine.moments(&rule, &times).await? {
            let hold = (rule.duration * 1e3).round() as i64;
            for (from, to) in spans(&moments, step, hold, times.last_evaluation()) {
                let to = to.map(Timestamp::from_millisecond).transpose()?;
                let from = Timestamp::from_millisecond(from)?;
                firing.push(Firing { alert: rule.name.clone(), labels: labels.clone(), from, to });
            }
        }
    }
    firing.sort_by(|one, other| (one.from, &one.alert, &one.labels).cmp(&(other.from, &other.alert, &other.labels)));
    Ok(firing)
}

/// When the rules are evaluated, in milliseconds.
struct Times {
    first: i64,
    last: i64,
    step: i64,
}

impl Times {
    /// The last evaluation that is not later than the last sample.
    fn last_evaluation(&self) -> i64 {
        self.last - (self.last - self.first) % self.step
    }

    /// First and last evaluation of each question.
    fn questions(&self) -> impl Iterator<Item = (i64, i64)> {
        let (last, most) = (self.last_evaluation(), (EVALUATIONS - 1) * self.step);
        let firsts = std::iter::successors(Some(self.first), move |first| Some(first + most + self.step));
        firsts.take_while(move |first| *first <= last).map(move |first| (first, last.min(first + most)))
    }
}

/// An alert as Prometheus has read it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: String,
    query: String,
    /// `for`, in seconds.
    duration: f64,
    #[serde(default)]
    keep_firing_for: f64,
    #[serde(default)]
    labels: Labels,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// What an expression gave.
#[derive(Deserialize)]
struct Matrix {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    /// Time in seconds, and the value.
    values: Vec<(f64, String)>,
}

/// What each question to Prometheus is answered with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<T> {
    data: Option<T>,
    error: Option<String>,
}

struct Engine {
    prometheus: Prometheus,
    client: reqwest::Client,
}

impl Engine {
    async fn start(rules: &Path) -> anyhow::Result<Self> {
        // Fails only where one is chosen already, and that is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { prometheus: Prometheus::with_rules(rules.to_owned()).await, client })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1/{path}", self.prometheus.address())
    }

    async fn write(&self, request: Vec<u8>) -> anyhow::Result<()> {
        let form = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
        let request = self.client.post(self.url("write")).body(request);
        let request = form.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.send().await.context("give Prometheus the recorded series")?;
        let status = answer.status();
        ensure!(status.is_success(), "Prometheus refuses the recorded series: {status}, {}", answer.text().await?);
        Ok(())
    }

    /// Every alert; what would not be evaluated as Prometheus does it is refused.
    async fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        let groups: Groups = self.ask("rules", &[("type", "alert")]).await?;
        let rules: Vec<_> = groups.groups.into_iter().flat_map(|group| group.rules).collect();
        ensure!(!rules.is_empty(), "Prometheus has read no alert");
        for rule in &rules {
            ensure!(rule.keep_firing_for == 0.0, "{}: keep_firing_for is not known here", rule.name);
            let is_plain = rule.labels.values().all(|value| !value.contains("{{"));
            ensure!(is_plain, "{}: labels that are made of others are not known here", rule.name);
        }
        Ok(rules)
    }

    /// At which evaluations the rule's expression gave something, by the labels of the alert.
    async fn moments(&self, rule: &Rule, times: &Times) -> anyhow::Result<BTreeMap<Labels, BTreeSet<i64>>> {
        let mut moments: BTreeMap<Labels, BTreeSet<i64>> = BTreeMap::new();
        let seconds = |millis: i64| (millis as f64 / 1e3).to_string();
        for (first, last) in times.questions() {
            let (first, last, step) = (seconds(first), seconds(last), seconds(times.step));
            let question = [("query", rule.query.as_str()), ("start", &first), ("end", &last), ("step", &step)];
            let matrix: Matrix = self.ask("query_range", &question).await?;
            for mut series in matrix.result {
                series.metric.remove("__name__");
                series.metric.extend(rule.labels.clone());
                let moments = moments.entry(series.metric).or_default();
                for (at, _) in series.values {
                    let is_new = moments.insert((at * 1e3).round() as i64);
                    ensure!(is_new, "{}: two series give the same alert", rule.name);
                }
            }
        }
        Ok(moments)
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, question: &[(&str, &str)]) -> anyhow::Result<T> {
        let answer = self.client.get(self.url(path)).query(question).send().await.context("ask Prometheus")?;
        let answer: Answer<T> = answer.json().await.context("read Prometheus' answer")?;
        match answer.data {
            Some(data) => Ok(data),
            None => bail!("Prometheus refuses {question:?}: {}", answer.error.unwrap_or_default()),
        }
    }
}
