//! Reads one key after the other: what was given for it → an accepted value, or a mistake.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    io::Read,
    path::{Path, PathBuf},
};

use model::text::without_mark;

use super::{
    error::{ConfigErrors, Rank},
    keys::{Form, Preset, Section, SettingKey},
    value::{Raw, ValueKind},
};

/// Longer than any key, token or password.
const LARGEST_SECRET: u64 = 64 << 10;

/// Where an accepted value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettingOrigin {
    Default,
    File,
    Environment,
    SecretFile,
    /// A variable of OpenTelemetry.
    Standard(&'static str),
}

/// A value that was accepted, and where it was given.
pub(super) struct Setting {
    /// The value as TOML; a secret as a mask.
    pub(super) shown: String,
    pub(super) origin: SettingOrigin,
    /// The file of a secret that was given as a file.
    pub(super) file: Option<PathBuf>,
    pub(super) place: String,
    pub(super) rank: Rank,
}

/// Every accepted value by section and key.
#[derive(Default)]
pub(super) struct Accepted {
    settings: BTreeMap<(&'static str, &'static str), Setting>,
    /// What others call a setting and is none that can be used, a line each.
    pub(super) unusable: Vec<String>,
}

impl Accepted {
    /// The setting, if it is given or has a default, and has no mistake.
    pub(super) fn setting(&self, section: &'static str, key: &'static str) -> Option<&Setting> {
        self.settings.get(&(section, key))
    }

    /// Whether anything is given that tells of an installation. Where a process puts its files, listens and logs
    /// says nothing of whose they are: an image gives that. Nor does what others call a setting.
    pub(super) fn is_any_given(&self) -> bool {
        let tells = |section, key| !matches!((section, key), ("state", "dir") | ("admin" | "log", _));
        let is_ours = |origin| !matches!(origin, SettingOrigin::Default | SettingOrigin::Standard(_));
        self.settings.iter().any(|((section, key), setting)| is_ours(setting.origin) && tells(*section, *key))
    }
}

/// A key as it was given.
pub(super) struct GivenSetting {
    /// The key's place in the table.
    pub(super) key: usize,
    /// As itself, or as a file.
    pub(super) form: Form,
    /// The key as written, and where.
    pub(super) place: String,
    /// Its place among mistakes.
    pub(super) rank: Rank,
    /// What was given.
    pub(super) raw: Raw,
}

impl GivenSetting {
    /// The variable of OpenTelemetry that it is from, if it is.
    fn standard(&self) -> Option<&'static str> {
        match self.raw {
            Raw::Standard { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// Reads a small text file whole; the fault says what is wrong with the file, not what is in it.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err("it does not exist".to_owned()),
        Err(error) => return Err(format!("it cannot be read ({})", error.kind())),
        Ok(length) if length as u64 > most => return Err(format!("it is larger than {} KiB", most >> 10)),
        Ok(_) => {}
    }
    // Some editors put a byte order mark in front of every text.
    let text = without_mark(&bytes);
    let fault = || match text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        true => "it is UTF-16, save it as UTF-8".to_owned(),
        false => "it is not UTF-8".to_owned(),
    };
    String::from_utf8(text.to_vec()).map_err(|_| fault())
}

/// A key of the table: its place, its section, itself.
pub(super) type TableEntry = (usize, &'static Section, &'static SettingKey);

/// Reads the keys of the table in their order.
pub(super) struct SettingsReader<'e> {
    pub(super) keys: Box<dyn Iterator<Item = TableEntry>>,
    pub(super) file: Vec<GivenSetting>,
    pub(super) environment: Vec<GivenSetting>,
    pub(super) errors: &'e mut ConfigErrors,
    pub(super) accepted: Accepted,
}

