//! An erased conversation is gone, and nothing brings it back: no event, no replay, no restart, no rebuilt store.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults};
use runtime::crash::ERASURE_POINTS;
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE, hurried, post_event, tail};

const SIGKILL: i32 = 9;

/// Adds calls, and waits until they are ready.
async fn bring_in(bed: &Bed, daemon: &mut Daemon, count: usize) -> Vec<i64> {
    let agents = bed.sim.group(1001);
    let ids: Vec<i64> = (0..count).map(|n| bed.sim.add_call(CallSpec::new(agents[n])).contact_ids[0]).collect();
    bed.ready(daemon, &ids).await;
    ids
}

/// Every file of a conversation in the recording store.
fn files(bed: &Bed, id: i64) -> Vec<PathBuf> {
    fn walk(folder: &Path, id: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, id, found);
            } else if path.parent().and_then(Path::file_name).is_some_and(|name| name == id) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&bed.data().join("recordings"), &id.to_string(), &mut found);
    found
}

fn state(bed: &Bed, id: i64) -> Value {
    bed.json(&["trace", &id.to_string(), "--json"])["state"].clone()
}

/// Waits until the dedupe has dropped so many found calls since the start, for they are known: erased, or there.
pub(crate) async fn dropped(daemon: &mut Daemon, times: u64) {
    let begun = Instant::now();
    loop {
        let (_, page) = daemon.get("/metrics").await.unwrap_or_default();
        let line =
            page.lines().find_map(|line| line.strip_prefix("stage_items_total{outcome=\"done\",stage=\"dedupe\"} "));
        if line.is_some_and(|count| count.parse::<u64>().unwrap() >= times) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come up again\n{}", daemon.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The store does not open at the next start, as after a page was found unreadable.
fn damage(bed: &Bed) {
    std::fs::write(bed.data().join("sled/damaged"), "by a test").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_conversation_stays_away_whatever_happens() {
    let mut bed = Bed::new(hurried(801, 0)).await;
    let receiver = bed.with_webhook();
    let mut daemon = bed.start();
    daemon.ready().await;
    let ids = bring_in(&bed, &mut daemon, 3).await;
    let (gone, later, kept) = (ids[0], ids[1], ids[2]);
    assert!(files(&bed, gone).len() >= 2, "a recording and a description");

    // By the daemon; a second time nothing is found any more.
    let erased = bed.ended(&["erase", &gone.to_string()]);
    assert_eq!((erased.code, erased.stderr.as_str()), (Some(0), ""), "{erased:?}");
    assert!(erased.stdout.contains("is erased"), "{erased:?}");
    assert_eq!(files(&bed, gone), [] as [PathBuf; 0]);
    assert_eq!(state(&bed, gone), "erased");
    let again = bed.json(&["erase", &gone.to_string(), "--json"]);
    assert_eq!((&again["found"], &again["objects"]), (&Value::Bool(false), &Value::from(0)), "{again}");
    let tombstone = again["tombstone"].as_str().unwrap();
    let logged = bed.logged();
    let line = logged.lines().find(|line| line.contains("conversation erased")).expect("an erasure is logged");
    assert!(line.contains(tombstone) && !line.contains(&gone.to_string()), "{line}");
    assert_eq!(state(&bed, kept), "ready");
    let hostile = bed.ended(&["erase", "../1"]);
    assert_eq!((hostile.code, hostile.stdout.as_str()), (Some(2), ""), "{hostile:?}");

    // Here, where no daemon runs.
    assert!(daemon.terminate().success());
    let erased = bed.ended(&["erase", &later.to_string()]);
    assert_eq!(erased.code, Some(0), "{erased:?}");
    assert_eq!(files(&bed, later), [] as [PathBuf; 0]);

    // The store is lost, and with it what was processed: the poll finds every call again.
    damage(&bed);
    let mut daemon = bed.start();
    daemon.ready().await;
    dropped(&mut daemon, 3).await;
    for id in [gone, later] {
        assert_eq!(state(&bed, id), "erased");
        assert_eq!(files(&bed, id), [] as [PathBuf; 0]);
    }
    assert_eq!(state(&bed, kept), "ready");
    let again = bed.ended(&["erase", &gone.to_string()]);
    assert!(again.stdout.contains("set-aside-"), "the old store may still hold it: {again:?}");

    // One that nobody knows may be a slip of the finger: no tombstone is laid unless that is wished.
    let slip = bed.ended(&["erase", "4711"]);
    assert!(slip.code == Some(2) && slip.stderr.contains("--yes-unknown") && slip.stdout.is_empty(), "{slip:?}");
    let dry = bed.json(&["erase", "4711", "--dry-run", "--json"]);
    assert_eq!((&dry["known"], &dry["erased"]), (&Value::Bool(false), &Value::Bool(false)), "no tombstone: {dry}");
    let dry = bed.json(&["erase", &kept.to_string(), "--dry-run", "--json"]);
    assert_eq!((&dry["known"], &dry["state"]), (&Value::Bool(true), &"ready".into()), "{dry}");
    assert!(dry["recordings"][0].as_str().unwrap().contains(&kept.to_string()), "{dry}");
    assert_eq!(state(&bed, kept), "ready", "nothing was erased");
    assert!(!files(&bed, kept).is_empty());
    // Its tombstone awaits it.
    let strange = bed.ended(&["erase", "4711", "--yes-unknown"]);
    assert!(strange.code == Some(0) && strange.stdout.contains("nothing was found"), "{strange:?}");
    assert_eq!(post_event(receiver, r#"{"contactId":"4711"}"#).await, Some(202));
    let begun = Instant::now();
    while daemon.status().await["webhook_inbox"] != 0 {
        assert!(begun.elapsed() < PATIENCE, "the event stays in the inbox\n{}", daemon.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(state(&bed, 4711), "erased");

    // A dead letter goes with the rest, and cannot be replayed.
    bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    let dead = bed.sim.add_call(CallSpec::new(bed.sim.group(1001)[0])).contact_ids[0];
    assert_eq!(bed.final_states(&mut daemon, &[dead]).await, ["dead_letter"]);
    bed.sim.set_faults(Faults::none());
    let letter = bed.json(&["dead-letters", "list", "--json"])[0]["id"].to_string();
    assert_eq!(bed.json(&["erase", &dead.to_string(), "--json"])["dead_letters"], 1);
    assert_eq!(bed.json(&["dead-letters", "list", "--json"]), Value::Array(Vec::new()));
    assert_eq!(bed.ended(&["dead-letters", "replay", &letter]).code, Some(1));
    assert_eq!(state(&bed, dead), "erased");
    assert!(daemon.terminate().success());
    assert_eq!(bed.json(&["status", "--json"])["conversations"]["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_between_its_steps_is_finished() {
    let bed = Bed::new(hurried(802, 0)).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    let ids = bring_in(&bed, &mut daemon, 2 * ERASURE_POINTS.len() + 1).await;
    assert!(daemon.terminate().success());
    let (kept, mut ids) = (ids[0], ids[1..].iter());
    for point in ERASURE_POINTS {
        // By the next daemon; and by the rebuild, where the store was lost as well.
        for lost in [false, true] {
            let id = *ids.next().unwrap();
            let mut erase = bed.command(&["erase", &id.to_string()]);
            let status = erase.env("NICE_KNOVVU_CRASH_AT", point).status().unwrap();
            assert_eq!(status.signal(), Some(SIGKILL), "{point}: {status}");
            if lost {
                damage(&bed);
            }
            let mut daemon = bed.start();
            daemon.ready().await;
            let begun = Instant::now();
            while !files(&bed, id).is_empty() {
                assert!(begun.elapsed() < PATIENCE, "{point}: its recordings stay\n{}", tail(&bed.log()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(state(&bed, id), "erased", "{point}, lost: {lost}");
            assert_eq!(state(&bed, kept), "ready", "{point}, lost: {lost}");
            assert!(daemon.terminate().success());
        }
    }
    assert_eq!(bed.json(&["status", "--json"])["conversations"]["ready"], 1);
}
