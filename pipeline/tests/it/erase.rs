//! An erased conversation is gone, and nothing brings it back: no event, no replay, no restart, no rebuilt store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults};
use serde_json::Value;

use crate::harness::{Bed, PATIENCE, hurried, post_event};
use crate::watch::{bring_in, damage, dropped, files, state};

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
