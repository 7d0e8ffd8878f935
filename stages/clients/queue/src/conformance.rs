//! What every queue must do, whatever stands behind the door: one named check for each promise.
//!
//! An implementation writes a [`Subject`] and calls `queue_checks!(TheSubject);` in its tests, with attributes
//! before the name where a server is needed: `queue_checks!(#[ignore = "needs a broker"] TheSubject);`.
//!
//! A check waits as long as it takes, and never concludes anything from speed: a slow machine may make a check
//! see less, never make it fail.

#![allow(missing_docs, reason = "the name of a check is its promise")]
#![allow(async_fn_in_trait, reason = "a check runs on the thread that awaits it")]
#![allow(clippy::unwrap_used, reason = "these are tests, wherever they are compiled")]
#![allow(clippy::disallowed_methods, reason = "real servers are waited for in real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use model::{ContactEvent, EventSource, Lane};
use runtime::task;

use super::{Backlog, DELIVERY_LIMIT, Queue, QueueDelivery, QueueError};

/// Ends a check that would hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must come for a check to believe that nothing comes.
const QUIET: Duration = Duration::from_millis(150);

/// How much earlier than asked a delayed message may come: the resolution of brokers' timers.
const RESOLUTION: Duration = Duration::from_millis(2);

/// A delay that no check outlives.
const AN_HOUR: Duration = Duration::from_secs(3600);

/// A queue under test.
pub trait Subject: Sized {
    /// Whether it can be had on this machine; who says no prints why.
    async fn is_here() -> bool {
        true
    }

    /// A queue of its own, empty.
    async fn fresh() -> Self;

    /// The queue.
    fn queue(&self) -> Arc<dyn Queue>;

    /// The process dies without a word, and another one opens the same queue. Deliveries that are still held
    /// belong to the dead process.
    async fn crash(self) -> Self;
}

