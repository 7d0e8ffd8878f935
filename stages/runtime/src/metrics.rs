//! Metrics: each part of the program has a struct of its own, and all of them stand on one page.
//!
//! Labels come from enums and constants, but for the bounded label `tenant`; no id of a call, an agent or a person is
//! ever a label.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use by_tenant::{ByTenant, MOST_NAMED, OTHER};
use by_tenant::{NamedTenants, TENANT};
pub use if_known::GaugeIfKnown;
use traced_histogram::PageExemplars;
pub use traced_histogram::{TracedHistogram, TracedHistograms};

mod by_tenant;
mod if_known;
mod open_metrics;
mod traced_histogram;

/// Stands before the name of every series of ours, but for those of the process, which Prometheus names.
pub const PREFIX: &str = "nice_knovvu";

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
    pub type gauge_if_known = super::GaugeIfKnown;
    pub type histogram = super::TracedHistogram;
    pub type histograms = super::TracedHistograms;

    pub type own_counter = prometheus::IntCounter;
    pub type own_counters = prometheus::IntCounterVec;
    pub type own_gauge = prometheus::IntGauge;
    pub type own_gauges = prometheus::IntGaugeVec;
    pub type own_float_gauge = prometheus::Gauge;
    pub type own_float_gauges = prometheus::GaugeVec;

    pub type counters_by_tenant = super::ByTenant<prometheus::IntCounterVec>;
    pub type gauges_by_tenant = super::ByTenant<prometheus::IntGaugeVec>;
    pub type float_gauges_by_tenant = super::ByTenant<prometheus::GaugeVec>;
}

/// The page that Prometheus reads.
#[derive(Debug, Clone, Default)]
pub struct Page {
    registry: Registry,
    named: NamedTenants,
    exemplars: PageExemplars,
    /// Whose producer the process is; none where it serves every tenant.
    own: Option<String>,
}

impl Page {
    /// The page of a process that is the producer of `tenant`, or of none.
    pub fn of(tenant: Option<&str>) -> Self {
        Self { own: tenant.map(str::to_owned), ..Self::default() }
    }

    /// Returns the same page, so that a struct of metrics can hold it and render it.
    pub fn register(page: &Self) -> Self {
        page.clone()
    }

    /// Whose producer the process is; none where it serves every tenant.
    pub fn own(&self) -> Option<&str> {
        self.own.as_deref()
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

    /// The page in the format OpenMetrics 1.0, with the trace of the latest value of each bucket.
    pub fn render_open_metrics(&self) -> String {
        open_metrics::write(&self.registry.gather(), &self.exemplars)
    }

    /// Names are constants of the program, so a clash is a mistake that the first test finds.
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a valid name");
        self.registry.register(Box::new(metric.clone())).expect("each metric is registered once");
        metric
    }

    /// Shows what only the producer of a tenant knows, where the process is one.
    fn add_own<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        match self.own {
            Some(_) => self.add(metric),
            None => metric.expect("a valid name"),
        }
    }

    /// Counts up.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(named(name, help)))
    }

    /// Counts up, by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(named(name, help), labels))
    }

    /// Adds up fractions, by labels.
    pub fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(named(name, help), labels))
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(named(name, help)))
    }

    /// The same, by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(named(name, help), labels))
    }

    /// A number that goes up and down.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::with_opts(named(name, help)))
    }

    /// The same, by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(named(name, help), labels))
    }

    /// A number that goes up and down, and is not shown while it is not known.
    pub fn gauge_if_known(&self, name: &str, help: &str) -> GaugeIfKnown {
        GaugeIfKnown::new(self.float_gauges(name, help, &[]))
    }

    /// How values are spread.
    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> TracedHistogram {
        let opts = named(name, help);
        let exemplars = self.exemplars.begin(&opts.fq_name(), &[], &buckets);
        TracedHistogram::new(self.add(Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets))), exemplars)
    }

    /// The same, by labels.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> TracedHistograms {
        let opts = named(name, help);
        let exemplars = self.exemplars.begin(&opts.fq_name(), labels, &buckets);
        let values = self.add(HistogramVec::new(HistogramOpts::from(opts).buckets(buckets), labels));
        TracedHistograms::new(values, exemplars)
    }
}

/// What a producer shows of its tenant, with the label `tenant`; a process that is none shows none of it.
impl Page {
    fn own_opts(&self, name: &str, help: &str) -> Opts {
        named(name, help).const_label(TENANT, self.own.as_deref().unwrap_or_default())
    }

    /// Counts up.
    pub fn own_counter(&self, name: &str, help: &str) -> IntCounter {
        self.add_own(IntCounter::with_opts(self.own_opts(name, help)))
    }

    /// Counts up, by labels.
    pub fn own_counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add_own(IntCounterVec::new(self.own_opts(name, help), labels))
    }

    /// A whole number that goes up and down.
    pub fn own_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add_own(IntGauge::with_opts(self.own_opts(name, help)))
    }

    /// The same, by labels.
    pub fn own_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add_own(IntGaugeVec::new(self.own_opts(name, help), labels))
    }

    /// A number that goes up and down.
    pub fn own_float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add_own(Gauge::with_opts(self.own_opts(name, help)))
    }

    /// The same, by labels.
    pub fn own_float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add_own(GaugeVec::new(self.own_opts(name, help), labels))
    }
}

/// What a process shows of each tenant that it serves.
impl Page {
    /// Counts up.
    pub fn counters_by_tenant(&self, name: &str, help: &str, labels: &[&str]) -> types::counters_by_tenant {
        ByTenant::new(self.counters(name, help, &with_tenant(labels)), self.named.clone())
    }

    /// A whole number that goes up and down.
    pub fn gauges_by_tenant(&self, name: &str, help: &str, labels: &[&str]) -> types::gauges_by_tenant {
        ByTenant::new(self.gauges(name, help, &with_tenant(labels)), self.named.clone())
    }

    /// A number that goes up and down.
    pub fn float_gauges_by_tenant(&self, name: &str, help: &str, labels: &[&str]) -> types::float_gauges_by_tenant {
        ByTenant::new(self.float_gauges(name, help, &with_tenant(labels)), self.named.clone())
    }
}

fn with_tenant<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    [TENANT].iter().chain(labels).copied().collect()
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

/// Buckets from some milliseconds to two minutes: what one request or one stage takes.
pub fn seconds() -> Vec<f64> {
    prometheus::exponential_buckets(0.005, 2.5, 12).expect("constants are in range")
}

/// Buckets from a second to some hours: what NICE takes to process a call.
pub fn long_seconds() -> Vec<f64> {
    prometheus::exponential_buckets(1.0, 2.5, 13).expect("constants are in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_the_prefix_and_only_a_producer_shows_its_tenant() {
        let shown = |tenant| {
            let page = Page::of(tenant);
            page.counter("a_total", "One more.").inc();
            page.own_gauge("b", "How many.").set(3);
            page.render()
        };
        assert!(shown(Some("acme")).contains("nice_knovvu_a_total 1\n"), "{}", shown(Some("acme")));
        assert!(shown(Some("acme")).contains("nice_knovvu_b{tenant=\"acme\"} 3\n"), "{}", shown(Some("acme")));
        assert!(!shown(None).contains("nice_knovvu_b"), "{}", shown(None));
    }
}
