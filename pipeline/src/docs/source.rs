//! The product's code as tokens: without comments, and without what is compiled for tests only.

use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::{files, root, shown};

/// A file of Rust, which is a module of its crate.
pub(super) struct Module {
    /// The folder of the crate, such as `stages/clients/nice`.
    pub(super) package: String,
    /// The path of the module within the crate; empty for the root.
    pub(super) path: Vec<String>,
    pub(super) file: String,
    pub(super) tokens: Vec<TokenTree>,
}

impl Module {
    /// Whether it is part of what is shipped, and not of the benchmarks and simulators.
    pub(super) fn is_shipped(&self) -> bool {
        !self.package.starts_with("bench")
    }
}

/// Every module of every crate of the workspace.
pub(super) fn modules() -> Vec<Module> {
    let (mut modules, mut tests) = (Vec::new(), Vec::new());
    for file in files(&[".rs"]) {
        let Some((package, path)) = place(&file) else { continue };
        let text = std::fs::read_to_string(&file).expect("a source file is readable");
        let tokens = text.parse::<TokenStream>().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (tokens, of_tests) = without_tests(tokens);
        tests.extend(of_tests.into_iter().map(|name| (package.clone(), [path.clone(), vec![name]].concat())));
        modules.push(Module { package, path, file: shown(&file), tokens });
    }
    modules.retain(|module| {
        !tests.iter().any(|(package, path)| *package == module.package && module.path.starts_with(path))
    });
    assert!(modules.len() >= 200, "the modules are not found");
    modules
}

/// The crate of a file, and its path within; none of what lies outside of a folder `src`.
fn place(file: &Path) -> Option<(String, Vec<String>)> {
    let package = file.ancestors().find(|folder| folder.join("Cargo.toml").exists())?;
    let names = file.strip_prefix(package.join("src")).ok()?.with_extension("");
    let mut path: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    path.pop_if(|name| ["mod", "lib", "main"].contains(&name.as_str()));
    Some((shown(package.strip_prefix(root()).unwrap_or(package)), path))
}

/// The tokens without the items that are for tests only, and the names of the modules among those.
pub(super) fn without_tests(tokens: TokenStream) -> (Vec<TokenTree>, Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        if is_punct(Some(token), '#') && tokens.get(at + 1).is_some_and(is_for_tests) {
            let end = end_of_item(&tokens, at + 2);
            modules.extend(module_of(&tokens[at + 2..end]));
            at = end;
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let (inner, _) = without_tests(group.stream());
                Group::new(group.delimiter(), inner.into_iter().collect()).into()
            }
            other => other.clone(),
        });
        at += 1;
    }
    (kept, modules)
}

/// Whether an attribute is `cfg(test)` or a form of it, such as `cfg(any(test, feature = "testing"))`.
fn is_for_tests(attribute: &TokenTree) -> bool {
    let TokenTree::Group(attribute) = attribute else { return false };
    let words: Vec<_> = words(attribute.stream()).collect();
    words.first().is_some_and(|word| word == "cfg")
        && words.iter().any(|word| word == "test")
        && !words.iter().any(|word| word == "not")
}

/// Every word within, at any depth.
fn words(tokens: TokenStream) -> Box<dyn Iterator<Item = String>> {
    Box::new(tokens.into_iter().flat_map(|token| match token {
        TokenTree::Ident(word) => Box::new(std::iter::once(word.to_string())),
        TokenTree::Group(group) => words(group.stream()),
        _ => Box::new(std::iter::empty()),
    }))
}

/// Where the item ends that begins at `at`: behind its `;`, its braces, or, for a field, its comma.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    const ITEMS: [&str; 11] =
        ["async", "const", "enum", "fn", "impl", "mod", "static", "struct", "trait", "type", "use"];
    let mut first = tokens[at..].iter().filter_map(word).find(|word| word != "pub");
    let first = first.take().unwrap_or_default();
    let is_item = ITEMS.contains(&first.as_str());
    for (offset, token) in tokens[at..].iter().enumerate() {
        let is_end = match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && first != "use",
            token => is_punct(Some(token), ';') || !is_item && is_punct(Some(token), ','),
        };
        if is_end {
            return at + offset + 1;
        }
    }
    tokens.len()
}

/// The name of the module that an item declares in a file of its own.
fn module_of(item: &[TokenTree]) -> Option<String> {
    let at = item.iter().position(|token| word(token).is_some_and(|word| word == "mod"))?;
    is_punct(item.get(at + 2), ';').then(|| word(&item[at + 1])).flatten()
}

/// The word that a token is.
pub(super) fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

/// Whether a token is this mark.
pub(super) fn is_punct(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

#[test]
fn what_is_for_tests_is_left_out() {
    let code = "
        use a::b; // use c::d;
        #[cfg(test)] mod tests;
        #[cfg(any(test, feature = \"testing\"))] pub mod testing;
        #[cfg(test)] use e::{f, g};
        #[cfg(not(test))] fn h() {}
        fn i() { #[cfg(test)] j(); k(); }
        struct L { #[cfg(test)] m: N, o: P }
        #[cfg(test)] mod q { use r::s; }
    ";
    let (kept, modules) = without_tests(code.parse().expect("it is Rust"));
    let expected = "use a::b; #[cfg(not(test))] fn h() {} fn i() { k(); } struct L { o: P }";
    let expected: TokenStream = expected.parse().expect("it is Rust");
    assert_eq!(kept.into_iter().collect::<TokenStream>().to_string(), expected.to_string());
    assert_eq!(modules, ["tests", "testing"]);
}