/// Makes one test of each check.
#[macro_export]
macro_rules! queue_checks {
    ($(#[$attribute:meta])* $subject:ident) => {
        $crate::conformance::queue_checks!(
            @each [$(#[$attribute])*] $subject:
            a_message_is_delivered_until_it_is_acknowledged,
            bodies_arrive_as_they_were_sent,
            a_dropped_delivery_comes_again,
            a_delivery_outlives_the_stream_it_came_from,
            published_messages_survive_a_crash,
            unsettled_messages_survive_a_crash,
            messages_keep_their_order,
            live_goes_before_backfill,
            a_delayed_message_does_not_come_before_its_time,
            a_deferred_message_is_one_message_with_the_changed_event,
            a_deferred_message_survives_a_crash_as_one,
            a_delay_does_not_hold_up_what_is_due,
            the_prefetch_bounds_what_is_unsettled,
            a_message_that_crashes_its_reader_is_over_the_limit_in_the_end,
            ten_thousand_messages_are_delivered_once_each,
            the_backlog_counts_each_message_in_one_place,
            a_waiting_reader_wakes_up,
            the_queue_answers,
        );
    };
    (@each $attributes:tt $subject:ident: $($check:ident,)*) => {
        $($crate::conformance::queue_checks!(@one $attributes $subject $check);)*
    };
    (@one [$($attributes:tt)*] $subject:ident $check:ident) => {
        $($attributes)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            if <$subject as $crate::conformance::Subject>::is_here().await {
                $crate::conformance::$check::<$subject>().await;
            }
        }
    };
}
pub use queue_checks;

type Deliveries = BoxStream<'static, Result<QueueDelivery, QueueError>>;

async fn next(deliveries: &mut Deliveries) -> QueueDelivery {
    let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("a delivery");
    delivery.expect("the stream goes on").expect("the queue works")
}

async fn next_text(deliveries: &mut Deliveries) -> String {
    let delivery = next(deliveries).await;
    let text = String::from_utf8(delivery.body.to_vec()).unwrap();
    delivery.settle.ack().await.unwrap();
    text
}

async fn assert_quiet(deliveries: &mut Deliveries) {
    let delivery = tokio::time::timeout(QUIET, deliveries.next()).await;
    assert!(delivery.is_err(), "nothing more was to come");
}

async fn publish(queue: &Arc<dyn Queue>, lane: Lane, texts: impl IntoIterator<Item = impl ToString>) {
    for text in texts {
        queue.publish(lane, Bytes::from(text.to_string())).await.unwrap();
    }
}

/// The backlog, as soon as it is as expected: a broker may count with a delay.
async fn assert_backlog(queue: &Arc<dyn Queue>, expected: Backlog) {
    let since = Instant::now();
    loop {
        let backlog = queue.backlog().await.unwrap();
        if backlog == expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{backlog:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn event(source: EventSource) -> ContactEvent {
    let mut event = ContactEvent::new("acme".parse().unwrap(), "698800000001".parse().unwrap(), source);
    event.further.insert("priority".to_owned(), serde_json::json!({ "of": [7, "ü"] }));
    event
}

pub async fn a_message_is_delivered_until_it_is_acknowledged<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    let mut deliveries = queue.deliveries(8);
    assert_quiet(&mut deliveries).await;
    publish(&queue, Lane::Live, ["one"]).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!((&delivery.body[..], delivery.over_limit), (&b"one"[..], false));
    assert_quiet(&mut deliveries).await;
    delivery.settle.ack().await.unwrap();
    assert_quiet(&mut deliveries).await;
    drop(deliveries);
    assert_quiet(&mut queue.deliveries(8)).await;
    assert_backlog(&queue, Backlog::default()).await;
}

pub async fn bodies_arrive_as_they_were_sent<S: Subject>() {
    let queue_of = S::fresh().await;
    let queue = queue_of.queue();
    let all: Vec<u8> = (0..=255).collect();
    let bodies = [Bytes::new(), Bytes::from_static(b"\0\0\0\0"), Bytes::from(all), Bytes::from(vec![7; 64 * 1024])];
    for body in &bodies {
        queue.publish(Lane::Live, body.clone()).await.unwrap();
    }
    let mut deliveries = queue.deliveries(1);
    let mut arrived = BTreeSet::new();
    for _ in &bodies {
        let delivery = next(&mut deliveries).await;
        arrived.insert(delivery.body);
        delivery.settle.ack().await.unwrap();
    }
    assert_eq!(arrived, bodies.into());
}

pub async fn a_dropped_delivery_comes_again<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    publish(&queue, Lane::Live, ["one"]).await;
    publish(&queue, Lane::Backfill, ["two"]).await;
    let mut deliveries = queue.deliveries(2);
    for _ in 0..3 {
        let (first, second) = (next(&mut deliveries).await, next(&mut deliveries).await);
        let bodies = BTreeSet::from([first.body.clone(), second.body.clone()]);
        assert_eq!(bodies, BTreeSet::from([Bytes::from("one"), Bytes::from("two")]));
        drop((first, second));
    }
    let texts = BTreeSet::from([next_text(&mut deliveries).await, next_text(&mut deliveries).await]);
    assert_eq!(texts.len(), 2);
    assert_quiet(&mut deliveries).await;
}

pub async fn a_delivery_outlives_the_stream_it_came_from<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    publish(&queue, Lane::Live, ["one", "two", "three"]).await;
    let mut deliveries = queue.deliveries(2);
    let (first, second) = (next(&mut deliveries).await, next(&mut deliveries).await);
    drop(deliveries);
    let mut texts = BTreeSet::from([String::from_utf8(first.body.to_vec()).unwrap()]);
    first.settle.ack().await.unwrap();
    drop(second);
    let mut deliveries = queue.deliveries(8);
    for _ in 0..2 {
        assert!(texts.insert(next_text(&mut deliveries).await));
    }
    assert_eq!(texts.len(), 3);
    assert_quiet(&mut deliveries).await;
}

pub async fn published_messages_survive_a_crash<S: Subject>() {
    let mut subject = S::fresh().await;
    let queue = subject.queue();
    let publishes = (0..100).map(|number| {
        let queue = queue.clone();
        let lane = if number % 2 == 0 { Lane::Live } else { Lane::Backfill };
        async move { queue.publish(lane, Bytes::from(number.to_string())).await.unwrap() }
    });
    futures::future::join_all(publishes).await;
    drop(queue);
    subject = subject.crash().await;
    let mut deliveries = subject.queue().deliveries(100);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        assert!(seen.insert(next_text(&mut deliveries).await));
    }
    assert_quiet(&mut deliveries).await;
}

pub async fn unsettled_messages_survive_a_crash<S: Subject>() {
    let mut subject = S::fresh().await;
    let queue = subject.queue();
    publish(&queue, Lane::Live, ["one", "two", "three"]).await;
    let mut deliveries = queue.deliveries(2);
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    drop(queue);
    subject = subject.crash().await;
    drop((held, deliveries));
    let mut deliveries = subject.queue().deliveries(8);
    let mut texts = BTreeSet::new();
    for _ in 0..3 {
        assert!(texts.insert(next_text(&mut deliveries).await));
    }
    assert_quiet(&mut deliveries).await;
}

/// Of one conversation: a queue may divide the others.
pub async fn messages_keep_their_order<S: Subject>() {
    let mut subject = S::fresh().await;
    let mut message = event(EventSource::Poll);
    for half in [0..100, 100..200] {
        for attempt in half {
            message.attempt = attempt;
            subject.queue().publish(Lane::Live, message.encode().into()).await.unwrap();
        }
        subject = subject.crash().await;
    }
    let mut deliveries = subject.queue().deliveries(16);
    for attempt in 0..200 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(ContactEvent::decode(&delivery.body).unwrap().attempt, attempt);
        delivery.settle.ack().await.unwrap();
    }
}

