//! RabbitMQ passes the door's suite, and keeps its own promises.

use std::collections::BTreeSet;
use std::future;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{stream, stream::StreamExt};
use lapin::{
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use model::{ContactEvent, EventSource};
use test_servers::{Proxy, RabbitMq};

use super::*;
use crate::conformance::{Subject, queue_checks};

struct Rabbit {
    options: RabbitOptions,
    queue: RabbitQueue,
}

fn options(url: String) -> RabbitOptions {
    RabbitOptions {
        url: url.into(),
        prefix: format!("test.{:016x}", rand::random::<u64>()),
        delays: Vec::new(),
        ca: None,
        service: "test".to_owned(),
    }
}

impl Rabbit {
    async fn open(options: RabbitOptions) -> Self {
        let queue = RabbitQueue::connect(options.clone(), &QueueMetrics::default()).await.unwrap();
        Self { options, queue }
    }
}

impl Subject for Rabbit {
    async fn fresh() -> Self {
        Self::open(options(test_servers::rabbitmq().await.url())).await
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn crash(self) -> Self {
        self.queue.sever();
        Self::open(self.options).await
    }
}

queue_checks!(Rabbit);

mod blame;
mod returned;

/// Ends a test that would hang: longer than a broker takes to start, and a dead line to be found out.
const PATIENCE: Duration = Duration::from_secs(90);

type Deliveries = BoxStream<'static, Result<QueueDelivery, QueueError>>;

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it does not hang")
}

async fn next(deliveries: &mut Deliveries) -> QueueDelivery {
    in_time(deliveries.next()).await.expect("the stream goes on").expect("the queue works")
}

async fn next_text(deliveries: &mut Deliveries) -> String {
    let delivery = next(deliveries).await;
    // It may fail where the connection has just been lost; then the message comes again.
    delivery.settle.ack().await.ok();
    String::from_utf8(delivery.body.to_vec()).unwrap()
}

/// Publishes until it succeeds, as a producer does; the number of failures.
async fn insist(queue: &RabbitQueue, lane: Lane, text: &str) -> usize {
    let mut failures = 0;
    let insisting = async {
        while queue.publish(lane, Bytes::from(text.to_owned())).await.is_err() {
            failures += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    in_time(insisting).await;
    failures
}

/// Reads until `text` comes, whatever comes again before it.
async fn read_until(deliveries: &mut Deliveries, text: &str) {
    while next_text(deliveries).await != text {}
}

async fn connect(options: &RabbitOptions) -> (RabbitQueue, QueueMetrics) {
    let metrics = QueueMetrics::default();
    (RabbitQueue::connect(options.clone(), &metrics).await.unwrap(), metrics)
}

/// The broker as somebody else uses it.
async fn stranger(url: &str) -> (lapin::Connection, lapin::Channel) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn event(source: EventSource) -> ContactEvent {
    ContactEvent::new("acme".parse().unwrap(), "698800000001".parse().unwrap(), source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_no_confirmed_message() {
    const MESSAGES: usize = 500;
    let broker = RabbitMq::start().await;
    let (queue, metrics) = connect(&options(broker.url())).await;
    let mut deliveries = queue.deliveries(16);
    let confirmed = Arc::new(AtomicUsize::new(0));
    let publishing = stream::iter(0..MESSAGES)
        .map(|number| {
            let (queue, confirmed) = (&queue, confirmed.clone());
            async move {
                let published = queue.publish(Lane::Live, Bytes::from(number.to_string())).await;
                confirmed.fetch_add(published.is_ok().into(), Ordering::SeqCst);
                published.is_ok().then(|| number.to_string())
            }
        })
        .buffer_unordered(MESSAGES)
        .filter_map(future::ready)
        .collect::<BTreeSet<String>>();
    let killing = async {
        while confirmed.load(Ordering::SeqCst) < MESSAGES / 10 {
            tokio::task::yield_now().await;
        }
        broker.kill().await;
        broker.start_again().await;
    };
    let reading = async {
        let mut seen = BTreeSet::new();
        loop {
            let text = next_text(&mut deliveries).await;
            if text == "last" {
                return seen;
            }
            seen.insert(text);
        }
    };
    let producing = async {
        let (confirmed, ()) = futures::join!(publishing, killing);
        insist(&queue, Lane::Live, "last").await;
        confirmed
    };
    let (confirmed, mut seen) = futures::join!(producing, reading);
    // What came back to the queue when the connections broke may come after the last one.
    while !confirmed.is_subset(&seen) {
        seen.insert(next_text(&mut deliveries).await);
    }
    assert!(confirmed.len() >= MESSAGES / 10);
    assert!(metrics.reconnects.get() >= 2, "both connections");
    in_time(async {
        while queue.backlog().await.map_or(true, |backlog| backlog != Backlog::default()) {
            next_or_pause(&mut deliveries).await;
        }
    })
    .await;
}

/// Settles what comes within a moment.
async fn next_or_pause(deliveries: &mut Deliveries) {
    if let Ok(Some(Ok(delivery))) = timeout(Duration::from_millis(50), deliveries.next()).await {
        delivery.settle.ack().await.ok();
    }
}

#[tokio::test]
async fn a_cut_connection_is_made_again() {
    let proxy = Proxy::before(test_servers::rabbitmq().await.address()).await;
    let (queue, metrics) = connect(&options(format!("amqp://guest:guest@{}/%2f", proxy.address()))).await;
    let mut deliveries = queue.deliveries(1);
    insist(&queue, Lane::Live, "before").await;
    let held = next(&mut deliveries).await;
    proxy.cut();
    // Written to a line that may be dead already: either way the message is settled or comes again.
    held.settle.ack().await.ok();
    insist(&queue, Lane::Backfill, "after").await;
    read_until(&mut deliveries, "after").await;
    assert!(metrics.reconnects.get() >= 1);
}

#[tokio::test]
async fn a_broker_that_is_not_there_fails_a_publish_in_time() {
    let proxy = Proxy::before(test_servers::rabbitmq().await.address()).await;
    let (queue, _) = connect(&options(format!("amqp://guest:guest@{}/%2f", proxy.address()))).await;
    proxy.refuse(true);
    proxy.cut();
    let error = in_time(async {
        loop {
            // One that was under way when the connection was lost fails with that.
            let error = queue.publish(Lane::Live, Bytes::from("lost")).await.unwrap_err().to_string();
            if error.contains("no connection to the broker") {
                return error;
            }
        }
    })
    .await;
    assert!(!error.contains("guest"), "{error}");
    assert!(queue.check().await.is_err());
    proxy.refuse(false);
    insist(&queue, Lane::Live, "found").await;
    read_until(&mut queue.deliveries(1), "found").await;
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_found_again() {
    let broker = RabbitMq::start().await;
    let (queue, _) = connect(&options(broker.url())).await;
    let mut deliveries = queue.deliveries(4);
    insist(&queue, Lane::Live, "before").await;
    read_until(&mut deliveries, "before").await;
    broker.freeze();
    in_time(queue.publish(Lane::Live, Bytes::from("frozen"))).await.unwrap_err();
    in_time(async {
        // The heartbeats end both connections, and not only the publishes that wait.
        while queue.inner.publisher.link().trouble().is_none() || queue.inner.consuming.trouble().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    broker.thaw();
    insist(&queue, Lane::Live, "after").await;
    read_until(&mut deliveries, "after").await;
}

#[tokio::test]
async fn a_broker_short_of_memory_blocks_publishes_and_nothing_else() {
    let broker = RabbitMq::start().await;
    let (queue, metrics) = connect(&options(broker.url())).await;
    let mut deliveries = queue.deliveries(4);
    for source in [EventSource::Poll, EventSource::Webhook] {
        queue.publish(Lane::Live, event(source).encode().into()).await.unwrap();
    }
    let (acked, deferred) = (next(&mut deliveries).await, next(&mut deliveries).await);
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    let error = in_time(async {
        loop {
            // The broker blocks a connection when it sees the next message of it.
            if let Err(error) = queue.publish(Lane::Live, Bytes::from("more")).await {
                return error.to_string();
            }
        }
    })
    .await;
    assert!(error.contains("the broker takes no messages"), "{error}");
    assert_eq!(metrics.connection_blocked.get(), 1);
    assert!(queue.check().await.is_err());
    acked.settle.ack().await.unwrap();
    let mut changed = event(EventSource::Webhook);
    changed.attempt = 1;
    deferred.settle.defer(&changed, Duration::from_millis(1)).await.unwrap_err();
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    insist(&queue, Lane::Live, "last").await;
    assert_eq!(metrics.connection_blocked.get(), 0);
    assert_eq!(metrics.reconnects.get(), 0);
    // What could not be deferred was not handed back meanwhile, but deferred in the end.
    let expected = changed.encode();
    let mut came = false;
    while !came {
        let delivery = next(&mut deliveries).await;
        assert_ne!(&delivery.body[..], &event(EventSource::Webhook).encode()[..]);
        came = delivery.body[..] == expected[..];
        delivery.settle.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_of_another_kind_is_named_with_the_remedy() {
    let url = test_servers::rabbitmq().await.url();
    let options = options(url.clone());
    let live = format!("{}.live", options.prefix);
    let (_connection, channel) = stranger(&url).await;
    let classic = channel.queue_declare(live.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default());
    classic.await.unwrap();
    let error = RabbitQueue::connect(options, &QueueMetrics::default()).await.err().unwrap();
    assert!(matches!(error, RabbitError::Differs { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&live) && text.contains("[queue] prefix"), "{text}");
}

#[tokio::test]
async fn a_refused_login_names_the_setting_and_no_secret() {
    let address = test_servers::rabbitmq().await.address();
    let connect = async |url: String| {
        let error = RabbitQueue::connect(options(url), &QueueMetrics::default()).await.err().unwrap();
        let text = format!("{error} {error:?}");
        assert!(error.to_string().contains("[queue] url") && !text.contains("canary"), "{text}");
        error
    };
    let error = connect(format!("amqp://guest:canary@{address}/%2f")).await;
    assert!(matches!(error, RabbitError::Login { .. }), "{error}");
    let error = connect(format!("amqp://guest:guest@{address}/nowhere")).await;
    assert!(matches!(error, RabbitError::VirtualHost { .. }), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = connect(format!("amqp://guest:canary@{nobody}/%2f")).await;
    assert!(matches!(error, RabbitError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_a_failure_and_the_queue_is_declared_again() {
    let url = test_servers::rabbitmq().await.url();
    let options = options(url.clone());
    let (queue, _) = connect(&options).await;
    let (_connection, channel) = stranger(&url).await;
    let step: lapin::types::ShortString = format!("{}.retry.1s", options.prefix).into();
    let second = Duration::from_secs(1);
    let publish = async |text: &'static str| queue.publish_delayed(Lane::Live, Bytes::from(text), second).await;
    channel.queue_delete(step.clone(), QueueDeleteOptions::default()).await.unwrap();
    publish("one").await.unwrap_err();
    publish("two").await.unwrap();
    channel.exchange_delete(step, ExchangeDeleteOptions::default()).await.unwrap();
    publish("three").await.unwrap_err();
    publish("four").await.unwrap();
    let mut deliveries = queue.deliveries(2);
    let texts = BTreeSet::from([next_text(&mut deliveries).await, next_text(&mut deliveries).await]);
    assert_eq!(texts, BTreeSet::from(["two".to_owned(), "four".to_owned()]));
}

#[tokio::test]
async fn a_reader_outlives_its_queue() {
    let url = test_servers::rabbitmq().await.url();
    let options = options(url.clone());
    let (queue, metrics) = connect(&options).await;
    let mut deliveries = queue.deliveries(4);
    insist(&queue, Lane::Live, "before").await;
    read_until(&mut deliveries, "before").await;
    let (_connection, channel) = stranger(&url).await;
    for name in ["live", "dead"] {
        let name = format!("{}.{name}", options.prefix);
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
    let (_, ()) = futures::join!(insist(&queue, Lane::Live, "after"), read_until(&mut deliveries, "after"));
    assert_eq!(metrics.reconnects.get(), 0);
}

#[tokio::test]
async fn a_message_of_others_arrives_as_it_is() {
    let url = test_servers::rabbitmq().await.url();
    let options = options(url.clone());
    let (queue, _) = connect(&options).await;
    let (_connection, channel) = stranger(&url).await;
    let mut headers = FieldTable::default();
    headers.insert("x-delivery-count".into(), lapin::types::AMQPValue::LongString("many".into()));
    let properties = lapin::BasicProperties::default().with_headers(headers).with_expiration("600000".into());
    let body = b"\xff\0{not json";
    let live = format!("{}.live", options.prefix);
    for queue in [live.clone(), format!("{}.dead", options.prefix)] {
        let options = lapin::options::BasicPublishOptions::default();
        channel.basic_publish("".into(), queue.into(), options, body, properties.clone()).await.unwrap();
    }
    let mut deliveries = queue.deliveries(2);
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((&delivery.body[..], delivery.over_limit), (&body[..], false));
        delivery.settle.ack().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_not_begun_is_handed_back_when_the_reader_ends() {
    let (queue, _) = connect(&options(test_servers::rabbitmq().await.url())).await;
    for number in 0..8 {
        queue.publish(Lane::Live, Bytes::from(number.to_string())).await.unwrap();
    }
    let mut deliveries = queue.deliveries(8);
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    drop(deliveries);
    let mut deliveries = queue.deliveries(8);
    let mut texts = BTreeSet::new();
    for _ in 0..6 {
        assert!(texts.insert(next_text(&mut deliveries).await));
    }
    for delivery in held {
        assert!(texts.insert(String::from_utf8(delivery.body.to_vec()).unwrap()));
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(texts.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspects_come_one_at_a_time_and_the_innocent_is_not_condemned() {
    let options = options(test_servers::rabbitmq().await.url());
    let (mut queue, _) = connect(&options).await;
    for text in ["innocent", "guilty"] {
        queue.publish(Lane::Live, Bytes::from(text)).await.unwrap();
    }
    let mut deliveries = queue.deliveries(2);
    for _ in 0..super::super::DELIVERY_LIMIT - topology::PROBATION {
        let held = [next(&mut deliveries).await, next(&mut deliveries).await];
        queue.sever();
        (queue, _) = connect(&options).await;
        drop((held, deliveries));
        deliveries = queue.deliveries(2);
    }
    let first = next(&mut deliveries).await;
    let one_waits = Backlog { live: 1, in_flight: 1, ..Backlog::default() };
    in_time(async { while queue.backlog().await.unwrap() != one_waits {} }).await;
    assert!(timeout(Duration::from_millis(150), deliveries.next()).await.is_err(), "the other one waits");
    let body = first.body.clone();
    first.settle.ack().await.unwrap();
    let second = next(&mut deliveries).await;
    assert_eq!((first.over_limit, second.over_limit), (false, false));
    assert_eq!(BTreeSet::from([&body[..], &second.body[..]]), BTreeSet::from([&b"innocent"[..], &b"guilty"[..]]));
}

#[tokio::test]
async fn tls_is_spoken_with_an_authority_of_ones_own_and_with_no_other() {
    let broker = RabbitMq::start_with_tls().await;
    let mut options = options(broker.tls_url());
    let error = RabbitQueue::connect(options.clone(), &QueueMetrics::default()).await.err().unwrap();
    assert!(matches!(error, RabbitError::Unreachable { .. }), "{error}");
    options.ca = Some(broker.ca_pem().to_owned());
    let (queue, _) = connect(&options).await;
    insist(&queue, Lane::Live, "secret").await;
    read_until(&mut queue.deliveries(1), "secret").await;
}
