//! Histograms that remember for each bucket the trace of the latest value in it, so that a slow bucket leads to a trace.
//!
//! Nothing is remembered, and nothing locked, where no traces are made. What is remembered is bounded: an exemplar for
//! each bucket of each series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus::proto::LabelPair;
use prometheus::{Histogram, HistogramVec};

use crate::{Clock, TraceSpan};

/// A value, and the trace in which it was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: String,
    pub(super) value: f64,
    pub(super) at: Timestamp,
}

/// The exemplars of every histogram of a page, by its name.
#[derive(Debug, Clone, Default)]
pub(super) struct PageExemplars(Arc<Mutex<BTreeMap<String, HistogramExemplars>>>);

impl PageExemplars {
    /// Those of a histogram that is new on the page.
    pub(super) fn begin(&self, name: &str, labels: &[&str], bounds: &[f64]) -> HistogramExemplars {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let exemplars = HistogramExemplars { labels, bounds: bounds.into(), kept: Arc::default() };
        self.lock().insert(name.to_owned(), exemplars.clone());
        exemplars
    }

    /// The exemplar of each bucket of a series, `+Inf` the last; none where no value of it was traced.
    pub(super) fn of(&self, name: &str, labels: &[LabelPair]) -> Option<BucketExemplars> {
        let exemplars = self.lock().get(name)?.clone();
        let value =
            |label: &String| labels.iter().find(|pair| pair.name() == label).map(|pair| pair.value().to_owned());
        let series: Vec<_> = exemplars.labels.iter().filter_map(value).collect();
        exemplars.lock().get(&series).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, HistogramExemplars>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest exemplar of each bucket of a series.
type BucketExemplars = Vec<Option<Exemplar>>;

/// The exemplars of one histogram; clones share them.
#[derive(Debug, Clone)]
pub(super) struct HistogramExemplars {
    labels: Arc<[String]>,
    bounds: Arc<[f64]>,
    /// By the values of the labels.
    kept: Arc<Mutex<BTreeMap<Vec<String>, BucketExemplars>>>,
}

impl HistogramExemplars {
    /// Remembers a value that was measured now, if its trace is kept.
    fn note(&self, series: &[&str], value: f64) {
        if let Some(trace_id) = TraceSpan::current().trace_id() {
            self.keep(series, Exemplar { trace_id, value, at: Clock::system().now() });
        }
    }

    pub(super) fn keep(&self, series: &[&str], exemplar: Exemplar) {
        let bucket = self.bounds.partition_point(|bound| *bound < exemplar.value);
        let series = series.iter().map(|value| (*value).to_owned()).collect();
        let mut kept = self.lock();
        kept.entry(series).or_insert_with(|| vec![None; self.bounds.len() + 1])[bucket] = Some(exemplar);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, BucketExemplars>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How values are spread.
#[derive(Debug, Clone)]
pub struct TracedHistogram {
    values: Histogram,
    exemplars: HistogramExemplars,
}

impl TracedHistogram {
    pub(super) fn new(values: Histogram, exemplars: HistogramExemplars) -> Self {
        Self { values, exemplars }
    }

    /// Counts a value, and remembers the trace in which it was measured.
    pub fn observe(&self, value: f64) {
        self.values.observe(value);
        self.exemplars.note(&[], value);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.values.get_sample_count()
    }
}

/// How values are spread, by labels.
#[derive(Debug, Clone)]
pub struct TracedHistograms {
    values: HistogramVec,
    exemplars: HistogramExemplars,
}

impl TracedHistograms {
    pub(super) fn new(values: HistogramVec, exemplars: HistogramExemplars) -> Self {
        Self { values, exemplars }
    }

    #[cfg(test)]
    pub(super) fn exemplars(&self) -> &HistogramExemplars {
        &self.exemplars
    }

    /// Starts a series at zero.
    pub fn start(&self, labels: &[&str]) {
        self.values.with_label_values(labels);
    }

    /// Counts a value, and remembers the trace in which it was measured.
    pub fn observe(&self, labels: &[&str], value: f64) {
        self.values.with_label_values(labels).observe(value);
        self.exemplars.note(labels, value);
    }

    /// How many values were counted with these labels.
    pub fn count(&self, labels: &[&str]) -> u64 {
        self.values.with_label_values(labels).get_sample_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(trace_id: &str, value: f64) -> Exemplar {
        Exemplar { trace_id: trace_id.to_owned(), value, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn each_bucket_remembers_the_latest_value_in_it() {
        let page = PageExemplars::default();
        let exemplars = page.begin("took_seconds", &[], &[1.0, 2.5]);
        for (trace_id, value) in [("a", 0.3), ("b", 2.5), ("c", 1.0), ("d", 7.0), ("e", 9.0)] {
            exemplars.keep(&[], exemplar(trace_id, value));
        }
        let expected = [("c", 1.0), ("b", 2.5), ("e", 9.0)].map(|(trace_id, value)| Some(exemplar(trace_id, value)));
        assert_eq!(page.of("took_seconds", &[]), Some(expected.to_vec()));
        assert_eq!(page.of("other_seconds", &[]), None);
    }

    #[test]
    fn without_traces_nothing_is_remembered() {
        let page = PageExemplars::default();
        page.begin("took_seconds", &[], &[1.0]).note(&[], 0.5);
        assert_eq!(page.of("took_seconds", &[]), None);
    }
}
