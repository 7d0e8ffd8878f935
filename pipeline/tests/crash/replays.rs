//! The producer is killed while it works on a backfill; no call is lost, doubled or counted twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::tail;
use crate::history::{backfill, balances, found, history, legs, number, untold};

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_anywhere_goes_on_and_loses_and_doubles_nothing() {
    let seed = 607;
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut config = history(seed, 2_000);
    // Some fifty slices.
    config.acd.contacts_page_max = 60;
    let bed = untold(config).await;
    let (from, to) = ((Timestamp::now() - SignedDuration::from_hours(22)).to_string(), Timestamp::now().to_string());
    let missing = legs(&bed).iter().filter(|leg| leg.started_at.to_string() < to).count() as u64;
    let mut daemon = bed.start_with(&[("NICE_KNOVVU_CRASH_AT", "replay_advanced:3")]);
    daemon.ready().await;
    let asked = bed.ended(&["backfill", "--from", &from, "--to", &to]);
    assert_ne!(asked.code, Some(0), "its daemon was killed: {asked:?}");
    daemon.wait();
    let (mut kills, mut plans) = (1, BTreeSet::new());
    // The plan begins anew each time, the import goes on where it was.
    for passage in [200, 5, 12, 1, 9] {
        let at = format!("replay_advanced:{passage}");
        let mut daemon = bed.start_with(&[("NICE_KNOVVU_CRASH_AT", &at)]);
        let begun = Instant::now();
        let deadline = Duration::from_millis(chance.random_range(2_500..5_000));
        while daemon.child.try_wait().unwrap().is_none() && begun.elapsed() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        daemon.kill();
        kills += 1;
        let standing = bed.json(&["backfill", "status", "1", "--json"])[0].take();
        println!("{at}: {} at {}, {:?}", standing["state"], standing["reached"], found(&standing));
        plans.extend(standing["plan"]["missing"].as_u64());
    }
    // An orderly end in the middle of it is one, and hands over too.
    let mut daemon = bed.start();
    daemon.ready().await;
    assert!(daemon.terminate().success(), "{}", tail(&bed.log()));
    let daemon = bed.start();
    let done = backfill(&bed, 1, |run| run["state"] == "done" && run["remaining"] == 0).await;
    plans.extend(done["plan"]["missing"].as_u64());
    assert_eq!(plans, BTreeSet::from([missing]), "{done:#}");
    assert_eq!(number(&done, "/found/listed"), missing, "each is counted once: {done:#}");
    let verdict = balances(&bed, daemon).await;
    println!("{kills} kills: {verdict:?}");
}
