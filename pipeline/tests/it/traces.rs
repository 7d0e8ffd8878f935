//! A collector that does not take traces harms nobody.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Bed, hurried};

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_nothing() {
    let mut bed = Bed::new(hurried(1021, 40)).await;
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    bed.set("TRACES__ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    assert_eq!(status.code(), Some(0), "{status}\n{}", bed.logged());
    assert!(begun.elapsed() < Duration::from_secs(5 + 10), "it took {:?}", begun.elapsed());
    let told = bed.logged().lines().filter(|line| line.contains("does not take traces")).count();
    assert!(told <= 3, "{told} lines of one collector");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_of_and_what_is_lost_is_counted() {
    let mut bed = Bed::new(hurried(1022, 10)).await;
    bed.set("TRACES__ENDPOINT", "http://127.0.0.1:1");
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    bed.says("the collector does not take traces").await;
    let (_, page) = daemon.get("/metrics").await.expect("the daemon answers");
    assert!(page.contains("trace_spans_dropped_total"), "{page}");
    assert!(page.contains("trace_spans_exported_total 0"), "{page}");
    assert!(daemon.terminate().success(), "{}", bed.logged());
}
