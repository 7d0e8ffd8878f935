//! Addresses: URLs, the hosts that recordings may come from, listening sockets.
//!
//! Plain `http` carries tokens and calls in the clear, so it is accepted only where it does not leave the machine.

use std::net::{IpAddr, SocketAddr};

use nice::MediaHost;
use reqwest::Url;

/// Reads the root of a service. The faults never repeat the text: an address may carry a password.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user name and password do not belong in this address; remove them".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an address of a service has neither ? nor #; remove what follows".to_owned());
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        // An IPv4 address in IPv6 spelling is not taken: the client that sends the secrets does not take it either.
        ("http", Some(host)) if is_loopback(host) && !host.contains("::ffff:") => Ok(url),
        ("http", Some(_)) => {
            Err("plain http is accepted only to a loopback address such as 127.0.0.1; use https".to_owned())
        }
        _ => Err("the address begins with neither https:// nor http://".to_owned()),
    }
}

/// Reads one entry of `media_hosts`: `host`, `*.suffix` or `host:port`, as the client understands it too.
pub(super) fn media_host(text: &str) -> Result<MediaHost, String> {
    entry(text)?.parse().map_err(|refused: nice::MediaHostError| refused.to_string())
}

/// The entry in its one spelling.
fn entry(text: &str) -> Result<String, String> {
    if text.contains("://") || text.contains('/') {
        return Err("an entry is a host, not a URL; leave out scheme and path".to_owned());
    }
    if text == "*" {
        return Err("* would allow every host; name the hosts, or a suffix such as *.amazonaws.com".to_owned());
    }
    if let Some(suffix) = text.strip_prefix("*.") {
        let suffix = canonical(suffix).filter(|suffix| !suffix.starts_with('[') && suffix.parse::<IpAddr>().is_err());
        let suffix = suffix.ok_or_else(|| "a suffix is *. and then a host name, without a port".to_owned())?;
        if !suffix.contains('.') || reaches_loopback(&suffix) {
            return Err("the suffix is too wide; it names at least two labels, such as *.example.com".to_owned());
        }
        return Ok(format!("*.{suffix}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = canonical(host).ok_or_else(|| "neither host, *.suffix nor host:port".to_owned())?;
    match port {
        Some(port) => match port.parse::<u16>() {
            Ok(port @ 1..) => Ok(format!("{host}:{port}")),
            _ => Err("the port is a number from 1 to 65535".to_owned()),
        },
        None if reaches_loopback(&host) => {
            Err("a loopback address is named with its port, such as 127.0.0.1:8080".to_owned())
        }
        None => Ok(host),
    }
}

/// Reads `ip:port`.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address with a port".to_owned())
}

/// Reads `host:port` of a server to connect to.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    if text.contains("://") || text.contains('/') {
        return Err("neither a scheme nor a path belongs here".to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| "it has no port".to_owned())?;
    let host = canonical(host).ok_or_else(|| "what stands before the port is no host".to_owned())?;
    match port.parse::<u16>() {
        Ok(port @ 1..) => Ok(format!("{host}:{port}")),
        _ => Err("the port is a number from 1 to 65535".to_owned()),
    }
}

/// The host as a URL would spell it (lower case, one spelling per IP address), or none where it is no host.
fn canonical(host: &str) -> Option<String> {
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !(bracketed || plain) {
        return None;
    }
    let url = Url::parse(&format!("https://{host}/")).ok()?;
    let host = url.host_str()?;
    let labels = bracketed || host.split('.').all(|label| !label.is_empty() && !label.starts_with('-'));
    labels.then(|| host.to_owned())
}

/// Whether connecting to the host stays on this machine: a loopback address, or `localhost`.
fn is_loopback(host: &str) -> bool {
    address(host).map_or(host == "localhost", |address| address.is_loopback())
}

/// Whether the host can reach what listens on this machine only: also the unspecified address, and names that some
/// resolvers send to loopback.
fn reaches_loopback(host: &str) -> bool {
    is_loopback(host) || address(host).is_some_and(|address| address.is_unspecified()) || host.ends_with(".localhost")
}

/// The IP address that the host is, if it is one; an IPv4 address in IPv6 spelling counts as itself.
fn address(host: &str) -> Option<IpAddr> {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()?;
    Some(address.to_canonical())
}
