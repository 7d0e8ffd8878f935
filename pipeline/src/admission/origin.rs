//! From where a browser asks, as far as its headers say.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// Whether the host that is asked for is a name of this machine, or one of `hosts`.
pub(super) fn is_known_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(name) = host(headers).map(without_port) else { return false };
    let name = name.to_ascii_lowercase();
    let is_loopback = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback || name == "localhost" || name.ends_with(".localhost") || hosts.contains(&name)
}

/// Whether a page of this host sent the form. A browser of before 2020 says its page's origin only.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin.split_once("://").map(|(_, rest)| rest) == host(headers),
        (None, None) => false,
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|value| value.to_str().ok())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}
