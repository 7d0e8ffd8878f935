//! No modules of a crate use each other in a circle, at any level of nesting.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenTree};

use super::source::{Module, is_punct, modules, without_tests, word};

/// A path of names.
type Names = Vec<String>;

/// Which of the modules beside each other use which, and in which files.
type Uses = BTreeMap<(String, String), BTreeSet<String>>;

const REMEDY: &str = "Move what both need into a module below both, or hand it over as an argument.";

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut packages: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for module in modules() {
        packages.entry(module.package.clone()).or_default().push(module);
    }
    let circles: Vec<_> = packages
        .iter()
        .flat_map(|(package, modules)| circles(modules).into_iter().map(move |line| format!("{package}: {line}")))
        .collect();
    assert!(circles.is_empty(), "modules use each other in circles. {REMEDY}\n{}\n", circles.join("\n"));
}

/// One line for each use that is part of a circle.
fn circles(modules: &[Module]) -> Vec<String> {
    let known: BTreeSet<&[String]> = modules.iter().map(|module| module.path.as_slice()).collect();
    // By the module that contains those that use each other.
    let mut uses: BTreeMap<&[String], Uses> = BTreeMap::new();
    for module in modules {
        let mut paths = Vec::new();
        collect(&module.tokens, &module.path, &[], &mut paths);
        for path in paths {
            let used = (0..=path.len()).rev().map(|length| &path[..length]).find(|path| known.contains(path));
            let used = used.unwrap_or_default();
            let shared = module.path.iter().zip(used).take_while(|(one, other)| one == other).count();
            if let (Some(user), Some(used)) = (module.path.get(shared), used.get(shared)) {
                let files = uses.entry(&module.path[..shared]).or_default().entry((user.clone(), used.clone()));
                files.or_default().insert(module.file.clone());
            }
        }
    }
    let mut lines = Vec::new();
    for (parent, uses) in &uses {
        for ((user, used), files) in uses.iter().filter(|((user, used), _)| reaches(uses, used, user)) {
            let parent = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
            let files: Vec<_> = files.iter().map(String::as_str).collect();
            lines.push(format!("{parent}: {user} uses {used} in {}", files.join(", ")));
        }
    }
    lines
}

/// Whether one of the modules uses another one, directly or through others.
fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(user) = open.pop() {
        for (_, used) in uses.keys().filter(|(other, _)| other == user) {
            if seen.insert(used) {
                open.push(used);
            }
        }
    }
    seen.contains(to)
}

/// Collects the paths of the crate that the code of a module names. `prefix` is the path before the braces of a `use`.
fn collect(tokens: &[TokenTree], module: &[String], prefix: &[String], paths: &mut Vec<Names>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1);
        match (word(token).as_deref(), token) {
            // `pub(in path)` says who may use it, and uses nothing.
            (Some("pub"), _) if matches!(next, Some(TokenTree::Group(_))) => at += 2,
            (Some("as"), _) if !prefix.is_empty() => at += 2,
            (Some("mod"), _) if matches!(tokens.get(at + 2), Some(TokenTree::Group(_))) => {
                let inner = [module, &[next.and_then(word).unwrap_or_default()]].concat();
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    collect(&body.stream().into_iter().collect::<Vec<_>>(), &inner, &[], paths);
                }
                at += 3;
            }
            (Some(_), _) => {
                let (names, end) = path_at(tokens, at);
                let path = [prefix, &names].concat();
                at = end;
                match tokens.get(at) {
                    Some(TokenTree::Group(tree)) if is_double_colon(tokens, end.saturating_sub(2)) => {
                        if tree.delimiter() == Delimiter::Brace {
                            collect(&tree.stream().into_iter().collect::<Vec<_>>(), module, &path, paths);
                        }
                        at += 1;
                    }
                    _ => paths.extend(absolute(&path, module)),
                }
            }
            (None, TokenTree::Group(group)) => {
                collect(&group.stream().into_iter().collect::<Vec<_>>(), module, &[], paths);
                at += 1;
            }
            (None, _) => at += 1,
        }
    }
}

/// The names of the path that begins at `at`, and where it ends.
fn path_at(tokens: &[TokenTree], mut at: usize) -> (Names, usize) {
    let mut names = Vec::new();
    while let Some(name) = tokens.get(at).and_then(word) {
        names.push(name);
        at += 1;
        if !is_double_colon(tokens, at) {
            break;
        }
        at += 2;
    }
    (names, at)
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

/// A path that begins with `crate`, `super` or `self`, from the root of the crate.
fn absolute(path: &[String], module: &[String]) -> Option<Names> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
        _ => None,
    }
}

#[test]
fn a_circle_is_found_at_every_level() {
    let module = |path: &str, code: &str| Module {
        package: "p".to_owned(),
        path: path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        file: format!("{path}.rs"),
        tokens: without_tests(code.parse().expect("it is Rust")).0,
    };
    let found =
        |modules: &[(&str, &str)]| circles(&modules.iter().map(|(path, code)| module(path, code)).collect::<Vec<_>>());
    let both = ["crate: a uses b in a.rs", "crate: b uses a in b.rs"];
    assert_eq!(found(&[("", "use a::X;"), ("a", "use crate::b::Y;"), ("b", "fn f() { crate::a::g() }")]), both);
    assert_eq!(found(&[("a", "use crate::{c as b, b::{self, Y}};"), ("b", "use super::{a::X};"), ("c", "")]), both);
    assert_eq!(
        found(&[("n::a", "use super::b::Y;"), ("n::b", "use crate::n::a;"), ("n", "use self::a::X;")]),
        ["n: a uses b in n::a.rs", "n: b uses a in n::b.rs"]
    );
    // Through a third one.
    assert_eq!(
        found(&[("a", "use crate::b;"), ("b", "use crate::c::d;"), ("c", ""), ("c::d", "use crate::a;")]).len(),
        3
    );
    // One way only: not in comments, tests, or in who may see an item.
    let code = "//! [`crate::b`]\n#[cfg(test)] use crate::b;\npub(in crate::b) fn f() {}";
    assert!(found(&[("a", code), ("b", "use crate::a;")]).is_empty());
    assert!(found(&[("a", "use crate::{c as b};"), ("b", "use crate::a;"), ("c", "")]).is_empty());
    assert!(found(&[("a", "pub struct X;"), ("a::b", "use super::X;"), ("", "use a::b::Y;")]).is_empty());
}
