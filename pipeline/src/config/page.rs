//! The table as text: `config.default.toml`, and the effective settings with their secrets masked.

use std::fmt::Write as _;

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
            let cells = [names.join(" or "), default, key.meaning().to_owned(), key.change.to_owned()];
            line(&mut page, format_args!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    page
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

/// The effective settings with their origins; a secret is a mask.
pub(super) fn redacted(accepted: &Accepted) -> String {
    let mut page = String::new();
    for section in SECTIONS {
        let gap = if page.is_empty() { "" } else { "\n" };
        line(&mut page, format_args!("{gap}[{}]", section.name));
        for key in section.keys {
            match accepted.setting(section.name, key.name) {
                Some(setting) => {
                    let origin = match setting.origin {
                        SettingOrigin::Default => "default",
                        SettingOrigin::File => "file",
                        SettingOrigin::Environment => "environment",
                        SettingOrigin::SecretFile => "secret file",
                    };
                    line(&mut page, format_args!("{} = {}  # {origin}", key.name, setting.shown));
                }
                None => line(&mut page, format_args!("# {} is not set", key.name)),
            }
        }
    }
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}
