//! Variables of OpenTelemetry give what nothing of ours does.

use super::*;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318/otlp");
const TRACES_ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector.example/spans");

/// Where spans go.
fn goes_to(text: &str, env: &[(&str, &str)]) -> Option<String> {
    let config = load(text, env, Need::Local).unwrap_or_else(|errors| panic!("{errors}"));
    Some(config.traces.endpoint.as_ref()?.signal().to_string())
}

#[test]
fn the_variables_of_the_standard_count_where_nothing_of_ours_is_given_and_are_named() {
    let env = [
        ENDPOINT,
        ("OTEL_SERVICE_NAME", "calls"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cr3t"),
    ];
    let config = load("", &env, Need::Local).unwrap();
    let TracesConfig { service_name, sample, headers, .. } = &config.traces;
    assert_eq!((service_name.as_deref(), *sample), (Some("calls"), 0.25));
    assert_eq!(headers.as_ref().unwrap().0["authorization"], "Bearer s3cr3t");
    let page = config.section_toml("traces").unwrap();
    for line in [
        "endpoint = \"https://collector.example:4318/otlp\"  # environment OTEL_EXPORTER_OTLP_ENDPOINT",
        "service_name = \"calls\"  # environment OTEL_SERVICE_NAME",
        "sample = 0.25  # environment OTEL_TRACES_SAMPLER_ARG",
        "headers = \"********\"  # environment OTEL_EXPORTER_OTLP_HEADERS",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} is not in\n{page}");
    }
    assert!(!format!("{config:?}{page}").contains("s3cr3t"));
    assert!(!config.is_set(), "they say nothing of an installation of ours");
}

#[test]
fn the_address_for_traces_is_taken_as_it_is_and_the_root_gets_its_path() {
    assert_eq!(goes_to("", &[ENDPOINT]).as_deref(), Some("https://collector.example:4318/otlp/v1/traces"));
    for env in [[ENDPOINT, TRACES_ENDPOINT], [TRACES_ENDPOINT, ENDPOINT]] {
        assert_eq!(goes_to("", &env).as_deref(), Some("https://collector.example/spans"));
    }
    // An empty one counts as one that is not set.
    let empty = (TRACES_ENDPOINT.0, "");
    assert_eq!(goes_to("", &[empty, ENDPOINT]).as_deref(), Some("https://collector.example:4318/otlp/v1/traces"));
    assert_eq!(goes_to("", &[empty]), None);
}

#[test]
fn what_is_given_in_our_words_wins_even_if_it_switches_tracing_off() {
    let file = "[traces]\nendpoint = \"http://127.0.0.1:4318\"\nsample = 0.5\nheaders = \"x-scope=acme\"";
    let both = [ENDPOINT, TRACES_ENDPOINT, ("OTEL_TRACES_SAMPLER_ARG", "nonsense")];
    assert_eq!(goes_to(file, &both).as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
    assert_eq!(goes_to("[traces]\nendpoint = \"\"", &[ENDPOINT]), None);
    let ours = ("NICE_KNOVVU_TRACES__ENDPOINT", "http://127.0.0.1:1");
    assert_eq!(goes_to(file, &[ENDPOINT, ours]).as_deref(), Some("http://127.0.0.1:1/v1/traces"));
    let config = load(file, &[("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=other")], Need::Local).unwrap();
    assert_eq!(config.traces.headers.as_ref().unwrap().0["x-scope"], "acme");
}

#[test]
fn a_wrong_value_counts_as_not_given_is_told_by_its_variable_and_a_secret_is_not() {
    let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
    for (variable, value, fragment) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "expected an address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "plain http is accepted only to a loopback address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://u:s3cr3t@h", "user name and password"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "expected a number from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "endpoint=x", "expected a number from 0 to 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: s3cr3t", "name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3cr3t", "name=value"),
        ("OTEL_SERVICE_NAME", "two\nlines", "control character"),
    ] {
        let config = load("", &[(variable, value), ratio], Need::Local).unwrap_or_else(|errors| panic!("{errors}"));
        let [told] = config.unusable() else { panic!("{:?}", config.unusable()) };
        assert!(told.starts_with(&format!("{variable}: ")) && told.contains(fragment), "{told}");
        assert!(!told.contains("s3cr3t"), "{told}");
        let TracesConfig { endpoint, sample, service_name, headers, .. } = &config.traces;
        assert!(endpoint.is_none() && headers.is_none() && service_name.is_none(), "{variable}");
        assert!((*sample - 1.0).abs() < f64::EPSILON, "{variable}");
        assert!(config.section_toml("traces").unwrap().contains("sample = 1.0"), "it is shown as the default");
    }
}

#[test]
fn what_is_not_meant_for_us_does_not_count() {
    for other in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_EXPORTER", "console,zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        assert_eq!(goes_to("", &[ENDPOINT, other]), None, "{other:?}");
        let ours = ("NICE_KNOVVU_TRACES__ENDPOINT", "http://127.0.0.1:1");
        assert!(goes_to("", &[ENDPOINT, other, ours]).is_some(), "what is ours counts: {other:?}");
    }
    for same in [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")] {
        assert!(goes_to("", &[ENDPOINT, same]).is_some(), "{same:?}");
    }
    let share = ("OTEL_TRACES_SAMPLER_ARG", "0");
    let config = load("", &[share, ("OTEL_TRACES_SAMPLER", "always_on")], Need::Local).unwrap();
    assert!((config.traces.sample - 1.0).abs() < f64::EPSILON, "a share counts only for a sampler that has one");
}
