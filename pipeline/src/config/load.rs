//! Reads the table: entries of file and environment → the settings, or every mistake.
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
    settings::Settings,
    source::{Entry, read_small},
    value::{AuthFlow, CatalogKind, Kind, QueueKind, Raw, RecordingsKind},
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

/// A value that was accepted, and where it was given.
pub(super) struct Setting {
    /// The value as TOML; a secret as a mask.
    pub(super) shown: String,
    pub(super) origin: Origin,
    /// The file that holds it, of a secret that was given so.
    file: Option<PathBuf>,
    place: String,
    rank: Rank,
}

/// Every accepted value by section and key.
#[derive(Default)]
pub(super) struct Accepted(BTreeMap<(&'static str, &'static str), Setting>);

impl Accepted {
    /// The setting, if it is given or has a default, and has no mistake.
    pub(super) fn setting(&self, section: &'static str, key: &'static str) -> Option<&Setting> {
        self.0.get(&(section, key))
    }

    /// Whether anything is given that tells of an installation. Where a process puts its files, listens and logs
    /// says nothing of whose they are: an image gives that.
    pub(super) fn is_any_given(&self) -> bool {
        let tells = |section, key| !matches!((section, key), ("state", "dir") | ("admin" | "log", _));
        self.0.iter().any(|((section, key), setting)| setting.origin != Origin::Default && tells(*section, *key))
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

/// Accepts every entry and fills in the defaults; in place of a value with a mistake stands its default.
pub(super) fn accept(
    file: Vec<Entry>,
    environment: Vec<Entry>,
    need: Need,
    file_name: &str,
    scope: Scope,
    errors: &mut ConfigErrors,
) -> (Settings, Accepted) {
    let mut reader = Reader { file, environment, errors, accepted: Accepted::default() };
    let settings = Settings::read(&mut reader);
    reader.contradictions(&settings);
    let prefix = if file_name.is_empty() { String::new() } else { format!("{file_name}: ") };
    for (at, section, key) in keys::all().filter(|(_, section, _)| scope.holds(section)) {
        if reader.ways(at).0.is_empty() && key.needed.by(need, &settings, &reader.accepted) {
            let place = format!("{prefix}[{}] {}", section.name, key.name);
            reader.errors.add(Rank::Missing(at), &place, missing(section, key, scope));
        }
    }
    (settings, reader.accepted)
}

/// Reads one key after the other.
pub(super) struct Reader<'e> {
    file: Vec<Entry>,
    environment: Vec<Entry>,
    errors: &'e mut ConfigErrors,
    accepted: Accepted,
}

impl Reader<'_> {
    /// Reads a key that has a default.
    pub(super) fn default<T>(&mut self, section: &'static str, key: &'static str, kind: &Kind<T>) -> T {
        self.example(section, key, kind).unwrap_or_else(|| default(find(section, key).1, kind))
    }

    /// Reads a key; none where it is not given and has no default, or has a mistake.
    pub(super) fn example<T>(&mut self, section: &'static str, key: &'static str, kind: &Kind<T>) -> Option<T> {
        let (at, key) = find(section, key);
        let (ways, origin) = self.ways(at);
        match accept_key(key, kind, &ways, origin) {
            Ok(accepted) => {
                let (value, setting) = accepted?;
                self.accepted.0.insert((section, key.name), setting);
                Some(value)
            }
            Err(mistake) => {
                let Mistake { rank, place, fault } = mistake?;
                self.errors.add(rank, &place, fault);
                None
            }
        }
    }

    /// The ways in which a key is given, and where; those of the environment win.
    fn ways(&self, key: usize) -> (Vec<&Entry>, Origin) {
        let of_key = |entry: &&Entry| entry.key == key;
        let environment: Vec<_> = self.environment.iter().filter(of_key).collect();
        match environment.is_empty() {
            true => (self.file.iter().filter(of_key).collect(), Origin::File),
            false => (environment, Origin::Environment),
        }
    }
}

/// A key of the table, and its place there.
fn find(section: &str, key: &str) -> (usize, &'static Key) {
    let mut all = keys::all();
    let found = all.find(|(_, of, known)| of.name == section && known.name == key);
    found.map(|(place, _, key)| (place, key)).expect("a struct and the table come from the same entries")
}

/// The default of a key.
fn default<T>(key: &Key, kind: &Kind<T>) -> T {
    let (Preset::Default(text) | Preset::Example(text)) = key.preset;
    kind.read(&Raw::from_toml(text)).expect("a test reads every default of the table")
}

/// What is wrong with a key.
struct Mistake {
    rank: Rank,
    place: String,
    fault: String,
}

/// Accepts one key, given in these ways or by its default; no mistake where it was reported already.
fn accept_key<T>(
    key: &'static Key,
    kind: &Kind<T>,
    ways: &[&Entry],
    origin: Origin,
) -> Result<Option<(T, Setting)>, Option<Mistake>> {
    let entry = match (ways, &key.preset) {
        ([], Preset::Example(_)) => return Ok(None),
        ([], Preset::Default(_)) => {
            let (value, rank) = (default(key, kind), Rank::Missing(0));
            let (shown, place) = (kind.show(&value), String::new());
            return Ok(Some((value, Setting { shown, origin: Origin::Default, file: None, place, rank })));
        }
        ([entry], _) => *entry,
        ([entry, other, ..], _) => {
            let (value, file) = (key.written(Form::Value), key.written(Form::SecretFile));
            let Entry { rank, place, .. } = if entry.rank > other.rank { entry } else { other };
            let fault = format!("{value} and {file} are both given; remove one of them");
            return Err(Some(Mistake { rank: *rank, place: place.clone(), fault }));
        }
    };
    let (rank, place) = (entry.rank, entry.place.clone());
    let read = match (entry.form, &entry.raw) {
        (_, Raw::Unreadable) => return Err(None),
        (Form::Value, raw) => kind.read(raw).map(|value| (value, origin, None)),
        (Form::SecretFile, raw) => read_secret(kind, raw).map(|(value, file)| (value, Origin::SecretFile, Some(file))),
    };
    match read {
        Ok((value, origin, file)) => {
            let shown = kind.show(&value);
            Ok(Some((value, Setting { shown, origin, file, place, rank })))
        }
        Err(fault) => Err(Some(Mistake { rank, place, fault })),
    }
}

