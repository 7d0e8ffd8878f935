//! A link leads somewhere; a command, an option, a setting, a metric and a file that a document names exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use clap::{Arg, Command, CommandFactory};

use super::markdown::Document;
use super::{files, root, shown};
use crate::cli::Cli;

/// Variables that begin as a setting does and are none.
const VARIABLES: &[&str] = &[
    "NICE_KNOVVU_CONFIG",
    // How a setting is named, in general.
    "NICE_KNOVVU_SECTION__KEY",
    // The switch of the tests that kill the daemon.
    "NICE_KNOVVU_CRASH_AT",
];

fn documents() -> Vec<Document> {
    let documents: Vec<_> = files(&[".md"]).iter().map(|path| Document::read(path)).collect();
    assert!(documents.len() >= 10, "the documents are not found");
    documents
}

/// The programs of `bench/` and `examples/` have command lines of their own.
fn is_of_others(document: &Document) -> bool {
    ["bench", "examples"].iter().any(|folder| document.path.starts_with(root().join(folder)))
}

fn assert_none(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let mut mistakes = Vec::new();
    for document in &documents {
        for link in document.links.iter().filter(|link| !link.text.contains("://")) {
            let (file, anchor) = link.text.split_once('#').unwrap_or((&link.text, ""));
            let target = match file {
                "" => document.path.clone(),
                file => normal(&document.path.parent().expect("a file lies in a folder").join(file)),
            };
            let is_there = if anchor.is_empty() {
                target.exists()
            } else {
                documents.iter().any(|other| normal(&other.path) == normal(&target) && other.anchors.contains(anchor))
            };
            if !is_there {
                mistakes.push(format!("{}: {} leads nowhere", document.at(link), link.text));
            }
        }
    }
    assert_none(&mistakes);
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts
}

#[test]
fn every_command_and_option_is_on_the_command_line() {
    let mut program = Cli::command();
    program.build();
    let options = options(&program);
    let mut mistakes = Vec::new();
    for document in documents() {
        let lines = document.blocks.iter().filter(|(language, _)| !["toml", "rust"].contains(&language.as_str()));
        for found in lines.map(|(_, found)| found).chain(&document.spans) {
            for line in found.text.lines() {
                let unknown = calls(line).into_iter().filter_map(|call| unknown(&program, call));
                mistakes.extend(unknown.map(|unknown| format!("{}: no {unknown}: {line}", document.at(found))));
            }
        }
        for found in &document.commands {
            let unknown = unknown(&program, &found.text);
            mistakes.extend(unknown.map(|unknown| format!("{}: no {unknown}: {}", document.at(found), found.text)));
        }
        for found in document.spans.iter().filter(|span| span.text.starts_with("--") && !is_of_others(&document)) {
            let option = found.text[2..].split([' ', '=']).next().unwrap_or_default();
            if !options.contains(option) {
                mistakes.push(format!("{}: no command has --{option}", document.at(found)));
            }
        }
    }
    assert_none(&mistakes);
}

/// The long options of a command and of all within it.
fn options(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned);
    own.chain(command.get_subcommands().flat_map(options)).collect()
}

/// What follows the program's name, wherever a line of a shell calls it.
fn calls(line: &str) -> Vec<&str> {
    let mut calls = Vec::new();
    for (at, name) in line.match_indices("nice-knovvu ") {
        let before = line[..at].trim_end();
        let is_path = before.len() == at && line[..at].ends_with(|last: char| last == '-' || last.is_alphanumeric());
        // The name of a package or a unit: `-p nice-knovvu`, `-u nice-knovvu`.
        let is_value = before.rsplit(' ').next().is_some_and(|word| word.starts_with('-'));
        if !is_path && !is_value {
            calls.push(&line[at + name.len()..]);
        }
    }
    if line.contains("cargo run ") && !line.contains(" -p ") {
        calls.extend(line.split_once(" -- ").map(|(_, arguments)| arguments));
    }
    calls
}

/// The first word of a call that the program does not know.
fn unknown(program: &Command, call: &str) -> Option<String> {
    let mut command = program;
    let mut is_value = false;
    for word in call.split_whitespace() {
        if ["|", "&", "&&", ";", "#", "…"].contains(&word) || word.starts_with(['>', '<']) {
            break;
        }
        let word = word.trim_matches(['[', ']', '(', ')', '"', ',', ';', '.', ':']);
        // `CONVERSATION_ID` stands for something.
        let is_placeholder = word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        if std::mem::take(&mut is_value) || is_placeholder {
            continue;
        }
        if let Some(option) = word.strip_prefix("--") {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            match command.get_arguments().find(|argument| argument.get_long() == Some(name)) {
                Some(argument) => is_value = value.is_none() && argument.get_action().takes_values(),
                None => return Some(format!("option --{name}")),
            }
        } else if command.has_subcommands() {
            let mut inner = word.split('|').map(|name| command.find_subcommand(name));
            match inner.next()? {
                Some(inner) => command = inner,
                None => return Some(format!("command {word}")),
            }
            if inner.any(|inner| inner.is_none()) {
                return Some(format!("command {word}"));
            }
        }
    }
    None
}

