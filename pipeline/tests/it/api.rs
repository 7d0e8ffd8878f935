//! The API of the admin address: who may ask, how it refuses, its pages and keys; and attacked from its description.

use std::path::Path;
use std::process::Stdio;

use nice_sim::{CallSpec, Faults};
use reqwest::{Method, Response, header};
use serde_json::{Value, json};

use crate::harness::{Bed, Daemon, Ended, http_client, hurried, tail};

mod attack;

/// The token that may read.
const READ: &str = "canary-read-token";

/// The token that may act.
const ACT: &str = "canary-act-token";

/// A daemon with tokens, a day of calls and some dead letters.
struct ApiBed {
    bed: Bed,
    daemon: Daemon,
    client: reqwest::Client,
}

impl ApiBed {
    async fn new(seed: u64, calls: usize) -> Self {
        let mut bed = Bed::new(hurried(seed, calls)).await;
        bed.set("AGENTS__SYNC_INTERVAL", "1h");
        bed.set("ADMIN__READ_TOKEN", READ);
        bed.set("ADMIN__ACT_TOKEN", ACT);
        let agents = bed.sim.group(1001);
        let mut daemon = bed.start();
        bed.settled(&mut daemon).await;
        bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
        let dead: Vec<_> =
            agents.iter().take(3).map(|agent| bed.sim.add_call(CallSpec::new(*agent)).contact_ids[0]).collect();
        let states = bed.final_states(&mut daemon, &dead).await;
        assert!(states.iter().all(|state| state == "dead_letter"), "{states:?}\n{}", tail(&bed.log()));
        bed.sim.set_faults(Faults::none());
        Self { bed, daemon, client: http_client().build().unwrap() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1{path}", self.daemon.admin_address())
    }

    async fn ask(&self, token: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = self.client.request(method, self.url(path)).body(body.to_owned());
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        self.ask(ACT, Method::GET, path, &[], "").await.json().await.unwrap()
    }
}

/// The description of the docs.
fn written() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_and_changes_nothing() {
    let api = ApiBed::new(1601, 0).await;
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let long = format!("{{\"from\":\"{}\"}}", "x".repeat(100_000));
    let range = r#"{"from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}"#;
    let blank_key = [("idempotency-key", "with a blank")];
    for (token, method, path, headers, body, status, says) in [
        ("", &get, "/status", &[][..], "", 401, "show a token"),
        ("wrong", &get, "/status", &[], "", 401, "show a token"),
        ("", &delete, "/dead-letters/1", &[], "", 401, "show a token"),
        (READ, &delete, "/dead-letters/1", &[], "", 403, "may read only"),
        (READ, &post, "/backfills", &[JSON], range, 403, "may read only"),
        (ACT, &get, "/nothing", &[], "", 404, "no such address"),
        ("", &get, "/nothing", &[], "", 404, "no such address"),
        (ACT, &get, "/dead-letters/999", &[], "", 404, "no dead letter 999"),
        (ACT, &Method::PUT, "/status", &[], "", 405, "other methods"),
        (ACT, &Method::PATCH, "/backfills", &[], "", 405, "other methods"),
        (ACT, &get, "/dead-letters/abc", &[], "", 400, "invalid digit"),
        (ACT, &get, "/trace/0", &[], "", 400, "grammar"),
        (ACT, &get, "/dead-letters?limit=0", &[], "", 400, "limit"),
        (ACT, &get, "/dead-letters?limit=1001", &[], "", 400, "limit"),
        (ACT, &get, "/dead-letters?cursor=zz", &[], "", 400, "cursor"),
        (ACT, &get, "/days?from=2026-01-01&to=2025-01-01", &[], "", 400, "days"),
        (ACT, &post, "/backfills", &[JSON], range, 400, "not after"),
        (ACT, &post, "/backfills", &[JSON], "{", 400, "JSON"),
        (ACT, &post, "/backfills", &[JSON], "{}", 422, "missing field"),
        (ACT, &post, "/backfills", &[], range, 415, "application/json"),
        (ACT, &post, "/backfills", &[JSON], &long, 413, "length limit"),
        (ACT, &post, "/dead-letters/1/replay", &blank_key, "", 400, "Idempotency-Key"),
    ] {
        let answer = api.ask(token, method.clone(), path, headers, body).await;
        let what = format!("{method} {path} with {token:?}");
        assert_eq!(answer.status().as_u16(), status, "{what}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(answer.headers().contains_key(header::ALLOW), status == 405, "{what}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)), "{what}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says) && problem["title"].is_string(), "{what}: {problem}");
    }
    assert_eq!(api.list("/dead-letters").await.len(), 3);
    assert_eq!(api.list("/backfills").await.len(), 0);

    // To look is no act, whatever the method of looking.
    assert_eq!(api.ask(READ, Method::HEAD, "/status", &[], "").await.status(), 200);
    let acts = api.list("/audit").await;
    assert!(acts.iter().all(|act| act["who"] == "act token"), "{acts:?}");
    assert!(acts.iter().all(|act| !act["subject"].as_str().unwrap().starts_with("PATCH")), "{acts:?}");

