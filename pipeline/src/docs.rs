//! What holds the repository in order, beyond what the compiler does.
//!
//! The documents are true: pages are written from the code (`pages`), and what the others name exists (`names`). The
//! code keeps the rules of `CONTRIBUTING.md`: modules without circles (`circles`), one name for one thing (`types`),
//! and the fields of the log (`log_fields`).

mod circles;
mod log_fields;
mod markdown;
mod names;
mod pages;
mod source;
mod types;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the repository with one of these endings, but for what tools make.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of it").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_made = name.starts_with('.') || ["target", "data", "demo-data", "node_modules"].contains(&name);
            if path.is_dir() && !is_made {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as it is written in the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
