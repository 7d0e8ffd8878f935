//! The page of metrics in the format OpenMetrics 1.0, which knows exemplars.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::traced_histogram::{Exemplar, PageExemplars};

/// Writes the families, and the exemplars of their buckets.
pub(super) fn write(families: &[MetricFamily], exemplars: &PageExemplars) -> String {
    let mut page = OpenMetricsText::default();
    for family in families {
        page.family(family, exemplars);
    }
    page.text + "# EOF\n"
}

#[derive(Default)]
struct OpenMetricsText {
    text: String,
}

impl OpenMetricsText {
    fn family(&mut self, family: &MetricFamily, exemplars: &PageExemplars) {
        let (name, kind) = named(family);
        self.line(format_args!("# HELP {name} {}", escaped(family.help())));
        self.line(format_args!("# TYPE {name} {kind}"));
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => self.sample(family.name(), metric, metric.get_counter().get_value()),
                MetricType::GAUGE => self.sample(family.name(), metric, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => self.histogram(family.name(), metric, exemplars),
                // We have none of them.
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }

    fn sample(&mut self, name: &str, metric: &Metric, value: f64) {
        self.line(format_args!("{name}{} {}", labels(metric.get_label(), None), number(value)));
    }

    fn histogram(&mut self, name: &str, metric: &Metric, exemplars: &PageExemplars) {
        let (own, histogram) = (metric.get_label(), metric.get_histogram());
        let exemplars = exemplars.of(name, own).unwrap_or_default();
        let count = histogram.get_sample_count();
        let bounded = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        let bounded = bounded.filter(|(bound, _)| bound.is_finite()).chain([(f64::INFINITY, count)]);
        for (place, (bound, count)) in bounded.enumerate() {
            let labels = labels(own, Some(bound));
            match exemplars.get(place).and_then(Option::as_ref) {
                Some(exemplar) => self.line(format_args!("{name}_bucket{labels} {count} # {}", shown(exemplar))),
                None => self.line(format_args!("{name}_bucket{labels} {count}")),
            }
        }
        let labels = labels(own, None);
        self.line(format_args!("{name}_count{labels} {count}"));
        self.line(format_args!("{name}_sum{labels} {}", number(histogram.get_sample_sum())));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.push_str(&std::fmt::format(line));
        self.text.push('\n');
    }
}

/// The name of a family and its type. A counter's samples end with `_total`, and its family does not; what does not end
/// so is no counter to OpenMetrics.
fn named(family: &MetricFamily) -> (&str, &'static str) {
    let name = family.name();
    match family.get_field_type() {
        MetricType::COUNTER => name.strip_suffix("_total").map_or((name, "unknown"), |name| (name, "counter")),
        MetricType::GAUGE => (name, "gauge"),
        MetricType::HISTOGRAM => (name, "histogram"),
        MetricType::SUMMARY | MetricType::UNTYPED => (name, "unknown"),
    }
}

/// `{name="value",…}`, with the bound of a bucket at the end; nothing where there is none.
fn labels(pairs: &[LabelPair], bound: Option<f64>) -> String {
    let own = pairs.iter().map(|pair| format!("{}=\"{}\"", pair.name(), escaped(pair.value())));
    // As OpenMetrics asks: 1.0, not 1.
    let bound = bound.map(|bound| if bound.is_finite() { format!("le=\"{bound:?}\"") } else { "le=\"+Inf\"".into() });
    let all: Vec<_> = own.chain(bound).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn shown(exemplar: &Exemplar) -> String {
    let Exemplar { trace_id, value, at } = exemplar;
    let at = at.as_millisecond() as f64 / 1e3;
    format!("{{trace_id=\"{}\"}} {} {at:.3}", escaped(trace_id), number(*value))
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::metrics;

    fn exemplar(value: f64) -> Exemplar {
        let at = "2026-04-01T10:00:00.25Z".parse::<Timestamp>().unwrap();
        Exemplar { trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(), value, at }
    }

    #[test]
    fn a_page_is_as_open_metrics_wants_it() {
        let page = metrics::Page::default();
        page.counters("calls_total", "Calls, \"all\" of them.", &["end"]).with_label_values(&["a\\b\n\"c\""]).inc_by(3);
        page.counter("odd", "A counter of another name.").inc();
        page.float_gauge("lag_seconds", "How late.").set(f64::INFINITY);
        page.float_gauge("unsure", "Not known.").set(f64::NAN);
        let took = page.histograms("took_seconds", "How long.", &["stage", "end"], vec![0.25, 1.0]);
        took.observe(&["upload", "ok"], 0.5);
        took.observe(&["upload", "ok"], 70.5);
        took.observe(&["persist", "ok"], 0.125);
        took.exemplars().keep(&["upload", "ok"], exemplar(0.5));
        took.exemplars().keep(&["upload", "ok"], exemplar(70.5));
        let expected = r##"# HELP nice_knovvu_calls Calls, \"all\" of them.
# TYPE nice_knovvu_calls counter
nice_knovvu_calls_total{end="a\\b\n\"c\""} 3
# HELP nice_knovvu_lag_seconds How late.
# TYPE nice_knovvu_lag_seconds gauge
nice_knovvu_lag_seconds +Inf
# HELP nice_knovvu_odd A counter of another name.
# TYPE nice_knovvu_odd unknown
nice_knovvu_odd 1
# HELP nice_knovvu_took_seconds How long.
# TYPE nice_knovvu_took_seconds histogram
nice_knovvu_took_seconds_bucket{end="ok",stage="persist",le="0.25"} 1
nice_knovvu_took_seconds_bucket{end="ok",stage="persist",le="1.0"} 1
nice_knovvu_took_seconds_bucket{end="ok",stage="persist",le="+Inf"} 1
nice_knovvu_took_seconds_count{end="ok",stage="persist"} 1
nice_knovvu_took_seconds_sum{end="ok",stage="persist"} 0.125
nice_knovvu_took_seconds_bucket{end="ok",stage="upload",le="0.25"} 0
nice_knovvu_took_seconds_bucket{end="ok",stage="upload",le="1.0"} 1 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.5 1775037600.250
nice_knovvu_took_seconds_bucket{end="ok",stage="upload",le="+Inf"} 2 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 70.5 1775037600.250
nice_knovvu_took_seconds_count{end="ok",stage="upload"} 2
nice_knovvu_took_seconds_sum{end="ok",stage="upload"} 71
# HELP nice_knovvu_unsure Not known.
# TYPE nice_knovvu_unsure gauge
nice_knovvu_unsure NaN
# EOF
"##;
        assert_eq!(page.render_open_metrics(), expected);
        assert!(!page.render().contains("trace_id"), "the text format has no exemplars");
    }

    #[test]
    fn an_exemplar_is_no_longer_than_allowed() {
        let shown = shown(&exemplar(0.5));
        let labels = shown.split('}').next().unwrap_or_default();
        assert!(labels.len() <= 128, "{labels}");
    }
}
