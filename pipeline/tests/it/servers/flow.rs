//! One producer and several consumers: every call becomes ready once, also while they are replaced one by one.

use std::time::{Duration, Instant};

use nice_sim::CallSpec;
use rustix::process::Signal;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::{oracle, sized};
use crate::harness::{Daemon, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn one_producer_and_three_consumers_lose_and_double_nothing() {
    let calls = sized(250, 10_000);
    let mut config = small(1001, calls);
    config.day.over = Duration::from_millis(20 * calls as u64);
    let bed = ServerBed::new(config).await;
    let producer = bed.producer();
    let consumers = bed.consumers(3);
    place(bed.sim(), 0..30);
    bed.quiet().await;

    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
    assert!(verdict.ready > 0 && verdict.no_recording > 0, "{verdict:?}");
    let status = bed.json(&["status", "--json"]);
    assert_eq!(status["conversations"]["ready"], verdict.ready, "{status:#}");
    assert_eq!(status["conversations"]["no_recording"], verdict.no_recording, "{status:#}");
    for consumer in &consumers {
        assert!(uploaded(consumer).await > 0, "a consumer had nothing to do");
    }
    let settled = bed.queues().await;
    for name in ["live", "backfill", "dead"] {
        assert!(settled.iter().any(|(queue, _)| queue == name), "no queue {name}: {settled:?}");
    }
    terminate(consumers.into_iter().chain([producer]));
    println!("{verdict:?}");
}

/// How many recordings a consumer has brought in.
async fn uploaded(consumer: &Daemon) -> u64 {
    let (_, page) = consumer.get("/metrics").await.expect("the consumer answers");
    let line =
        page.lines().find(|line| line.contains("nice_knovvu_stage_items_total{outcome=\"ok\",stage=\"upload\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_services_in_one_process_work_on_servers_too() {
    let bed = ServerBed::new(small(1002, 30)).await;
    let daemon = bed.start(Role::Both, "run", &[]);
    bed.quiet().await;
    terminate([daemon]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_and_doubles_nothing() {
    let mut bed = ServerBed::new(small(1003, 0)).await;
    bed.set("FLOW__GRACE", "10s");
    let limit = Duration::from_secs(10 + 5);
    let mut producer = bed.producer();
    let mut consumers = bed.consumers(3);
    for round in 0..2 {
        for turn in 0..=consumers.len() {
            place(bed.sim(), round * 100 + turn * 12..round * 100 + turn * 12 + 12);
            let service = consumers.get_mut(turn).unwrap_or(&mut producer);
            service.ready().await;
            let begun = Instant::now();
            service.signal(Signal::TERM);
            let status = service.wait();
            assert_eq!(status.code(), Some(0), "{status}\n{}", service.logged());
            assert!(begun.elapsed() < limit, "it took {:?}\n{}", begun.elapsed(), service.logged());
            *service = match turn {
                3 => bed.producer(),
                _ => bed.consumer(&format!("consumer-{turn}")),
            };
        }
    }
    bed.quiet().await;
    terminate(consumers.into_iter().chain([producer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_does_not_hold_up_the_others() {
    let mut bed = ServerBed::new(small(1004, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    bed.set("RETRY__RECORDING_DEADLINE", "1h");
    let producer = bed.producer();
    let consumers = bed.consumers(1);
    let agents = bed.sim().group(1001);
    // More calls than workers, whose recordings never come.
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let spec = CallSpec { never_recorded: true, ..CallSpec::new(agents[number % agents.len()]) };
            bed.sim().add_call(spec).contact_ids[0]
        })
        .collect();
    place(bed.sim(), 0..20);
    let begun = Instant::now();
    loop {
        let mut left = bed.unfinished("acme").await;
        left.retain(|id| !waiting.contains(id));
        if left.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?}\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Each that waits is one message; more are there only while one of them changes its place.
    while bed.queues().await.iter().map(|(_, messages)| messages).sum::<u64>() != waiting.len() as u64 {
        assert!(begun.elapsed() < PATIENCE, "{:?}\n{}", bed.queues().await, bed.tails());
    }
    terminate(consumers.into_iter().chain([producer]));
}