impl SettingsReader<'_> {
    /// Reads the next key, which has a default. The default also replaces a value with a mistake.
    pub(super) fn default<T>(&mut self, kind: &ValueKind<T>) -> T {
        let (place, value) = self.next(kind);
        value.unwrap_or_else(|| default(place.2, kind))
    }

    /// Reads the next key; none where it is not given, or has a mistake.
    pub(super) fn example<T>(&mut self, kind: &ValueKind<T>) -> Option<T> {
        self.next(kind).1
    }

    fn next<T>(&mut self, kind: &ValueKind<T>) -> (TableEntry, Option<T>) {
        let place = self.keys.next().expect("the struct and the table come from the same entries");
        let (at, section, key) = place;
        let (ways, origin) = self.ways(at, key);
        let mut accepted = accept(key, kind, &ways, origin);
        // What others have written for every process must not end this one: it counts as not given.
        if let (Err(Some(Mistake { place, fault, .. })), SettingOrigin::Standard(_)) = (&accepted, origin) {
            self.accepted.unusable.push(format!("{place}: {fault}"));
            accepted = accept(key, kind, &[], SettingOrigin::Default);
        }
        let value = match accepted {
            Ok(accepted) => accepted.map(|(value, setting)| {
                self.accepted.settings.insert((section.name, key.name), setting);
                value
            }),
            Err(mistake) => {
                if let Some(Mistake { rank, place, fault }) = mistake {
                    self.errors.add(rank, &place, fault);
                }
                None
            }
        };
        (place, value)
    }

    /// The forms in which a key is given, and where: the environment wins, and what is not ours counts last.
    pub(super) fn ways(&self, at: usize, key: &SettingKey) -> (Vec<&GivenSetting>, SettingOrigin) {
        let of_key = |entry: &&GivenSetting| entry.key == at;
        let environment = self.environment.iter().filter(of_key);
        let (standard, environment): (Vec<_>, Vec<_>) = environment.partition(|entry| entry.standard().is_some());
        let file: Vec<_> = self.file.iter().filter(of_key).collect();
        if !environment.is_empty() {
            return (environment, SettingOrigin::Environment);
        }
        let of_name = |name: &&'static str| {
            let entry = standard.iter().find(|entry| entry.standard() == Some(*name))?;
            Some((vec![*entry], SettingOrigin::Standard(name)))
        };
        match key.standard.iter().find_map(of_name).filter(|_| file.is_empty()) {
            Some(first) => first,
            None => (file, SettingOrigin::File),
        }
    }
}

/// The default of a key.
fn default<T>(key: &SettingKey, kind: &ValueKind<T>) -> T {
    let (Preset::Default(text) | Preset::Example(text)) = key.preset;
    kind.read(&Raw::from_toml(text)).expect("a test reads every default of the table")
}

/// What is wrong with a key.
struct Mistake {
    rank: Rank,
    place: String,
    fault: String,
}

/// Accepts one key, given in these forms or by its default; no mistake if it was reported already.
fn accept<T>(
    key: &'static SettingKey,
    kind: &ValueKind<T>,
    ways: &[&GivenSetting],
    origin: SettingOrigin,
) -> Result<Option<(T, Setting)>, Option<Mistake>> {
    let entry = match (ways, &key.preset) {
        ([], Preset::Example(_)) => return Ok(None),
        ([], Preset::Default(_)) => {
            let (value, rank) = (default(key, kind), Rank::Missing(0));
            let (shown, place) = (kind.show(&value), String::new());
            return Ok(Some((value, Setting { shown, origin: SettingOrigin::Default, file: None, place, rank })));
        }
        ([entry], _) => *entry,
        ([entry, other, ..], _) => {
            let (value, file) = (key.written(Form::Value), key.written(Form::SecretFile));
            let GivenSetting { rank, place, .. } = if entry.rank > other.rank { entry } else { other };
            let fault = format!("{value} and {file} are both given; remove one of them");
            return Err(Some(Mistake { rank: *rank, place: place.clone(), fault }));
        }
    };
    let (rank, place) = (entry.rank, entry.place.clone());
    let read = match (entry.form, &entry.raw) {
        (_, Raw::Unreadable) => return Err(None),
        (Form::Value, raw) => kind.read(raw).map(|value| (value, origin, None)),
        (Form::SecretFile, raw) => {
            read_secret(kind, raw).map(|(value, file)| (value, SettingOrigin::SecretFile, Some(file)))
        }
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
fn read_secret<T>(kind: &ValueKind<T>, raw: &Raw) -> Result<(T, PathBuf), String> {
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
pub(super) fn named_file(path: &str) -> String {
    let begins_as_path = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
    let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    if begins_as_path || Path::new(path).exists() || directory.is_some_and(Path::is_dir) {
        return path.escape_debug().to_string();
    }
    let here = std::env::current_dir().unwrap_or_default();
    format!("(a name of {} characters, looked for in {})", path.chars().count(), here.display())
}
