//! Schemathesis asks for everything that the description allows, and for what it does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{ACT, ApiBed, READ};
use crate::harness::{Ended, tail};

/// What is installed, into a folder that is named by it.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What every answer must be. What is left out asks for rules that the API does not have: that a request which fits the
/// description is never refused (a range must not lie in the future, say).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth";

/// The program; fetched once.
fn schemathesis() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(SCHEMATHESIS);
    let (pip, program) = (dir.join("bin/pip"), dir.join("bin/st"));
    if !program.exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let ended = Command::new(program).args(arguments).output();
            let ended = ended.unwrap_or_else(|error| panic!("{}: {error}; `./test` installs it", program.display()));
            assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        };
        run(Path::new("python3"), &["-m", "venv", dir.to_str().unwrap()]);
        run(&pip, &["install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS]);
    }
    program
}

/// One attack with a token or none; what it did, as method, URL and status.
fn attack(api: &ApiBed, token: Option<&str>, checks: &str, examples: u32) -> Vec<(String, String, u64)> {
    let seen = api.bed.dir.path().join("attack.har");
    let mut command = Command::new(schemathesis());
    command.args(["run", &api.url("/openapi.json"), "--checks", checks, "--max-examples", &examples.to_string()]);
    command.args(["--seed", "1", "--phases", "examples,coverage,fuzzing", "--workers", "1", "--no-shrink"]);
    command.args(["--continue-on-failure", "--warnings", "off", "--report-har-path", seen.to_str().unwrap()]);
    command.args(["--request-timeout", "60", "--suppress-health-check", "all"]).current_dir(api.bed.dir.path());
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let ended = Ended::of(command);
    // What it says of its own faults is endless.
    let said: String = ended.said().lines().map(|line| line.chars().take(300).collect::<String>() + "\n").collect();
    assert_eq!(ended.code, Some(0), "{said}\n{}", tail(&api.bed.log()));
    let seen: Value = serde_json::from_slice(&std::fs::read(&seen).unwrap()).unwrap();
    let entries = seen["log"]["entries"].as_array().unwrap().iter();
    let entry = |entry: &Value| {
        let (request, status) = (&entry["request"], entry["response"]["status"].as_u64().unwrap_or_default());
        (text(&request["method"]), text(&request["url"]), status)
    };
    entries.map(entry).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_asked_makes_it_fail_or_act_without_a_token() {
    let mut api = ApiBed::new(1604, 20).await;
    let description = reqwest::get(api.url("/openapi.json")).await.unwrap();
    assert_eq!(description.json::<Value>().await.unwrap(), super::written(), "it is the one of the docs");

    for (token, refused) in [(None, 401), (Some(READ), 403)] {
        let asked = attack(&api, token, "not_a_server_error", 5);
        let acts = asked.iter().filter(|(method, ..)| !["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method.as_str()));
        let mut count = 0;
        for (method, url, status) in acts {
            // It leaves the token out, too; and an id with a slash is another address, or none.
            assert!([refused, 401, 404, 405].contains(status), "{token:?}: {method} {url}: {status}");
            count += u32::from(*status == refused);
        }
        assert!(count > 50, "{token:?}: only {count} acts were tried");
        let reads = asked.iter().filter(|(method, _, status)| method == "GET" && *status == 200).count();
        assert_eq!(reads > 0, token.is_some(), "{token:?}: {reads} readings were answered");
        let acts = api.list("/audit").await;
        assert!(acts.is_empty(), "{token:?}: {acts:?}");
    }

    let asked = attack(&api, Some(ACT), CHECKS, 20);
    let done = asked.iter().filter(|(method, _, status)| method == "POST" && *status == 200).count();
    assert!(asked.len() > 500 && done > 10, "{} requests, {done} acts", asked.len());
    api.daemon.ready().await;
}
