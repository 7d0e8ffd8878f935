//! The process is killed at each named boundary and at random moments; nothing is lost and nothing doubled.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nice_sim::CallSpec;
use rand::{Rng, SeedableRng, rngs::StdRng};
use runtime::crash::POINTS;
use serde_json::json;

use crate::SIGKILL;
use crate::harness::{Bed, PATIENCE, hurried, post_event, tail};
use crate::oracle;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_each_named_boundary_loses_and_doubles_nothing() {
    let mut bed = Bed::new(hurried(61, 0)).await;
    let receiver = bed.with_webhook();
    for (round, point) in POINTS.iter().enumerate() {
        // One passage earlier or later: before anything was done, and in the middle of it.
        for passage in [1, 2] {
            let begun = Instant::now();
            let at = format!("{point}:{passage}");
            let mut daemon = bed.start_with(&[("NICE_KNOVVU_CRASH_AT", &at)]);
            let status = loop {
                if let Some(status) = daemon.child.try_wait().unwrap() {
                    break status;
                }
                assert!(begun.elapsed() < PATIENCE, "{at} was not reached\n{}", tail(&bed.log()));
                let agents = bed.sim.group(1001);
                let call = bed.sim.add_call(CallSpec::new(agents[round % agents.len()]));
                // Nobody may listen yet, or any more.
                let body = format!(r#"{{"contactId":"{}"}}"#, call.contact_ids[0]);
                post_event(receiver, body).await;
                if *point == "replay_advanced" {
                    drop(daemon.post("/api/v1/reconciliations", &json!({})).await);
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            };
            assert_eq!(status.signal(), Some(SIGKILL), "{at}: {status}\n{}", tail(&bed.log()));
        }
    }
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
    println!("{} boundaries: {verdict:?}", POINTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_at_random_moments_lose_and_double_nothing() {
    let seed = 62;
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut config = hurried(seed, 300);
    config.day.over = Duration::from_secs(20);
    let bed = Bed::new(config).await;
    for _ in 0..50 {
        let mut daemon = bed.start();
        tokio::time::sleep(Duration::from_millis(chance.random_range(20..700))).await;
        daemon.kill();
    }
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
    println!("{verdict:?}");
}
