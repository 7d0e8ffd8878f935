//! `config.default.toml` and the redacted page.

use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.default.toml");

#[test]
fn the_default_file_equals_the_table() {
    let page = default_page();
    if std::env::var_os("WRITE_CONFIG_PAGE").is_some() {
        std::fs::write(FILE, &page).expect("the page is written");
    }
    let file = std::fs::read_to_string(FILE).expect("the page exists");
    assert!(
        file == page,
        "config.default.toml differs from config/settings.rs; write it anew: WRITE_CONFIG_PAGE=1 cargo test -p nice-knovvu --lib page"
    );
}

#[test]
fn loading_the_default_file_changes_nothing() {
    let without = load_service("");
    let with = load_service(&default_page());
    let values = |config: &Config| config.to_redacted_toml().replace("# file", "# default");
    assert_eq!(values(&with), values(&without));
    let debug = |mut config: Config| {
        config.effective.clear();
        format!("{config:?}")
    };
    assert_eq!(debug(with), debug(without));
}

#[test]
fn every_key_can_be_commented_in() {
    let commented = default_page()
        .lines()
        .filter_map(|line| line.strip_prefix("# ").filter(|rest| rest.split(' ').nth(1) == Some("=")).or(Some(line)))
        .filter(|line| !line.contains("_file = "))
        .collect::<Vec<_>>()
        .join("\n");
    load(&commented, &LEAST[2..5], Need::Service).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn the_redacted_page_is_settings_again_and_tells_origins() {
    let page = load_service("[events]\npoll_interval = \"90s\"").to_redacted_toml();
    assert!(page.contains("poll_interval = \"90s\"  # file"), "{page}");
    assert!(page.contains("poll_overlap = \"30m\"  # default"), "{page}");
    assert!(page.contains("access_key_secret = \"********\"  # environment"), "{page}");
    assert!(page.contains("# webhook_token is not set"), "{page}");
    assert!(!page.contains("s3cr3t"), "{page}");
    let again = load(&page, &[], Need::Service).unwrap_or_else(|errors| panic!("{errors}"));
    let values =
        |page: &str| page.lines().filter_map(|line| Some(line.split_once("  #")?.0.to_owned())).collect::<Vec<_>>();
    assert_eq!(values(&again.to_redacted_toml()), values(&page));
}
