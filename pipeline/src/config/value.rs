//! The kinds of values: what a key accepts, how it is read, and how it is shown.
//!
//! In: a [`Raw`] value, typed by TOML or typeless from the environment. Out: a value of the kind's type, or a fault in
//! words that says what was found, what is expected, and an example. A fault about a secret never shows the value.
//! A new kind is one constant.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{civil::Time, tz::TimeZone};
use model::{ImportSince, TenantId};
use nice::{GroupKind, MediaHost};
use quota::Rate;
use reqwest::Url;
use secrecy::{SecretBox, SecretString};
use stages::tenants::RecordingScope;

use self::raw::quoted;

use secrecy::ExposeSecret;

mod address;
mod collector;
mod raw;
mod text;
mod time;

pub(crate) use self::collector::{CollectorHeaders, CollectorUrl};
pub(super) use self::raw::Raw;

/// What a secret looks like wherever settings are shown.
const MASK: &str = "\"********\"";

/// How a setting of type `T` is written.
pub(super) struct ValueKind<T> {
    /// What it accepts, with an example.
    expected: fn() -> Cow<'static, str>,
    /// Reads a value; an empty fault means that its type or bounds are already the whole mistake.
    read: fn(&Raw) -> Result<T, String>,
    /// The value as TOML; of a secret it is not asked for.
    show: fn(&T) -> String,
    /// Whether the value is a secret: it may be given as a file, and is never shown.
    pub(super) is_secret: bool,
}

type Expected = fn() -> Cow<'static, str>;
type ReadValue<T> = fn(&Raw) -> Result<T, String>;

const fn open<T>(expected: Expected, read: ReadValue<T>, show: fn(&T) -> String) -> ValueKind<T> {
    ValueKind { expected, read, show, is_secret: false }
}

const fn secret<T>(expected: Expected, read: ReadValue<T>) -> ValueKind<T> {
    ValueKind { expected, read, show: |_| MASK.to_owned(), is_secret: true }
}

const fn texts(expected: Expected, read: ReadValue<String>) -> ValueKind<String> {
    open(expected, read, |text| quoted(text))
}

const fn spans(expected: Expected, read: ReadValue<Duration>) -> ValueKind<Duration> {
    open(expected, read, |span| quoted(&time::duration_text(*span)))
}

const fn shares(expected: Expected, read: ReadValue<f64>) -> ValueKind<f64> {
    open(expected, read, |share| format!("{share:?}"))
}

const fn hosts(read: ReadValue<Vec<MediaHost>>) -> ValueKind<Vec<MediaHost>> {
    open(
        || "a list of host, *.suffix or host:port, such as [\"*.amazonaws.com\", \"127.0.0.1:8080\"]".into(),
        read,
        |hosts| list_text(hosts.iter().map(MediaHost::to_string)),
    )
}

const A_TEXT: Expected = || "text in quotes that is not empty".into();
const A_PATH: Expected = || "a path, such as \"./data\"".into();
const A_URL: Expected = || "an address such as \"https://example.com\"".into();
const A_SPAN: Expected = || "a duration with its unit (ms, s, m, h, d), such as \"15s\" or \"10m\"".into();

/// Any text that is not empty.
pub(super) const TEXT: ValueKind<String> = texts(A_TEXT, |raw| text::plain(raw.text()?));

/// Any text; the empty one is none.
pub(super) const TEXT_OR_NONE: ValueKind<Option<String>> =
    open(A_TEXT, |raw| unless_empty(raw, TEXT), |text| quoted(text.as_deref().unwrap_or_default()));

/// A name that becomes part of others.
pub(super) const NAME: ValueKind<String> =
    texts(|| "1 to 64 letters, digits, _, - or ., such as \"knovvu.nice\"".into(), |raw| text::name(raw.text()?));

/// The id of a tenant.
pub(super) const TENANT_ID: ValueKind<TenantId> = open(
    || "1 to 64 letters, digits, _ or -, such as \"acme\"".into(),
    |raw| raw.text()?.parse().map_err(|_| String::new()),
    |id| quoted(id.as_str()),
);

/// A version of NICE's API.
pub(super) const API_VERSION: ValueKind<String> =
    texts(|| "a version such as \"v33.0\"".into(), |raw| text::api_version(raw.text()?));

/// A bucket's name.
pub(super) const BUCKET: ValueKind<String> =
    texts(|| "3 to 63 of a-z, 0-9, - and ., such as \"recordings\"".into(), |raw| text::bucket(raw.text()?));

