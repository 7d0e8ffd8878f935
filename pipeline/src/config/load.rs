//! Walks the table: entries of file and environment → one accepted value per key, or every mistake.
//!
//! The environment wins over the file; what is overridden is not read. Nothing is touched but the secret files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;

use super::{
    Need,
    error::{ConfigErrors, Rank},
    keys::{self, Form, Key, Needed, Preset, Section},
    source::{Entry, read_small},
    value::{Raw, Value},
};

/// Longer than any key, token or password.
const LARGEST_SECRET: u64 = 64 << 10;

/// Where an accepted value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File,
    Environment,
    SecretFile,
}

/// A value that was accepted, and where it stands.
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The file that holds it, of a secret that was given so.
    pub(super) file: Option<PathBuf>,
    place: String,
    rank: Rank,
}

/// Every accepted value by section and key.
#[derive(Default)]
pub(super) struct Values(BTreeMap<(&'static str, &'static str), Setting>);

impl Values {
    /// The setting, if it is given or has a default.
    pub(super) fn setting(&self, section: &'static str, key: &'static str) -> Option<&Setting> {
        self.0.get(&(section, key))
    }

    /// The word chosen for a key; none where what was given is no such word.
    fn word(&self, section: &'static str, key: &'static str) -> Option<&'static str> {
        match self.setting(section, key)?.value {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether a path is given that may be left empty.
    fn is_set(&self, section: &'static str, key: &'static str) -> bool {
        self.setting(section, key)
            .is_some_and(|setting| !matches!(&setting.value, Value::Path(path) if path.as_os_str().is_empty()))
    }

    /// Whether anything is given that tells of an installation. Where a process puts its files, listens and logs
    /// says nothing of whose they are: an image gives that.
    pub(super) fn is_any_given(&self) -> bool {
        let tells = |section, key| !matches!((section, key), ("state", "dir") | ("admin" | "log", _));
        self.0.iter().any(|((section, key), setting)| setting.origin != Origin::Default && tells(*section, *key))
    }

    /// Whether a switch is on.
    fn is_on(&self, section: &'static str, key: &'static str) -> bool {
        self.setting(section, key).is_some_and(|setting| matches!(setting.value, Value::Flag(true)))
    }
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every section, of a file and of the environment.
    Settings,
    /// The table `[nice]`, alone in its text.
    Nice,
}

impl Scope {
    /// Whether the section is read, so that a key of it can be missing.
    pub(super) fn holds(self, section: &Section) -> bool {
        self == Self::Settings || section.name == "nice"
    }
}

/// Accepts every entry and fills in the defaults.
pub(super) fn accept(
    file: Vec<Entry>,
    environment: Vec<Entry>,
    need: Need,
    file_name: &str,
    scope: Scope,
    errors: &mut ConfigErrors,
) -> Values {
    let mut values = Values::default();
    let mut given = Vec::new();
    for (place, section, key) in keys::all() {
        let of_key = |entries: &[Entry]| entries.iter().any(|entry| entry.key == place);
        let (entries, origin) = match of_key(&environment) {
            true => (&environment, Origin::Environment),
            false => (&file, Origin::File),
        };
        let ways: Vec<&Entry> = entries.iter().filter(|entry| entry.key == place).collect();
        if !ways.is_empty() {
            given.push(place);
        }
        if let Some(setting) = accept_key(key, &ways, origin, errors) {
            values.0.insert((section.name, key.name), setting);
        }
    }
    contradictions(&values, errors);
    let prefix = if file_name.is_empty() { String::new() } else { format!("{file_name}: ") };
    for (at, section, key) in keys::all().filter(|(at, section, _)| !given.contains(at) && scope.holds(section)) {
        if key.needed.by(need, &values) {
            let place = format!("{prefix}[{}] {}", section.name, key.name);
            errors.add(Rank::Missing(at), &place, missing(section, key, scope));
        }
    }
    values
}

/// Accepts one key, given in these ways or by its default.
fn accept_key(key: &'static Key, ways: &[&Entry], origin: Origin, errors: &mut ConfigErrors) -> Option<Setting> {
    let entry = match (ways, &key.preset) {
        ([], Preset::Example(_)) => return None,
        ([], Preset::Default(default)) => {
            let raw = Raw::Typeless((*default).to_owned());
            let value = key.kind.read(&raw).expect("a test reads every default of the table");
            return Some(Setting {
                value,
                origin: Origin::Default,
                file: None,
                place: String::new(),
                rank: Rank::Missing(0),
            });
        }
        ([entry], _) => *entry,
        ([entry, other, ..], _) => {
            let (value, file) = (key.written(Form::Value), key.written(Form::SecretFile));
            let later = if entry.rank > other.rank { entry } else { other };
            errors.add(later.rank, &later.place, format!("{value} and {file} are both given; remove one of them"));
            return None;
        }
    };
    let accepted = match (entry.form, &entry.raw) {
        (_, Raw::Unreadable) => return None, // reported where it was read
        (Form::Value, raw) => key.kind.read(raw).map(|value| (value, origin)),
        (Form::SecretFile, raw) => read_secret(key, raw).map(|value| (value, Origin::SecretFile)),
    };
    match accepted {
        Ok((value, origin)) => {
            let file = match (origin, &entry.raw) {
                (Origin::SecretFile, Raw::Text(path) | Raw::Typeless(path)) => Some(path.into()),
                _ => None,
            };
            Some(Setting { value, origin, file, place: entry.place.clone(), rank: entry.rank })
        }
        Err(fault) => {
            errors.add(entry.rank, &entry.place, fault);
            None
        }
    }
}

/// Reads a secret from its file.
fn read_secret(key: &Key, raw: &Raw) -> Result<Value, String> {
    let (Raw::Text(path) | Raw::Typeless(path)) = raw else {
        return Err(format!("found {}, expected the path of a file in quotes", raw.type_name()));
    };
    if path.is_empty() {
        return Err("found an empty text, expected the path of a file".to_owned());
    }
    let remedy = "correct the path, or write the secret into that file and let this user read it";
    let file = named_file(path);
    let text = read_small(Path::new(path), LARGEST_SECRET)
        .map_err(|fault| format!("the secret file {file} cannot be used: {fault}; {remedy}"))?;
    // Some editors put a byte order mark in front of every text.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.trim().is_empty() {
        return Err(format!("the secret file {file} is empty; {remedy}"));
    }
    let read = key.kind.read(&Raw::Typeless(text.to_owned()));
    read.map_err(|fault| format!("the secret file {file} cannot be used: {fault}; {remedy}"))
}

