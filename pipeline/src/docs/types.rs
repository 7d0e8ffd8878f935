//! One noun for one thing: no two types of the product have the same name.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::source::{modules, word};

/// Names that more than one type may have, and why.
const SHARED: &[(&str, &str)] = &[("Inner", "what the clones of a handle share, never seen outside of its file")];

const REMEDY: &str = "Name the upper one after what it is there, as one would search for it, or use the one below; \
                      see the names that exist with `git grep -w`.";

#[test]
fn no_two_types_have_the_same_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in modules().into_iter().filter(|module| module.is_shipped()) {
        let mut types = Vec::new();
        collect(module.tokens, false, &mut types);
        for name in types {
            places.entry(name).or_default().push(module.file.clone());
        }
    }
    let doubles: BTreeSet<_> = places.iter().filter(|(_, files)| files.len() > 1).collect();
    let is_shared = |name: &str| SHARED.iter().any(|(shared, _)| *shared == name);
    let unneeded = SHARED.iter().filter(|(shared, _)| !doubles.iter().any(|(name, _)| name == shared));
    assert_eq!(unneeded.count(), 0, "a name that is allowed to be shared is not: take it off the list");
    let mistakes: Vec<_> = (doubles.into_iter().filter(|(name, _)| !is_shared(name)))
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect();
    assert!(mistakes.is_empty(), "types share a name. {REMEDY}\n{}\n", mistakes.join("\n"));
}

/// Collects the names of the types that the code defines. `is_body` is within an `impl` or `trait`, where a `type` is
/// no name of its own.
fn collect(tokens: impl IntoIterator<Item = TokenTree>, is_body: bool, types: &mut Vec<String>) {
    let (mut before, mut is_next_body) = (String::new(), false);
    for token in tokens {
        match &token {
            TokenTree::Group(group) => {
                let is_brace = group.delimiter() == Delimiter::Brace;
                collect(group.stream(), is_brace && std::mem::take(&mut is_next_body), types);
            }
            TokenTree::Ident(name) => {
                let is_type = ["struct", "enum", "trait", "union"].contains(&before.as_str());
                if is_type || before == "type" && !is_body {
                    types.push(name.to_string());
                }
                is_next_body |= name == "impl" || name == "trait";
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => is_next_body = false,
            _ => {}
        }
        before = word(&token).unwrap_or_default();
    }
}

#[test]
fn an_associated_type_has_no_name_of_its_own() {
    let code = "
        struct A; pub(crate) enum B { C } trait D { type E; } type F = G;
        impl D for A { type E = H; fn f() { struct I; } }
        fn g() -> impl D { 1 }
        macro_rules! j { ($k:ident) => { struct $k; struct L; } }
    ";
    let mut types = Vec::new();
    collect(code.parse::<TokenStream>().expect("it is Rust"), false, &mut types);
    assert_eq!(types, ["A", "B", "D", "F", "I", "L"]);
}
