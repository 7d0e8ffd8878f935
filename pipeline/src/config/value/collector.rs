//! Where a collector of traces is, and what it is sent with each request, as OpenTelemetry writes both.

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Where spans are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CollectorUrl {
    /// As it was given.
    pub(super) given: Url,
    /// Whether it is the address itself, and nothing is added.
    pub(super) is_whole: bool,
}

impl CollectorUrl {
    /// The address that takes spans. Given as the root of the collector, `/v1/traces` is below it.
    pub(crate) fn signal(&self) -> Url {
        const SIGNAL: &str = "v1/traces";
        let mut url = self.given.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        if !self.is_whole && !path.ends_with(SIGNAL) {
            url.set_path(&format!("{path}/{SIGNAL}"));
        }
        url
    }
}

/// The headers of each request; none of them is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CollectorHeaders(pub(crate) HeaderMap);

/// Reads `name=value,name=value`, each value percent-encoded. The fault does not repeat it.
pub(super) fn headers(text: &str) -> Result<CollectorHeaders, String> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let read = || {
            let (name, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).collect::<Vec<_>>();
            let mut value = HeaderValue::from_bytes(&value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        };
        let (name, value) = read().ok_or_else(String::new)?;
        headers.insert(name, value);
    }
    match headers.is_empty() {
        true => Err(String::new()),
        false => Ok(CollectorHeaders(headers)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_standard_says_and_a_fault_does_not_repeat_them() {
        let CollectorHeaders(both) = headers("Authorization=Bearer%20secret, x-scope=acme").unwrap();
        assert_eq!(both["authorization"], "Bearer secret");
        assert_eq!(both["x-scope"], "acme");
        assert!(!format!("{both:?}").contains("secret"), "a header is not shown");
        for wrong in ["Authorization: Bearer secret", "secret", "a b=secret", "x=secret%0A", " , "] {
            assert_eq!(headers(wrong), Err(String::new()));
        }
    }

    #[test]
    fn the_root_of_a_collector_and_the_whole_address_are_the_same() {
        let signal = |text: &str, is_whole| CollectorUrl { given: Url::parse(text).unwrap(), is_whole }.signal();
        for (given, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/otlp/", "https://collector.example/otlp/v1/traces"),
            ("https://collector.example/v1/traces", "https://collector.example/v1/traces"),
        ] {
            assert_eq!(signal(given, false).as_str(), url);
        }
        assert_eq!(signal("https://collector.example/spans", true).as_str(), "https://collector.example/spans");
    }
}
