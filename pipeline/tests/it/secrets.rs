//! Canaries: secrets, tokens, numbers, names and links go through a day full of faults, with everything logged that
//! can be logged, and turn up nowhere but where they belong.

use std::collections::BTreeSet;
use std::path::Path;

use nice_sim::{CallSpec, Faults};

use crate::harness::{Bed, Daemon, WEBHOOK_SECRET, hurried, post_event};

const CLIENT_SECRET: &str = "canary+client/secret==";
const KEY_SECRET: &str = "canary+key/secret&x==";
const KEY_ID: &str = "CANARYKEYID0123456789====";
const FIRST_NAME: &str = "Canarina";
const LAST_NAME: &str = "Vogelsang-Ö";

/// Customer numbers all begin so.
const NUMBER: &str = "+9055512345";

/// What may stand nowhere, with its name.
fn canaries(admin_tokens: &[String]) -> Vec<(&'static str, String)> {
    let mut canaries: Vec<_> = [
        ("client secret", CLIENT_SECRET),
        ("access key secret", KEY_SECRET),
        ("access key id", KEY_ID),
        ("webhook token", WEBHOOK_SECRET),
        ("bearer token", "eyJhbGciOi"),
        ("customer number", NUMBER),
        ("first name", FIRST_NAME),
        ("last name", LAST_NAME),
        ("login", "@tenant.example"),
        ("signed link", "signature="),
        ("signed link", "expires="),
        ("media path", "_media/"),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .into();
    canaries.extend(admin_tokens.iter().map(|token| ("admin token", token.clone())));
    canaries
}

/// The ways in which a text may be written in a log: as it is, in a form, in JSON, as a list of bytes, in hex.
fn disguises(text: &str) -> BTreeSet<String> {
    let list = |separator: &str, hex: bool| {
        let byte = |byte: u8| if hex { format!("{byte:02x}") } else { byte.to_string() };
        text.bytes().map(byte).collect::<Vec<_>>().join(separator)
    };
    let form: String =
        reqwest::Url::parse_with_params("http://x/", [("k", text)]).unwrap().query().unwrap()[2..].into();
    let escaped = serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
    let debug = text.escape_debug().to_string();
    [text.to_owned(), form, escaped, debug, list(", ", false), list(",", false), list("", true)].into()
}

/// Every line of a text that holds a canary.
pub(crate) fn leaks(what: &str, text: &str, canaries: &[(&'static str, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, canary) in canaries {
        for disguise in disguises(canary) {
            if let Some(at) = text.find(&disguise) {
                let from = text.floor_char_boundary(at.saturating_sub(200));
                let to = text.ceil_char_boundary((at + 100).min(text.len()));
                found.push(format!("{what}: {name} as {disguise:.60}: …{}…", &text[from..to].escape_debug()));
            }
        }
    }
    found
}

fn admin_token(bed: &Bed) -> String {
    let file = std::fs::read(bed.data().join("admin.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    file["token"].as_str().unwrap().to_owned()
}

async fn place_calls(bed: &Bed, receiver: std::net::SocketAddr, from: usize) -> Vec<i64> {
    let agents = bed.sim.group(1001);
    let mut ids = Vec::new();
    for call in from..from + 6 {
        // Each call is told by the canary agent and one of the others in turn, in and out.
        let agent = agents[agents.len() - 1 - call % 2];
        let spec =
            CallSpec { outbound: call % 3 == 0, customer: Some(format!("{NUMBER}{call:02}")), ..CallSpec::new(agent) };
        let id = bed.sim.add_call(spec).contact_ids[0];
        // A sender that tells too much, and one that is malformed.
        let body = format!(r#"{{"contactId":{id},"from":"{NUMBER}00","name":"{FIRST_NAME}"}}"#);
        assert_eq!(post_event(receiver, body).await, Some(202));
        let body = format!(r#"{{"contactId":"{NUMBER}00","agentId":"{FIRST_NAME}"}}"#);
        assert_eq!(post_event(receiver, body).await, Some(400));
        ids.push(id);
    }
    ids
}

/// What every command of an operator but `agents list` says, with and without a daemon.
fn said(bed: &Bed, ids: &[i64]) -> Vec<(String, String)> {
    let mut commands: Vec<Vec<String>> = ["status", "status --json", "dead-letters list", "dead-letters list --json"]
        .map(|command| command.split(' ').map(str::to_owned).collect())
        .into();
    for id in ids {
        commands.push(vec!["trace".into(), id.to_string()]);
        commands.push(vec!["trace".into(), id.to_string(), "--json".into()]);
    }
    for letter in bed.json(&["dead-letters", "list", "--json"]).as_array().unwrap().iter().take(4) {
        commands.push(vec!["dead-letters".into(), "show".into(), letter["id"].to_string()]);
        commands.push(vec!["dead-letters".into(), "show".into(), letter["id"].to_string(), "--json".into()]);
    }
    commands.push(vec!["check".into(), "--settings".into()]);
    commands.push(vec!["agents".into(), "sync".into()]);
    let run = |command: Vec<String>| {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let said = bed.ended(&arguments).said();
        // The id of a key is shown where an operator asks for the settings, and nowhere else.
        let shown = format!("access_key_id = \"{KEY_ID}\"");
        (command.join(" "), if command[0] == "check" { said.replace(&shown, "") } else { said })
    };
    commands.into_iter().map(run).collect()
}

/// A day with every fault and a dead letter, logged in this format.
async fn day(bed: &mut Bed, receiver: std::net::SocketAddr, format: &str, from: usize) -> Vec<String> {
    bed.set("LOG__FORMAT", format);
    let mut daemon: Daemon = bed.start();
    daemon.ready().await;
    let tokens = [admin_token(bed)];
    let canaries = canaries(&tokens);
    bed.sim.set_faults(Faults::all(from as u64));
    let mut ids = place_calls(bed, receiver, from).await;
    bed.final_states(&mut daemon, &ids).await;
    for faults in [
        Faults { foreign_media_link: 1.0, ..Faults::none() },
        Faults { media_redirect_foreign: 1.0, hostile_rows: 1.0, ..Faults::none() },
    ] {
        bed.sim.set_faults(faults);
        let dead = place_calls(bed, receiver, from + 20).await;
        let states = bed.final_states(&mut daemon, &dead).await;
        assert!(states.iter().all(|state| state == "dead_letter"), "{states:?}");
        ids.extend(dead);
    }
    bed.sim.set_faults(Faults::none());
    bed.sim.revoke_tokens();

    let mut found = Vec::new();
    // One that went well, and one of each kind that did not.
    let ids: Vec<_> = ids.into_iter().step_by(6).collect();
    for (command, text) in said(bed, &ids) {
        found.extend(leaks(&format!("{command} (daemon)"), &text, &canaries));
    }
    for path in ["/metrics", "/readyz", "/api/v1/status"] {
        found.extend(leaks(path, &daemon.get(path).await.unwrap().1, &canaries));
    }
    bed.ended(&["dead-letters", "replay", "--all"]);
    assert!(daemon.terminate().success());
    for (command, text) in said(bed, &ids) {
        found.extend(leaks(&format!("{command} (no daemon)"), &text, &canaries));
    }
    let log = bed.logged();
    assert!(log.len() > 100_000, "everything is logged");
    println!("{format}: {} lines, {} bytes", log.lines().count(), log.len());
    found.extend(leaks(&format!("log in {format}"), &log, &canaries));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_no_number_and_no_name_leaves_its_place() {
    let mut config = hurried(501, 0);
    config.tenant.client_secret = CLIENT_SECRET.to_owned();
    config.tenant.access_key_secret = KEY_SECRET.to_owned();
    config.tenant.access_key_id = KEY_ID.to_owned();
    let mut bed = Bed::new(config).await;
    let receiver = bed.with_webhook();
    let canary = bed.sim.add_agent(FIRST_NAME, LAST_NAME, 501);
    let mut group = bed.sim.group(1001);
    group.push(canary);
    bed.sim.set_group(1001, group);
    bed.set("LOG__FILTER", "trace");

    let mut found = day(&mut bed, receiver, "text", 0).await;
    std::fs::remove_file(bed.log()).unwrap();
    // The other way to a token, which sends other secrets in another form.
    bed.set("NICE__AUTH_FLOW", "oauth");
    bed.set("NICE__CLIENT_ID", bed.sim.config().tenant.client_id.clone());
    bed.set("NICE__CLIENT_SECRET", CLIENT_SECRET);
    found.extend(day(&mut bed, receiver, "json", 40).await);
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));

    // The canaries did sing: they stand where they belong.
    let agents = bed.ended(&["agents", "list"]).stdout;
    assert!(agents.contains(FIRST_NAME) && agents.contains("@tenant.example"), "{agents}");
    assert!(leaks("agents list", &agents, &canaries(&[])).len() >= 3, "a canary that sings is heard");
    let descriptions = descriptions(&bed.data().join("recordings"));
    assert!(!descriptions.is_empty());
    for description in &descriptions {
        assert!(description.contains(NUMBER), "{description}");
    }
}

fn descriptions(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(descriptions(&path));
        } else if path.ends_with("conversation.json") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
    found
}
