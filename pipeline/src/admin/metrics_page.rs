//! The page of metrics, in the format that the reader asks for.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use stages::metrics::Metrics;

const TEXT: &str = "text/plain; version=0.0.4";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// OpenMetrics 1.0, with exemplars, for a reader who prefers it; else the text format.
pub(super) fn answer(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (kind, page) = match prefers_open_metrics(accepted) {
        true => (OPEN_METRICS, metrics.render_open_metrics()),
        false => (TEXT, metrics.render()),
    };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], page).into_response()
}

/// Whether these `Accept` headers name OpenMetrics 1.0, and want it no less than the text format.
fn prefers_open_metrics<'a>(accepted: impl Iterator<Item = &'a str>) -> bool {
    let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
    for offer in accepted.flat_map(|value| value.split(',')) {
        let mut parts = offer.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" => version = Some(value),
                _ => {}
            }
        }
        match (kind.as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => open_metrics = open_metrics.max(quality),
            ("text/plain" | "text/*", None | Some("0.0.4")) => text = text.max(quality),
            _ => {}
        }
    }
    open_metrics > 0.0 && open_metrics >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_who_prefers_it() {
        for (accepted, prefers) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", true),
            ("application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("Application/OpenMetrics-Text; Version=1.0.0; Q=0.5, text/*; q=0.5", true),
            // Prometheus 2.42 and 3.5, as they ask.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
        ] {
            assert_eq!(prefers_open_metrics([accepted].into_iter()), prefers, "{accepted}");
        }
        let apart = ["text/plain;q=0.2", "application/openmetrics-text;q=0.3"];
        assert!(prefers_open_metrics(apart.into_iter()), "two headers are one list");
    }

    #[test]
    fn the_answer_says_its_format_and_ends_as_it_asks() {
        let metrics = Metrics::new();
        let mut headers = HeaderMap::new();
        let kind = |headers: &HeaderMap| answer(&metrics, headers).headers()[header::CONTENT_TYPE].clone();
        assert_eq!(kind(&headers), TEXT);
        headers.insert(header::ACCEPT, "application/openmetrics-text; version=1.0.0".parse().unwrap());
        assert_eq!(kind(&headers), OPEN_METRICS);
        assert!(metrics.render_open_metrics().ends_with("\n# EOF\n"));
    }
}
