//! The settings: a TOML file and the environment → a [`Config`], or every mistake at once.
//!
//! ```text
//!  file ─────────┐                settings.rs, the table
//!                ├─► source ─► load ─► Settings ─► Config
//!  environment ──┘    value.rs reads each value     page.rs shows them
//! ```
//!
//! `settings.rs` is the one page that says which settings exist; each is one entry, and nothing else needs a change.
//! Every key is also `NICE_KNOVVU_SECTION__KEY`, which wins over the file; every secret also `KEY_file`, the path of a
//! file that holds it. Variables of OpenTelemetry give some of `[traces]` where nothing of ours does.
//!
//! # Contract
//! Only the settings file and the secret files are touched, before any port, store or server. A mistake names the key
//! as written and the remedy. No secret reaches an error, a `Debug` or [`Config::to_redacted_toml`].

use std::{
    ffi::OsString,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

mod error;
mod keys;
mod load;
mod nearest;
mod needs;
mod page;
mod queue;
mod reader;
mod settings;
mod source;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use self::page::EffectiveSetting;
#[allow(unused_imports, reason = "the page is written by a test")]
pub(crate) use self::page::default_page;
#[cfg(test)]
pub(crate) use self::page::{settings_page, written};
pub(crate) use self::reader::read_small;
pub(crate) use self::value::{EncryptionKind, SecretSource, word_of};
pub(crate) use self::{
    error::ConfigErrors,
    needs::Need,
    settings::*,
    value::{AuthFlow, CatalogKind, CollectorHeaders, LogFormat, QueueKind, RecordingsKind},
};

/// The settings file that is read where none is named.
pub(crate) const DEFAULT_FILE: &str = "nice-knovvu.toml";

/// Larger than any settings file.
const LARGEST_FILE: u64 = 1 << 20;

/// The settings, and how they were given.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    settings: Settings,
    /// Whether anything is not as by default.
    is_set: bool,
    /// Every setting as it is in force, secrets masked.
    effective: Vec<EffectiveSetting>,
    /// Variables of OpenTelemetry that cannot be used, and why.
    unusable: Vec<String>,
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl RecordingsConfig {
    /// The directory of recordings below which a process with this state keeps them.
    pub(crate) fn dir(&self, state: &StateConfig) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| state.dir.join("recordings"))
    }
}

impl Config {
    /// Reads the file (none: no file) and the environment; `env` is best `std::env::vars_os()`.
    pub(crate) fn load<K: Into<OsString>, V: Into<OsString>>(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (K, V)>,
        need: Need,
    ) -> Result<Self, ConfigErrors> {
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let text = match file {
            Some(path) => read_small(path, LARGEST_FILE).map_err(|fault| {
                let remedy = format!("correct --config or {}", source::FILE_VARIABLE);
                ConfigErrors::one(&name, format!("the settings file cannot be used: {fault}; {remedy}"))
            })?,
            None => String::new(),
        };
        Self::from_text(&text, &name, env, need)
    }

    /// As [`Config::load`], with the file already read; mistakes call it `name`.
    pub(crate) fn from_text<K: Into<OsString>, V: Into<OsString>>(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (K, V)>,
        need: Need,
    ) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let file = source::file::read_text(text, name, &mut errors);
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into()));
        let environment = source::environment::read_environment(env, &mut errors);
        let Some(file) = file else { return Err(errors.sorted()) };
        let (settings, accepted) = load::accept(file, environment, need, name, load::Scope::Settings, &mut errors);
        errors.into_result()?;
        let (is_set, effective) = (accepted.is_any_given(), page::effective(&accepted));
        Ok(Self { settings, is_set, effective, unusable: accepted.unusable })
    }

    /// Whether any setting was given.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// Variables of OpenTelemetry that count as not given, since they cannot be used: a line each, without a secret.
    pub(crate) fn unusable(&self) -> &[String] {
        &self.unusable
    }

    /// The effective settings as TOML, each with its origin; secrets are masked.
    pub(crate) fn to_redacted_toml(&self) -> String {
        page::as_toml(&self.effective)
    }

    /// The same of one section; none where there is no such section.
    pub(crate) fn section_toml(&self, section: &str) -> Option<String> {
        let of_section = || self.effective().iter().filter(|setting| setting.section == section);
        of_section().next()?;
        Some(page::as_toml(of_section()))
    }

    /// Every setting as it is in force; secrets are masked.
    pub(crate) fn effective(&self) -> &[EffectiveSetting] {
        &self.effective
    }
}

impl NiceConfig {
    /// Reads a table `[nice]` alone; mistakes call the text `name`.
    pub(crate) fn from_toml(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let Some(entries) = source::file::read_text(text, name, &mut errors) else { return Err(errors.sorted()) };
        let scope = load::Scope::Nice;
        for entry in &entries {
            let stranger = settings::all().find(|(place, section, _)| *place == entry.key && !scope.holds(section));
            if stranger.is_some() {
                errors.add(entry.rank, &entry.place, "only the table [nice] is read here; remove this key");
            }
        }
        let (settings, _) = load::accept(entries, Vec::new(), Need::Nice, name, scope, &mut errors);
        errors.into_result()?;
        Ok(settings.nice)
    }
}

/// The file to load: the one named by `--config`, else by `NICE_KNOVVU_CONFIG`, else `./nice-knovvu.toml` if present.
#[allow(clippy::disallowed_methods, reason = "only this module reads the environment")]
pub(crate) fn settings_file(flag: Option<PathBuf>) -> Option<PathBuf> {
    let named = || std::env::var_os(source::FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    flag.or_else(named).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()))
}

/// A span of time as it is written in the settings and on the command line, such as `24h`; longer than none.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    value::span(text)
}
