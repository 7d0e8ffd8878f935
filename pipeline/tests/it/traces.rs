//! A collector that does not take traces harms nobody, and metrics lead to the traces of one that does.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::collector::{AUTHORIZATION, Collector};
use crate::dashboards::Prometheus;
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

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_finds_in_a_bucket_the_trace_that_the_collector_has() {
    let mut bed = Bed::new(hurried(1023, 10)).await;
    let collector = Collector::start().await;
    bed.set("TRACES__ENDPOINT", &collector.endpoint);
    bed.set("TRACES__HEADERS", format!("Authorization={}", AUTHORIZATION.replace(' ', "%20")));
    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    let prometheus = Prometheus::reading(&mut daemon).await;
    for histogram in ["call_end_to_ready", "stage_duration", "nice_request_duration"] {
        let found = prometheus.exemplars(&format!("nice_knovvu_{histogram}_seconds_bucket")).await;
        for trace_id in found {
            let is_there = |spans: &[crate::collector::Received]| {
                spans.iter().any(|known| {
                    let id: String = known.span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
                    id == trace_id
                })
            };
            collector.until(is_there).await;
        }
    }
    let (_, page) = daemon.get("/metrics").await.expect("the daemon answers");
    assert!(!page.contains("trace_id"), "the text format has no exemplars");
    assert!(daemon.terminate().success(), "{}", bed.logged());
}
