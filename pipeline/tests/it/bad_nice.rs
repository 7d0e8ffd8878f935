//! A NICE that is broken or hostile for as long as it takes: a clear reason, bounded memory, neighbours that go on,
//! and nothing lost once it is well again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use nice_sim::{CallSpec, Faults, SimConfig};
use serde_json::Value;

use crate::harness::{Bed, PATIENCE, hurried, post_event, tail};
use crate::oracle;

/// More than the caps of all bodies that may be read at a time come to, and far less than one hostile body.
const MOST_MEMORY_KIB: u64 = 256 * 1024;

/// Calls that run into the trouble.
const CALLS: usize = 4;

async fn post_call(bed: &Bed, receiver: SocketAddr) -> i64 {
    let agents = bed.sim.group(1001);
    let id = bed.sim.add_call(CallSpec::new(agents[0])).contact_ids[0];
    assert_eq!(post_event(receiver, format!(r#"{{"contactId":{id}}}"#)).await, Some(202));
    id
}

fn letters(bed: &Bed) -> Vec<Value> {
    bed.json(&["dead-letters", "list", "--json"]).as_array().unwrap().clone()
}

/// Lets calls run into `faults`, with the calls told by webhook and listed by the poll; then NICE is well again.
async fn outlives(seed: u64, faults: Faults, says: &str) -> Bed {
    outlives_in(hurried(seed, 0), faults, says).await
}

async fn outlives_in(config: SimConfig, faults: Faults, says: &str) -> Bed {
    let mut bed = Bed::new(config).await;
    let receiver = bed.with_webhook();
    bed.set("RETRY__RECORDING_DEADLINE", "60s");
    let mut daemon = bed.start();
    daemon.ready().await;
    let mut ids = vec![post_call(&bed, receiver).await];
    bed.ready(&mut daemon, &ids).await;
    let before = daemon.memory_kib("VmRSS");

    bed.sim.set_faults(faults);
    for _ in 0..CALLS {
        ids.push(post_call(&bed, receiver).await);
    }
    bed.says(says).await;
    // Long enough for several attempts of everything.
    bed.asked("contacts-completed", 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = daemon.memory_kib("VmHWM").saturating_sub(before);
    println!("{says}: {grown} KiB more at most, requests {:?}", bed.sim.requests());
    assert!(grown < MOST_MEMORY_KIB, "{says}: {grown} KiB");
    assert_eq!(daemon.get("/readyz").await.map(|answer| answer.0), Some(200), "{}", tail(&bed.log()));

    bed.sim.set_faults(Faults::none());
    ids.push(post_call(&bed, receiver).await);
    bed.final_states(&mut daemon, &ids).await;
    // The cause is gone: what was set aside is brought in after all.
    let set_aside = letters(&bed);
    for letter in &set_aside {
        assert!(letter["reason"].as_str().unwrap().contains(says), "{letter:#}");
    }
    let set_aside = set_aside.len();
    let replayed = bed.ended(&["dead-letters", "replay", "--all"]);
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.stdout.contains(&format!("{set_aside} of {set_aside}")), "{replayed:?}");
    bed.ready(&mut daemon, &ids).await;
    let agents = bed.json(&["agents", "list", "--json"]);
    let active = agents.as_array().unwrap().iter().filter(|agent| agent["is_active"] == true).count();
    assert_eq!(active, bed.sim.group(1001).len(), "the list of agents has suffered");
    assert!(!bed.logged().contains("panicked"), "{}", tail(&bed.log()));
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead), (ids.len(), 0), "{}", tail(&bed.log()));
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_instead_of_json_are_outlived() {
    outlives(201, Faults { html: 1.0, ..Faults::none() }, "HTML").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_ends_in_the_middle_is_outlived() {
    outlives(202, Faults { truncated_json: 1.0, ..Faults::none() }, "not JSON").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_outlived() {
    outlives(203, Faults { gzip_bomb: 1.0, ..Faults::none() }, "the body is larger than any real answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_json_is_outlived() {
    outlives(204, Faults { huge_json: 1.0, ..Faults::none() }, "the body is larger than any real answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_every_surface_are_outlived() {
    outlives(205, Faults { server_errors: 1.0, burst_length: 9, ..Faults::none() }, "NICE answered 50").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_elsewhere_are_not_followed() {
    // Small pages, so that there are next links at all.
    let mut config = hurried(206, 0);
    config.acd.contacts_page_max = 2;
    config.acd.admin_page_max = 4;
    tokio::join!(
        outlives_in(config, Faults { foreign_next_link: 1.0, ..Faults::none() }, "stage done"),
        outlives(207, Faults { foreign_media_link: 1.0, ..Faults::none() }, "recording link leaves the allowed hosts"),
        outlives(208, Faults { media_redirect_endless: 1.0, ..Faults::none() }, "one more redirect after 3"),
        outlives(209, Faults { media_redirect_foreign: 1.0, ..Faults::none() }, "redirects off the allowed hosts"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_come_in_an_unusual_way_are_stored_as_what_they_are() {
    for (seed, faults) in [
        (218, Faults { media_redirect: 1.0, ..Faults::none() }),
        (219, Faults { media_encoding: 1.0, media_truncated: 0.5, ..Faults::none() }),
        (220, Faults { media_generic_type: 1.0, ..Faults::none() }),
    ] {
        let mut bed = Bed::new(hurried(seed, 0)).await;
        let receiver = bed.with_webhook();
        bed.sim.set_faults(faults.clone());
        let mut daemon = bed.start();
        daemon.ready().await;
        let mut ids = Vec::new();
        for _ in 0..CALLS {
            ids.push(post_call(&bed, receiver).await);
        }
        bed.ready(&mut daemon, &ids).await;
        for id in &ids {
            let trace = bed.json(&["trace", &id.to_string(), "--json"]);
            let stored = &trace["conversation"]["recordings"][0];
            assert_eq!(stored["content_type"], "video/mp4", "{trace:#}");
            assert!(stored["object_key"].as_str().unwrap().ends_with(".mp4"), "{trace:#}");
        }
        assert!(daemon.terminate().success());
        let verdict = oracle::verify(&bed).await;
        assert_eq!((verdict.ready, verdict.dead), (ids.len(), 0), "{faults:?}\n{}", tail(&bed.log()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_always_break_are_retried_and_then_whole() {
    let broken = Faults { media_truncated: 1.0, ..Faults::none() };
    outlives(210, broken, "stage failed, will retry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_the_grammar_are_set_aside_once_and_delay_nobody() {
    let mut bed = Bed::new(hurried(211, 0)).await;
    bed.set("RETRY__NOT_READY_DELAYS", "100ms");
    bed.sim.set_faults(Faults { hostile_rows: 1.0, null_agents: 1.0, duplicate_rows: 1.0, ..Faults::none() });
    let agents = bed.sim.group(1001);
    let ids: Vec<_> = (0..6).map(|call| bed.sim.add_call(CallSpec::new(agents[call])).contact_ids[0]).collect();
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.ready(&mut daemon, &ids).await;
    let found = letters(&bed);
    assert!((1..=6).contains(&found.len()), "{found:#?}");
    bed.asked("contacts-completed", 5).await;
    assert_eq!(letters(&bed).len(), found.len(), "the same rows are set aside again and again");
    for letter in &found {
        assert_eq!(letter["stage"], "source");
        let text = letter.to_string();
        assert!(
            !text.contains("../x") && !text.contains("99999999999999999999"),
            "a hostile id travels on: {text:.300}"
        );
        let id = letter["id"].to_string();
        let replayed = bed.ended(&["dead-letters", "replay", &id]);
        assert_eq!(replayed.code, Some(1), "{replayed:?}");
        assert!(replayed.stderr.contains("drop it"), "{replayed:?}");
        assert_eq!(bed.ended(&["dead-letters", "drop", &id]).code, Some(0));
    }
    bed.sim.set_faults(Faults::none());
    assert!(daemon.terminate().success());
    assert_eq!(oracle::verify(&bed).await.ready, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_a_lie_stores_what_was_sent() {
    let mut bed = Bed::new(hurried(212, 0)).await;
    let receiver = bed.with_webhook();
    bed.sim.set_faults(Faults { content_length_short: 1.0, ..Faults::none() });
    let mut daemon = bed.start();
    daemon.ready().await;
    let id = post_call(&bed, receiver).await;
    bed.ready(&mut daemon, &[id]).await;
    let truth = bed.sim.truth();
    let whole = truth.iter().find(|leg| leg.contact_id == id).unwrap().recordings[0].size;
    let trace = bed.json(&["trace", &id.to_string(), "--json"]);
    let stored = &trace["conversation"]["recordings"][0];
    assert_eq!(stored["size_bytes"], whole / 2, "{trace:#}");
    let file = bed.data().join("recordings").join(stored["object_key"].as_str().unwrap());
    assert_eq!(file.metadata().unwrap().len(), whole / 2);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nice_does_not_know_is_set_aside_at_the_deadline_and_delays_nobody() {
    let mut bed = Bed::new(hurried(213, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("RETRY__RECORDING_DEADLINE", "4s");
    bed.set("CONSUMER__CONCURRENCY", "2");
    let mut daemon = bed.start();
    daemon.ready().await;
    let unknown = [1, 999_999_999_999, 9_999_999_999_999_999_999_u64];
    for id in unknown {
        for body in [format!(r#"{{"contactId":{id}}}"#), format!(r#"{{"contactId":"{id}","agentId":900001}}"#)] {
            assert_eq!(post_event(receiver, body).await, Some(202));
        }
    }
    let known = post_call(&bed, receiver).await;
    bed.ready(&mut daemon, &[known]).await;
    let begun = Instant::now();
    while letters(&bed).len() < unknown.len() {
        assert!(begun.elapsed() < PATIENCE, "{:#?}\n{}", letters(&bed), tail(&bed.log()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for letter in letters(&bed) {
        assert_eq!(letter["stage"], "fetch_metadata", "{letter:#}");
        assert!(letter["reason"].as_str().unwrap().contains("did not know the contact"), "{letter:#}");
    }
    let trace = bed.json(&["trace", "999999999999", "--json"]);
    assert_eq!((trace["state"].as_str(), &trace["conversation"]), (Some("dead_letter"), &Value::Null), "{trace:#}");
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead), (1, 0));
}

/// A surface of NICE that refuses everything, and counts.
async fn refuser(status: u16) -> (String, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let status = StatusCode::from_u16(status).unwrap();
    let app = axum::Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(status)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (root, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_ever_is_an_alarm_and_no_hammering() {
    let mut config = hurried(214, 0);
    config.playback.permitted = false;
    let mut bed = Bed::new(config).await;
    let receiver = bed.with_webhook();
    let mut daemon = bed.start();
    daemon.ready().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(post_call(&bed, receiver).await);
    }
    bed.says("NICE refuses us, a person must look").await;
    let status = bed.ended(&["status"]);
    assert_eq!(status.code, Some(3), "{status:?}");
    for said in ["refuses us since", "contact_playback", "nice-knovvu settings set"] {
        assert!(status.stdout.contains(said), "{said}: {}", status.stdout);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = bed.sim.requests_to("playback-contact");
    assert!(asked <= ids.len() as u64, "{asked} requests for {} calls that were refused", ids.len());
    assert_eq!(bed.logged().matches("a person must look").count(), 1, "one alarm, not one for each call");
    assert!(letters(&bed).is_empty());
    for id in &ids {
        assert_eq!(daemon.state_of(*id).await, "under_way");
    }
    // The poll and the agents go on, and the daemon ends in time although everything waits.
    bed.asked("contacts-completed", 2).await;
    assert!(daemon.terminate().success());

    // All of the ACD refuses: one who asks without end would be seen here.
    let (root, asked) = refuser(403).await;
    bed.set("NICE__ACD_URL", root);
    let mut daemon = bed.start();
    daemon.ready().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=40).contains(&asked), "{asked} requests in four seconds to an ACD that refuses");
    assert!(daemon.terminate().success());
    bed.says("NICE answered 403").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_said_and_not_tried_for_ever() {
    let mut bed = Bed::new(hurried(215, 0)).await;
    bed.set("NICE__ACCESS_KEY_SECRET", "canary-of-a-wrong-key");
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("NICE answered 401").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = bed.sim.token_requests();
    assert!(asked <= 4, "{asked} requests for a token with a key that is refused");
    assert!(!bed.logged().contains("canary-of-a-wrong-key"));
    let ended = bed.ended(&["agents", "sync"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_429_are_weathered() {
    tokio::join!(storm(216, false), storm(217, true));
}

async fn storm(seed: u64, retry_after: bool) {
    let mut config = hurried(seed, 0);
    config.playback.limit = 4;
    config.playback.window = Duration::from_secs(1);
    config.playback.strict_window = true;
    config.playback.retry_after = retry_after;
    config.acd.rate_limit = Some((8, Duration::from_secs(1)));
    let mut bed = Bed::new(config).await;
    let receiver = bed.with_webhook();
    bed.set("RETRY__RECORDING_DEADLINE", "60s");
    bed.set("RETRY__NOT_READY_DELAYS", "500ms");
    // Lists that take more than half of what NICE gives are no storm but a mistake in the settings.
    bed.set("EVENTS__POLL_INTERVAL", "1s");
    bed.set("AGENTS__SYNC_INTERVAL", "5s");
    let mut daemon = bed.start();
    daemon.ready().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(post_call(&bed, receiver).await);
    }
    bed.ready(&mut daemon, &ids).await;
    let throttled = bed.sim.throttled();
    println!("Retry-After {retry_after}: {throttled} times 429, {:?}", bed.sim.requests());
    assert!(throttled > 0, "no storm");
    assert!(throttled < 200, "{throttled} requests that were refused for {} calls", ids.len());
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead), (ids.len(), 0));
}