/// A path.
pub(super) const PATH: ValueKind<PathBuf> =
    open(A_PATH, |raw| Ok(text::plain(raw.text()?)?.into()), |path| quoted(&path.to_string_lossy()));

/// A path; the empty text is none.
pub(super) const PATH_OR_NONE: ValueKind<Option<PathBuf>> =
    open(A_PATH, |raw| unless_empty(raw, PATH), |path| path.as_ref().map_or_else(|| quoted(""), PATH.show));

/// true or false.
pub(super) const FLAG: ValueKind<bool> = open(|| "true or false".into(), Raw::flag, bool::to_string);

/// A whole number within these bounds.
pub(super) const fn count<T: TryFrom<u32> + ToString, const LEAST: u32, const MOST: u32>() -> ValueKind<T> {
    open(
        || format!("a whole number from {LEAST} to {MOST}, such as 16").into(),
        |raw| T::try_from(raw.count(LEAST, MOST)?).map_err(|_| String::new()),
        T::to_string,
    )
}

/// A number from 0 to 1.
pub(super) const SHARE: ValueKind<f64> = shares(|| "a number from 0 to 1, such as 0.5".into(), Raw::share);

/// A share below 1.
pub(super) const QUANTILE: ValueKind<f64> = shares(|| "a number from 0 to 0.999, such as 0.99".into(), Raw::quantile);

/// A duration; zero is possible.
pub(super) const SPAN: ValueKind<Duration> = spans(A_SPAN, |raw| time::duration(&raw.with_unit()?));

/// A duration longer than zero.
pub(super) const INTERVAL: ValueKind<Duration> = spans(A_SPAN, |raw| time::interval(&raw.with_unit()?));

/// A duration of a day or more.
pub(super) const DAYS: ValueKind<Duration> =
    spans(|| "a duration of at least \"1d\", such as \"365d\"".into(), |raw| time::retention(&raw.with_unit()?));

/// A moment, or a duration before now.
pub(super) const SINCE: ValueKind<ImportSince> = open(
    || "a duration before now with its unit, or a moment, such as \"1h\" or \"2026-04-01T00:00:00Z\"".into(),
    |raw| time::since(&raw.with_unit()?),
    |since| match since {
        ImportSince::At(moment) => quoted(&moment.to_string()),
        ImportSince::Before(span) => quoted(&time::duration_text(*span)),
    },
);

/// A list of durations longer than zero.
pub(super) const INTERVALS: ValueKind<Vec<Duration>> = open(
    || "a list of durations, such as [\"30s\", \"1m\"]".into(),
    |raw| time::delays(&raw.list(Raw::with_unit)?),
    |spans| list_text(spans.iter().map(|span| time::duration_text(*span))),
);

/// So many in a window.
pub(super) const RATE: ValueKind<Rate> = open(
    || "a rate such as \"150/5m\" or \"2/s\"".into(),
    |raw| time::rate(&raw.with_unit()?),
    |rate| quoted(&time::rate_text(*rate)),
);

/// The root of a service.
pub(super) const URL: ValueKind<Url> = open(A_URL, |raw| address::url(raw.text()?), |url| quoted(url.as_str()));

/// The root of a service; the empty text is none.
pub(super) const URL_OR_NONE: ValueKind<Option<Url>> =
    open(A_URL, |raw| unless_empty(raw, URL), |url| url.as_ref().map_or_else(|| quoted(""), URL.show));

/// The variable of OpenTelemetry that holds the address for traces itself, and not a root.
pub(super) const OTLP_TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The root of a collector, or the address that takes traces; the empty text is none.
pub(super) const COLLECTOR_OR_NONE: ValueKind<Option<CollectorUrl>> = open(
    A_URL,
    |raw| {
        let is_whole = matches!(raw, Raw::Standard { name: OTLP_TRACES_ENDPOINT, .. });
        Ok(unless_empty(raw, URL)?.map(|given| CollectorUrl { given, is_whole }))
    },
    |url| quoted(url.as_ref().map_or("", |url| url.given.as_str())),
);

/// The headers of each request to a collector.
pub(super) const COLLECTOR_HEADERS: ValueKind<CollectorHeaders> = secret(
    || "name=value,name=value, each value percent-encoded, such as Authorization=Bearer%20abc".into(),
    |raw| collector::headers(raw.text()?),
);

