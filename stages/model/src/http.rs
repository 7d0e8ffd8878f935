//! What every door needs that speaks HTTP: which hosts are our own machine, and where a secret may be sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Url;

/// Whether a secret may be sent there: https, or http that does not leave this machine.
pub fn carries_secrets(url: &Url) -> bool {
    let bare = url.username().is_empty() && url.password().is_none();
    match url.scheme() {
        "https" => bare && url.has_host(),
        "http" => bare && url.host_str().is_some_and(is_loopback_host),
        _ => false,
    }
}

/// Whether a URL's host (IPv6 in brackets) names this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip_literal(host).is_some_and(|ip| ip.is_loopback())
}

/// The address that a URL's host spells out, if it is one.
pub fn ip_literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_over_tls_or_stay_here() {
        let fits = |url: &str| carries_secrets(&Url::parse(url).unwrap());
        assert!(fits("https://cxone.niceincontact.com"));
        assert!(fits("http://127.0.0.1:9/"));
        assert!(fits("http://[::1]:9/"));
        assert!(fits("http://LOCALHOST:9/"));
        assert!(!fits("http://cxone.niceincontact.com"));
        assert!(!fits("http://127.0.0.1.evil.example/"));
        assert!(!fits("https://user@cxone.niceincontact.com"));
        assert!(!fits("ftp://127.0.0.1/"));
    }
}