/// Reads a secret from its file.
fn read_secret<T>(kind: &Kind<T>, raw: &Raw) -> Result<(T, PathBuf), String> {
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
    let read = kind.read(&Raw::Held { text: text.to_owned(), file: path.into() });
    read.map(|value| (value, path.into()))
        .map_err(|fault| format!("the secret file {file} cannot be used: {fault}; {remedy}"))
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

impl Reader<'_> {
    /// What no key alone can get wrong.
    fn contradictions(&mut self, settings: &Settings) {
        let Settings { queue, catalog, nice, retry, .. } = settings;
        let setting = |section, key| self.accepted.setting(section, key);
        let rabbitmq = queue.url.as_ref().filter(|_| queue.kind == QueueKind::Rabbitmq);
        let postgres = catalog.url.as_ref().filter(|_| catalog.kind == CatalogKind::Postgres);
        for (section, kind, url, schemes) in [
            ("queue", "rabbitmq", rabbitmq, ["amqp://", "amqps://"]),
            ("catalog", "postgres", postgres, ["postgres://", "postgresql://"]),
        ] {
            if let (Some(url), Some(Setting { place, rank, file, .. })) = (url, setting(section, "url"))
                && !schemes.iter().any(|scheme| url.expose_secret().starts_with(scheme))
            {
                let schemes = schemes.join(" or ");
                let what = match file.as_deref().and_then(Path::to_str) {
                    Some(file) => format!("the text of the secret file {} ", named_file(file)),
                    None => String::new(),
                };
                let fault = format!("{what}does not begin with {schemes}, as kind = \"{kind}\" expects");
                self.errors.add(*rank, place, fault);
            }
        }
        if let (Some(_), Some(private)) = (setting("nice", "media_hosts"), setting("nice", "private_media_hosts"))
            && let Some(host) =
                nice.private_media_hosts.iter().find(|host| !nice.media_hosts.iter().any(|entry| entry.covers(host)))
        {
            let fault = format!("\"{host}\" is not on media_hosts; list it there, too, or remove it here");
            self.errors.add(private.rank, &private.place, fault);
        }
        if let (Some(least), Some(most)) = (setting("retry", "error_delay_min"), setting("retry", "error_delay_max"))
            && retry.error_delay_min > retry.error_delay_max
        {
            let culprit = if least.origin == Origin::Default { most } else { least };
            let (shortest, longest) = (&least.shown, &most.shown);
            let fault = format!("error_delay_min = {shortest} is longer than error_delay_max = {longest}; change one");
            self.errors.add(culprit.rank, &culprit.place, fault);
        }
    }
}

/// Why a key has to be given, and the ways to give it.
fn missing(section: &Section, key: &Key, scope: Scope) -> String {
    let mut ways = Vec::new();
    for form in key.forms() {
        let written = key.written(*form);
        ways.push(match (&key.preset, form) {
            (Preset::Example(example), form) if key.is_secret == (*form == Form::SecretFile) => {
                format!("{written} = {example} under [{}]", section.name)
            }
            _ => format!("{written} = \"…\""),
        });
        if scope == Scope::Settings {
            ways.push(keys::environment_name(section.name, &written));
        }
    }
    format!("missing, but {}: {} Set {}.", key.needed.why(), key.meaning(), ways.join(", or "))
}

impl Needed {
    /// Whether a command with this need cannot do without the key.
    fn by(self, need: Need, settings: &Settings, accepted: &Accepted) -> bool {
        // A kind with a mistake asks for nothing.
        let is = |section, key, chosen| chosen && accepted.setting(section, key).is_some();
        let is_embedded = is("catalog", "kind", settings.catalog.kind == CatalogKind::Embedded);
        let is_postgres = is("catalog", "kind", settings.catalog.kind == CatalogKind::Postgres);
        let is_rabbitmq = is("queue", "kind", settings.queue.kind == QueueKind::Rabbitmq);
        let is_s3 = is("recordings", "kind", settings.recordings.kind == RecordingsKind::S3);
        let service = matches!(need, Need::Service | Need::Producer | Need::Consumer);
        let calls_nice = service || need == Need::Nice;
        let nice_here = calls_nice && is_embedded;
        match self {
            Self::Never => false,
            Self::Tenant => matches!(need, Need::Service | Need::Producer | Need::Nice | Need::Erasure) || nice_here,
            Self::Nice => nice_here,
            Self::Oauth => nice_here && is("nice", "auth_flow", settings.nice.auth_flow == AuthFlow::Oauth),
            Self::Webhook => {
                matches!(need, Need::Service | Need::Producer) && is("events", "webhook", settings.events.webhook)
            }
            Self::Rabbitmq => (service || need == Need::Erasure) && is_rabbitmq,
            Self::Postgres => need != Need::Local && is_postgres,
            Self::Sealed => (calls_nice || need == Need::Settings || need == Need::Erasure) && is_postgres,
            Self::S3 => matches!(need, Need::Service | Need::Consumer | Need::Erasure) && is_s3,
            Self::S3Key => Self::S3.by(need, settings, accepted) && settings.recordings.credentials_file.is_none(),
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
