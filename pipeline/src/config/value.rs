//! The kinds of values: what a key accepts, how it is read, and how it is shown.
//!
//! In: a [`Raw`] value, typed by TOML or typeless from the environment. Out: a [`Value`], or a fault in words
//! that says what was found, what is expected, and an example. A fault about a secret never shows the value.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::{civil::Time, tz::TimeZone};
use model::ImportSince;
use reqwest::Url;
#[cfg(any(test, feature = "servers"))]
use secrecy::ExposeSecret;
use secrecy::{SecretBox, SecretString};

use super::nearest::nearest;

mod address;
mod raw;
mod text;
mod time;

pub(super) use self::raw::Raw;
pub(crate) use self::{address::MediaHost, time::Rate};

/// What a secret looks like wherever settings are shown.
const MASK: &str = "\"********\"";

/// What a key accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text that is not empty.
    Text,
    /// A name that becomes part of others: letters, digits, `_`, `-` and `.`.
    Name,
    /// The id of a tenant.
    TenantId,
    /// A version of NICE's API, such as `v33.0`.
    ApiVersion,
    /// A bucket's name.
    Bucket,
    /// A path; empty only where `true`.
    Path(bool),
    /// true or false.
    Flag,
    /// A whole number within these bounds.
    Count(u32, u32),
    /// A number from 0 to 1.
    Share,
    /// A share below 1: 0 to 0.999.
    Quantile,
    /// A duration; zero is possible.
    Duration,
    /// A duration longer than zero.
    Interval,
    /// A duration of a day or more.
    Retention,
    /// A moment, or a duration before now.
    Since,
    /// A list of durations longer than zero.
    Intervals,
    /// So many in a window.
    Rate,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The root of a service; empty only where `true`.
    Url(bool),
    /// A list of hosts; empty only where `true`.
    MediaHosts(bool),
    /// A time zone by its name.
    Zone,
    /// A time of day.
    Time,
    /// An IP address and port to listen on.
    Listen,
    /// A secret text.
    Secret,
    /// A secret key of 32 bytes in hex.
    SealKey,
}

/// A value that its kind has accepted.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Path(PathBuf),
    Flag(bool),
    Count(u32),
    Share(f64),
    Duration(Duration),
    Since(ImportSince),
    Durations(Vec<Duration>),
    Rate(Rate),
    Word(&'static str),
    Url(Option<Url>),
    MediaHosts(Vec<MediaHost>),
    Zone(TimeZone),
    Time(Time),
    Listen(SocketAddr),
    Secret(SecretString),
    SealKey(SealKey),
}

/// The key that seals secrets in the database: 32 bytes.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(any(test, feature = "servers")),
    expect(dead_code, reason = "validated with the rest; used by the catalog client")
)]
pub(crate) struct SealKey(Arc<SecretBox<[u8; 32]>>);