/// A list of hosts; an empty one would refuse every recording.
pub(super) const MEDIA_HOSTS: ValueKind<Vec<MediaHost>> = hosts(|raw| match media_hosts(raw)? {
    none if none.is_empty() => Err("an empty list refuses every recording".to_owned()),
    hosts => Ok(hosts),
});

/// A list of hosts that may be empty.
pub(super) const MEDIA_HOSTS_OR_NONE: ValueKind<Vec<MediaHost>> = hosts(media_hosts);

/// Names of hosts, without ports.
pub(super) const HOST_NAMES: ValueKind<Vec<String>> = open(
    || "a list of names without ports, such as [\"ops.example.com\"]".into(),
    |raw| {
        let names = raw.list(|element| element.text().map(str::to_owned))?;
        names.iter().map(|name| text::host_name(name)).collect()
    },
    |names| list_text(names.iter().cloned()),
);

/// IP addresses.
pub(super) const ADDRESSES: ValueKind<Vec<IpAddr>> = open(
    || "a list of IP addresses, such as [\"127.0.0.1\"]".into(),
    |raw| {
        let texts = raw.list(|element| element.text().map(str::to_owned))?;
        texts.iter().map(|text| text.parse().map_err(|_| String::new())).collect()
    },
    |addresses| list_text(addresses.iter().map(IpAddr::to_string)),
);

/// The name of an HTTP header.
pub(super) const HEADER: ValueKind<String> =
    texts(|| "the name of a header, such as \"x-forwarded-user\"".into(), |raw| text::header(raw.text()?));

/// The name of an HTTP header; the empty text is none.
pub(super) const HEADER_OR_NONE: ValueKind<Option<String>> =
    open(HEADER.expected, |raw| unless_empty(raw, HEADER), |name| quoted(name.as_deref().unwrap_or_default()));

/// A duration of thirty days or more.
pub(super) const MONTH: ValueKind<Duration> = spans(
    || "a duration of at least \"30d\", such as \"365d\"".into(),
    |raw| match time::retention(&raw.with_unit()?)? {
        span if span < Duration::from_secs(30 * 86_400) => Err(String::new()),
        span => Ok(span),
    },
);

/// A time zone by its name.
pub(super) const ZONE: ValueKind<TimeZone> = open(
    || "a time zone such as \"UTC\" or \"Europe/Berlin\"".into(),
    |raw| time::zone(raw.text()?),
    |zone| quoted(zone.iana_name().unwrap_or("UTC")),
);

/// A time of day.
pub(super) const TIME: ValueKind<Time> = open(
    || "a time of day such as \"02:00\"".into(),
    |raw| time::time_of_day(raw.text()?),
    |time| quoted(&time.strftime("%H:%M").to_string()),
);

/// An IP address and port to listen on.
pub(super) const LISTEN: ValueKind<SocketAddr> = open(
    || "an IP address with a port, such as \"127.0.0.1:9464\"".into(),
    |raw| address::listen(raw.text()?),
    |address| quoted(&address.to_string()),
);

/// A host and a port to connect to; the empty text is none.
pub(super) const HOST_PORT_OR_NONE: ValueKind<Option<String>> = open(
    || "a host with a port, such as \"127.0.0.1:9003\"".into(),
    |raw| match raw.text()? {
        "" => Ok(None),
        text => address::host_port(text).map(Some),
    },
    |address| quoted(address.as_deref().unwrap_or_default()),
);

/// A secret text.
pub(super) const SECRET: ValueKind<SecretString> = secret(A_TEXT, |raw| Ok(text::plain(raw.text()?)?.into()));

/// A secret text that may change while the process runs, where a file holds it.
pub(super) const SECRET_SOURCE: ValueKind<SecretSource> = secret(A_TEXT, |raw| {
    let text = text::plain(raw.text()?)?;
    Ok(match raw {
        Raw::Held { file, .. } => SecretSource::File(file.clone()),
        _ => SecretSource::Here(text.into()),
    })
});

/// A secret key of 32 bytes in hex.
pub(super) const SEAL_KEY: ValueKind<SealKey> = secret(
    || "32 bytes as 64 hex digits, such as `openssl rand -hex 32` prints".into(),
    |raw| Ok(SealKey(Arc::new(SecretBox::new(Box::new(text::hex_key(raw.text()?)?))))),
);

/// One of the words of an enumeration.
pub(super) const fn word<T: Words>() -> ValueKind<T> {
    open(
        || T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ").into(),
        |raw| text::word(raw.text()?, T::WORDS),
        |value| quoted(word_of(*value)),
    )
}