pub async fn live_goes_before_backfill<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    publish(&queue, Lane::Backfill, ["b1", "b2", "b3"]).await;
    publish(&queue, Lane::Live, ["l1", "l2"]).await;
    let mut deliveries = queue.deliveries(1);
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(next_text(&mut deliveries).await);
    }
    assert_eq!(texts.iter().map(|text| &text[..1]).collect::<String>(), "llb", "{texts:?}");
    drop(deliveries);
    publish(&queue, Lane::Live, ["l3"]).await;
    let mut deliveries = queue.deliveries(1);
    assert_eq!(next_text(&mut deliveries).await, "l3");
    for _ in 0..2 {
        texts.push(next_text(&mut deliveries).await);
    }
    texts.sort();
    assert_eq!(texts, ["b1", "b2", "b3", "l1", "l2"]);
}

pub async fn a_delayed_message_does_not_come_before_its_time<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    let mut deliveries = queue.deliveries(8);
    let since = Instant::now();
    for millis in [600, 150, 300] {
        let delay = Duration::from_millis(millis);
        queue.publish_delayed(Lane::Live, Bytes::from(millis.to_string()), delay).await.unwrap();
    }
    queue.publish_delayed(Lane::Live, Bytes::from("0"), Duration::ZERO).await.unwrap();
    queue.publish_delayed(Lane::Live, Bytes::from("never"), AN_HOUR).await.unwrap();
    let mut arrived = BTreeMap::new();
    for _ in 0..4 {
        let millis: u64 = next_text(&mut deliveries).await.parse().unwrap();
        arrived.insert(millis, since.elapsed());
    }
    for (millis, took) in &arrived {
        assert!(*took + RESOLUTION >= Duration::from_millis(*millis), "{millis} came after {took:?}");
    }
    assert_eq!(arrived.len(), 4, "each once");
    assert_quiet(&mut deliveries).await;
}

pub async fn a_deferred_message_is_one_message_with_the_changed_event<S: Subject>() {
    for source in [EventSource::Poll, EventSource::Backfill] {
        let subject = S::fresh().await;
        let queue = subject.queue();
        let mut deliveries = queue.deliveries(1);
        queue.publish(Lane::of(&event(source)), event(source).encode().into()).await.unwrap();
        let delay = Duration::from_millis(300);
        let mut expected = event(source);
        for attempt in 1..=2 {
            let delivery = next(&mut deliveries).await;
            assert_eq!(ContactEvent::decode(&delivery.body).unwrap(), expected);
            expected.attempt = attempt;
            let since = Instant::now();
            delivery.settle.defer(&expected, delay).await.unwrap();
            let again = next(&mut deliveries).await;
            assert!(since.elapsed() + RESOLUTION >= delay, "came after {:?}", since.elapsed());
            drop(again);
        }
        let delivery = next(&mut deliveries).await;
        assert_eq!(ContactEvent::decode(&delivery.body).unwrap(), expected);
        delivery.settle.ack().await.unwrap();
        assert_quiet(&mut deliveries).await;
        assert_backlog(&queue, Backlog::default()).await;
    }
}

