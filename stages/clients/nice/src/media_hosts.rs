//! The hosts that recordings may be fetched from, and the check of a link against them.
//!
//! A link is somebody else's word: it is followed only when its authority is spelled exactly as one of the listed
//! hosts, over TLS, without user info. Where the name leads is checked again after resolution, by
//! [`super::resolver`].

use std::fmt;
use std::str::FromStr;

use model::http;
use reqwest::Url;

use super::net;

/// One entry of `media_hosts`: `host`, `*.suffix` or `host:port`.
///
/// An entry that names a loopback address carries its port, allows exactly that, and may be plain http; anything
/// else is https, on port 443 unless the entry has a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaHost(HostPattern);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum HostPattern {
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
            return Ok(Self(HostPattern::Below(format!(".{}", below.to_ascii_lowercase()))));
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
        let loopback = http::is_loopback_host(spelled);
        match (http::ip_literal(spelled), port) {
            _ if loopback && port.is_none() => Err(MediaHostError("a loopback address needs its port")),
            (Some(ip), _) if !loopback && !net::is_public(ip) => {
                Err(MediaHostError("a private or reserved address is never a media host"))
            }
            (None, _) if !is_name(spelled) => Err(MediaHostError("the host name is malformed")),
            (_, port) => {
                Ok(Self(HostPattern::Host { host: spelled.to_owned(), port: port.unwrap_or(TLS_PORT), loopback }))
            }
        }
    }
}

impl fmt::Display for MediaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HostPattern::Host { host, port: TLS_PORT, loopback: false } => f.write_str(host),
            HostPattern::Host { host, port, .. } => write!(f, "{host}:{port}"),
            HostPattern::Below(suffix) => write!(f, "*{suffix}"),
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
pub enum LinkRefused {
    /// Longer than any link.
    #[error("the recording link is longer than {MAX_LINK} characters")]
    TooLong,
    /// A control character: a line break, say.
    #[error("the recording link holds a control character")]
    ControlCharacter,
    /// A backslash before the query: some read it as a slash, and some do not.
    #[error("the recording link holds a backslash in its host or path")]
    Backslash,
    /// No URL with a host.
    #[error("the recording link is not a URL with a host")]
    NotAUrl,
    /// The authority is not the host as it was understood.
    #[error("the recording link does not write its host plainly: user name, escapes or odd spelling stand in it")]
    Spelling,
    /// Plain http to a host that is listed for https.
    #[error("the recording link leads to the listed host {host} by {scheme}, and only https is followed there")]
    Scheme {
        /// How it is to be fetched.
        scheme: String,
        /// The host.
        host: String,
    },
    /// The host is not listed, or not with this port.
    #[error("recording link leaves the allowed hosts: {scheme} to {host}, port {port}")]
    OffTheList {
        /// How it is to be fetched.
        scheme: String,
        /// The host, where it can be printed.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A presigned link has 0.5 to 2 KiB.
const MAX_LINK: usize = 16 * 1024;

/// Reads a link and checks it against the list; only what this returns is ever requested.
///
/// In path and query stands what browsers take: a space, a quote, a letter with an accent are sent percent-encoded.
pub fn check_link(hosts: &[MediaHost], link: &str) -> Result<Url, LinkRefused> {
    if link.len() > MAX_LINK {
        return Err(LinkRefused::TooLong);
    }
    if link.chars().any(char::is_control) {
        return Err(LinkRefused::ControlCharacter);
    }
    if link.split(['?', '#']).next().is_some_and(|before| before.contains('\\')) {
        return Err(LinkRefused::Backslash);
    }
    let mut url = Url::parse(link).map_err(|_| LinkRefused::NotAUrl)?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(LinkRefused::NotAUrl);
    };
    // The authority as written must be the host that was understood: no user info, no 0x7f.1, no percent signs,
    // no Unicode look-alike that turns into another name.
    let authority = link.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
    if !authority.eq_ignore_ascii_case(host) && !authority.eq_ignore_ascii_case(&format!("{host}:{port}")) {
        return Err(LinkRefused::Spelling);
    }
    let scheme = url.scheme();
    if !hosts.iter().any(|entry| entry.allows(scheme, host, port)) {
        let printable = if is_name(host) || http::ip_literal(host).is_some() { host } else { "an odd host" };
        let (scheme, host) = (scheme.to_owned(), printable.to_owned());
        let by_tls = |port| hosts.iter().any(|entry| entry.allows("https", &host, port));
        return Err(match by_tls(port) || (scheme == "http" && port == PLAIN_PORT && by_tls(TLS_PORT)) {
            true => LinkRefused::Scheme { scheme, host },
            false => LinkRefused::OffTheList { scheme, host, port },
        });
    }
    url.set_fragment(None);
    Ok(url)
}

/// Where plain http listens.
const PLAIN_PORT: u16 = 80;

impl MediaHost {
    /// Whether the entry is `localhost`, the one name that may resolve to this machine.
    pub(super) fn is_localhost(&self) -> bool {
        matches!(&self.0, HostPattern::Host { host, .. } if host == "localhost")
    }

