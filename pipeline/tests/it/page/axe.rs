//! axe-core finds what keeps people with a screen reader, a keyboard or weak eyes from a page.

use std::process::Command;

use serde_json::Value;

use super::{browser::Browser, target};

/// The script; fetched once.
pub(super) fn script() -> String {
    let dir = target().join("axe");
    let script = dir.join("package/axe.min.js");
    if !script.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let packed = Command::new("npm").args(["pack", "--silent", "axe-core@4"]).current_dir(&dir).output();
        let packed = packed.expect("npm is installed: `./test` does it");
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let name = String::from_utf8(packed.stdout).unwrap();
        let unpacked = Command::new("tar").args(["xzf", name.trim()]).current_dir(&dir).status().unwrap();
        assert!(unpacked.success());
    }
    std::fs::read_to_string(script).unwrap()
}

/// What it finds on the page that is shown.
pub(super) async fn violations(browser: &Browser, script: &str) -> Vec<String> {
    browser.run(script).await;
    let run = "const done = arguments[arguments.length - 1]; axe.run(document, { resultTypes: ['violations'] })\
               .then(found => done(found.violations), error => done([{ id: String(error), nodes: [] }]))";
    let found = browser.run_to_end(run).await;
    let line = |violation: &Value| {
        let nodes = violation["nodes"].as_array().cloned().unwrap_or_default();
        let nodes: Vec<_> =
            nodes.iter().take(3).map(|node| format!("{} {}", node["target"], node["any"][0]["message"])).collect();
        format!("{}: {}", violation["id"], nodes.join("; "))
    };
    found.as_array().unwrap().iter().map(line).collect()
}
