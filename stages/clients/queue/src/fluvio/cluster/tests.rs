//! Against a real cluster, where this machine has one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use fluvio::config::ConfigFile;
use runtime::metrics::Page;
use test_servers::Fluvio;
use tokio::time::{Instant, sleep, timeout};

use super::super::log::TopicRecord;
use super::append::partition_of;
use super::*;

/// How long anything may take on a slow machine: longer than the tests need, and than all that heals by itself takes.
const PATIENCE: Duration = Duration::from_secs(120);

const RETENTION: Duration = Duration::from_secs(3600);

fn metrics() -> QueueMetrics {
    QueueMetrics::register(&Page::default())
}

fn options(server: &Fluvio) -> FluvioOptions {
    FluvioOptions {
        address: Some(server.address().to_string()),
        profile: None,
        prefix: "test".to_owned(),
        partitions: 1,
        replication: 1,
        delays: Vec::new(),
        service: "test".to_owned(),
    }
}

fn cluster(server: &Fluvio) -> Cluster {
    Cluster::new(&options(server), metrics()).unwrap()
}

/// A topic that no other test has.
fn topic(partitions: u32) -> Topic {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("topic-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into();
    Topic { name, partitions, replication: 1, retention: RETENTION }
}

fn partition(topic: &Topic, number: u32) -> Partition {
    Partition { topic: topic.name.clone(), number }
}

fn record(key: impl ToString, body: impl Into<Bytes>) -> NewRecord {
    NewRecord { key: key.to_string(), body: body.into() }
}

/// The next records of a partition.
async fn take(records: &mut Records, count: usize) -> Vec<TopicRecord> {
    let taken = records.by_ref().take(count).map(Result::unwrap).collect::<Vec<_>>();
    timeout(PATIENCE, taken).await.expect("they come")
}

/// Does it again until it succeeds.
async fn insist<T, F: Future<Output = Result<T, QueueError>>>(mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn records_come_back_as_they_were_in_the_order_of_their_partition() {
    let Some(server) = test_servers::fluvio().await else { return };
    let (cluster, topic) = (cluster(server), topic(3));
    cluster.ensure(std::slice::from_ref(&topic)).await.unwrap();
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        (0..=255).collect(),
        vec![b'x'; 64 << 10].into(),
        vec![0; 64 << 10].into(),
    ];
    let sent: Vec<_> =
        (0..600).map(|i| record(format!("key {} ü", i % 50), bodies[i % bodies.len()].clone())).collect();
    cluster.append(&topic.name, sent.clone()).await.unwrap();
    cluster.append(&topic.name, Vec::new()).await.unwrap();
    for number in 0..3 {
        let partition = partition(&topic, number);
        let expected: Vec<_> = sent.iter().filter(|record| partition_of(&record.key, 3) == number).collect();
        assert!(!expected.is_empty(), "every partition has some");
        let end = i64::try_from(expected.len()).unwrap();
        assert_eq!(cluster.bounds(&partition).await.unwrap(), 0..end);
        let mut records = cluster.read(&partition, 0).await.unwrap();
        let came = take(&mut records, expected.len()).await;
        for ((offset, came), expected) in (0..).zip(&came).zip(expected) {
            assert_eq!((came.offset, &came.key[..], &came.body), (offset, expected.key.as_bytes(), &expected.body));
        }
        // From any place, in the middle of a batch too.
        let mut records = cluster.read(&partition, end / 2).await.unwrap();
        assert_eq!(take(&mut records, 1).await[0].offset, end / 2);
        // What comes later comes by itself.
        let mut records = cluster.read(&partition, end).await.unwrap();
        let key = (0..).map(|i| i.to_string()).find(|key| partition_of(key, 3) == number).unwrap();
        cluster.append(&topic.name, vec![record(&key, "later")]).await.unwrap();
        let later = take(&mut records, 1).await;
        assert_eq!((later[0].offset, &later[0].body[..]), (end, &b"later"[..]));
        assert!(cluster.read(&partition, end + 2).await.is_err(), "nothing is skipped that is to come");
    }
}

#[tokio::test]
async fn ten_thousand_records_come_once_each() {
    let Some(server) = test_servers::fluvio().await else { return };
    let (cluster, topic) = (cluster(server), topic(4));
    cluster.ensure(std::slice::from_ref(&topic)).await.unwrap();
    let (cluster, topic) = (&cluster, &topic);
    // Bodies of many sizes, so that the pieces that are read end anywhere in a batch.
    let appends = (0..10_000).collect::<Vec<_>>();
    let appends = appends.chunks(500).map(|chunk| {
        let records = chunk.iter().map(|i| record(i, vec![b'b'; (i * 37) % 4_000])).collect();
        async move { cluster.append(&topic.name, records).await.unwrap() }
    });
    futures::stream::iter(appends).buffer_unordered(4).collect::<()>().await;
    let bounds = cluster.all_bounds(std::slice::from_ref(topic)).await.unwrap();
    assert_eq!((bounds.len(), bounds.values().map(|range| range.end).sum::<i64>()), (4, 10_000));
    let mut seen = BTreeSet::new();
    for (partition, range) in bounds {
        let mut records = cluster.read(&partition, range.start).await.unwrap();
        let came = take(&mut records, usize::try_from(range.end - range.start).unwrap()).await;
        for (offset, record) in (range.start..).zip(came) {
            let key: usize = std::str::from_utf8(&record.key).unwrap().parse().unwrap();
            assert_eq!((record.offset, record.body.len()), (offset, (key * 37) % 4_000));
            assert!(seen.insert(key), "{key} twice");
        }
    }
    assert_eq!(seen.len(), 10_000);
}

#[tokio::test]
async fn topics_are_made_once_and_compared() {
    let Some(server) = test_servers::fluvio().await else { return };
    let (one, other) = (cluster(server), cluster(server));
    let topics = [topic(2), topic(1), topic(3), topic(1), topic(2)];
    // Two processes that start together.
    let both = tokio::join!(one.ensure(&topics), other.ensure(&topics));
    assert!(matches!(both, (Ok(()), Ok(()))), "{both:?}");
    one.ensure(&topics).await.unwrap();
    one.check(&topics).await.unwrap();
    let differs = |changed: Topic| {
        let one = &one;
        async move {
            match one.ensure(&[changed]).await {
                Err(FluvioError::Differs { name, found, needed, .. }) => (name, found, needed),
                other => panic!("{other:?}"),
            }
        }
    };
    let (name, found, needed) = differs(Topic { partitions: 4, ..topics[0].clone() }).await;
    assert_eq!((&*name, &*found, &*needed), (&*topics[0].name, "2 partitions", "4"));
    let longer = Topic { retention: RETENTION * 2, ..topics[0].clone() };
    let (_, found, needed) = differs(longer).await;
    assert_eq!((&*found, &*needed), ("a retention of 3600 s", "7200 s"));
    let unknown = [topic(1)];
    assert!(one.check(&unknown).await.is_err() && one.all_bounds(&unknown).await.is_err());
    assert!(one.append(&unknown[0].name, vec![record(1, "")]).await.is_err());
    one.close().await;
    assert!(one.check(&topics).await.is_err() && one.bounds(&partition(&topics[0], 0)).await.is_err());
    other.check(&topics).await.unwrap();
}

/// Appends and reads for as long as it lasts.
struct Load {
    cluster: Arc<Cluster>,
    topic: Topic,
    appended: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    appending: tokio_util::task::AbortOnDropHandle<()>,
    reading: tokio_util::task::AbortOnDropHandle<BTreeSet<u32>>,
}

impl Load {
    async fn start(server: &Fluvio) -> Self {
        Self::start_with(server, metrics()).await
    }

    async fn start_with(server: &Fluvio, metrics: QueueMetrics) -> Self {
        let cluster = Arc::new(Cluster::new(&options(server), metrics).unwrap());
        let topic = topic(1);
        cluster.ensure(std::slice::from_ref(&topic)).await.unwrap();
        let (appended, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let appending = {
            let (cluster, topic, appended, ends) = (cluster.clone(), topic.clone(), appended.clone(), ends.clone());
            runtime::task::spawn("appending", async move {
                while !ends.load(Ordering::Relaxed) {
                    let next = appended.load(Ordering::Relaxed);
                    insist(|| cluster.append(&topic.name, vec![record(next, "")])).await;
                    appended.store(next + 1, Ordering::Relaxed);
                }
            })
        };
        let reading = {
            let (cluster, topic, appended, ends) = (cluster.clone(), topic.clone(), appended.clone(), ends.clone());
            runtime::task::spawn("reading", async move {
                let (partition, mut seen, mut next) = (partition(&topic, 0), BTreeSet::new(), 0);
                loop {
                    let mut records = insist(|| cluster.read(&partition, next)).await;
                    while let Some(Ok(record)) = timeout(PATIENCE, records.next()).await.expect("it ends or goes on") {
                        assert_eq!(record.offset, next, "nothing twice, nothing skipped");
                        next += 1;
                        seen.insert(std::str::from_utf8(&record.key).unwrap().parse().unwrap());
                        let all =
                            ends.load(Ordering::Relaxed) && seen.len() >= appended.load(Ordering::Relaxed) as usize;
                        if all {
                            return seen;
                        }
                    }
                }
            })
        };
        let load = Self { cluster, topic, appended, ends, appending, reading };
        load.goes_on().await;
        load
    }

    /// Waits until more is appended: all has healed.
    async fn goes_on(&self) {
        let now = self.appended.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.appended.load(Ordering::Relaxed) < now + 20 {
            assert!(Instant::now() < deadline, "nothing is appended any more");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it, and compares: every record that was acknowledged was read.
    async fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.appending.await.unwrap();
        // One more, for the reader to see that it is the end.
        let last = self.appended.fetch_add(1, Ordering::Relaxed);
        insist(|| self.cluster.append(&self.topic.name, vec![record(last, "")])).await;
        let seen = timeout(PATIENCE, self.reading).await.expect("all come").unwrap();
        assert_eq!(seen, (0..=last).collect());
        self.cluster.check(std::slice::from_ref(&self.topic)).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_spu_heals() {
    let Some(server) = Fluvio::find().await else { return };
    let load = Load::start(&server).await;
    for _ in 0..3 {
        server.kill_spu().await;
        assert!(load.cluster.bounds(&partition(&load.topic, 0)).await.is_err());
        server.start_spu_again().await;
        load.goes_on().await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_lost_sc_is_not_missed_and_heals() {
    let Some(server) = Fluvio::find().await else { return };
    let load = Load::start(&server).await;
    for _ in 0..3 {
        server.kill_sc().await;
        assert!(load.cluster.check(std::slice::from_ref(&load.topic)).await.is_err());
        load.goes_on().await;
        server.start_sc_again().await;
        load.goes_on().await;
        insist(|| load.cluster.check(std::slice::from_ref(&load.topic))).await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_lost_cluster_heals_and_is_counted() {
    let Some(server) = Fluvio::find().await else { return };
    let metrics = metrics();
    let load = Load::start_with(&server, metrics.clone()).await;
    for _ in 0..3 {
        server.kill_sc().await;
        server.kill_spu().await;
        assert!(load.cluster.check(std::slice::from_ref(&load.topic)).await.is_err());
        server.start_spu_again().await;
        server.start_sc_again().await;
        load.goes_on().await;
    }
    assert!(metrics.reconnects.get() >= 3);
    load.end().await;
}

#[tokio::test]
async fn a_broker_that_is_silent_is_given_up_and_taken_again() {
    let Some(server) = Fluvio::find().await else { return };
    let (cluster, topic) = (cluster(&server), topic(1));
    cluster.ensure(std::slice::from_ref(&topic)).await.unwrap();
    let partition = partition(&topic, 0);
    let mut records = cluster.read(&partition, 0).await.unwrap();
    server.freeze_spu();
    let silent = timeout(PATIENCE, records.next()).await.expect("it notices");
    assert!(silent.is_some_and(|record| record.is_err()));
    assert!(cluster.append(&topic.name, vec![record(1, "lost?")]).await.is_err());
    assert!(cluster.bounds(&partition).await.is_err());
    server.thaw_spu();
    insist(|| cluster.append(&topic.name, vec![record(2, "there")])).await;
    let mut records = insist(|| cluster.read(&partition, 0)).await;
    while take(&mut records, 1).await[0].body != "there" {}
    server.freeze_sc();
    assert!(cluster.check(std::slice::from_ref(&topic)).await.is_err());
    cluster.append(&topic.name, vec![record(3, "without the SC")]).await.unwrap();
    server.thaw_sc();
    insist(|| cluster.check(std::slice::from_ref(&topic))).await;
}

#[tokio::test]
async fn tls_by_a_profile_and_by_no_other() {
    let Some(server) = Fluvio::find_with_tls().await else { return };
    let file = ConfigFile::load(Some(server.profile().display().to_string())).unwrap();
    let with = |profile| Cluster::at(ClusterTarget::in_file(&file, profile, "test").unwrap(), metrics()).unwrap();
    let (cluster, topic) = (with(Some("tls")), topic(1));
    cluster.ensure(std::slice::from_ref(&topic)).await.unwrap();
    cluster.append(&topic.name, vec![record(1, "over TLS")]).await.unwrap();
    let mut records = cluster.read(&partition(&topic, 0), 0).await.unwrap();
    assert_eq!(take(&mut records, 1).await[0].body, "over TLS");
    // The current one is the same.
    with(None).check(std::slice::from_ref(&topic)).await.unwrap();
    let error = with(Some("stranger")).ensure(std::slice::from_ref(&topic)).await.unwrap_err();
    assert!(matches!(error, FluvioError::Unreachable { .. }), "{error}");
    assert!(ClusterTarget::in_file(&file, Some("other"), "test").is_err());
}
