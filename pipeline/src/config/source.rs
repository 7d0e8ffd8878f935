//! Where settings come from: the file's text and the environment → entries of known keys, and unknown ones as mistakes.

use super::{
    keys::{Form, Section, SettingKey},
    nearest::one_line,
    settings,
};

pub(super) mod environment;
pub(super) mod file;

/// The settings file, when it is named in the environment. No setting itself.
pub(super) const FILE_VARIABLE: &str = "NICE_KNOVVU_CONFIG";

/// The key and form that `written` means in a section.
fn find(section: &str, written: &str) -> Option<(usize, &'static SettingKey, Form)> {
    let mut keys = settings::all().filter(|(_, known, _)| known.name == section);
    keys.find_map(|(place, _, key)| {
        let form = key.forms().iter().find(|form| key.written(**form) == written)?;
        Some((place, key, *form))
    })
}

/// Every way to write a key of the section.
fn written_keys(section: &Section) -> Vec<String> {
    section.keys.iter().flat_map(|key| key.forms().iter().map(|form| key.written(*form))).collect()
}

/// The names and remedies in a mistake are one line each, whatever was written.
fn shown(name: &str) -> String {
    one_line(name)
}