/// An enumeration whose variants are the words of a key.
pub(crate) trait Words: Copy + PartialEq + 'static {
    /// Each word with its variant.
    const WORDS: &'static [(&'static str, Self)];
}

/// The word of a value.
pub(crate) fn word_of<T: Words>(value: T) -> &'static str {
    T::WORDS.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

/// Declares an enumeration with its words, or the words of one that is declared elsewhere.
macro_rules! words {
    ($(#[$doc:meta])* enum $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$about])* $variant,)+
        }

        words!(impl $name { $($variant = $word,)+ });
    };
    (impl $name:ident { $($variant:ident = $word:literal,)+ }) => {
        impl Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }
    };
}

impl<T> ValueKind<T> {
    /// Reads a value, or says what is wrong with it. A fault of a secret never shows it.
    pub(super) fn read(&self, raw: &Raw) -> Result<T, String> {
        let fault = match (self.read)(raw) {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        let found = if self.is_secret { raw.type_name().to_owned() } else { raw.shown() };
        let because = if fault.is_empty() { String::new() } else { format!(" ({fault})") };
        Err(format!("found {found}{because}, expected {}", (self.expected)()))
    }

    /// The value as TOML; a secret as a mask.
    pub(super) fn show(&self, value: &T) -> String {
        (self.show)(value)
    }
}

/// Reads a text that may be empty, for none.
fn unless_empty<T>(raw: &Raw, kind: ValueKind<T>) -> Result<Option<T>, String> {
    if raw.text()?.is_empty() { Ok(None) } else { (kind.read)(raw).map(Some) }
}

/// The key that seals secrets in the database: 32 bytes.
#[derive(Debug, Clone)]
pub(crate) struct SealKey(Arc<SecretBox<[u8; 32]>>);

impl SealKey {
    /// The bytes, for the cipher only.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// A secret that may change while the process runs.
#[derive(Debug, Clone)]
pub(crate) enum SecretSource {
    /// The settings hold it: it cannot change.
    Here(SecretString),
    /// This file holds it, and is read again when it changes.
    File(PathBuf),
}

words!(
    /// How a token is obtained.
    enum AuthFlow {
        /// OAuth's password grant, by a registered client.
        Oauth = "oauth",
        /// UserHub's access key alone.
        AccessKey = "access_key",
    }
);

words!(impl GroupKind { AcdGroup = "acd_group", Team = "team", });

words!(impl RecordingScope { Leg = "leg", Master = "master", });

words!(
    /// Which queue.
    enum QueueKind {
        /// On the local disk.
        Embedded = "embedded",
        /// RabbitMQ.
        Rabbitmq = "rabbitmq",
        /// Fluvio.
        Fluvio = "fluvio",
    }
);

words!(
    /// Which catalog.
    enum CatalogKind {
        /// On the local disk.
        Embedded = "embedded",
        /// The Knovvu database.
        Postgres = "postgres",
    }
);

words!(
    /// Which recording store.
    enum RecordingsKind {
        /// Below a directory.
        Filesystem = "filesystem",
        /// MinIO, AWS.
        S3 = "s3",
    }
);

words!(
    /// Which encryption at rest the store is asked for.
    enum EncryptionKind {
        /// As the bucket says.
        None = "none",
        /// With keys of the store.
        SseS3 = "sse-s3",
        /// With a key of the key management service.
        SseKms = "sse-kms",
    }
);

words!(
    /// How log lines look.
    enum LogFormat {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
);

impl QueueKind {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Embedded, Self::Rabbitmq, Self::Fluvio];

    /// The kind of this word.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Rabbitmq => "rabbitmq",
            Self::Fluvio => "fluvio",
        }
    }
}

/// Reads a list of hosts.
fn media_hosts(raw: &Raw) -> Result<Vec<MediaHost>, String> {
    let texts = raw.list(|element| element.text().map(str::to_owned))?;
    let host = |text: &String| {
        address::media_host(text).map_err(|fault| format!("{}: {fault}", Raw::Text(text.clone()).shown()))
    };
    texts.iter().map(host).collect()
}

/// The texts as a TOML array.
fn list_text(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.map(|text| quoted(&text)).collect::<Vec<_>>().join(", "))
}

/// Host and port of a server to connect to.
pub(super) fn host_port(text: &str) -> Result<String, String> {
    address::host_port(text)
}

/// A span of time, longer than none.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    time::interval(text)
}
