//! Where settings come from: the file's text and the environment → entries of known keys, and unknown ones as mistakes.

use std::{fs::File, io, io::Read, path::Path};

use model::text::without_mark;

use super::{
    error::{ConfigErrors, Rank},
    keys::{self, Form, Key, Section},
    nearest::one_line,
    value::Raw,
};

mod environment;
mod file;

pub(super) use self::{environment::read_environment, file::read_text};

/// The settings file, when it is named in the environment. No setting itself.
pub(super) const FILE_VARIABLE: &str = "NICE_KNOVVU_CONFIG";

/// A key as it was given.
pub(super) struct Entry {
    /// The key's place in the table.
    pub(super) key: usize,
    /// As itself, or as a file.
    pub(super) form: Form,
    /// The key as written, with where it stands.
    pub(super) place: String,
    /// Its place among mistakes.
    pub(super) rank: Rank,
    /// What was given.
    pub(super) raw: Raw,
}

/// Reads a small text file whole; the fault says what is wrong with the file, not what is in it.
pub(super) fn read_small(path: &Path, most: u64) -> Result<String, String> {
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

/// The key and form that `written` means in a section.
fn find(section: &str, written: &str) -> Option<(usize, &'static Key, Form)> {
    let mut keys = keys::all().filter(|(_, known, _)| known.name == section);
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
