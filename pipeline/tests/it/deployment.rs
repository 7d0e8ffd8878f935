//! The files with which the daemon is deployed speak its language.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, executable};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The files of a directory of the packaging.
fn packaged(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("pipeline/packaging").join(directory)).unwrap();
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{directory} is empty");
    files
}

#[test]
fn every_variable_that_compose_image_and_units_set_is_a_setting() {
    let mut files = packaged("systemd");
    files.extend([root().join("compose.yaml"), root().join("Dockerfile")]);
    let variables: BTreeSet<String> = files.iter().flat_map(|file| variables(&read(file))).collect();
    assert!(variables.len() >= 10, "{variables:?}");
    let mut command = executable(&["check"]);
    command.current_dir(std::env::temp_dir());
    command.envs(variables.iter().map(|name| (name, "")));
    let said = Ended::of(command).said();
    assert!(!said.contains("unknown"), "{said}");
}

/// The names in a text that begin as a setting does.
fn variables(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    text.split(|letter| !is_part(letter)).filter(|word| word.starts_with("NICE_KNOVVU_")).map(str::to_owned).collect()
}

#[test]
fn the_settings_files_of_the_package_have_no_key_that_does_not_exist() {
    for file in packaged("etc") {
        // Every example is a key too.
        let uncommented: Vec<_> = read(&file).lines().map(uncommented).collect();
        let dir = tempfile::tempdir().unwrap();
        let settings = dir.path().join("settings.toml");
        std::fs::write(&settings, uncommented.join("\n")).unwrap();
        let said = Ended::of(executable(&["check", "--config", settings.to_str().unwrap()])).said();
        assert!(!said.contains("unknown") && !said.contains("not TOML"), "{}: {said}", file.display());
    }
}

/// A line that is a setting once its `#` is gone, so; any other as it is.
fn uncommented(line: &str) -> String {
    match line.strip_prefix("# ") {
        Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => setting.to_owned(),
        _ => line.to_owned(),
    }
}

#[test]
fn compose_publishes_on_loopback_only_and_pins_every_image() {
    let compose = read(root().join("compose.yaml"));
    let lines: Vec<_> = compose.lines().map(str::trim).collect();
    let published: Vec<_> =
        lines.iter().skip_while(|line| **line != "ports:").skip(1).take_while(|line| line.starts_with("- ")).collect();
    assert!(!published.is_empty() && published.iter().all(|port| port.starts_with("- 127.0.0.1:")), "{published:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("ports:")).count(), 1, "ports are published in one place");
    for image in lines.iter().filter_map(|line| line.strip_prefix("image: ")).filter(|image| !image.starts_with('*')) {
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        assert!(
            tag.contains(|letter: char| letter.is_ascii_digit()) && tag.contains('.') || tag.contains('-'),
            "{image}"
        );
    }
}