#[cfg(any(test, feature = "servers"))]
impl SealKey {
    /// The bytes, for the cipher only.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl Kind {
    /// Reads a value, or says what is wrong with it.
    pub(super) fn read(self, raw: &Raw) -> Result<Value, String> {
        let fault = match self.read_typed(raw) {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        let found = match self {
            Self::Secret | Self::SealKey => raw.type_name().to_owned(),
            _ => raw.shown(),
        };
        let because = if fault.is_empty() { String::new() } else { format!(" ({fault})") };
        Err(format!("found {found}{because}, expected {}", self.expected()))
    }

    /// Reads a value; an empty fault means that its type is already the whole mistake.
    fn read_typed(self, raw: &Raw) -> Result<Value, String> {
        Ok(match self {
            Self::Text => Value::Text(text::plain(raw.text()?)?),
            Self::Name => Value::Text(text::name(raw.text()?)?),
            Self::TenantId => Value::Text(text::tenant_id(raw.text()?)?),
            Self::ApiVersion => Value::Text(text::api_version(raw.text()?)?),
            Self::Bucket => Value::Text(text::bucket(raw.text()?)?),
            Self::Path(true) if raw.text()?.is_empty() => Value::Path(PathBuf::new()),
            Self::Path(_) => Value::Path(text::plain(raw.text()?)?.into()),
            Self::Flag => Value::Flag(raw.flag()?),
            Self::Count(least, most) => Value::Count(raw.count(least, most)?),
            Self::Share => Value::Share(raw.share()?),
            Self::Quantile => Value::Share(raw.quantile()?),
            Self::Duration => Value::Duration(time::duration(&raw.with_unit()?)?),
            Self::Interval => Value::Duration(time::interval(&raw.with_unit()?)?),
            Self::Retention => Value::Duration(time::retention(&raw.with_unit()?)?),
            Self::Since => Value::Since(time::since(&raw.with_unit()?)?),
            Self::Intervals => Value::Durations(time::delays(&raw.list(Raw::with_unit)?)?),
            Self::Rate => Value::Rate(time::rate(&raw.with_unit()?)?),
            Self::Word(words) => Value::Word(text::word(raw.text()?, words)?),
            Self::Url(true) if raw.text()?.is_empty() => Value::Url(None),
            Self::Url(_) => Value::Url(Some(address::url(raw.text()?)?)),
            Self::MediaHosts(may_be_empty) => Value::MediaHosts(media_hosts(raw, may_be_empty)?),
            Self::Zone => Value::Zone(time::zone(raw.text()?)?),
            Self::Time => Value::Time(time::time_of_day(raw.text()?)?),
            Self::Listen => Value::Listen(address::listen(raw.text()?)?),
            Self::Secret => Value::Secret(text::plain(raw.text()?)?.into()),
            Self::SealKey => Value::SealKey(SealKey(Arc::new(SecretBox::new(Box::new(text::hex_key(raw.text()?)?))))),
        })
    }

    /// What the key accepts, with an example.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "text in quotes that is not empty".to_owned(),
            Self::Name => "1 to 64 letters, digits, _, - or ., such as \"knovvu.nice\"".to_owned(),
            Self::TenantId => "1 to 64 letters, digits, _ or -, such as \"acme\"".to_owned(),
            Self::ApiVersion => "a version such as \"v33.0\"".to_owned(),
            Self::Bucket => "3 to 63 of a-z, 0-9, - and ., such as \"recordings\"".to_owned(),
            Self::Path(_) => "a path, such as \"./data\"".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Count(least, most) => format!("a whole number from {least} to {most}, such as 16"),
            Self::Share => "a number from 0 to 1, such as 0.5".to_owned(),
            Self::Quantile => "a number from 0 to 0.999, such as 0.99".to_owned(),
            Self::Duration | Self::Interval => {
                "a duration with its unit (ms, s, m, h, d), such as \"15s\" or \"10m\"".to_owned()
            }
            Self::Retention => "a duration of at least \"1d\", such as \"365d\"".to_owned(),
            Self::Since => {
                "a duration before now with its unit, or a moment, such as \"1h\" or \"2026-04-01T00:00:00Z\""
                    .to_owned()
            }
            Self::Intervals => "a list of durations, such as [\"30s\", \"1m\"]".to_owned(),
            Self::Rate => "a rate such as \"150/5m\" or \"2/s\"".to_owned(),
            Self::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Self::Url(_) => "an address such as \"https://example.com\"".to_owned(),
            Self::MediaHosts(_) => {
                "a list of host, *.suffix or host:port, such as [\"*.amazonaws.com\", \"127.0.0.1:8080\"]".to_owned()
            }
            Self::Zone => "a time zone such as \"UTC\" or \"Europe/Berlin\"".to_owned(),
            Self::Time => "a time of day such as \"02:00\"".to_owned(),
            Self::Listen => "an IP address with a port, such as \"127.0.0.1:9464\"".to_owned(),
            Self::SealKey => "32 bytes as 64 hex digits, such as `openssl rand -hex 32` prints".to_owned(),
        }
    }

    /// Whether the value is a secret: it may stand in a file of its own, and is never shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SealKey)
    }

    /// A value given as bare text (a default, an example) as TOML.
    pub(super) fn literal(self, bare: &str) -> String {
        match self {
            Self::Flag | Self::Count(..) | Self::Share | Self::Quantile | Self::Intervals | Self::MediaHosts(_) => {
                bare.to_owned()
            }
            _ => quoted(bare),
        }
    }
}

impl Value {
    /// The value as TOML; a secret as a mask.
    pub(super) fn literal(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Path(path) => quoted(&path.to_string_lossy()),
            Self::Flag(flag) => flag.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Share(share) => format!("{share:?}"),
            Self::Duration(duration) => quoted(&time::duration_text(*duration)),
            Self::Since(ImportSince::At(moment)) => quoted(&moment.to_string()),
            Self::Since(ImportSince::Before(span)) => quoted(&time::duration_text(*span)),
            Self::Durations(durations) => list_text(durations.iter().map(|duration| time::duration_text(*duration))),
            Self::Rate(rate) => quoted(&rate.to_string()),
            Self::Word(word) => quoted(word),
            Self::Url(url) => quoted(url.as_ref().map_or("", Url::as_str)),
            Self::MediaHosts(hosts) => list_text(hosts.iter().map(MediaHost::to_string)),
            Self::Zone(zone) => quoted(zone.iana_name().unwrap_or("UTC")),
            Self::Time(time) => quoted(&time.strftime("%H:%M").to_string()),
            Self::Listen(address) => quoted(&address.to_string()),
            Self::Secret(_) | Self::SealKey(_) => MASK.to_owned(),
        }
    }
}

/// Reads the list of hosts; an empty one would refuse every recording, where it says whence recordings come.
fn media_hosts(raw: &Raw, may_be_empty: bool) -> Result<Vec<MediaHost>, String> {
    let texts = raw.list(|element| element.text().map(str::to_owned))?;
    if texts.is_empty() && !may_be_empty {
        return Err("an empty list refuses every recording".to_owned());
    }
    let host = |text: &String| {
        address::media_host(text).map_err(|fault| format!("{}: {fault}", Raw::Text(text.clone()).shown()))
    };
    texts.iter().map(host).collect()
}

/// The text in quotes, as TOML reads it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.replace(|c: char| c.is_control(), "\u{fffd}")).to_string()
}

/// The texts as a TOML array.
fn list_text(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.map(|text| quoted(&text)).collect::<Vec<_>>().join(", "))
}

/// A span of time, longer than none.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    time::interval(text)
}
