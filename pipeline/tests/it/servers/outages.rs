//! A system is away for longer than any deadline of a call: no call is condemned for it, NICE is not asked for what
//! could not be kept, `/readyz` names the system, and all goes on by itself when it is back.

use std::time::{Duration, Instant};

use nice_sim::Faults;

use super::bed::{ServerBed, terminate};
use super::calls::{place, small};
use super::machines::Servers;
use super::oracle;
use crate::harness::{Daemon, PATIENCE};

/// Shorter than the outages of these tests.
const DEADLINE: Duration = Duration::from_secs(4);

async fn bed(seed: u64) -> ServerBed {
    let mut bed = ServerBed::new(small(seed, 0)).await;
    bed.set("RETRY__RECORDING_DEADLINE", "4s");
    bed
}

/// Waits until `/readyz` answers so and says that.
async fn readiness(daemon: &Daemon, code: u16, says: &str) {
    let begun = Instant::now();
    loop {
        let answer = daemon.get("/readyz").await;
        if answer.as_ref().is_some_and(|(found, page)| *found == code && page.contains(says)) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{code} {says}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn playback_requests(bed: &ServerBed) -> u64 {
    let all = bed.sim().requests();
    let playback = all.iter().filter(|(endpoint, _)| endpoint.contains("playback"));
    playback.flat_map(|(_, by_status)| by_status.values()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_names_the_system_that_is_away_and_the_process_lives_on() {
    let bed = ServerBed::on(Servers::own().await, small(1501, 0)).await;
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    readiness(&consumer, 200, "recording_store: answers").await;
    let proxies =
        [("catalog", &bed.proxies.postgres), ("queue", bed.proxies.rabbitmq()), ("recording_store", &bed.proxies.s3)];
    for (system, proxy) in proxies {
        proxy.stall(true);
        readiness(&consumer, 503, &format!("{system}: away since")).await;
        assert_eq!(consumer.get("/livez").await.map(|answer| answer.0), Some(200));
        proxy.stall(false);
        readiness(&consumer, 200, &format!("{system}: answers")).await;
    }
    terminate([consumer]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_condemned_while_the_store_is_away_and_nice_is_left_in_peace() {
    let mut bed = bed(1502).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    let producer = bed.producer();
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    place(bed.sim(), 0..10);
    bed.quiet().await;
    bed.proxies.s3.stall(true);
    readiness(&consumer, 503, "recording_store: away").await;
    let before = playback_requests(&bed);
    place(bed.sim(), 10..50);
    tokio::time::sleep(4 * DEADLINE).await;
    let asked = playback_requests(&bed) - before;
    assert!(asked <= 8, "{asked} requests for 40 calls that could not be stored");
    bed.proxies.s3.stall(false);
    println!("quiet {:.1} s after the store was back", bed.quiet().await.as_secs_f64());
    terminate([producer, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_condemned_while_nice_fails_for_all() {
    let bed = bed(1503).await;
    let producer = bed.producer();
    let consumer = bed.consumer("consumer");
    place(bed.sim(), 0..20);
    // Some are on their way, and some are awaited.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.sim().set_faults(Faults { server_errors: 1.0, burst_length: 9, ..Faults::none() });
    place(bed.sim(), 20..40);
    tokio::time::sleep(4 * DEADLINE).await;
    bed.sim().set_faults(Faults::none());
    println!("quiet {:.1} s after NICE was well", bed.quiet().await.as_secs_f64());
    terminate([producer, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}
