//! The hosts that recordings may be fetched from, and the check of a link against them.
//!
//! A link is somebody else's word: it is followed only when its authority is spelled exactly as one of the listed
//! hosts, over TLS, without user info. Where the name leads is checked again after resolution, by
//! [`super::resolver`].

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use super::net;

/// One entry of `media_hosts`: `host`, `*.suffix` or `host:port`.
///
/// An entry that names a loopback address carries its port, allows exactly that, and may be plain http; anything
/// else is https, on port 443 unless the entry has a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaHost(Entry);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    /// One host, as a URL spells it (lower case, IPv6 in brackets).
    Host { host: String, port: u16, loopback: bool },
    /// Any host below this one; begins with a dot.
    Below(String),
}

/// Why an entry of `media_hosts` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a media host: {0}")]
pub struct MediaHostError(&'static str);

/// Where TLS listens unless an entry says otherwise.
const TLS_PORT: u16 = 443;

impl FromStr for MediaHost {
    type Err = MediaHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
        if let Some(below) = text.strip_prefix("*.") {
            if below.contains([':', '[', ']']) || !below.chars().all(plain) || !is_name(below) {
                return Err(MediaHostError("after *. stands a host name without a port"));
            }
            if !below.contains('.') {
                return Err(MediaHostError("*. and a single label would allow a whole top-level domain"));
            }
            return Ok(Self(Entry::Below(format!(".{}", below.to_ascii_lowercase()))));
        }
        if text.is_empty() || !text.chars().all(plain) {
            return Err(MediaHostError("write host, *.suffix or host:port, without scheme or path"));
        }
        let (host, port) = split_port(text)?;
        let url = Url::parse(&format!("https://{host}/")).map_err(|_| MediaHostError("the host cannot be read"))?;
        let spelled = url.host_str().unwrap_or_default();
        if !spelled.eq_ignore_ascii_case(host) {
            return Err(MediaHostError("write an address in its plain form"));
        }
        let loopback = net::is_loopback_host(spelled);
        match (net::ip_literal(spelled), port) {
            _ if loopback && port.is_none() => Err(MediaHostError("a loopback address needs its port")),
            (Some(ip), _) if !loopback && !net::is_public(ip) => {
                Err(MediaHostError("a private or reserved address is never a media host"))
            }
            (None, _) if !is_name(spelled) => Err(MediaHostError("the host name is malformed")),
            (_, port) => Ok(Self(Entry::Host { host: spelled.to_owned(), port: port.unwrap_or(TLS_PORT), loopback })),
        }
    }
}

impl fmt::Display for MediaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Entry::Host { host, port: TLS_PORT, loopback: false } => f.write_str(host),
            Entry::Host { host, port, .. } => write!(f, "{host}:{port}"),
            Entry::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), MediaHostError> {
    let colon = match text.rfind(']') {
        Some(end) => text[end..].find(':').map(|at| end + at),
        None => text.find(':'),
    };
    let Some(colon) = colon else { return Ok((text, None)) };
    let digits = &text[colon + 1..];
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok((&text[..colon], Some(port))),
        _ => Err(MediaHostError("the port is not a number from 1 to 65535")),
    }
}

/// Labels of letters, digits, `-` and `_`, none of them empty: no trailing dot either.
fn is_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// A link that may not be followed; the host is named for the operator, path and query never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recording link leaves the allowed hosts: {why}")]
pub struct LinkRefused {
    why: String,
}

impl LinkRefused {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// A presigned link has 0.5 to 2 KiB.
const MAX_LINK: usize = 16 * 1024;

/// Reads a link and checks it against the list; only what this returns is ever requested.
pub fn check_link(hosts: &[MediaHost], link: &str) -> Result<Url, LinkRefused> {
    if link.len() > MAX_LINK || link.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || byte == b'\\') {
        return Err(LinkRefused::because("it is too long or holds characters that no link has"));
    }
    let mut url = Url::parse(link).map_err(|_| LinkRefused::because("it is not a URL"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(LinkRefused::because("it names no host"));
    };
    // The authority as written must be the host that was understood: no user info, no 0x7f.1, no percent signs,
    // no Unicode look-alike that turns into another name.
    let authority = link.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
    if !authority.eq_ignore_ascii_case(host) && !authority.eq_ignore_ascii_case(&format!("{host}:{port}")) {
        return Err(LinkRefused::because("its host is not written plainly"));
    }
    let scheme = url.scheme();
    if !hosts.iter().any(|entry| entry.allows(scheme, host, port)) {
        let printable = if is_name(host) || net::ip_literal(host).is_some() { host } else { "an odd host" };
        return Err(LinkRefused::because(format!("{scheme} to {printable}, port {port}")));
    }
    url.set_fragment(None);
    Ok(url)
}

impl MediaHost {
    /// Whether the entry is `localhost`, the one name that may resolve to this machine.
    pub(super) fn is_localhost(&self) -> bool {
        matches!(&self.0, Entry::Host { host, .. } if host == "localhost")
    }

    fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        match &self.0 {
            Entry::Host { host: listed, port: listed_port, loopback } => {
                listed == host && *listed_port == port && (scheme == "https" || (scheme == "http" && *loopback))
            }
            Entry::Below(suffix) => {
                scheme == "https"
                    && port == TLS_PORT
                    && host.len() > suffix.len()
                    && host.ends_with(suffix.as_str())
                    && is_name(host)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(entries: &[&str]) -> Vec<MediaHost> {
        entries.iter().map(|entry| entry.parse().unwrap()).collect()
    }

    #[test]
    fn entries_are_hosts_suffixes_or_hosts_with_a_port() {
        for (text, shown) in [
            ("media.example.com", "media.example.com"),
            ("Media.Example.COM", "media.example.com"),
            ("*.amazonaws.com", "*.amazonaws.com"),
            ("media.example.com:8443", "media.example.com:8443"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("localhost:9000", "localhost:9000"),
            ("52.216.1.1", "52.216.1.1"),
        ] {
            assert_eq!(text.parse::<MediaHost>().map(|host| host.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_odd_entry_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "*.*.com",
            "*.example.com:443",
            "https://media.example.com",
            "media.example.com/",
            "user@media.example.com",
            "media.example.com.",
            ".example.com",
            "a..example.com",
            "media.example.com:",
            "media.example.com:0",
            "media.example.com:+1",
            "media.example.com:99999",
            "127.0.0.1",
            "localhost",
            "[::1]",
            "127.1:9000",
            "0x7f000001:9000",
            "2130706433:80",
            "10.0.0.1",
            "169.254.169.254:80",
            "[::ffff:10.0.0.1]:1",
            "::1:80",
            "[fe80::1]",
            "münchen.example",
            "a b",
            "exa%6dple.com",
        ] {
            assert!(text.parse::<MediaHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_is_followed_to_a_listed_host_only() {
        let hosts = hosts(&["media.example.com", "*.amazonaws.com", "files.example.com:8443", "127.0.0.1:9000"]);
        for link in [
            "https://media.example.com/a.mp4?sig=1",
            "https://MEDIA.example.com:443/a.mp4",
            "https://b.s3.amazonaws.com/x",
            "https://files.example.com:8443/x",
            "http://127.0.0.1:9000/x",
            "https://127.0.0.1:9000/x",
        ] {
            assert!(check_link(&hosts, link).is_ok(), "{link}");
        }
        for link in [
            "http://media.example.com/a.mp4",
            "http://media.example.com:443/a.mp4",
            "http://b.s3.amazonaws.com:443/x",
            "https://media.example.com:8443/a.mp4",
            "https://media.example.com./a.mp4",
            "https://media.example.com.evil.example/a.mp4",
            "https://evil.example/media.example.com",
            "https://media.example.com@evil.example/",
            "https://evil.example\\@media.example.com/",
            "https://user:pw@media.example.com/",
            "https://amazonaws.com/x",
            "https://evilamazonaws.com/x",
            "https://.amazonaws.com/x",
            "https://a.amazonaws.com:8443/x",
            "https://files.example.com/x",
            "http://127.0.0.1:9001/x",
            "http://127.1:9000/x",
            "http://0x7f000001:9000/x",
            "http://2130706433:9000/x",
            "http://localhost:9000/x",
            "http://[::1]:9000/x",
            "http://[::ffff:127.0.0.1]:9000/x",
            "http://169.254.169.254/latest/meta-data",
            "https://media%2eexample.com/",
            "https://ｍedia.example.com/",
            "https://media.example.com /",
            "https:media.example.com/a",
            "https:///media.example.com/a",
            "//media.example.com/a",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "",
        ] {
            assert!(check_link(&hosts, link).is_err(), "{link}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_and_nothing_else() {
        let error =
            check_link(&hosts(&["a.example"]), "https://evil.example/path/secret?X-Amz-Signature=abc").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("evil.example"), "{text}");
        assert!(!text.contains("secret") && !text.contains("abc"), "{text}");
    }
}