#[test]
fn a_call_is_compared_word_by_word() {
    let mut program = Cli::command();
    program.build();
    for right in [
        "run",
        "--config acme.toml status --json",
        "backfill --from 2026-04-01 --to 2026-04-08 --dry-run    # what it costs",
        "backfill pause 3 | resume 3",
        "agents sync|list",
        "settings set --tenant acme < nice.toml",
        "recheck CONVERSATION_ID [--json]",
        "agents [OPTIONS] <COMMAND>",
    ] {
        assert_eq!(unknown(&program, right), None, "{right}");
    }
    for (wrong, word) in [
        ("start", "command start"),
        ("agents sync|remove", "command sync|remove"),
        ("settings get", "command get"),
        ("backfill --since 2026-04-01", "option --since"),
        ("run --json", "option --json"),
    ] {
        assert_eq!(unknown(&program, wrong).as_deref(), Some(word), "{wrong}");
    }
    assert_eq!(
        calls("$ sudo nice-knovvu status; cargo test -p nice-knovvu --lib"),
        ["status; cargo test -p nice-knovvu --lib"]
    );
    assert_eq!(calls("cargo run --release -- demo"), ["demo"]);
    assert!(calls("systemctl status -u nice-knovvu now").is_empty());
}

#[test]
fn every_setting_is_in_the_table() {
    let keys: BTreeSet<(&str, String)> = crate::config::written().collect();
    let sections: BTreeSet<_> = keys.iter().map(|(section, _)| *section).collect();
    let variables: BTreeSet<_> = keys
        .iter()
        .map(|(section, key)| format!("NICE_KNOVVU_{section}__{key}").to_uppercase())
        .chain(VARIABLES.iter().map(|name| (*name).to_owned()))
        .collect();
    let mut mistakes = Vec::new();
    for document in documents() {
        for name in words(&document.text).filter(|word| word.starts_with("NICE_KNOVVU_") && !word.ends_with('_')) {
            if !variables.contains(name) {
                mistakes.push(format!("{}: no setting has the variable {name}", shown(&document.path)));
            }
        }
        for span in &document.spans {
            let Some((section, key)) = named(&span.text) else { continue };
            let is_known = match key {
                None => sections.contains(section),
                Some(key) => keys.contains(&(section, key.to_owned())),
            };
            let is_meant = span.text.starts_with('[') || sections.contains(section);
            if is_meant && !is_known {
                mistakes.push(format!("{}: no setting {}", document.at(span), span.text));
            }
        }
        for (_, block) in document.blocks.iter().filter(|(language, _)| language == "toml") {
            let table: toml::Table =
                block.text.parse().unwrap_or_else(|error| panic!("{}: {error}", document.at(block)));
            for (section, section_keys) in &table {
                let section_keys = section_keys.as_table().into_iter().flatten();
                let unknown = section_keys.filter(|(key, _)| !keys.contains(&(section.as_str(), (*key).clone())));
                mistakes
                    .extend(unknown.map(|(key, _)| format!("{}: no setting [{section}] {key}", document.at(block))));
            }
        }
    }
    assert_none(&mistakes);
}

/// The words of a text that may be variables.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
}

/// The setting or section that a span names: `[section] key`, `[section]` or `section.key`.
fn named(span: &str) -> Option<(&str, Option<&str>)> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if let Some((section, key)) = span.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // `[section] key = value` too.
        let key = key.split_whitespace().next();
        return is_name(section).then_some((section, key)).filter(|(_, key)| key.is_none_or(is_name));
    }
    let (section, key) = span.split_once('.')?;
    let is_file = ["rs", "toml", "md", "sql", "json", "yaml", "py", "sh", "service"].contains(&key);
    (is_name(section) && is_name(key) && !is_file).then_some((section, Some(key)))
}

#[test]
fn a_setting_is_told_from_other_code() {
    assert_eq!(named("[events] poll_interval"), Some(("events", Some("poll_interval"))));
    assert_eq!(named("[queue] kind = \"fluvio\""), Some(("queue", Some("kind"))));
    assert_eq!(named("[nice]"), Some(("nice", None)));
    assert_eq!(named("state.dir"), Some(("state", Some("dir"))));
    for other in ["agents.rs", "a.b.c", "[1]", "queue", "std::io", "[a](b)", "1.5"] {
        assert_eq!(named(other), None, "{other}");
    }
}

#[test]
fn every_metric_is_exported() {
    let page = Document::read(&root().join("docs/METRICS.md"));
    let exported: BTreeSet<_> = page.spans.iter().map(|span| span.text.as_str()).collect();
    let mut mistakes = Vec::new();
    for document in documents() {
        for span in &document.spans {
            let name = span.text.split('{').next().unwrap_or_default();
            if is_metric(name) && !exported.contains(name) {
                mistakes.push(format!("{}: no metric {name}", document.at(span)));
            }
        }
    }
    assert_none(&mistakes);
}

/// Whether a span is named as only a metric is.
fn is_metric(span: &str) -> bool {
    let is_name = span.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name && ["_total", "_seconds", "_messages"].iter().any(|unit| span.ends_with(unit))
}

#[test]
fn every_file_of_the_source_is_there() {
    let sources: Vec<_> = files(&[".rs"]).iter().map(|path| format!("/{}", shown(path))).collect();
    let mut mistakes = Vec::new();
    for document in documents() {
        for span in document.spans.iter().filter(|span| span.text.ends_with(".rs")) {
            let is_path = !span.text.contains([' ', '*', '{', '(']);
            if is_path && !sources.iter().any(|source| source.ends_with(&format!("/{}", span.text))) {
                mistakes.push(format!("{}: no file {}", document.at(span), span.text));
            }
        }
    }
    assert_none(&mistakes);
}
