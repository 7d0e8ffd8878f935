//! The table of `docs/LOGGING.md` holds the fields of every line of the log, and no others.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::markdown::Document;
use super::root;
use super::source::{is_punct, modules, word};

const EVENTS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const SPANS: [&str; 5] = ["error_span", "warn_span", "info_span", "debug_span", "trace_span"];

#[test]
fn the_table_of_fields_is_what_is_logged() {
    let page = Document::read(&root().join("docs/LOGGING.md"));
    let (_, table) = page.text.split_once("| field |").expect("the page has a table of fields");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    let listed: BTreeSet<_> =
        rows.flat_map(|(names, _)| names.split("`, `")).map(|name| name.trim_matches([' ', '`']).to_owned()).collect();
    let mut logged: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in modules().into_iter().filter(|module| module.is_shipped()) {
        let mut fields = Vec::new();
        collect(&module.tokens, &mut fields);
        for field in fields {
            logged.entry(field).or_default().insert(module.file.clone());
        }
    }
    assert!(logged.len() >= 20, "the lines of the log are not found");
    let unlisted: Vec<_> = (logged.iter().filter(|(field, _)| !listed.contains(*field)))
        .map(|(field, files)| format!("{field}: {}", files.iter().map(String::as_str).collect::<Vec<_>>().join(", ")))
        .collect();
    let remedy = "Use a name of the table in docs/LOGGING.md, or add this one with its meaning.";
    assert!(unlisted.is_empty(), "fields of the log are not in the table. {remedy}\n{}\n", unlisted.join("\n"));
    let unused: Vec<_> = listed.iter().filter(|field| !logged.contains_key(*field)).collect();
    assert!(unused.is_empty(), "the table in docs/LOGGING.md has fields that nothing logs; remove them: {unused:?}");
}

/// Collects the fields of every event and span.
fn collect(tokens: &[TokenTree], fields: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let inner: Vec<_> = group.stream().into_iter().collect();
        let is_call = at >= 2 && is_punct(tokens.get(at - 1), '!') && group.delimiter() == Delimiter::Parenthesis;
        let name = if is_call { word(&tokens[at - 2]).unwrap_or_default() } else { String::new() };
        if EVENTS.contains(&name.as_str()) || SPANS.contains(&name.as_str()) {
            fields.extend(fields_of(&inner, SPANS.contains(&name.as_str())));
        }
        collect(&inner, fields);
    }
}

/// The fields of an event are before its message; those of a span are behind its name.
fn fields_of(arguments: &[TokenTree], is_span: bool) -> Vec<String> {
    let is_text = |argument: &&[TokenTree]| matches!(argument, [TokenTree::Literal(_), ..]);
    let all = arguments.split(|token| is_punct(Some(token), ',')).filter(|argument| !argument.is_empty());
    let all: Vec<_> = match is_span {
        true => all.filter(|argument| !is_text(argument)).collect(),
        false => all.take_while(|argument| !is_text(argument)).collect(),
    };
    all.into_iter().map(field).collect()
}

/// The name of a field: `name`, `%name`, `?name` or `name = value`.
fn field(argument: &[TokenTree]) -> String {
    let written = argument.split(|token| is_punct(Some(token), '=')).next().unwrap_or_default();
    let name: String = written.iter().map(ToString::to_string).collect();
    name.trim_start_matches(['%', '?']).to_owned()
}

#[test]
fn a_field_is_told_from_the_message() {
    let code = "
        info!(one, %two, ?three, four.five = %six(7, 8), \"message {nine}\", ten = 11);
        tokio::select! { _ = a => tracing::warn!(run = run.id, \"b\"), }
        let span = info_span!(\"name\", conversation.id = %id, stage);
        format!(\"c {}\", d);
    ";
    let mut fields = Vec::new();
    collect(&code.parse::<TokenStream>().expect("it is Rust").into_iter().collect::<Vec<_>>(), &mut fields);
    assert_eq!(fields, ["one", "two", "three", "four.five", "run", "conversation.id", "stage"]);
}
