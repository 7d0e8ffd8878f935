//! The commands of an operator and of an orchestrator: the same answers with and without a daemon, and exit codes
//! that a script can rely on.

use std::time::{Duration, Instant};

use flow::metrics::STAGES;
use nice_sim::{CallSpec, Faults};
use rustix::process::Signal;
use serde::Deserializer;
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE, executable, http_client, hurried, post_event, tail};
use crate::oracle;

/// A daemon that has brought in two calls, and set two aside.
async fn worked(seed: u64) -> (Bed, Daemon, [i64; 2], [i64; 2]) {
    let mut bed = Bed::new(hurried(seed, 0)).await;
    bed.set("AGENTS__SYNC_INTERVAL", "1h");
    let agents = bed.sim.group(1001);
    let call = |index: usize| bed.sim.add_call(CallSpec::new(agents[index])).contact_ids[0];
    let mut daemon = bed.start();
    daemon.ready().await;
    let ready = [call(0), call(1)];
    bed.ready(&mut daemon, &ready).await;
    bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    let dead = [call(2), call(3)];
    let states = bed.final_states(&mut daemon, &dead).await;
    assert_eq!(states, ["dead_letter", "dead_letter"], "{}", tail(&bed.log()));
    bed.sim.set_faults(Faults::none());
    (bed, daemon, ready, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_before_they_are_replayed_or_dropped_by_age() {
    let (bed, mut daemon, _, _) = worked(410).await;
    let standing = || bed.json(&["dead-letters", "list", "--json"]);
    let said = |arguments: &[&str]| {
        let ended = bed.ended(&[&["dead-letters"][..], arguments].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let before = standing();
    assert_eq!(before.as_array().unwrap().len(), 2);
    let mut is_running = true;
    loop {
        let plan = said(&["replay", "--all", "--dry-run"]);
        assert!(plan.contains("2 dead letters would go back to the queue"), "{plan}");
        assert!(plan.contains("leaves the allowed hosts"), "each is named with its reason: {plan}");
        let plan = bed.json(&["dead-letters", "replay", "--all", "--dry-run", "--json"]);
        assert_eq!((&plan["dry_run"], &plan["count"], &plan["letters"]), (&true.into(), &2.into(), &before));
        let plan = bed.json(&["dead-letters", "drop", "--older-than", "1h", "--dry-run", "--json"]);
        assert_eq!((&plan["dry_run"], &plan["count"]), (&true.into(), &0.into()));
        assert_eq!(said(&["drop", "--older-than", "1h", "--dry-run"]), "0 dead letters would be dropped\n");
        assert_eq!(said(&["drop", "--older-than", "1h"]), "0 dead letters are dropped\n");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(said(&["drop", "--older-than", "1s", "--dry-run"]), "2 dead letters would be dropped\n");
        assert_eq!(standing(), before, "they stand as before");
        if !is_running {
            break;
        }
        assert!(daemon.terminate().success());
        is_running = false;
    }
    assert_eq!(bed.json(&["status", "--json"])["backlog"]["live"], 0, "nothing went back");
    assert_eq!(said(&["drop", "--older-than", "1s"]), "2 dead letters are dropped\n");
    assert_eq!(standing(), Value::Array(Vec::new()));
    assert_eq!(said(&["drop", "--older-than", "1s"]), "0 dead letters are dropped\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_in_queue_is_moved_by_nobody_else_while_a_daemon_has_it() {
    let mut bed = Bed::new(hurried(412, 0)).await;
    // Nothing listens there, and nothing is asked before the state is ours.
    bed.set("QUEUE__URL", "amqp://127.0.0.1:1");
    let moved = |bed: &Bed| bed.ended(&["queue", "move", "--from", "rabbitmq"]);
    let mut daemon = bed.start();
    daemon.ready().await;
    let ended = moved(&bed);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("[state] dir") && ended.stderr.contains("stop it"), "{ended:?}");
    assert!(daemon.terminate().success());
    let ended = moved(&bed);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("[queue] url") && ended.stderr.contains("127.0.0.1:1"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_recordings_that_are_not_what_their_rows_say() {
    let bed = Bed::new(hurried(411, 0)).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let agents = bed.sim.group(1001);
    let ids: Vec<_> = (0..3).map(|index| bed.sim.add_call(CallSpec::new(agents[index])).contact_ids[0]).collect();
    bed.ready(&mut daemon, &ids).await;
    let recording = |id: i64| {
        let trace = bed.json(&["trace", &id.to_string(), "--json"]);
        let key = trace["conversation"]["recordings"][0]["object_key"].as_str().unwrap().to_owned();
        (bed.data().join("recordings").join(&key), key)
    };
    let verified = || {
        let ended = bed.ended(&["verify", "--json"]);
        let found: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended.code, found)
    };
    let (code, found) = verified();
    assert_eq!((code, &found["conversations"], &found["differing"]), (Some(0), &3.into(), &0.into()), "{found}");
    assert!(found["recordings"].as_u64() >= Some(3) && found["bytes"].as_u64() > Some(0), "{found}");
    assert_eq!(found["differences"], Value::Array(Vec::new()));

    // Other bytes of the same length, a longer one, and one that is gone.
    let files: Vec<_> = ids.iter().map(|id| recording(*id)).collect();
    let mut bytes = std::fs::read(&files[0].0).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0].0, &bytes).unwrap();
    let length = std::fs::read(&files[1].0).unwrap().len();
    std::fs::write(&files[1].0, vec![0; length + 1]).unwrap();
    std::fs::remove_file(&files[2].0).unwrap();
    let (code, found) = verified();
    assert_eq!((code, &found["differing"]), (Some(4), &3.into()), "{found}");
    let differences = found["differences"].as_array().unwrap();
    for ((id, (_, key)), problem) in ids.iter().zip(&files).zip(["sha256", "length", "missing"]) {
        let is_named = |found: &&Value| found["conversation_id"].to_string().trim_matches('"') == id.to_string();
        let named = differences.iter().find(is_named).unwrap_or_else(|| panic!("{id} is not named: {found}"));
        assert_eq!((&named["object_key"], &named["problem"]), (&key.as_str().into(), &problem.into()), "{named}");
    }
    let told = bed.ended(&["verify"]);
    assert!(told.code == Some(4) && told.stderr.contains("3 recordings are not what their rows say"), "{told:?}");
    for (_, key) in &files {
        assert!(told.stdout.contains(key), "{key} is not listed: {}", told.stdout);
    }

    // Without a daemon it is the same, and put right it is well again.
    assert!(daemon.terminate().success());
    let (code, alone) = verified();
    assert_eq!((code, &alone["differences"]), (Some(4), &found["differences"]));
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0].0, &bytes).unwrap();
    assert_eq!(verified().1["differing"], 2);
    let range = ["--from", "2020-01-01", "--to", "2020-01-02", "--json"];
    let elsewhere = bed.ended(&[&["verify"][..], &range].concat());
    assert_eq!(elsewhere.code, Some(0), "{elsewhere:?}");
}

/// What every listing says, without what moves by itself.
fn listings(bed: &Bed, ids: &[i64]) -> Vec<Value> {
    let mut answers = vec![bed.json(&["agents", "list", "--json"]), bed.json(&["dead-letters", "list", "--json"])];
    for letter in answers[1].as_array().unwrap().clone() {
        answers.push(bed.json(&["dead-letters", "show", &letter["id"].to_string(), "--json"]));
    }
    for id in ids {
        answers.push(bed.json(&["trace", &id.to_string(), "--json"]));
    }
    let mut status = bed.json(&["status", "--json"]);
    for moving in [
        "started_at",
        "agents_last_sync",
        "stages",
        "rate_budget",
        "poll_watermark",
        "state_disk_bytes",
        "freshness_lag_seconds",
        "freshness",
        "systems",
        "services",
        "verdict",
        "concerns",
    ] {
        assert!(status.as_object_mut().unwrap().remove(moving).is_some(), "{moving} is missing");
    }
    answers.push(status);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_says_the_same_with_and_without_a_daemon() {
    let (bed, mut daemon, ready, dead) = worked(401).await;
    let ids = [ready, dead].concat();
    assert_eq!(bed.json(&["status", "--json"])["conversations"]["dead_letters"], 2);
    assert!(bed.json(&["status", "--json"])["started_at"].is_string());
    for (arguments, says) in [
        (&["status"][..], &["acme", "running since", "2 ready", "2 dead letters", "fetch metadata"][..]),
        (&["dead-letters", "list"], &["download_recording", "leaves the allowed hosts"]),
        (&["agents", "list"], &["agent0@tenant.example", "yes"]),
        (&["agents", "sync"], &["12 agents in the group"]),
    ] {
        let ended = bed.ended(arguments);
        // Two calls are set aside.
        let expected = if arguments[0] == "status" { Some(4) } else { Some(0) };
        assert_eq!(ended.code, expected, "{ended:?}");
        for text in says {
            assert!(ended.stdout.contains(text), "{arguments:?} does not say {text}: {}", ended.stdout);
        }
    }
    let running = listings(&bed, &ids);
    let id = ready[0].to_string();
    let trace = bed.ended(&["trace", &id]);
    for text in [id.as_str(), "ready", "sha256", "upload", "in analysis queue"] {
        assert!(trace.stdout.contains(text), "{text}: {}", trace.stdout);
    }
    assert!(daemon.terminate().success());
    assert!(!bed.data().join("admin.json").exists(), "the address of a daemon that has ended");

    assert!(listings(&bed, &ids) == running, "the listings differ");
    assert_eq!(bed.json(&["status", "--json"])["started_at"], Value::Null);
    assert!(bed.ended(&["status"]).stdout.contains("not running"));

    // A daemon that was killed leaves its address behind; another may even listen there now.
    let mut daemon = bed.start();
    daemon.ready().await;
    daemon.kill();
    assert!(bed.data().join("admin.json").exists());
    assert!(listings(&bed, &ids) == running, "the listings differ");
    let other = axum::Router::new().fallback(|| std::future::ready("{}"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, other).await });
    let file = format!(r#"{{"address":"{address}","token":"x"}}"#);
    std::fs::write(bed.data().join("admin.json"), file).unwrap();
    assert!(listings(&bed, &ids) == running, "the listings differ");
    server.abort();
    // Or one that never says anything.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = format!(r#"{{"address":"{}","token":"x"}}"#, mute.local_addr().unwrap());
    std::fs::write(bed.data().join("admin.json"), file).unwrap();
    assert_eq!(bed.ended(&["agents", "list"]).code, Some(0));
    drop(mute);
    // Even another daemon, which does not know the token.
    let stranger = Bed::new(hurried(409, 0)).await;
    let mut daemon = stranger.start();
    daemon.ready().await;
    let theirs: Value = serde_json::from_slice(&std::fs::read(stranger.data().join("admin.json")).unwrap()).unwrap();
    let file = serde_json::json!({ "address": theirs["address"], "token": "x" });
    std::fs::write(bed.data().join("admin.json"), file.to_string()).unwrap();
    assert!(listings(&bed, &ids) == running, "the listings differ");
    assert!(daemon.terminate().success());
    std::fs::write(bed.data().join("admin.json"), "{").unwrap();
    assert!(listings(&bed, &ids) == running, "the listings differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_replayed_and_dropped_with_and_without_a_daemon() {
    let (bed, mut daemon, ready, dead) = worked(402).await;
    let letters = bed.json(&["dead-letters", "list", "--json"]);
    let letters = letters.as_array().unwrap().iter();
    let numbers: std::collections::BTreeMap<i64, String> = letters
        .map(|letter| (letter["conversation_id"].as_str().unwrap().parse().unwrap(), letter["id"].to_string()))
        .collect();
    let number = &numbers[&dead[0]];
    let shown = bed.ended(&["dead-letters", "show", number]);
    assert!(shown.stdout.contains("message:") && shown.stdout.contains("nice-cxone"), "{shown:?}");
    for arguments in [["show", "99"], ["replay", "99"], ["drop", "99"]] {
        let ended = bed.ended(&["dead-letters", arguments[0], arguments[1]]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("no dead letter 99"), "{ended:?}");
    }
    let unknown = bed.ended(&["trace", "4711"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""), "{unknown:?}");
    assert!(unknown.stderr.contains("nothing is known of conversation 4711"), "{unknown:?}");

    // One by the daemon, ...
    assert_eq!(bed.ended(&["dead-letters", "replay", number]).code, Some(0));
    bed.ready(&mut daemon, &dead[..1]).await;
    assert_eq!(bed.json(&["dead-letters", "list", "--json"]).as_array().unwrap().len(), 1);
    assert!(daemon.terminate().success());
    // ... the other without one; the next daemon finds it on the queue.
    for arguments in [["show", "99"], ["replay", "99"], ["drop", "99"]] {
        assert_eq!(bed.ended(&["dead-letters", arguments[0], arguments[1]]).code, Some(1));
    }
    assert_eq!(bed.ended(&["trace", "4711"]).code, Some(1));
    let replayed = bed.ended(&["dead-letters", "replay", "--all"]);
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.stdout.contains("1 of 1"), "{replayed:?}");
    assert!(bed.ended(&["dead-letters", "replay", "--all"]).stdout.contains("0 of 0"));
    assert_eq!(bed.json(&["status", "--json"])["backlog"]["backfill"], 1, "behind fresh calls");
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.ready(&mut daemon, &[ready, dead].concat()).await;

    bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    let id = bed.sim.add_call(CallSpec::new(bed.sim.group(1001)[0])).contact_ids[0];
    assert_eq!(bed.final_states(&mut daemon, &[id]).await, ["dead_letter"]);
    let number = bed.json(&["dead-letters", "list", "--json"])[0]["id"].to_string();
    let dropped = bed.json(&["dead-letters", "drop", &number, "--json"]);
    assert_eq!((&dropped["dry_run"], &dropped["count"]), (&false.into(), &1.into()));
    assert_eq!(bed.json(&["dead-letters", "list", "--json"]), Value::Array(Vec::new()));
    assert_eq!(bed.ended(&["dead-letters", "drop", &number]).code, Some(1));
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_health_from_trouble() {
    let mut bed = Bed::new(hurried(403, 0)).await;
    let healthy = bed.ended(&["check"]);
    assert_eq!((healthy.code, healthy.stderr.as_str()), (Some(0), ""), "{healthy:?}");
    let lines: Vec<_> = healthy.stdout.lines().collect();
    for system in ["settings", "local state", "queue", "catalog", "recording store", "nice", "media playback"] {
        let line = lines.iter().find(|line| line.starts_with(system));
        assert!(line.is_some_and(|line| line.ends_with("ok")), "{system}: {}", healthy.stdout);
    }
    assert_eq!(lines.len(), 7, "{}", healthy.stdout);
    let told = bed.json(&["check", "--json"]);
    assert_eq!((&told["ok"], told["checks"].as_array().unwrap().len()), (&true.into(), 7), "{told:#}");
    assert!(told["checks"].as_array().unwrap().iter().all(|part| part["ok"] == true), "{told:#}");
    let shown = bed.ended(&["check", "--settings"]);
    assert!(shown.stdout.contains("access_key_secret = \"********\""), "{}", shown.stdout);
    assert!(!shown.stdout.contains(&bed.sim.config().tenant.access_key_secret));

    bed.set("NICE__GROUP", "nobody's");
    let ended = bed.ended(&["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("no such group") && ended.stderr.contains("nice"), "{ended:?}");
    let ended = bed.ended(&["check", "--settings", "--json"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let nice = told["checks"].as_array().unwrap().iter().find(|part| part["name"] == "nice").unwrap();
    assert!(told["ok"] == false && nice["ok"] == false && nice["state"].is_string(), "{told:#}");
    assert!(nice["reason"].as_str().unwrap().contains("no such group"), "{nice:#}");
    assert!(told["settings"].as_array().unwrap().iter().any(|setting| setting["value"] == "\"nobody's\""), "{told:#}");
    bed.set("NICE__GROUP", "Knovvu");
    bed.set("NICE__ACCESS_KEY_SECRET", "canary-of-a-wrong-key");
    let ended = bed.ended(&["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("401") && !ended.said().contains("canary"), "{ended:?}");
    for key in ["ISSUER", "ACD_URL", "FACADE_URL", "AUTH_URL"] {
        bed.set(&format!("NICE__{key}"), "http://127.0.0.1:1");
    }
    let ended = bed.ended(&["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("not in order: nice"), "{ended:?}");
    let nice = ended.stdout.lines().find(|line| line.starts_with("nice")).unwrap();
    assert!(nice.contains("cannot be reached"), "{nice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_daemon_in_time_with_exit_code_0() {
    let mut bed = Bed::new(hurried(404, 40)).await;
    bed.set("FLOW__GRACE", "2s");
    let limit = Duration::from_secs(2 + 5);
    for (signal, faults) in [
        (Signal::TERM, Faults::none()),
        (Signal::INT, Faults::none()),
        // While everything hangs: media that say nothing more, and listings that fail.
        (Signal::TERM, Faults { media_stall: 1.0, ..Faults::none() }),
        (Signal::TERM, Faults { server_errors: 1.0, ..Faults::none() }),
    ] {
        bed.sim.set_faults(faults.clone());
        for agent in bed.sim.group(1001) {
            bed.sim.add_call(CallSpec::new(agent));
        }
        let mut daemon = bed.start();
        daemon.ready().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let begun = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}\n{}", tail(&bed.log()));
        assert!(begun.elapsed() < limit, "{signal:?}: {:?}", begun.elapsed());
    }
    // A second signal does not wait.
    bed.sim.set_faults(Faults { media_stall: 1.0, ..Faults::none() });
    bed.set("FLOW__GRACE", "10m");
    bed.sim.add_call(CallSpec::new(bed.sim.group(1001)[0]));
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.asked("media", 1).await;
    daemon.signal(Signal::TERM);
    bed.says("draining").await;
    let begun = Instant::now();
    while daemon.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        daemon.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(daemon.wait().code(), Some(143));

    bed.sim.set_faults(Faults::none());
    bed.set("FLOW__GRACE", "5s");
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    assert_eq!(oracle::verify(&bed).await.dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_turned_away() {
    let bed = Bed::new(hurried(405, 0)).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let begun = Instant::now();
    let second = bed.ended(&["run"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    let line = second.stderr.lines().last().unwrap();
    assert!(line.contains(&bed.data().display().to_string()) && line.contains("another process"), "{line}");
    println!("turned away after {:?}: {line}", begun.elapsed());
    // The first one is not disturbed, and can still be found.
    assert_eq!(daemon.get("/readyz").await.map(|answer| answer.0), Some(200));
    assert!(bed.json(&["status", "--json"])["started_at"].is_string());
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_address_answers_orchestrator_prometheus_and_nobody_else() {
    let mut bed = Bed::new(hurried(406, 0)).await;
    let receiver = bed.with_webhook();
    let mut daemon = bed.start();
    daemon.ready().await;
    assert_eq!(daemon.get("/livez").await, Some((200, "alive\n".to_owned())));
    assert_eq!(daemon.get("/readyz").await, Some((200, "ready\n".to_owned())));
    post_event(receiver, "{").await;
    let (code, page) = daemon.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    for stage in STAGES {
        assert!(page.contains(&format!("stage=\"{stage}\"")), "no series of {stage}");
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
    }
    assert!(page.contains(r#"nice_knovvu_webhook_requests_total{status="400",tenant="acme"} 1"#), "{page}");

    let file: Value = serde_json::from_slice(&std::fs::read(bed.data().join("admin.json")).unwrap()).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&bed.data().join("admin.json").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "others may read the token");
    let root = format!("http://{}", file["address"].as_str().unwrap());
    let token = file["token"].as_str().unwrap().to_owned();
    assert!(token.len() >= 32);
    let client = http_client().build().unwrap();
    for (method, path) in [
        ("GET", "/status"),
        ("GET", "/trace/1"),
        ("GET", "/agents"),
        ("POST", "/agents/sync"),
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/1"),
        ("DELETE", "/dead-letters/1"),
        ("POST", "/dead-letters/1/replay"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let ask = || client.request(method.clone(), format!("{root}/api/v1{path}"));
        for given in
            [None, Some(String::new()), Some("x".to_owned()), Some(token[1..].to_owned()), Some(format!("{token}0"))]
        {
            let request = given.iter().fold(ask(), |request, given| request.bearer_auth(given));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 401, "{method} {path} with {given:?}");
            assert!(!answer.text().await.unwrap().contains(&token));
        }
        assert_ne!(ask().bearer_auth(&token).send().await.unwrap().status().as_u16(), 401, "{method} {path}");
    }
    for path in ["/api/v1/", "/api/v1/settings", "/admin.json"] {
        let answer = client.get(format!("{root}{path}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404, "{path}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_stands_still_costs_lines_and_nothing_else() {
    let mut bed = Bed::new(hurried(411, 40)).await;
    bed.set("LOG__FILTER", "trace");
    // It says something at each listing.
    bed.set("EVENTS__POLL_INTERVAL", "10ms");
    let (mut daemon, _unread) = Daemon::unread(bed.command(&["run"]), bed.data());
    bed.settled(&mut daemon).await;
    let begun = std::time::Instant::now();
    let lost = |page: &str| {
        page.lines()
            .any(|line| line.strip_prefix("nice_knovvu_log_lines_dropped_total ").is_some_and(|lines| lines != "0"))
    };
    while !daemon.get("/metrics").await.is_some_and(|(_, page)| lost(&page)) {
        assert!(begun.elapsed() < PATIENCE, "no line is lost");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(daemon.terminate().success());
    oracle::verify(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_json_line_by_line_with_the_conversation_as_a_field() {
    let mut config = hurried(407, 8);
    config.faults = Faults { server_errors: 0.2, ..Faults::none() };
    let mut bed = Bed::new(config).await;
    bed.set("LOG__FORMAT", "json");
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let log = bed.logged();
    let read = |line: &str| {
        let strict = serde_json::Deserializer::from_str(line).deserialize_any(NoKeyTwice);
        assert!(strict.is_ok(), "{:?}: {line}", strict.err());
        serde_json::from_str(line).unwrap()
    };
    let lines: Vec<Value> = log.lines().map(read).collect();
    assert!(lines.len() > 10);
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    let truth = bed.sim.truth();
    for leg in truth.iter().filter(|leg| leg.in_group) {
        let id = leg.contact_id.to_string();
        let of_call = |line: &&Value| conversation_of(line).is_some_and(|found| found == id);
        let stages: Vec<_> =
            lines.iter().filter(of_call).filter(|line| line["message"] == "stage done").map(stage_of).collect();
        assert!(stages.contains(&"enqueue".to_owned()), "{id}: {stages:?}");
        assert!(stages.contains(&"fetch_metadata".to_owned()), "{id}: {stages:?}");
    }
}

/// JSON in which no object has a key twice; readers differ in which of the two they take.
struct NoKeyTwice;

impl<'de> serde::Deserialize<'de> for NoKeyTwice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> serde::de::Visitor<'de> for NoKeyTwice {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = std::collections::HashSet::new();
        while let Some((key, Self)) = map.next_entry::<String, Self>()? {
            if !keys.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("{key} stands twice")));
            }
        }
        Ok(Self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while let Some(Self) = list.next_element::<Self>()? {}
        Ok(Self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// The conversation that a line is about, from the span around it.
fn conversation_of(line: &Value) -> Option<String> {
    let span = line["spans"].as_array()?.iter().find(|span| span["name"] == "conversation")?;
    Some(span["conversation.id"].as_str()?.to_owned())
}

fn stage_of(line: &Value) -> String {
    line["span"]["stage"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn completions_help_and_version_need_no_settings() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = executable(&["completions", shell]).current_dir(dir.path()).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        assert!(script.contains("nice-knovvu"), "{shell}");
        // The script asks this program how a line goes on.
        for (line, offered) in
            [(&["dead-"][..], "dead-letters"), (&["dead-letters", "re"], "replay"), (&["--con"], "--config")]
        {
            let mut asked = executable(&[&["--", "nice-knovvu"], line].concat());
            asked.env("NICE_KNOVVU_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", line.len().to_string());
            let output = asked.current_dir(dir.path()).output().unwrap();
            let candidates = String::from_utf8(output.stdout).unwrap();
            assert!(candidates.contains(offered), "{shell} {line:?}: {candidates}");
        }
    }
    for arguments in [&["--help"][..], &["help", "dead-letters"], &["--version"], &["run", "--help"]] {
        let output = executable(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_cut_short_by_its_reader_is_no_crash() {
    let (bed, mut daemon, ..) = worked(408).await;
    let mut child = bed
        .command(&["dead-letters", "list", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // As `| head -0` does.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(daemon.terminate().success());
}
