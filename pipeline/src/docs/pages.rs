//! `docs/SETTINGS.md` and `docs/COMMANDS.md`, written from the table of the settings and from the command line.
//!
//! `docs/openapi.json` is the description of the API. `docs/METRICS.md` is written by `tests/it/metrics_page.rs`, from what a running daemon shows.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::admin::api_description;
use crate::cli::Cli;
use crate::config::settings_page;

const COMMANDS_HEAD: &str = "\
# Commands

This page is written from the program by `WRITE_DOCS=1 cargo test -p nice-knovvu --lib page`. The
[README](../README.md) says in a line what each command is for.

Every command takes `--config FILE`, the settings file; without it `NICE_KNOVVU_CONFIG` names the file, else
`./nice-knovvu.toml` is read if it is there. A time is RFC 3339 with an offset, or a date, which is its midnight UTC.
Results go to stdout, logs and progress to stderr.

Each command that answers takes `--json`: one JSON document on stdout, whatever the exit code says; where there is no
answer, stdout is empty and stderr says why. `status --watch --json` is a document on each line. A script may rely on it: a
field keeps its name, its type and its meaning, and what the [admin API](API.md) tells as well has the same name there.
A new version may add fields, and words to a field that holds one word of several. Text for a person may change at any
time. `run`, `producer`, `consumer`, `demo`, `completions` and `man` have no answer in that sense.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage or settings |
| 3 | an outside system cannot be reached |
| 4 | partly done, or something differs or is held |
";

#[test]
fn the_page_of_settings_is_the_table() {
    is_written("SETTINGS.md", &settings_page());
}

#[test]
fn the_page_of_commands_is_the_command_line() {
    let mut root = Cli::command();
    root.build();
    let mut page = COMMANDS_HEAD.to_owned();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(command, 2, &mut page);
    }
    is_written("COMMANDS.md", &page);
}

#[test]
fn the_description_of_the_api_is_that_of_the_routes() {
    let text = serde_json::to_string_pretty(api_description()).expect("it is JSON");
    is_written("openapi.json", &format!("{text}\n"));
}

/// Compares a page with its file; writes it where `WRITE_DOCS` is set.
fn is_written(name: &str, page: &str) {
    let file = super::root().join("docs").join(name);
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&file, page).expect("the page is written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/{name} is stale; write it: WRITE_DOCS=1 cargo test -p nice-knovvu --lib page");
}

/// A command with its arguments, then each of its own commands.
fn describe(command: &Command, depth: usize, page: &mut String) {
    let name = command.get_bin_name().expect("a built command has its whole name");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    put(page, format_args!("\n{} {name}\n\n{about}.\n\n```text\n{usage}\n```", "#".repeat(depth)));
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !["help", "version", "config"].contains(&argument.get_id().as_str()))
        .collect();
    if !arguments.is_empty() {
        put(page, format_args!("\n| argument | meaning |\n|---|---|"));
    }
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let default = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>();
        let default = if default.is_empty() || !argument.get_action().takes_values() {
            String::new()
        } else {
            format!(" [default: {}]", default.join(" "))
        };
        put(page, format_args!("| `{}` | {help}{default} |", written(argument)));
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        describe(inner, depth + 1, page);
    }
}

/// An argument as it is written on the command line.
fn written(argument: &Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| argument.get_id().as_str().to_uppercase());
    match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    }
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}
