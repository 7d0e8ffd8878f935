//! What an expression of Prometheus asks for.

use std::collections::BTreeSet;

/// Every name of a series on the daemon's page, and what Prometheus itself adds.
pub(crate) fn exported(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    names.chain(["up"]).map(str::to_owned).collect()
}

pub(crate) fn assert_exported(expression: &str, exported: &BTreeSet<String>) {
    for selector in selectors_of(expression) {
        let name = selector.split('{').next().unwrap_or_default();
        assert!(exported.contains(name), "{name} is exported by nobody: {expression}");
    }
}

/// The series that an expression asks for: its words but for functions and keywords, each with what follows in `{}`;
/// not what stands in `[]`, `""` and in the label lists of `by`, `on` and the like.
pub(crate) fn selectors_of(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if let Some(end) = matching(first) {
            rest = rest[1..].split_once(end).map_or("", |(_, after)| after);
            continue;
        }
        let length = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)));
        let (word, after) = rest.split_at(length.unwrap_or(rest.len()).max(first.len_utf8()));
        rest = after;
        let is_word = first.is_ascii_alphabetic() || first == '_';
        let is_called = ["(", "by ", "without "].iter().any(|next| after.trim_start().starts_with(next));
        if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&word) {
            rest = rest.trim_start().strip_prefix('(').and_then(|list| list.split_once(')')).map_or(rest, |(_, r)| r);
        } else if is_word && !["and", "or", "unless", "bool", "offset"].contains(&word) && !is_called {
            let labels = rest.strip_prefix('{').and_then(|labels| labels.split_once('}'));
            names.insert(labels.map_or_else(|| word.to_owned(), |(labels, _)| format!("{word}{{{labels}}}")));
        }
    }
    names
}

/// What ends a part of an expression that names no metric.
fn matching(first: char) -> Option<char> {
    match first {
        '{' => Some('}'),
        '[' => Some(']'),
        '"' => Some('"'),
        _ => None,
    }
}

#[test]
fn the_selectors_of_an_expression_are_its_series_only() {
    let selectors = |expression| selectors_of(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        selectors(r#"sum by (le, stage) (rate(a_total{b="c",d=~"e.."}[5m])) / on () group_left b > 0.5"#),
        [r#"a_total{b="c",d=~"e.."}"#, "b"]
    );
    assert_eq!(selectors("time() - max(a_seconds > 1e3) and absent(b:c) or vector(0)"), ["a_seconds", "b:c"]);
}
