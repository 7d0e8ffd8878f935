//! A second producer of a tenant waits, visibly, and takes over.

use std::time::{Duration, Instant};

use test_servers::PgBouncer;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::oracle;
use crate::harness::{Daemon, PATIENCE};

/// A pool that lends sessions by the transaction.
const POOL_OF_TRANSACTIONS: &str = "pool_mode = transaction";

/// It lives, is not ready, and says why.
async fn waits(producer: &Daemon) {
    producer.says("another producer has the tenant, waiting").await;
    producer.says("running").await;
    assert_eq!(producer.get("/livez").await.map(|answer| answer.0), Some(200));
    let (code, why) = producer.get("/readyz").await.expect("it answers");
    assert_eq!(code, 503, "{why}");
    assert!(why.contains("lease"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_waits_visibly_and_takes_over() {
    let bed = ServerBed::new(small(1501, 40)).await;
    let consumer = bed.consumer("consumer");
    let mut first = bed.start(Role::Producer, "first", &[]);
    first.ready().await;
    let mut second = bed.start(Role::Producer, "second", &[]);
    waits(&second).await;
    place(bed.sim(), 0..20);
    first.kill();
    place(bed.sim(), 20..40);
    second.ready().await;
    bed.quiet().await;

    // The one that comes back waits in its turn, and an orderly end hands over too.
    let mut first = bed.start(Role::Producer, "first", &[]);
    waits(&first).await;
    place(bed.sim(), 40..50);
    terminate([second]);
    first.ready().await;
    bed.quiet().await;

    // One that loses the lease with its connection waits for it, or takes it again.
    let locks = "select pg_terminate_backend(pid) from pg_locks join pg_database d on d.oid = database
                 where locktype = 'advisory' and datname = current_database()";
    bed.psql(locks).await;
    first.says("lost").await;
    place(bed.sim(), 50..60);
    first.ready().await;
    bed.quiet().await;
    terminate([first, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

/// How many of its calls a producer's stage has made this of: by its metrics, for `status` tells of all services.
async fn outcome(producer: &mut Daemon, stage: &str, outcome: &str) -> u64 {
    let (_, page) = producer.get("/metrics").await.expect("it lives");
    let series = format!("nice_knovvu_stage_items_total{{outcome=\"{outcome}\",stage=\"{stage}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("the stage is counted")
}

/// Waits until the producer has listed so many calls that are known.
async fn dropped(producer: &mut Daemon, calls: u64) {
    let begun = Instant::now();
    while outcome(producer, "dedupe", "done").await < calls {
        assert!(begun.elapsed() < PATIENCE, "not listed again\n{}", producer.logged());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_goes_on_where_the_other_stood_and_publishes_nothing_twice() {
    let mut bed = ServerBed::new(small(1502, 40)).await;
    bed.set("EVENTS__POLL_OVERLAP", "30m");
    let consumer = bed.consumer("consumer");
    // A week passes for the second one in a moment: it has never seen any of these calls.
    let mut first = bed.start(Role::Producer, "first", &[]);
    first.ready().await;
    let mut second = bed.start(Role::Producer, "second", &[]);
    waits(&second).await;
    place(bed.sim(), 0..30);
    bed.quiet().await;
    let found = outcome(&mut first, "enqueue", "ok").await;
    assert!(found >= 30, "{found}");
    let watermark = bed.json(&["status", "--json"])["poll_watermark"].clone();
    assert!(watermark.is_string(), "whoever asks sees the tenant's watermark");
    let nights = bed.json(&["reconcile", "--json"]);
    first.kill();

    second.says("a turn of the producer begins").await;
    second.ready().await;
    dropped(&mut second, found).await;
    assert_eq!(outcome(&mut second, "enqueue", "ok").await, 0, "{}", second.logged());
    place(bed.sim(), 30..40);
    bed.quiet().await;
    assert!(outcome(&mut second, "enqueue", "ok").await >= 10);
    let runs = bed.psql("select count(*) from reconciliation_runs").await;
    assert_eq!(runs.trim(), "1", "nothing is compared again: {nights:#}");
    terminate([second, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_turn_another_has_ended_says_so_once_and_works_in_a_new_one() {
    let bed = ServerBed::new(small(1503, 20)).await;
    let consumer = bed.consumer("consumer");
    let mut producer = bed.producer();
    producer.ready().await;
    producer.says("a turn of the producer begins").await;
    // As another producer would, while this one still believes in its lease.
    bed.psql("update producer_turns set turn = turn + 1").await;
    producer.says("another producer has begun a turn of the tenant").await;
    producer.says("the turn is over").await;
    producer.ready().await;
    place(bed.sim(), 0..10);
    bed.quiet().await;
    let log = producer.logged();
    assert_eq!(log.matches("another producer has begun a turn of the tenant").count(), 1, "{log}");
    assert_eq!(log.matches("a turn of the producer begins").count(), 2, "{log}");
    let (_, page) = producer.get("/metrics").await.expect("the producer answers");
    assert!(page.lines().any(|line| line == r#"nice_knovvu_producer_turns_refused_total{tenant="acme"} 1"#), "{page}");
    terminate([producer, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_of_a_clock_that_ran_ahead_is_not_believed() {
    let bed = ServerBed::new(small(1504, 20)).await;
    let consumer = bed.consumer("consumer");
    let mut producer = bed.producer();
    producer.ready().await;
    bed.quiet().await;
    terminate([producer]);
    bed.psql(
        "update producer_turns set poll_watermark = now() + interval '5 days', worked_since = now() + interval '5 days'",
    )
    .await;
    place(bed.sim(), 0..10);
    let mut producer = bed.producer();
    producer.ready().await;
    producer.says("the poll's watermark lies in the future").await;
    producer.says("the time of the first turn lies in the future").await;
    bed.quiet().await;
    let standing = bed.psql("select poll_watermark < now() and worked_since < now() from producer_turns").await;
    assert_eq!(standing.trim(), "t");
    assert_eq!(producer.logged().matches("lies in the future").count(), 2, "each is said once");
    terminate([producer, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_lends_sessions_by_the_transaction_is_refused_before_anything_works() {
    let mut bed = ServerBed::new(small(1505, 0)).await;
    let pool = PgBouncer::before(&bed.servers.postgres, POOL_OF_TRANSACTIONS).await;
    let direct = bed.catalog_url(Role::Producer);
    bed.set("CATALOG__URL", pool.url(direct.rsplit('/').next().expect("a database")));
    for (role, service) in [(Role::Producer, "producer"), (Role::Consumer, "consumer"), (Role::Both, "run")] {
        let ended = bed.ended(role, &[service]);
        assert_eq!(ended.code, Some(2), "{service}: {ended:?}");
        let said = ended.said();
        assert!(said.contains("[catalog] url") && said.contains("pool_mode = session"), "{service}: {said}");
    }
    let checked = bed.ended(Role::Both, &["check"]);
    assert_ne!(checked.code, Some(0), "{checked:?}");
    assert!(format!("{checked:?}").contains("pool_mode = session"), "{checked:?}");
    assert_eq!(bed.psql("select count(*) from producer_turns").await.trim(), "0");
}
