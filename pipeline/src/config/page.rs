//! The table as text: `config.default.toml`, and the effective settings with their secrets masked.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use super::{
    keys::{Form, Needed, Preset, SettingKey},
    reader::{Accepted, SettingOrigin},
    settings::SECTIONS,
};

const HEAD: &str = "\
# Every setting of nice-knovvu with its default. What is commented out has none: set it where it is needed.
#
# Each key is also an environment variable, NICE_KNOVVU_SECTION__KEY, which wins over the file; each secret also KEY_file,
# the path of a file that holds it. A duration is a number with its unit: ms, s, m, h, d. A rate is number/window.
# Plain http is accepted only to a loopback address.
";

/// The text of `config.default.toml`.
#[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the file equal to it"))]
pub(crate) fn default_page() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        line(&mut page, format_args!("\n# {}\n[{}]", section.about(), section.name));
        for key in section.keys {
            line(&mut page, format_args!("\n# {}", key.meaning()));
            match key.preset {
                Preset::Default(_) => line(&mut page, format_args!("# Why change it: {}", key.change)),
                Preset::Example(_) if key.change.is_empty() => {}
                Preset::Example(_) => line(&mut page, format_args!("# {}", key.change)),
            }
            if let Some(names) = standard(key) {
                line(&mut page, format_args!("# Where it is not given: {names}."));
            }
            line(&mut page, format_args!("{}", example(key)));
        }
    }
    page
}

#[cfg(test)]
const SETTINGS_HEAD: &str = "\
# Settings

This page is written from the table of the settings by
`WRITE_CONFIG_PAGE=1 WRITE_DOCS=1 cargo test -p nice-knovvu --lib page`.
[`config.default.toml`](../pipeline/config.default.toml) is the same as a file to start from.

Settings come from one TOML file and from the environment, which wins. A key is named there `NICE_KNOVVU_SECTION__KEY`,
such as `NICE_KNOVVU_EVENTS__POLL_INTERVAL=30s`. Instead of a secret itself its key with `_file` behind it names a file
that holds it. A duration is a number with its unit: `ms`, `s`, `m`, `h`, `d`. A rate is a number and its window, such as
`150/5m`. `http` without TLS is accepted only to a loopback address.

A mistake ends the program with exit code 2 before any port, file or server is touched. It names the key as it is
written, and the remedy. `nice-knovvu check --settings` prints what is in force, and masks secrets.
";

/// The text of `docs/SETTINGS.md`.
#[cfg(test)]
pub(crate) fn settings_page() -> String {
    let mut page = SETTINGS_HEAD.to_owned();
    for section in SECTIONS {
        line(&mut page, format_args!("\n## `[{}]`\n\n{}\n", section.name, section.about()));
        line(&mut page, format_args!("| key | default | meaning | why change it |\n|---|---|---|---|"));
        for key in section.keys {
            let default = match key.preset {
                Preset::Default(default) => format!("`{default}`"),
                Preset::Example(_) => format!("none, {}", mandatory(key.needed)),
            };
            let names: Vec<_> = key.forms().iter().map(|form| format!("`{}`", key.written(*form))).collect();
            let meaning = match standard(key) {
                Some(names) => format!("{} Where it is not given: {names}.", key.meaning()),
                None => key.meaning().to_owned(),
            };
            let cells = [names.join(" or "), default, meaning, key.change.to_owned()];
            line(&mut page, format_args!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    page
}

/// What others call it in the environment.
#[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the file equal to it"))]
fn standard(key: &SettingKey) -> Option<String> {
    (!key.standard.is_empty()).then(|| key.standard.join(", else "))
}

/// Every key as it may be written, with the name of its section.
#[cfg(test)]
pub(crate) fn written() -> impl Iterator<Item = (&'static str, String)> {
    let keys = SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section.name, key)));
    keys.flat_map(|(section, key)| key.forms().iter().map(move |form| (section, key.written(*form))))
}

/// The line of a key: its default, or how it would look.
#[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the file equal to it"))]
fn example(key: &SettingKey) -> String {
    match key.preset {
        Preset::Default(default) => format!("{} = {default}", key.name),
        Preset::Example(path) if key.is_secret => {
            let both = format!("# {} = {path}", key.written(Form::SecretFile));
            format!("{both}  # secret, {}; or {} = \"…\"", mandatory(key.needed), key.name)
        }
        Preset::Example(example) => format!("# {} = {example}  # {}", key.name, mandatory(key.needed)),
    }
}

/// When a key is mandatory, in a few words.
#[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the file equal to it"))]
fn mandatory(needed: Needed) -> &'static str {
    match needed {
        Needed::Never => "optional",
        Needed::Tenant | Needed::Nice => "mandatory",
        Needed::Oauth => "mandatory for oauth",
        Needed::Webhook => "mandatory with the webhook",
        Needed::Rabbitmq => "mandatory for rabbitmq",
        Needed::Postgres | Needed::Sealed => "mandatory for postgres",
        Needed::S3 => "mandatory for s3",
        Needed::S3Key => "mandatory for s3 without credentials_file",
    }
}

/// A setting as it is in force.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EffectiveSetting {
    /// The section of the file.
    pub(crate) section: &'static str,
    /// The key in it.
    pub(crate) key: &'static str,
    /// The value as TOML, a secret as a mask; none where it is not set.
    pub(crate) value: Option<String>,
    /// `default`, `file`, `environment` or `secret file`; `environment` with a variable that is not ours, such as
    /// `environment OTEL_SERVICE_NAME`; none where it is not set.
    pub(crate) origin: Option<Cow<'static, str>>,
}

/// Every setting as it is in force, in the order of the page.
pub(super) fn effective(accepted: &Accepted) -> Vec<EffectiveSetting> {
    let keys = SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section.name, key.name)));
    let effective = keys.map(|(section, key)| {
        let setting = accepted.setting(section, key);
        let origin = setting.map(|setting| match setting.origin {
            SettingOrigin::Default => Cow::Borrowed("default"),
            SettingOrigin::File => "file".into(),
            SettingOrigin::Environment => "environment".into(),
            SettingOrigin::SecretFile => "secret file".into(),
            SettingOrigin::Standard(name) => format!("environment {name}").into(),
        });
        EffectiveSetting { section, key, value: setting.map(|setting| setting.shown.clone()), origin }
    });
    effective.collect()
}

/// The same as TOML.
pub(super) fn as_toml<'a>(settings: impl IntoIterator<Item = &'a EffectiveSetting>) -> String {
    let (mut page, mut begun) = (String::new(), "");
    for EffectiveSetting { section, key, value, origin } in settings {
        if *section != begun {
            let gap = if begun.is_empty() { "" } else { "\n" };
            line(&mut page, format_args!("{gap}[{section}]"));
            begun = section;
        }
        match (value, origin) {
            (Some(value), Some(origin)) => line(&mut page, format_args!("{key} = {value}  # {origin}")),
            _ => line(&mut page, format_args!("# {key} is not set")),
        }
    }
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}
