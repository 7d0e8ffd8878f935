//! A recording that comes late is brought in, and a part that is late does not cost the whole.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nice_sim::{CallSpec, NotReady};
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE, hurried, tail};

/// Longer than any test: what comes after that comes when the test lets NICE's clock run.
const LATE: Duration = Duration::from_secs(86_400);

/// A bed that gives a recording up soon.
async fn impatient(seed: u64) -> Bed {
    let mut bed = Bed::new(hurried(seed, 0)).await;
    bed.set("RETRY__RECORDING_DEADLINE", "3s");
    bed
}

/// A call whose recording is there at once.
fn call(bed: &Bed) -> CallSpec {
    let at_once = Some(Duration::ZERO);
    CallSpec { acw: at_once, recording_delay: at_once, ..CallSpec::new(bed.sim.group(1001)[0]) }
}

/// A call of which NICE knows no recording before [`LATE`].
fn unrecorded(bed: &Bed) -> CallSpec {
    CallSpec { recording_delay: Some(LATE), not_ready: Some(NotReady::NotFound), ..call(bed) }
}

fn trace(bed: &Bed, id: i64) -> Value {
    bed.json(&["trace", &id.to_string(), "--json"])
}

/// Waits until the trace of a conversation is so.
async fn until(bed: &Bed, id: i64, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let trace = trace(bed, id);
        if is_so(&trace) {
            return trace;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {trace:#}\n{}", tail(&bed.log()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn looked_in_vain(trace: &Value) -> bool {
    trace["hops"].as_array().into_iter().flatten().any(|hop| hop["detail"] == "nothing_new")
}

/// The positions of a conversation's recordings, with their hashes.
fn recordings(trace: &Value) -> Vec<(u64, String)> {
    let rows = trace["conversation"]["recordings"].as_array().unwrap();
    rows.iter().map(|row| (row["position"].as_u64().unwrap(), row["sha256"].as_str().unwrap().to_owned())).collect()
}

fn recheck(bed: &Bed, arguments: &[&str]) -> u64 {
    let rechecked = bed.json(&[&["recheck"][..], arguments, &["--json"]].concat());
    rechecked["enqueued"].as_u64().unwrap_or_else(|| panic!("{rechecked}"))
}

async fn becomes(bed: &Bed, daemon: &mut Daemon, id: i64, state: &str) {
    assert_eq!(bed.final_states(daemon, &[id]).await, [state], "{}", tail(&bed.log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_ready_at_the_deadline_and_a_recheck_brings_the_rest() {
    let bed = impatient(901).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let id = bed.sim.add_call(CallSpec { second_part_delay: Some(LATE), ..call(&bed) }).contact_ids[0];
    becomes(&bed, &mut daemon, id, "ready").await;
    let partly = trace(&bed, id);
    assert_eq!(partly["conversation"]["recordings_missing"], 1, "{partly:#}");
    let first = recordings(&partly);
    assert_eq!((first.len(), first[0].0), (1, 0));
    let logged = bed.logged();
    let line = logged.lines().find(|line| line.contains("ready without all recordings")).expect("it is said");
    assert!(line.contains("WARN") && line.contains(&id.to_string()), "{line}");
    let told = bed.ended(&["trace", &id.to_string()]);
    assert!(told.stdout.contains("recordings missing  1 that NICE names"), "{told:?}");
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(1), Timestamp::now());
    let range = ["--from", &from.to_string(), "--to", &to.to_string()];
    let report = bed.json(&[&["report"][..], &range, &["--json"]].concat());
    let total = &report["total"];
    assert_eq!((&total["ready"], &total["incomplete"], &total["missing"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(report["exceptions"][0]["what"], "recordings_missing", "{report:#}");

    // NICE has no more than before: the row stays as it is.
    assert_eq!(recheck(&bed, &[&id.to_string()]), 1);
    let looked = until(&bed, id, "looked once more", looked_in_vain).await;
    assert_eq!(looked["conversation"], partly["conversation"]);
    assert_eq!(bed.json(&["dead-letters", "list", "--json"]), Value::Array(Vec::new()));

    // Now it has both.
    bed.sim.advance(LATE * 2);
    assert_eq!(recheck(&bed, &range), 1);
    let whole = until(&bed, id, "complete", |trace| trace["conversation"]["recordings_missing"] == 0).await;
    let both = recordings(&whole);
    assert_eq!((both.len(), &both[0], both[1].0), (2, &first[0], 1), "the first stays as it was");
    assert_ne!(both[0].1, both[1].1);
    assert_eq!(whole["conversation"]["enqueued_at"], partly["conversation"]["enqueued_at"], "nobody had taken it");
    let kept = whole["conversation"]["recordings"].as_array().unwrap();
    for (recording, (_, sha256)) in kept.iter().zip(&both) {
        let file = bed.data().join("recordings").join(recording["object_key"].as_str().unwrap());
        let bytes = std::fs::read(file).unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
        assert_eq!(&digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), sha256);
    }
    assert_eq!((recheck(&bed, &[&id.to_string()]), recheck(&bed, &range)), (0, 0), "nothing is lacking any more");
    let said = bed.ended(&["recheck", "4711"]);
    assert!(said.code == Some(1) && said.stderr.contains("neither ready nor"), "{said:?}");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_recording_becomes_ready_by_a_recheck_of_its_day_asked_without_a_daemon() {
    let bed = impatient(902).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let ids: Vec<i64> = (0..2).map(|_| bed.sim.add_call(unrecorded(&bed)).contact_ids[0]).collect();
    let never = bed.sim.add_call(CallSpec { never_recorded: true, ..call(&bed) }).contact_ids[0];
    for id in ids.iter().chain([&never]) {
        becomes(&bed, &mut daemon, *id, "no_recording").await;
    }
    assert!(daemon.terminate().success());
    bed.sim.advance(LATE * 2);
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(1), Timestamp::now());
    assert_eq!(recheck(&bed, &["--from", &from.to_string(), "--to", &to.to_string()]), 3);
    let daemon = bed.start();
    for id in &ids {
        let trace = until(&bed, *id, "ready", |trace| trace["state"] == "ready").await;
        assert_eq!(recordings(&trace).len(), 1);
        assert!(trace["conversation"]["enqueued_at"].is_string(), "{trace:#}");
    }
    let looked = until(&bed, never, "looked once more", looked_in_vain).await;
    assert_eq!(looked["state"], "no_recording");
    let counts = &bed.json(&["status", "--json"])["conversations"];
    let count = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!((count("ready"), count("no_recording"), count("dead_letters")), (2, 1, 0));
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nightly_run_looks_once_more_at_a_call_of_that_age() {
    let mut bed = impatient(903).await;
    bed.set("RECONCILIATION__RECHECK", "1s");
    let mut daemon = bed.start();
    daemon.ready().await;
    let id = bed.sim.add_call(unrecorded(&bed)).contact_ids[0];
    becomes(&bed, &mut daemon, id, "no_recording").await;
    assert!(daemon.terminate().success());
    bed.sim.advance(LATE * 2);
    // The next minute that has not begun.
    let at = (Timestamp::now() + SignedDuration::from_secs(60)).strftime("%H:%M").to_string();
    bed.set("RECONCILIATION__AT", at);
    let daemon = bed.start();
    until(&bed, id, "ready", |trace| trace["state"] == "ready").await;
    assert!(daemon.logged().contains("calls that lack recordings are rechecked count=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nice_names_and_never_gives_is_a_dead_letter_and_not_a_call_without_a_recording() {
    let bed = impatient(904).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let spec = CallSpec { recording_delay: Some(LATE), not_ready: Some(NotReady::NoLink), ..call(&bed) };
    let id = bed.sim.add_call(spec).contact_ids[0];
    becomes(&bed, &mut daemon, id, "dead_letter").await;
    let letter = &bed.json(&["dead-letters", "list", "--json"])[0];
    assert!(letter["reason"].as_str().unwrap().contains("gave none of them until the deadline"), "{letter}");
    // Its way back.
    bed.sim.advance(LATE * 2);
    assert_eq!(bed.ended(&["dead-letters", "replay", &letter["id"].to_string()]).code, Some(0));
    until(&bed, id, "ready", |trace| trace["state"] == "ready").await;
    assert!(daemon.terminate().success());
}
