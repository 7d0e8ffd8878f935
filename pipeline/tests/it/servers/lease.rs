//! A second producer of a tenant waits, visibly, and takes over.

use super::bed::{Role, ServerBed, terminate};
use super::calls::place;
use super::flow::small;
use super::oracle;
use crate::harness::Daemon;

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
    bed.psql("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'").await;
    first.says("lost").await;
    place(bed.sim(), 50..60);
    first.ready().await;
    bed.quiet().await;
    terminate([first, consumer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}
