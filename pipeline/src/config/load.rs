//! Reads the table: entries of file and environment → the settings, or every mistake.
//!
//! The environment wins over the file; what is overridden is not read. Nothing is touched but the secret files.

use std::path::Path;

use secrecy::ExposeSecret;

use super::{
    error::{ConfigErrors, Rank},
    keys::{Form, Preset, Section, SettingKey, environment_name},
    needs::Need,
    queue::AMQP,
    reader::{Accepted, GivenSetting, Setting, SettingOrigin, SettingsReader, named_file},
    settings::{self, Settings},
    value::{CatalogKind, QueueKind},
};

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

/// Accepts every entry and fills in the defaults. A value with a mistake is replaced by its default.
pub(super) fn accept(
    file: Vec<GivenSetting>,
    environment: Vec<GivenSetting>,
    need: Need,
    file_name: &str,
    scope: Scope,
    errors: &mut ConfigErrors,
) -> (Settings, Accepted) {
    let mut reader =
        SettingsReader { keys: Box::new(settings::all()), file, environment, errors, accepted: Accepted::default() };
    let read = Settings::read(&mut reader);
    contradictions(&read, &mut reader);
    let prefix = if file_name.is_empty() { String::new() } else { format!("{file_name}: ") };
    for (at, section, key) in settings::all().filter(|(_, section, _)| scope.holds(section)) {
        if reader.ways(at, key).0.is_empty() && key.needed.by(need, &read, &reader.accepted) {
            let place = format!("{prefix}[{}] {}", section.name, key.name);
            reader.errors.add(Rank::Missing(at), &place, missing(section, key, scope));
        }
    }
    (read, reader.accepted)
}

/// Mistakes of several keys together.
fn contradictions(settings: &Settings, reader: &mut SettingsReader<'_>) {
    let Settings { queue, catalog, nice, retry, .. } = settings;
    if let Some((key, fault)) = queue.fault()
        && let Some(Setting { place, rank, .. }) = reader.accepted.setting("queue", key)
    {
        reader.errors.add(*rank, place, fault);
    }
    let setting = |section, key| reader.accepted.setting(section, key);
    let rabbitmq = queue.url.as_ref().filter(|_| queue.kind == QueueKind::Rabbitmq);
    let postgres = catalog.url.as_ref().filter(|_| catalog.kind == CatalogKind::Postgres);
    for (section, kind, url, schemes) in
        [("queue", "rabbitmq", rabbitmq, AMQP), ("catalog", "postgres", postgres, ["postgres://", "postgresql://"])]
    {
        if let (Some(url), Some(Setting { place, rank, file, .. })) = (url, setting(section, "url"))
            && !schemes.iter().any(|scheme| url.expose_secret().starts_with(scheme))
        {
            let schemes = schemes.join(" or ");
            let what = match file.as_deref().and_then(Path::to_str) {
                Some(file) => format!("the text of the secret file {} ", named_file(file)),
                None => String::new(),
            };
            let fault = format!("{what}does not begin with {schemes}, as kind = \"{kind}\" expects");
            reader.errors.add(*rank, place, fault);
        }
    }
    if let (Some(_), Some(private)) = (setting("nice", "media_hosts"), setting("nice", "private_media_hosts"))
        && let Some(host) =
            nice.private_media_hosts.iter().find(|host| !nice.media_hosts.iter().any(|entry| entry.covers(host)))
    {
        let fault = format!("\"{host}\" is not on media_hosts; list it there, too, or remove it here");
        reader.errors.add(private.rank, &private.place, fault);
    }
    if let (Some(least), Some(most)) = (setting("retry", "error_delay_min"), setting("retry", "error_delay_max"))
        && retry.error_delay_min > retry.error_delay_max
    {
        let culprit = if least.origin == SettingOrigin::Default { most } else { least };
        let (shortest, longest) = (&least.shown, &most.shown);
        let fault = format!("error_delay_min = {shortest} is longer than error_delay_max = {longest}; change one");
        reader.errors.add(culprit.rank, &culprit.place, fault);
    }
}

/// Why a key has to be given, and the ways to give it.
fn missing(section: &Section, key: &SettingKey, scope: Scope) -> String {
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
            ways.push(environment_name(section.name, &written));
        }
    }
    format!("missing, but {}: {} Set {}.", key.needed.why(), key.meaning(), ways.join(", or "))
}
