//! An erasure on servers is killed between its steps; a consumer finishes it, and nothing brings the call back.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use runtime::crash::ERASURE_POINTS;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{recorded, small};
use crate::SIGKILL;
use crate::harness::PATIENCE;
use crate::watch::dropped;

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_between_its_steps_is_finished_on_servers() {
    let bed = ServerBed::new(small(1811, 0)).await;
    let (producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    let ids: Vec<String> = (0..=ERASURE_POINTS.len())
        .map(|number| bed.sim().add_call(recorded(bed.sim(), number)).contact_ids[0].to_string())
        .collect();
    bed.quiet().await;
    let (kept, erased) = ids.split_first().unwrap();

    // A consumer goes on with it when it starts.
    terminate([consumer]);
    for (point, id) in ERASURE_POINTS.iter().zip(erased) {
        let status = bed.command(Role::Consumer, &["erase", id]).env("NICE_KNOVVU_CRASH_AT", point).status().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{point}: {status}");
        assert_eq!(bed.state_of(id), "erased", "{point}");
    }
    let consumer = bed.consumer("consumer");
    for id in erased {
        let begun = Instant::now();
        while !bed.rows(id).await.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "an erasure is not finished\n{}", bed.tails());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!bed.versions().await.contains(&format!("/{id}/")));
    }

    // The producer forgets what it has processed, and finds every call again.
    terminate([producer]);
    std::fs::remove_dir_all(bed.path("producer/sled")).unwrap();
    let mut producer = bed.producer();
    producer.ready().await;
    dropped(&mut producer, ids.len() as u64).await;
    for id in erased {
        assert_eq!(bed.state_of(id), "erased");
        assert_eq!(bed.rows(id).await, "");
    }
    let versions = bed.versions().await;
    assert!(ids.iter().all(|id| versions.contains(&format!("/{id}/")) == (id == kept)), "{versions}");
    terminate([producer, consumer]);
}