    // A command reads the words.
    let shown = api.bed.ended(&["dead-letters", "show", "999"]);
    assert!(shown.code == Some(1) && shown.stderr.contains("there is no dead letter 999"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_commands_see_all_of_them() {
    let api = ApiBed::new(1602, 5).await;
    let group = &api.list("/dead-letter-groups").await[0];
    let mut of_group = reqwest::Url::parse(&api.url("/dead-letters")).unwrap();
    let text = |field: &str| group[field].as_str().unwrap().to_owned();
    of_group.query_pairs_mut().append_pair("stage", &text("stage")).append_pair("shape", &text("reason"));
    let of_group = format!("/dead-letters?{}", of_group.query().unwrap());
    assert_eq!(Some(api.list(&of_group).await.len() as u64), group["count"].as_u64(), "{group:#}");
    for path in ["/agents", "/dead-letters", "/dead-letters?stage=download_recording", &of_group, "/audit"] {
        // Each act that is refused later is in the audit, too.
        for _ in 0..3 {
            api.ask(ACT, Method::POST, "/dead-letters/999/replay", &[], "").await;
        }
        let all = api.list(path).await;
        assert!(all.len() >= 3, "{path}: {all:?}");
        let mut url = reqwest::Url::parse(&api.url(path)).unwrap();
        url.query_pairs_mut().append_pair("limit", "2");
        let (mut paged, mut next) = (Vec::new(), Some(url));
        while let Some(url) = next.take() {
            let answer = api.client.get(url.clone()).bearer_auth(READ).send().await.unwrap();
            let link = answer.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
            let page: Vec<Value> = answer.json().await.unwrap();
            assert!(page.len() <= 2 && (link.is_none() || page.len() == 2), "{page:?}");
            paged.extend(page);
            next = link.map(|link| {
                let (link, relation) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
                assert_eq!(relation, "; rel=\"next\"");
                url.join(link).unwrap()
            });
        }
        assert_eq!(sorted(paged), sorted(all), "{path}");
    }
    let day = "/conversations?from=2000-01-01T00:00:00Z&to=2000-01-02T00:00:00Z&limit=1";
    assert_eq!(api.list(day).await.len(), 0);

    let listed = |command: &str| -> Vec<Value> {
        let ended: Ended = api.bed.ended(&[command, "list", "--json"]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    };
    assert_eq!(sorted(listed("agents")), sorted(api.list("/agents").await));
    assert_eq!(listed("dead-letters"), api.list("/dead-letters").await);
}

fn sorted(items: Vec<Value>) -> Vec<String> {
    let mut texts: Vec<_> = items.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_with_a_key_is_done_once() {
    let api = ApiBed::new(1603, 0).await;
    let key = [JSON, ("idempotency-key", "evening-1")];
    let body = r#"{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z","plan_only":true}"#;
    let begin = || async { api.ask(ACT, Method::POST, "/backfills", &key, body).await };
    let (first, again) = (begin().await, begin().await);
    assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 200));
    assert!(!first.headers().contains_key("idempotency-replayed"));
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(first.json::<Value>().await.unwrap(), again.json::<Value>().await.unwrap());
    let other = api.ask(ACT, Method::POST, "/dead-letters/1/replay", &key, "").await;
    assert_eq!(other.status(), 422);
    assert_eq!(api.list("/backfills").await.len(), 1);
    let begun = |acts: Vec<Value>| acts.iter().filter(|act| act["subject"] == "POST /api/v1/backfills").count();
    assert_eq!(begun(api.list("/audit").await), 1, "what is not done is not in the audit");
}

#[test]
fn the_example_of_the_docs_reads_a_page() {
    let docs = include_str!("../../../docs/API.md");
    let (_, example) = docs.split_once("```sh\n").expect("the page has an example");
    let (example, _) = example.split_once("```").unwrap();
    let stand_in = tempfile::tempdir().unwrap();
    let seen = stand_in.path().join("seen");
    // In place of curl and jq: a program that writes down what it is given.
    for name in ["curl", "jq"] {
        let script = format!("#!/bin/sh\necho \"{name} $*\" >> {}\necho token\n", seen.display());
        let path = stand_in.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", stand_in.path().display(), std::env::var("PATH").unwrap());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-eu", "-c", example]).env("PATH", path).current_dir(stand_in.path()).stdin(Stdio::null());
    let ended = Ended::of(shell);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let asked = std::fs::read_to_string(seen).unwrap();
    let description = written();
    let known = description["paths"].as_object().unwrap();
    let urls: Vec<_> = asked.split_whitespace().filter_map(|word| word.split_once("/api/v1")).collect();
    assert!(urls.len() >= 3, "{asked}");
    for (_, path) in urls {
        let path = path.split('?').next().unwrap();
        let is_known = |known: &String| {
            let same = |(known, given): (&str, &str)| known.starts_with('{') || known == given;
            known.split('/').count() == path.split('/').count() && known.split('/').zip(path.split('/')).all(same)
        };
        assert!(path == "/openapi.json" || known.keys().any(is_known), "{path}");
    }
}
