//! The broker passes the door's suite through links, and takes back what is not settled.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use model::{ContactId, EventSource};
use queue::{conformance::Subject, queue_checks};
use tokio::time::{sleep, timeout};

use super::*;
use crate::standins::{Condition, LinkOptions, Weather};

const DEAD_AFTER: Duration = Duration::from_secs(40);

struct Shared {
    broker: Broker,
    killed: Arc<AtomicBool>,
}

impl Subject for Shared {
    async fn fresh() -> Self {
        Self { broker: Broker::new(DEAD_AFTER), killed: Arc::default() }
    }

    fn queue(&self) -> Arc<dyn Queue> {
        let options = LinkOptions { latency: Duration::ZERO..Duration::ZERO, ..LinkOptions::broker() };
        Arc::new(self.broker.through(link(&Weather::clear(), 1, &self.killed, options)))
    }

    async fn crash(self) -> Self {
        self.killed.store(true, Ordering::SeqCst);
        Self { killed: Arc::default(), ..self }
    }
}

queue_checks!(Shared);

fn link(weather: &Weather, machine: u32, killed: &Arc<AtomicBool>, options: LinkOptions) -> Link {
    let killed = killed.clone();
    Link::new(weather.clone(), machine, machine.into(), options, move || killed.load(Ordering::SeqCst))
}

/// Two consumers of one broker.
struct World {
    broker: Broker,
    weather: Weather,
    killed: [Arc<AtomicBool>; 2],
    queues: [LinkedQueue; 2],
}

fn world() -> World {
    let (broker, weather) = (Broker::new(DEAD_AFTER), Weather::clear());
    let killed: [Arc<AtomicBool>; 2] = Default::default();
    let queues = [0, 1].map(|at| broker.through(link(&weather, at as u32, &killed[at], LinkOptions::broker())));
    World { broker, weather, killed, queues }
}

