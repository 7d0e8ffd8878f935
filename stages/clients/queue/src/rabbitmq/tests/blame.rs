//! Who is to blame for a delivery that came back: only one that a process died over.

use lapin::{
    BasicProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions},
};

use super::super::{suspects::Suspect, topology::PROBATION};
use super::*;
use crate::DELIVERY_LIMIT;

/// Returns that would have condemned a message by their number alone.
const MANY: u32 = DELIVERY_LIMIT + 5;

fn number(number: u64) -> ContactEvent {
    let conversation = format!("69880000{number:04}").parse().unwrap();
    ContactEvent::new("acme".parse().unwrap(), conversation, EventSource::Poll)
}

/// How many marks there are at a message.
async fn marks(queue: &RabbitQueue, body: &[u8]) -> u32 {
    let connection = queue.inner.consuming.connection().await.unwrap();
    queue.inner.marks.look(&connection, &Suspect::of(body)).await.unwrap().deaths
}

/// Puts a message among the suspects.
async fn suspect(options: &RabbitOptions, text: &str) {
    let (_connection, channel) = stranger(options.url.expose_secret()).await;
    let dead = format!("{}.dead", options.prefix);
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let published =
        channel.basic_publish("".into(), dead.into(), BasicPublishOptions::default(), text.as_bytes(), properties);
    published.await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_back_condemns_nobody_however_often() {
    let options = options(test_servers::rabbitmq().await.url());
    let (queue, _) = connect(&options).await;
    queue.publish(Lane::Live, Bytes::from("innocent")).await.unwrap();
    let mut deliveries = queue.deliveries(2);
    for count in 0..2 * MANY {
        assert!(!next(&mut deliveries).await.over_limit, "after {count} returns");
    }
    let last = next(&mut deliveries).await;
    assert!(!last.over_limit);
    last.settle.ack().await.unwrap();
    let (other, _) = connect(&options).await;
    assert_eq!(marks(&other, b"innocent").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_again_and_again_condemns_nobody() {
    let proxy = Proxy::before(test_servers::rabbitmq().await.address()).await;
    let options = options(format!("amqp://guest:guest@{}/%2f", proxy.address()));
    let (queue, _) = connect(&options).await;
    insist(&queue, Lane::Live, "innocent").await;
    let mut deliveries = queue.deliveries(2);
    let mut worked_on = Vec::new();
    for count in 0..MANY {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.over_limit, "after {count} cuts");
        // Work goes on, and its end comes too late.
        worked_on.push(delivery.settle);
        proxy.cut();
        if worked_on.len() > 1 {
            worked_on.remove(0).ack().await.unwrap_err();
        }
    }
    drop(worked_on);
    let last = next(&mut deliveries).await;
    assert!(!last.over_limit);
    last.settle.ack().await.unwrap();
    assert_eq!(marks(&queue, b"innocent").await, 0);
}

/// Why the queue is not as it should be.
fn trouble(queue: &RabbitQueue) -> Option<String> {
    queue.inner.publisher.link().trouble().or_else(|| queue.inner.consuming.trouble())
}

/// Returns once the queue is here, or away.
async fn becomes(queue: &RabbitQueue, is_here: bool) {
    while trouble(queue).is_none() != is_here {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_condemns_nobody_and_the_flow_goes_on_when_it_ends() {
    const CALLS: u64 = 6;
    let broker = RabbitMq::start().await;
    for setting in ["consumer_timeout, 2000", "channel_tick_interval, 500"] {
        broker.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]).await;
    }
    let (queue, metrics) = connect(&options(broker.url())).await;
    assert_eq!(trouble(&queue), None);
    for call in 0..CALLS {
        queue.publish(Lane::Live, number(call).encode().into()).await.unwrap();
    }
    let mut deliveries = queue.deliveries(4);
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    in_time(async {
        // The broker blocks a connection when it sees the next message of it.
        while trouble(&queue).is_none() {
            drop(timeout(Duration::from_millis(200), queue.publish(Lane::Backfill, Bytes::from("more"))).await);
        }
    })
    .await;
    assert!(trouble(&queue).unwrap().contains("takes no messages"));
    for delivery in held {
        let mut event = ContactEvent::decode(&delivery.body).unwrap();
        event.attempt = 1;
        drop(timeout(Duration::from_millis(1), delivery.settle.defer(&event, Duration::from_millis(1))).await);
    }
    // The broker's patience ends several times meanwhile, and heartbeats would be missed twice.
    let alarm = async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    };
    let mut taken = 0;
    let working = async {
        // Each has to be deferred, and none can.
        while let Some(delivery) = deliveries.next().await {
            if trouble(&queue).is_some() {
                taken += 1;
            }
            let delivery = delivery.unwrap();
            assert!(!delivery.over_limit);
            if delivery.body == "more" {
                delivery.settle.ack().await.ok();
                continue;
            }
            let mut event = ContactEvent::decode(&delivery.body).unwrap();
            if event.attempt == 0 {
                event.attempt = 1;
                drop(timeout(Duration::from_millis(1), delivery.settle.defer(&event, Duration::from_millis(1))).await);
            } else {
                return delivery;
            }
        }
        panic!("the stream goes on");
    };
    // The first that comes back deferred: the flow goes on.
    let (deferred, ()) = in_time(async { futures::join!(working, alarm) }).await;
    assert_eq!(taken, 0, "messages were taken while none could be deferred");
    assert_eq!(trouble(&queue), None);
    assert_eq!(metrics.reconnects.get(), 0);
    let mut seen = BTreeSet::from([ContactEvent::decode(&deferred.body).unwrap().conversation.to_string()]);
    deferred.settle.ack().await.ok();
    while seen.len() < CALLS as usize {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.over_limit);
        match ContactEvent::decode(&delivery.body) {
            Ok(mut event) if event.attempt == 0 => {
                event.attempt = 1;
                delivery.settle.defer(&event, Duration::from_millis(1)).await.ok();
            }
            Ok(event) => {
                seen.insert(event.conversation.to_string());
                delivery.settle.ack().await.ok();
            }
            Err(_) => drop(delivery.settle.ack().await),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_a_living_process_is_waited_for_before_it_counts_as_a_death() {
    let options = options(test_servers::rabbitmq().await.url());
    let (queue, _) = connect(&options).await;
    let (_connection, channel) = stranger(options.url.expose_secret()).await;
    let mark = |slot: u32| queue.inner.topology.mark(&Suspect::of(b"innocent").0, slot);
    for slot in 1..=PROBATION {
        let durable = ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(mark(slot), ExchangeKind::Direct, durable, FieldTable::default()).await.unwrap();
    }
    suspect(&options, "innocent").await;
    let mut deliveries = queue.deliveries(1);
    assert!(timeout(Duration::from_secs(2), deliveries.next()).await.is_err(), "it is waited for");
    channel.exchange_delete(mark(2), ExchangeDeleteOptions::default()).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert!(!delivery.over_limit);
    delivery.settle.ack().await.unwrap();
    let (other, _) = connect(&options).await;
    assert_eq!(marks(&other, b"innocent").await, 0, "nothing is left of a message that is done with");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_that_a_process_died_over_is_worked_on_alone() {
    let options = options(test_servers::rabbitmq().await.url());
    let (dying, _) = connect(&options).await;
    suspect(&options, "suspect").await;
    let mut deliveries = dying.deliveries(2);
    let worked_on = next(&mut deliveries).await;
    dying.sever();
    let (queue, _) = connect(&options).await;
    drop((worked_on, deliveries));
    assert_eq!(marks(&queue, b"suspect").await, 1);
    for text in ["one", "two", "three"] {
        queue.publish(Lane::Live, Bytes::from(text)).await.unwrap();
    }
    let mut deliveries = queue.deliveries(4);
    let mut seen = BTreeSet::new();
    let mut held = Vec::new();
    while seen.len() < 4 {
        match timeout(Duration::from_millis(500), deliveries.next()).await {
            Ok(delivery) => {
                let delivery = delivery.unwrap().unwrap();
                seen.insert(delivery.body.clone());
                let alone = held.is_empty();
                let is_suspect = delivery.body == "suspect";
                held.push(delivery);
                if is_suspect {
                    assert!(alone, "with neighbours");
                    assert!(timeout(Duration::from_millis(500), deliveries.next()).await.is_err(), "a neighbour comes");
                    held.remove(0).settle.ack().await.unwrap();
                }
            }
            // The suspect waits for its neighbours.
            Err(_) => {
                for delivery in held.drain(..) {
                    delivery.settle.ack().await.unwrap();
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_in_good_order_leaves_no_mark() {
    let options = options(test_servers::rabbitmq().await.url());
    drop(connect(&options).await);
    suspect(&options, "suspect").await;
    for count in 0..MANY {
        let (queue, _) = connect(&options).await;
        let mut deliveries = queue.deliveries(2);
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.over_limit, "after {count} ends");
        // Work that the grace period cut off, and a deferral that goes on in a task of its own, are held to the end.
        queue.close().await;
        delivery.settle.ack().await.unwrap_err();
        queue.publish(Lane::Live, Bytes::from("late")).await.unwrap_err();
    }
    let (queue, _) = connect(&options).await;
    assert_eq!(marks(&queue, b"suspect").await, 0);
    assert_eq!(next_text(&mut queue.deliveries(1)).await, "suspect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_the_broker_cancels_owns_nothing_any_more() {
    let options = options(test_servers::rabbitmq().await.url());
    let (queue, _) = connect(&options).await;
    queue.publish(Lane::Live, number(1).encode().into()).await.unwrap();
    queue.publish(Lane::Live, number(2).encode().into()).await.unwrap();
    queue.publish(Lane::Backfill, Bytes::from("backfill")).await.unwrap();
    let mut deliveries = queue.deliveries(3);
    let (one, two, backfill) = (next(&mut deliveries).await, next(&mut deliveries).await, next(&mut deliveries).await);
    assert!(!one.lost.is_cancelled());
    let (_connection, channel) = stranger(options.url.expose_secret()).await;
    channel.queue_delete(queue.inner.topology.lane(Lane::Live), QueueDeleteOptions::default()).await.unwrap();
    in_time(one.lost.cancelled()).await;
    one.settle.ack().await.unwrap_err();
    two.settle.defer(&number(2), Duration::from_millis(1)).await.unwrap_err();
    // What came on the same channel does not wait there for its time-out.
    assert_eq!(&backfill.body[..], b"backfill");
    backfill.settle.ack().await.unwrap_err();
    assert_eq!(next_text(&mut deliveries).await, "backfill");
    insist(&queue, Lane::Live, "after").await;
    read_until(&mut deliveries, "after").await;
    in_time(async { while queue.backlog().await.unwrap() != Backlog::default() {} }).await;
}

#[tokio::test]
async fn who_asks_a_broker_that_is_away_is_told_in_time() {
    let proxy = Proxy::before(test_servers::rabbitmq().await.address()).await;
    let (queue, _) = connect(&options(format!("amqp://guest:guest@{}/%2f", proxy.address()))).await;
    proxy.refuse(true);
    proxy.cut();
    in_time(becomes(&queue, false)).await;
    let away = trouble(&queue).unwrap();
    assert!(away.contains("no connection") && !away.contains("guest"), "{away}");
    // Whoever asks is told in time, whatever is away.
    timeout(ANSWER_TIMEOUT, queue.check()).await.expect("an answer").unwrap_err();
    timeout(ANSWER_TIMEOUT, queue.backlog()).await.expect("an answer").unwrap_err();
    proxy.refuse(false);
    in_time(becomes(&queue, true)).await;
    queue.publish(Lane::Live, Bytes::from("back")).await.unwrap();
}
