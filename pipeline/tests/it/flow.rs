//! Calls that end become ready, whatever NICE and the network do meanwhile.

use std::time::Duration;

use nice_sim::{CallSpec, Faults, WebhookConfig};

use crate::harness::{Bed, WEBHOOK_SECRET, hurried, tail};
use crate::oracle;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_group_becomes_ready_and_no_other() {
    let bed = Bed::new(hurried(1, 60)).await;
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
    assert!(verdict.ready > 0 && verdict.no_recording > 0, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_days_with_every_fault_lose_and_double_nothing() {
    tokio::join!(faulty_day(11), faulty_day(12), faulty_day(13));
}

/// A day with every fault that heals; recordings that never come are known as such only after all others are in.
async fn faulty_day(seed: u64) {
    let mut config = hurried(seed, 120);
    config.faults = Faults::all(seed);
    config.day.history = Duration::from_secs(3600);
    config.acd.contacts_page_max = 20;
    config.acd.admin_page_max = 5;
    config.playback.media_link_ttl = Duration::from_secs(2);
    let mut bed = Bed::new(config).await;
    bed.set("EVENTS__IMPORT_SINCE", "1d");
    bed.set("RETRY__RECORDING_DEADLINE", "60s");
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "seed {seed}\n{}", tail(&bed.log()));
    println!("seed {seed}: {verdict:?}, requests {:?}", bed.sim.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn nice_is_not_asked_before_the_time_that_recordings_have_taken_so_far() {
    let mut config = hurried(31, 150);
    config.day.over = Duration::from_secs(30);
    config.day.never_recorded_share = 0.0;
    config.life.recording_delay = (Duration::from_secs(3), Duration::from_secs(4));
    let bed = Bed::new(config).await;
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    let (_, page) = daemon.get("/metrics").await.expect("the daemon answers");
    let value = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_else(|| panic!("{series}: {page}"))
    };
    let found = value(r#"nice_knovvu_recording_looks_total{found="there"}"#);
    let in_vain = value(r#"nice_knovvu_recording_looks_total{found="not_ready"}"#);
    let held_back = value(r#"nice_knovvu_stage_items_total{outcome="not_ready",stage="await_recording"}"#);
    let learned = value(r#"nice_knovvu_recording_first_look_seconds{tenant="acme"}"#);
    println!("{found} found, {in_vain} looks in vain, {held_back} held back, {learned:.1} s learned");
    assert!(learned > 1.0 && held_back > 0.0, "{learned} {held_back}");
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.no_recording), (0, 0), "{}", tail(&bed.log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_field_names_strings_and_wrappers_read_the_same() {
    let mut config = hurried(21, 40);
    config.acd.scalars_as_strings = true;
    config.acd.result_set_wrapper = true;
    config.playback.old_shape = true;
    config.playback.content_length = false;
    config.playback.ranges = false;
    let mut bed = Bed::new(config).await;
    bed.set("NICE__API_VERSION", "v27.0");
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_alone_brings_every_call_that_it_was_told_of() {
    let mut bed = Bed::new(hurried(31, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    bed.set("NICE__AUTH_FLOW", "oauth");
    bed.set("NICE__CLIENT_ID", bed.sim.config().tenant.client_id.clone());
    bed.set("NICE__CLIENT_SECRET", bed.sim.config().tenant.client_secret.clone());
    let mut daemon = bed.start();
    daemon.ready().await;
    let agent = bed.sim.group(1001)[0];
    for _ in 0..10 {
        let call = bed.sim.add_call(CallSpec::new(agent));
        let body = format!(r#"{{"contactId":{}}}"#, call.contact_ids[0]);
        for _ in 0..3 {
            assert_eq!(crate::harness::post_event(receiver, body.clone()).await, Some(202));
        }
    }
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    assert_eq!(oracle::verify(&bed).await.ready, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_and_webhook_together_double_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = hurried(41, 60);
    let mut webhook = WebhookConfig::new(format!("http://{free}/nice/events/contact-ended"), WEBHOOK_SECRET);
    webhook.duplicate_share = 0.5;
    config.webhook = Some(webhook);
    let mut bed = Bed::new(config).await;
    bed.set("EVENTS__WEBHOOK", "true");
    bed.set("EVENTS__WEBHOOK_LISTEN", free.to_string());
    bed.set("EVENTS__WEBHOOK_TOKEN", WEBHOOK_SECRET);
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    let status = daemon.status().await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0);
    let enqueued = status["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "enqueue").unwrap();
    assert!(enqueued["outcomes"]["ok"].as_u64().unwrap() >= (verdict.ready + verdict.no_recording) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_budget_holds_in_any_window() {
    let mut config = hurried(51, 30);
    config.playback.limit = 10;
    config.playback.window = Duration::from_secs(2);
    config.playback.strict_window = true;
    let mut bed = Bed::new(config).await;
    // Longer than NICE's window: the daemon counts a request when it leaves, NICE when it arrives.
    bed.set("LIMITS__MEDIA_PLAYBACK", "10/4s");
    let mut daemon = bed.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.kill();
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    assert_eq!(bed.sim.throttled(), 0, "a request too many, also across the kill");
    oracle::verify(&bed).await;
}