/// The file as it is named in a mistake. People put the secret itself there: what does not begin as a path, is no
/// file, and lies in no directory that there is, is not repeated.
fn named_file(path: &str) -> String {
    let begins_as_path = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
    let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    if begins_as_path || Path::new(path).exists() || directory.is_some_and(Path::is_dir) {
        return path.escape_debug().to_string();
    }
    let here = std::env::current_dir().unwrap_or_default();
    format!("(a name of {} characters, looked for in {})", path.chars().count(), here.display())
}

/// What no key alone can get wrong.
fn contradictions(values: &Values, errors: &mut ConfigErrors) {
    let schemes: [(&str, &str, &[&str]); 2] =
        [("queue", "rabbitmq", &["amqp://", "amqps://"]), ("catalog", "postgres", &["postgres://", "postgresql://"])];
    for (section, kind, schemes) in schemes {
        if values.word(section, "kind") != Some(kind) {
            continue;
        }
        if let Some(Setting { value: Value::Secret(url), place, rank, file, .. }) = values.setting(section, "url")
            && !schemes.iter().any(|scheme| url.expose_secret().starts_with(scheme))
        {
            let schemes = schemes.join(" or ");
            let what = match file.as_deref().and_then(Path::to_str) {
                Some(file) => format!("the text of the secret file {} ", named_file(file)),
                None => String::new(),
            };
            let fault = format!("{what}does not begin with {schemes}, as kind = \"{kind}\" expects");
            errors.add(*rank, place, fault);
        }
    }
    if let (Some(listed), Some(private)) =
        (values.setting("nice", "media_hosts"), values.setting("nice", "private_media_hosts"))
        && let (Value::MediaHosts(listed), Value::MediaHosts(hosts)) = (&listed.value, &private.value)
        && let Some(host) = hosts.iter().find(|host| !listed.iter().any(|entry| entry.covers(host)))
    {
        let fault = format!("\"{host}\" is not on media_hosts; list it there, too, or remove it here");
        errors.add(private.rank, &private.place, fault);
    }
    let delay = |key| values.setting("retry", key);
    if let (Some(least), Some(most)) = (delay("error_delay_min"), delay("error_delay_max"))
        && let (Value::Duration(shortest), Value::Duration(longest)) = (&least.value, &most.value)
        && shortest > longest
    {
        let culprit = if least.origin == Origin::Default { most } else { least };
        let (shortest, longest) = (least.value.literal(), most.value.literal());
        let fault = format!("error_delay_min = {shortest} is longer than error_delay_max = {longest}; change one");
        errors.add(culprit.rank, &culprit.place, fault);
    }
}