pub async fn a_deferred_message_survives_a_crash_as_one<S: Subject>() {
    let mut subject = S::fresh().await;
    let queue = subject.queue();
    queue.publish(Lane::Live, event(EventSource::Poll).encode().into()).await.unwrap();
    let mut deliveries = queue.deliveries(1);
    let mut changed = event(EventSource::Poll);
    changed.attempt = 1;
    next(&mut deliveries).await.settle.defer(&changed, Duration::from_millis(10)).await.unwrap();
    // The crash comes after the queue has taken note of it.
    queue.check().await.unwrap();
    drop((queue, deliveries));
    subject = subject.crash().await;
    let mut deliveries = subject.queue().deliveries(8);
    let delivery = next(&mut deliveries).await;
    assert_eq!(ContactEvent::decode(&delivery.body).unwrap(), changed);
    assert_quiet(&mut deliveries).await;
}

pub async fn a_delay_does_not_hold_up_what_is_due<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    for number in 0..20 {
        queue.publish_delayed(Lane::Live, Bytes::from(number.to_string()), AN_HOUR).await.unwrap();
    }
    publish(&queue, Lane::Backfill, ["due"]).await;
    let mut deliveries = queue.deliveries(2);
    assert_eq!(next_text(&mut deliveries).await, "due");
    assert_backlog(&queue, Backlog { delayed: 20, ..Backlog::default() }).await;
}

pub async fn the_prefetch_bounds_what_is_unsettled<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    publish(&queue, Lane::Live, 0..10).await;
    let mut deliveries = queue.deliveries(3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut deliveries).await);
    }
    assert_quiet(&mut deliveries).await;
    held.remove(0).settle.ack().await.unwrap();
    held.push(next(&mut deliveries).await);
    assert_quiet(&mut deliveries).await;
    let changed = event(EventSource::Poll);
    held.remove(0).settle.defer(&changed, AN_HOUR).await.unwrap();
    held.push(next(&mut deliveries).await);
    assert_quiet(&mut deliveries).await;
    let handed_back = held.remove(0);
    let body = handed_back.body.clone();
    drop(handed_back);
    let mut seen = vec![next(&mut deliveries).await];
    assert_quiet(&mut deliveries).await;
    while seen.last().is_some_and(|delivery| delivery.body != body) {
        seen.pop().unwrap().settle.ack().await.unwrap();
        seen.push(next(&mut deliveries).await);
    }
}

pub async fn a_message_that_crashes_its_reader_is_over_the_limit_in_the_end<S: Subject>() {
    let mut subject = S::fresh().await;
    publish(&subject.queue(), Lane::Live, ["poison"]).await;
    for count in 1..=DELIVERY_LIMIT {
        let queue = subject.queue();
        let mut deliveries = queue.deliveries(1);
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.over_limit, "after {count} deliveries");
        // The crash comes after the queue has taken note of the delivery.
        queue.check().await.unwrap();
        drop(queue);
        subject = subject.crash().await;
        drop((delivery, deliveries));
    }
    publish(&subject.queue(), Lane::Live, ["neighbour"]).await;
    let mut deliveries = subject.queue().deliveries(2);
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.over_limit, &delivery.body[..] == b"poison");
        delivery.settle.ack().await.unwrap();
    }
    assert_quiet(&mut deliveries).await;
}