async fn publish(queue: &LinkedQueue, texts: &[&'static str]) {
    for text in texts {
        queue.publish(Lane::Live, Bytes::from_static(text.as_bytes())).await.unwrap();
    }
}

type Deliveries = BoxStream<'static, Result<QueueDelivery, QueueError>>;

async fn next(deliveries: &mut Deliveries) -> QueueDelivery {
    timeout(Duration::from_secs(120), deliveries.next()).await.expect("a delivery").unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_dead_consumers_messages_go_to_the_other_at_once_and_count() {
    let World { broker, killed, queues: [one, other], .. } = world();
    publish(&one, &["a", "b"]).await;
    let mut dying = one.deliveries(8);
    let held = [next(&mut dying).await, next(&mut dying).await];
    let mut deliveries = other.deliveries(8);
    assert!(timeout(Duration::from_secs(600), deliveries.next()).await.is_err(), "each has one owner");
    killed[0].store(true, Ordering::SeqCst);
    drop((held, dying, one));
    for expected in ["a", "b"] {
        let delivery = timeout(Duration::from_secs(1), deliveries.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(&delivery.body[..], expected.as_bytes());
        assert_eq!(
            broker.messages().iter().filter(|message| message.deaths == 1).count(),
            if expected == "a" { 2 } else { 1 }
        );
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(broker.messages(), []);
}

#[tokio::test(start_paused = true)]
async fn what_a_cut_off_consumer_holds_is_taken_back_after_a_while_and_counts_for_nothing() {
    let World { broker, weather, queues: [one, other], .. } = world();
    publish(&one, &["a"]).await;
    let mut cut_off = one.deliveries(1);
    let held = next(&mut cut_off).await;
    let mut deliveries = other.deliveries(1);
    let spell = weather.begin_for(0, Condition::Silent);
    let since = Instant::now();
    let again = next(&mut deliveries).await;
    assert!(since.elapsed() + DEAD_AFTER / 4 >= DEAD_AFTER, "{:?}", since.elapsed());
    sleep(DEAD_AFTER).await;
    assert!(held.lost.is_cancelled() && !again.lost.is_cancelled(), "who has lost it knows");
    drop(spell);
    assert!(held.settle.ack().await.is_err());
    assert_eq!(broker.messages().len(), 1);
    again.settle.ack().await.unwrap();
    assert_eq!(broker.messages(), []);
    // The stream goes on by itself.
    publish(&other, &["b"]).await;
    drop(deliveries);
    next(&mut cut_off).await.settle.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_gives_nothing_and_takes_everything_back() {
    let World { broker, weather, queues: [one, other], .. } = world();
    publish(&one, &["a", "b"]).await;
    let mut deliveries = one.deliveries(1);
    let held = next(&mut deliveries).await;
    let spell = weather.begin(Condition::Away);
    assert!(other.publish(Lane::Live, Bytes::from_static(b"c")).await.is_err());
    timeout(DEAD_AFTER / 4 + Duration::from_secs(1), held.lost.cancelled()).await.unwrap();
    drop(held);
    assert!(timeout(Duration::from_secs(3600), deliveries.next()).await.is_err());
    drop(spell);
    let mut texts = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        texts.push(delivery.body.clone());
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(texts, ["a", "b"]);
    assert_eq!(broker.messages(), []);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_does_not_arrive_brings_the_message_again() {
    let World { broker, weather, queues: [one, _], .. } = world();
    publish(&one, &["a"]).await;
    let mut deliveries = one.deliveries(1);
    let delivery = next(&mut deliveries).await;
    let spell = weather.begin(Condition::Silent);
    delivery.settle.ack().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(spell);
    let again = next(&mut deliveries).await;
    assert_eq!(broker.messages()[0].deaths, 0);
    again.settle.ack().await.unwrap();
    assert_eq!(broker.messages(), []);
}

#[tokio::test(start_paused = true)]
async fn a_full_broker_takes_nothing_and_gives_nothing_out() {
    let World { broker, weather, queues: [one, other], .. } = world();
    publish(&one, &["a"]).await;
    let full = weather.begin(Condition::Full);
    assert!(one.publish(Lane::Live, Bytes::from_static(b"b")).await.is_err() && other.check().await.is_err());
    let mut deliveries = other.deliveries(1);
    assert!(timeout(Duration::from_secs(600), deliveries.next()).await.is_err());
    assert_eq!(one.backlog().await.unwrap().live, 1);
    drop(full);
    next(&mut deliveries).await.settle.ack().await.unwrap();
    assert_eq!(broker.messages(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_deferred_without_an_answer_comes_twice_never_not_at_all() {
    let World { broker, weather, queues: [one, _], .. } = world();
    let event = ContactEvent::new("acme".parse().unwrap(), ContactId::from_number(1).unwrap(), EventSource::Poll);
    let mut most = 0;
    for _ in 0..40 {
        one.publish(Lane::Live, event.encode().into()).await.unwrap();
        let mut deliveries = one.deliveries(1);
        let delivery = next(&mut deliveries).await;
        let spell = weather.begin(Condition::Refuses(0.5));
        let deferred = delivery.settle.defer(&event, Duration::from_secs(60)).await;
        drop(spell);
        let messages = broker.messages().len();
        assert!(messages >= 1 && (deferred.is_err() || messages == 1), "{messages}");
        most = most.max(messages);
        for _ in 0..messages {
            next(&mut deliveries).await.settle.ack().await.unwrap();
        }
    }
    assert_eq!(most, 2);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_ends_in_good_order_hands_back_without_a_count() {
    let World { broker, queues: [one, other], .. } = world();
    publish(&one, &["a"]).await;
    let mut ending = one.deliveries(1);
    let held = next(&mut ending).await;
    one.close().await;
    let mut deliveries = other.deliveries(1);
    let delivery = next(&mut deliveries).await;
    assert_eq!(broker.messages()[0].deaths, 0);
    assert!(held.settle.ack().await.is_err());
    assert!(ending.next().now_or_never().is_none());
    delivery.settle.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn suspects_come_alone_and_after_the_others() {
    let World { broker, queues: [_, other], weather, .. } = world();
    publish(&other, &["s", "t"]).await;
    for machine in 10..13 {
        let killed = Arc::new(AtomicBool::new(false));
        let dying = broker.through(link(&weather, machine, &killed, LinkOptions::broker()));
        let mut deliveries = dying.deliveries(2);
        let held = [next(&mut deliveries).await, next(&mut deliveries).await];
        killed.store(true, Ordering::SeqCst);
        drop((held, deliveries));
    }
    publish(&other, &["innocent"]).await;
    let mut deliveries = other.deliveries(3);
    let innocent = next(&mut deliveries).await;
    assert_eq!(innocent.body, "innocent");
    let suspects = broker.messages().into_iter().filter(|message| message.deaths == SUSPECT);
    assert_eq!(suspects.count(), 2);
    let first = next(&mut deliveries).await;
    assert_eq!(first.body, "s");
    assert!(timeout(Duration::from_secs(600), deliveries.next()).await.is_err(), "the other waits for it");
    first.settle.ack().await.unwrap();
    assert_eq!(next(&mut deliveries).await.body, "t");
}
