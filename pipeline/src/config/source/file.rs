//! The settings file: its text → entries, each with its position.

use toml::de::{DeTable, DeValue};

use super::{find, shown, written_keys};
use crate::config::{
    error::{ConfigErrors, Rank},
    keys::Section,
    nearest::nearest,
    reader::GivenSetting,
    settings::{self, SECTIONS},
    value::Raw,
};

/// Reads every key of the file named `name`. Where the text is not TOML that is the only mistake reported:
/// what the rest would have been is unknown.
pub(in crate::config) fn read_text(text: &str, name: &str, errors: &mut ConfigErrors) -> Option<Vec<GivenSetting>> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            // The parser's message only: its Display repeats the line, which may hold a secret.
            let fault = format!("not TOML: {}", shown(error.message()));
            errors.add(Rank::File(0), &format!("{name}:{line}:{column}"), fault);
            return None;
        }
    };
    let mut entries = Vec::new();
    for (section, value) in document.get_ref() {
        let rank = Rank::File(section.span().start);
        let written = section.get_ref().as_ref();
        match (SECTIONS.iter().find(|known| known.name == written), value.get_ref()) {
            (Some(known), DeValue::Table(table)) => read_section(known, table, name, &mut entries, errors),
            (Some(_), _) => errors.add(rank, &format!("{name}: {written}"), format!("is a section; write [{written}]")),
            (None, DeValue::Table(_) | DeValue::Array(_)) => {
                errors.add(rank, &format!("{name}: [{}]", shown(written)), unknown_section(written));
            }
            (None, _) => errors.add(rank, &format!("{name}: {}", shown(written)), outside(written)),
        }
    }
    Some(entries)
}

/// Reads the keys of one section.
fn read_section(
    section: &'static Section,
    table: &DeTable<'_>,
    name: &str,
    entries: &mut Vec<GivenSetting>,
    errors: &mut ConfigErrors,
) {
    for (key, value) in table {
        let rank = Rank::File(key.span().start);
        let written = key.get_ref().as_ref();
        let place = format!("{name}: [{}] {}", section.name, shown(written));
        match find(section.name, written) {
            Some((key, _, form)) => {
                entries.push(GivenSetting { key, form, place, rank, raw: Raw::from(value.get_ref()) });
            }
            None => errors.add(rank, &place, unknown_key(section, written)),
        }
    }
}

/// The remedy for an unknown key of a known section.
fn unknown_key(section: &Section, written: &str) -> String {
    let known = written_keys(section);
    if let Some(key) = nearest(written, known.iter().map(String::as_str)) {
        return format!("unknown key; did you mean {key}?");
    }
    if let Some((_, other, key)) = settings::all().find(|(_, _, key)| key.name == written) {
        return format!("unknown key; {} belongs to [{}]", key.name, other.name);
    }
    format!("unknown key; remove it, the keys of [{}] are {}", section.name, known.join(", "))
}

/// The remedy for an unknown section.
fn unknown_section(written: &str) -> String {
    match nearest(written, SECTIONS.iter().map(|section| section.name)) {
        Some(section) => format!("unknown section; did you mean [{section}]?"),
        None => {
            let known: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
            format!("unknown section; remove it, the sections are {}", known.join(", "))
        }
    }
}

/// The remedy for a key before the first section.
fn outside(written: &str) -> String {
    match nearest(written, settings::all().map(|(_, _, key)| key.name)) {
        Some(name) => {
            let section =
                settings::all().find(|(_, _, key)| key.name == name).map_or("", |(_, section, _)| section.name);
            format!("unknown key outside of a section; did you mean {name} in [{section}]?")
        }
        None => "unknown key outside of a section; remove it, or write it under its [section]".to_owned(),
    }
}

/// Line and column of a byte, counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