pub async fn ten_thousand_messages_are_delivered_once_each<S: Subject>() {
    const MESSAGES: usize = 10_000;
    const PREFETCH: usize = 64;
    let subject = S::fresh().await;
    let queue = subject.queue();
    let publishing = {
        let queue = queue.clone();
        task::spawn("publisher", async move {
            stream::iter(0..MESSAGES)
                .for_each_concurrent(256, |number| {
                    let lane = if number % 10 == 0 { Lane::Backfill } else { Lane::Live };
                    let queue = queue.clone();
                    async move { queue.publish(lane, Bytes::from(number.to_string())).await.unwrap() }
                })
                .await;
        })
    };
    let (unsettled, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let readers = (0..4).map(|_| {
        let (queue, unsettled, arrived) = (queue.clone(), unsettled.clone(), arrived.clone());
        task::spawn("reader", async move {
            let mut seen = Vec::new();
            let mut deliveries = queue.deliveries(PREFETCH).map(|delivery| {
                let delivery = delivery.unwrap();
                assert!(unsettled.fetch_add(1, Ordering::SeqCst) < 4 * PREFETCH, "more unsettled than the prefetch");
                let unsettled = &unsettled;
                async move {
                    // Lets deliveries and acknowledgements of many readers interleave.
                    tokio::task::yield_now().await;
                    unsettled.fetch_sub(1, Ordering::SeqCst);
                    delivery.settle.ack().await.unwrap();
                    String::from_utf8(delivery.body.to_vec()).unwrap()
                }
            });
            let mut acknowledged = std::pin::pin!(deliveries.by_ref().buffer_unordered(PREFETCH));
            let mut last = Instant::now();
            loop {
                match tokio::time::timeout(QUIET, acknowledged.next()).await {
                    Ok(text) => {
                        arrived.fetch_add(1, Ordering::SeqCst);
                        seen.push(text.expect("the stream goes on"));
                        last = Instant::now();
                    }
                    // Whatever comes after the last one came twice.
                    Err(_) if arrived.load(Ordering::SeqCst) >= MESSAGES || last.elapsed() > PATIENCE => return seen,
                    Err(_) => {}
                }
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    publishing.await.unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    for reader in readers {
        for text in reader.await.unwrap() {
            *counts.entry(text).or_default() += 1;
        }
    }
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "delivered more than once: {repeated:?}");
    assert_eq!(counts.len(), MESSAGES);
    assert_backlog(&queue, Backlog::default()).await;
}

pub async fn the_backlog_counts_each_message_in_one_place<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    assert_backlog(&queue, Backlog::default()).await;
    publish(&queue, Lane::Live, 0..3).await;
    publish(&queue, Lane::Backfill, 0..2).await;
    for lane in [Lane::Live, Lane::Backfill] {
        queue.publish_delayed(lane, Bytes::from("later"), AN_HOUR).await.unwrap();
    }
    assert_backlog(&queue, Backlog { live: 3, backfill: 2, delayed: 2, in_flight: 0 }).await;
    let mut deliveries = queue.deliveries(1);
    let first = next(&mut deliveries).await;
    assert_backlog(&queue, Backlog { live: 2, backfill: 2, delayed: 2, in_flight: 1 }).await;
    first.settle.defer(&event(EventSource::Poll), AN_HOUR).await.unwrap();
    assert_backlog(&queue, Backlog { live: 2, backfill: 2, delayed: 3, in_flight: 0 }).await;
    drop(next(&mut deliveries).await);
    drop(deliveries);
    assert_backlog(&queue, Backlog { live: 2, backfill: 2, delayed: 3, in_flight: 0 }).await;
}

pub async fn a_waiting_reader_wakes_up<S: Subject>() {
    let subject = S::fresh().await;
    let queue = subject.queue();
    let mut deliveries = queue.deliveries(1);
    // A queue that only looks now and then would take many times the patience for all of these.
    let rounds = async {
        for round in 0..200 {
            let (text, ()) = futures::join!(next_text(&mut deliveries), publish(&queue, Lane::Live, [round]));
            assert_eq!(text, round.to_string());
        }
    };
    tokio::time::timeout(PATIENCE, rounds).await.expect("a waiting reader learns of a message when it comes");
}

pub async fn the_queue_answers<S: Subject>() {
    S::fresh().await.queue().check().await.unwrap();
}
