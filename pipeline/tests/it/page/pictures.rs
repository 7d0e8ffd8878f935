//! Every view in light and dark, on a wide screen and a phone, in both languages: axe-core finds nothing, nothing is
//! wider than the screen, and the pictures lie in `target/page`.

use std::path::{Path, PathBuf};

use base64::Engine;
use nice_sim::CallSpec;

use super::{ACT, PageBed, axe, browser::Browser, target};

/// The pictures of the documentation: view, colours, width.
const OF_DOCS: [(&str, &str, &str); 4] = [
    ("now", "light", "wide"),
    ("conversation", "light", "wide"),
    ("dead-letters", "dark", "wide"),
    ("now", "dark", "phone"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_sound_in_light_and_dark_on_every_screen_and_in_both_languages() {
    let mut page = PageBed::new(1502, 40).await;
    page.sign_days();
    let browser = Browser::start(1280, 900).await;
    let script = axe::script();
    let mut mistakes = Vec::new();
    browser.open(&page.url("/login")).await;
    mistakes.extend(axe::violations(&browser, &script).await);
    save(&browser, "login-light-wide-en").await;
    browser.sign_in(&page.url(""), ACT).await;
    let today = browser.run("return new Date().toISOString().slice(0, 10)").await.as_str().unwrap().to_owned();
    browser.open(&page.url("/backfills")).await;
    browser.run("window.isBefore = true").await;
    browser.click("button[value=begin]").await;
    // Otherwise the answer to the form may come after the next page, and in its place.
    browser.until("the form is answered", "return window.isBefore !== true").await;
    let letter = page.daemon.get("/api/v1/dead-letters").await.unwrap().1;
    let letter: serde_json::Value = serde_json::from_str(&letter).unwrap();
    let letter = letter[0]["id"].as_u64().unwrap();
    browser.open(&page.url("/dead-letters")).await;
    let group = browser.run("return document.querySelector('tbody th a').getAttribute('href')").await;
    let group = group.as_str().unwrap().to_owned();
    let views = [
        ("now", "/".to_owned()),
        ("conversations", "/conversations".to_owned()),
        ("conversation", format!("/conversations/{}", page.ready)),
        ("dead-conversation", format!("/conversations/{}", page.dead[0])),
        ("dead-letters", "/dead-letters".to_owned()),
        ("dead-letter-group", group.clone()),
        ("dead-letter", format!("/dead-letters/{letter}")),
        ("confirm", format!("{group}/drop")),
        ("completeness", "/completeness".to_owned()),
        ("day", format!("/completeness/{today}")),
        ("backfills", "/backfills".to_owned()),
        ("quota", "/quota".to_owned()),
        ("settings", "/settings".to_owned()),
        ("audit", "/audit".to_owned()),
        ("not-found", "/conversations/4711".to_owned()),
    ];
    for language in ["en", "tr"] {
        browser.open(&page.url(&format!("/preferences?language={language}"))).await;
        for (screen, width, height) in [("wide", 1280, 900), ("phone", 390, 844)] {
            browser.screen(width, height).await;
            for colours in ["light", "dark"] {
                browser.colours(colours).await;
                for (name, path) in &views {
                    browser.open(&page.url(path)).await;
                    browser.run("for (const one of document.querySelectorAll('details')) one.open = false").await;
                    if *name == "now" {
                        moving(&page, &browser).await;
                    }
                    let name = format!("{name}-{colours}-{screen}-{language}");
                    let wide = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
                    if wide.as_i64() != Some(0) {
                        mistakes.push(format!("{name}: wider than the screen by {wide}"));
                    }
                    // The words change no colour, and the colours no word.
                    if language == "en" || colours == "light" {
                        let found = axe::violations(&browser, &script).await;
                        mistakes.extend(found.into_iter().map(|line| format!("{name}: {line}")));
                        save(&browser, &name).await;
                    }
                }
            }
        }
    }
    mistakes.extend(browser.complaints().await);
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(page.daemon.terminate().success());
}

/// Some calls end, and the feed shows how the flow moves.
async fn moving(page: &PageBed, browser: &Browser) {
    let agents = page.bed.sim.group(1001);
    for agent in agents.iter().take(6) {
        page.bed.sim.add_call(CallSpec::new(*agent));
    }
    let moves = "return [...document.querySelectorAll('.flow .wide .rate')].every(rate => rate.textContent !== '–') \
                 && document.querySelectorAll('.flow .wide .moves').length > 6";
    browser.until("the flow moves", moves).await;
}

/// Leaves a picture to be looked at; those of the documentation are written there, where that is asked for.
async fn save(browser: &Browser, name: &str) {
    let write = |dir: &Path, name: &str, picture: String| {
        std::fs::create_dir_all(dir).unwrap();
        let picture = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), picture).unwrap();
    };
    write(&target(), name, browser.picture(true).await);
    let of_docs = OF_DOCS.iter().find(|(view, colours, screen)| name == format!("{view}-{colours}-{screen}-en"));
    if let (Some((view, _, screen)), Some(_)) = (of_docs, std::env::var_os("WRITE_DOCS")) {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
        write(&docs, &format!("{view}-{screen}"), browser.picture(false).await);
    }
}