    /// Whether a name that is resolved is one of the entry's.
    pub(super) fn names(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match &self.0 {
            HostPattern::Host { host, .. } => *host == name,
            HostPattern::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }

    /// Whether every link that the other entry allows is one that this one allows, too.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (mine, theirs) if mine == theirs => true,
            (HostPattern::Below(mine), HostPattern::Below(theirs)) => theirs.ends_with(mine.as_str()),
            (HostPattern::Below(_), HostPattern::Host { host, port: TLS_PORT, loopback: false }) => self.names(host),
            _ => false,
        }
    }

    fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        match &self.0 {
            HostPattern::Host { host: listed, port: listed_port, loopback } => {
                listed == host && *listed_port == port && (scheme == "https" || (scheme == "http" && *loopback))
            }
            HostPattern::Below(suffix) => {
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
    fn what_browsers_take_in_path_and_query_is_taken() {
        let hosts = hosts(&["media.example.com"]);
        for (rest, sent) in [
            ("/a|b^c.mp4?x={1}", "/a|b^c.mp4?x={1}"),
            ("/a \"b\".mp4?x=a b", "/a%20%22b%22.mp4?x=a%20b"),
            ("/{a}<b>`c`.mp4", "/%7Ba%7D%3Cb%3E%60c%60.mp4"),
            ("/Gespräch.mp4?x=é", "/Gespr%C3%A4ch.mp4?x=%C3%A9"),
            ("/a%20b.mp4?x=%7C&sig=a+b%2F==", "/a%20b.mp4?x=%7C&sig=a+b%2F=="),
            ("/a.mp4?x=a\\b", "/a.mp4?x=a\\b"),
            ("/a.mp4#part", "/a.mp4"),
        ] {
            let url = check_link(&hosts, &format!("https://media.example.com{rest}")).expect(rest);
            let plain = |text: &str| text.replace("%7C", "|").replace("%5E", "^");
            assert_eq!(plain(url.as_str()), plain(&format!("https://media.example.com{sent}")), "{rest}");
        }
    }

    #[test]
    fn a_refusal_names_the_true_fault() {
        let hosts = hosts(&["a.example", "b.example:8443", "127.0.0.1:9000"]);
        let host = |name: &str| name.to_owned();
        for (link, fault) in [
            ("https://a.example/\n", LinkRefused::ControlCharacter),
            ("https://a.example/\u{85}", LinkRefused::ControlCharacter),
            ("https://a.example\\@evil.example/", LinkRefused::Backslash),
            ("https://a.example/x\\y", LinkRefused::Backslash),
            ("not a link", LinkRefused::NotAUrl),
            ("mailto:a@a.example", LinkRefused::NotAUrl),
            ("https://user@a.example/", LinkRefused::Spelling),
            ("https://A%2eexample/", LinkRefused::Spelling),
            ("http://a.example/", LinkRefused::Scheme { scheme: host("http"), host: host("a.example") }),
            ("http://b.example:8443/", LinkRefused::Scheme { scheme: host("http"), host: host("b.example") }),
            (
                "https://evil.example/",
                LinkRefused::OffTheList { scheme: host("https"), host: host("evil.example"), port: 443 },
            ),
            (
                "http://127.0.0.1:9001/",
                LinkRefused::OffTheList { scheme: host("http"), host: host("127.0.0.1"), port: 9001 },
            ),
        ] {
            assert_eq!(check_link(&hosts, link), Err(fault), "{link}");
        }
        assert_eq!(
            check_link(&hosts, &format!("https://a.example/{}", "a".repeat(MAX_LINK))),
            Err(LinkRefused::TooLong)
        );
    }

    #[test]
    fn an_entry_covers_what_it_allows_and_no_more() {
        let covers = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|entry| entry.parse::<MediaHost>().unwrap());
            one.covers(&other)
        };
        assert!(covers("a.example.com", "A.example.com"));
        assert!(covers("*.example.com", "*.example.com") && covers("*.example.com", "*.b.example.com"));
        assert!(covers("*.example.com", "a.example.com"));
        for (one, other) in [
            ("a.example.com", "b.example.com"),
            ("a.example.com", "a.example.com:8443"),
            ("*.example.com", "a.example.com:8443"),
            ("*.example.com", "example.com"),
            ("*.b.example.com", "*.example.com"),
            ("a.example.com", "*.example.com"),
            ("*.example.com", "*.evilexample.com"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
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
