//! An erasure is killed between its steps; it is finished all the same.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use runtime::crash::ERASURE_POINTS;

use crate::SIGKILL;
use crate::harness::{Bed, PATIENCE, hurried, tail};
use crate::watch::{bring_in, damage, files, state};

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