/// Why a key has to be given, and the ways to give it.
fn missing(section: &Section, key: &Key, scope: Scope) -> String {
    let mut ways = Vec::new();
    for form in key.forms() {
        let written = key.written(*form);
        ways.push(match (&key.preset, form) {
            (Preset::Example(example), Form::Value) if !key.kind.is_secret() => {
                format!("{written} = {} under [{}]", key.kind.literal(example), section.name)
            }
            (Preset::Example(example), Form::SecretFile) => {
                format!("{written} = \"{example}\" under [{}]", section.name)
            }
            _ => format!("{written} = \"…\""),
        });
        if scope == Scope::Settings {
            ways.push(keys::environment_name(section.name, &written));
        }
    }
    format!("missing, but {}: {} Set {}.", key.needed.why(), key.meaning, ways.join(", or "))
}

impl Needed {
    /// Whether a command with this need cannot do without the key.
    fn by(self, need: Need, values: &Values) -> bool {
        let kind = |section| values.word(section, "kind");
        let service = matches!(need, Need::Service | Need::Producer | Need::Consumer);
        let calls_nice = service || need == Need::Nice;
        let nice_here = calls_nice && kind("catalog") == Some("embedded");
        match self {
            Self::Never => false,
            Self::Tenant => matches!(need, Need::Service | Need::Producer | Need::Nice | Need::Erasure) || nice_here,
            Self::Nice => nice_here,
            Self::Oauth => nice_here && values.word("nice", "auth_flow") == Some("oauth"),
            Self::Webhook => matches!(need, Need::Service | Need::Producer) && values.is_on("events", "webhook"),
            Self::Rabbitmq => (service || need == Need::Erasure) && kind("queue") == Some("rabbitmq"),
            Self::Postgres => need != Need::Local && kind("catalog") == Some("postgres"),
            Self::Sealed => {
                (calls_nice || need == Need::Settings || need == Need::Erasure) && kind("catalog") == Some("postgres")
            }
            Self::S3 => {
                matches!(need, Need::Service | Need::Consumer | Need::Erasure) && kind("recordings") == Some("s3")
            }
            Self::S3Key => Self::S3.by(need, values) && !values.is_set("recordings", "credentials_file"),
        }
    }

    /// What needs the key, as a clause.
    fn why(self) -> &'static str {
        match self {
            Self::Never | Self::Tenant | Self::Nice => "needed",
            Self::Oauth => "needed for [nice] auth_flow = \"oauth\"",
            Self::Webhook => "needed for [events] webhook = true",
            Self::Rabbitmq => "needed for [queue] kind = \"rabbitmq\"",
            Self::Postgres | Self::Sealed => "needed for [catalog] kind = \"postgres\"",
            Self::S3 | Self::S3Key => "needed for [recordings] kind = \"s3\"",
        }
    }
}
