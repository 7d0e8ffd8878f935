//! Metrics: each part of the program has a struct of its own, and all of them stand on one page.
//!
//! Labels come from enums and constants; no id of a call, an agent or a person is ever a label.

use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Declares a struct of metrics: a line each, whose comment is the help text that Prometheus shows.
///
/// `parts` are other structs of metrics on the same page. The struct gets `registered(&Page)`, and a `Default` that is
/// on a page of its own, for tests.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(parts { $($(#[$part_meta:meta])* $part:ident: $part_type:ty,)* })?
            $($(#[doc = $help:literal])+ $metric:ident: $kind:ident($series:literal $(, $more:expr)*),)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($($(#[$part_meta])* pub $part: $part_type,)*)?
            $($(#[doc = $help])+ pub $metric: $crate::metrics::types::$kind,)*
        }

        impl $name {
            fn registered(page: &$crate::metrics::Page) -> Self {
                Self {
                    $($($part: <$part_type>::register(page),)*)?
                    $($metric: page.$kind($series, concat!($($help),+).trim() $(, $more)*),)*
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::register(&$crate::metrics::Page::default())
            }
        }
    };
}

/// The types of metrics, by the names that [`metrics!`] knows them by.
#[doc(hidden)]
#[expect(non_camel_case_types, reason = "each type has the name of the method of `Page` that makes it")]
pub mod types {
    pub type counter = prometheus::IntCounter;
    pub type counters = prometheus::IntCounterVec;
    pub type float_counters = prometheus::CounterVec;
    pub type gauge = prometheus::IntGauge;
    pub type gauges = prometheus::IntGaugeVec;
    pub type float_gauge = prometheus::Gauge;
    pub type float_gauges = prometheus::GaugeVec;
    pub type histogram = prometheus::Histogram;
    pub type histograms = prometheus::HistogramVec;
}

/// The page that Prometheus reads.
#[derive(Debug, Clone, Default)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// Returns the same page, so that a struct of metrics can hold it and render it.
    pub fn register(page: &Self) -> Self {
        page.clone()
    }

    /// Adds what the system tells of this process: memory, CPU, files.
    pub fn add_process(&self) {
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            self.registry.register(Box::new(process)).expect("there is one process");
        }
    }

    /// The page as text (format 0.0.4).
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

    /// Names are constants of the program, so a clash is a mistake that the first test finds.
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, metric: C) -> C {
        self.registry.register(Box::new(metric.clone())).expect("each metric is registered once");
        metric
    }

    /// Counts up.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help).expect("a valid name"))
    }

    /// Counts up, by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name"))
    }

    /// Adds up fractions, by labels.
    pub fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(Opts::new(name, help), labels).expect("a valid name"))
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help).expect("a valid name"))
    }

    /// The same, by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name"))
    }

    /// A number that goes up and down.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help).expect("a valid name"))
    }

    /// The same, by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels).expect("a valid name"))
    }

    /// How values are spread.
    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("a valid name"))
    }

    /// The same, by labels.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect("a valid name"))
    }
}

/// Buckets from some milliseconds to two minutes: what one request or one stage takes.
pub fn seconds() -> Vec<f64> {
    prometheus::exponential_buckets(0.005, 2.5, 12).expect("constants are in range")
}

/// Buckets from a second to some hours: what NICE takes to process a call.
pub fn long_seconds() -> Vec<f64> {
    prometheus::exponential_buckets(1.0, 2.5, 13).expect("constants are in range")
}
