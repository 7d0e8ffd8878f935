//! One delivery for each conversation, whatever repeats and whatever dies.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use flow::{Deferral, FlowExt, testing::event};
use futures::{stream, stream::BoxStream};
use model::{AgentId, Conversation, ConversationKey, DeadLetter, Hop, Unmetered};
use queue::{EmbeddedQueue, Queue};
use runtime::Clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::enqueue::Enqueue;
use crate::source::{compare::Compare, test_nice::settings_of};
use crate::tenants::Tenants;
use crate::testing::TestFlow;

/// The hot window of these tests.
const RETENTION: Duration = Duration::from_secs(3 * 24 * 3600);

/// How long nothing must come for a test to believe that nothing comes.
const QUIET: Duration = Duration::from_millis(100);

/// A dedupe that a test feeds, and the receipts that were settled.
struct Subject {
    flow: TestFlow,
    feed: mpsc::Sender<FoundEvent>,
    passed: BoxStream<'static, Delivery>,
    settled: Arc<Mutex<Vec<u64>>>,
}

impl Subject {
    fn new() -> Self {
        Self::of(|_| None)
    }

    /// One that takes over from another producer.
    fn of(foreign: impl FnOnce(&TestFlow) -> Option<Foreign>) -> Self {
        let flow = TestFlow::new(8);
        let foreign = foreign(&flow);
        let (feed, found) = mpsc::channel(64);
        let processed = flow.state.state.processed().clone();
        let found = ReceiverStream::new(found);
        let passed = dedupe_after(foreign, found, processed, RETENTION, &flow.context).boxed();
        Self { flow, feed, passed, settled: Arc::default() }
    }

    async fn find(&self, event: ContactEvent) {
        let (settled, id) = (self.settled.clone(), event.conversation.get());
        let receipt = Receipt::new(move || settled.lock().unwrap().push(id));
        self.feed.send(FoundEvent::new(event, receipt)).await.unwrap();
    }

    async fn next(&mut self) -> Delivery {
        let delivery = tokio::time::timeout(Duration::from_secs(60), self.passed.next()).await;
        delivery.expect("a delivery").expect("the stream goes on")
    }

    async fn assert_quiet(&mut self) {
        let more = tokio::time::timeout(QUIET, self.passed.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    fn settled(&self) -> Vec<u64> {
        self.settled.lock().unwrap().clone()
    }
}

async fn save_row(flow: &TestFlow, event: &ContactEvent) {
    let ended_at = event.ended_at.unwrap();
    let conversation = Conversation {
        tenant: event.tenant.clone(),
        external_id: event.conversation,
        source: event.source,
        lane: model::Lane::of(event),
        master: event.conversation,
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at,
        ended_at,
        direction: None,
        customer_number: None,
        metadata: serde_json::json!({}),
    };
    flow.context.catalog.save_metadata(&conversation).await.unwrap();
}

#[tokio::test]
async fn an_event_passes_once() {
    let mut subject = Subject::new();
    subject.find(event(1)).await;
    let delivery = subject.next().await;
    assert_eq!(delivery.event, event(1));
    assert!(subject.settled().is_empty());
    delivery.ack().await.unwrap();
    assert_eq!(subject.settled(), [1]);
    subject.find(event(1)).await;
    subject.assert_quiet().await;
    assert_eq!(subject.settled(), [1, 1], "the source of the repeat is told at once");
    assert_eq!((subject.flow.finished("dedupe", "ok"), subject.flow.finished("dedupe", "done")), (1, 1));
}

#[tokio::test]
async fn a_repeat_in_flight_is_settled_by_the_commit_of_the_first() {
    let mut subject = Subject::new();
    for _ in 0..3 {
        subject.find(event(1)).await;
    }
    subject.find(event(2)).await;
    let (first, other) = (subject.next().await, subject.next().await);
    let (first, other) = if first.event == event(1) { (first, other) } else { (other, first) };
    assert_eq!(other.event, event(2), "a repeat holds up nobody");
    subject.assert_quiet().await;
    assert!(subject.settled().is_empty(), "a repeat is not safe before the first is");
    first.ack().await.unwrap();
    subject.assert_quiet().await;
    assert_eq!(subject.settled(), [1, 1, 1]);
    drop(other);
    assert_eq!(subject.settled(), [1, 1, 1], "a receipt is not settled by handing back");
}

#[tokio::test]
async fn a_repeat_takes_the_place_of_a_first_one_that_was_handed_back() {
    let mut subject = Subject::new();
    for _ in 0..3 {
        subject.find(event(1)).await;
    }
    for _ in 0..2 {
        let delivery = subject.next().await;
        subject.assert_quiet().await;
        drop(delivery);
    }
    let third = subject.next().await;
    assert!(subject.settled().is_empty());
    third.ack().await.unwrap();
    assert_eq!(subject.settled(), [1]);
    subject.assert_quiet().await;
}

#[tokio::test]
async fn a_deferred_event_is_left_to_its_source() {
    let mut subject = Subject::new();
    subject.find(event(1)).await;
    subject.next().await.defer(Deferral::AsItIs, Duration::from_secs(3600), jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    assert!(subject.settled().is_empty());
    subject.find(event(1)).await;
    subject.next().await.ack().await.unwrap();
    assert_eq!(subject.settled(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_settled_only_once_the_claim_survives_a_crash() {
    let TestFlow { state, context } = TestFlow::new(8);
    let processed = state.state.processed().clone();
    let digest = event(1).key().digest();
    let survived = Arc::new(Mutex::new(None));
    let receipt = Receipt::new({
        let survived = survived.clone();
        move || *survived.lock().unwrap() = Some(state.crashed().state.processed().contains(&digest))
    });
    let found = stream::iter([FoundEvent::new(event(1), receipt)]);
    let mut passed = dedupe(found, processed, RETENTION, &context).boxed();
    let delivery = passed.next().await.unwrap();
    assert_eq!(*survived.lock().unwrap(), None);
    delivery.ack().await.unwrap();
    assert_eq!(*survived.lock().unwrap(), Some(true));
}

#[tokio::test]
async fn a_claim_that_was_not_committed_dies_with_the_process() {
    let mut subject = Subject::new();
    subject.find(event(1)).await;
    let held = subject.next().await;
    subject.flow.state.state.store().commit().await.unwrap();
    let crashed = subject.flow.state.crashed();
    assert!(!crashed.state.processed().contains(&event(1).key().digest()));
    drop(held);
}

#[tokio::test]
async fn beyond_the_hot_window_the_catalog_decides() {
    let mut subject = Subject::new();
    let old = |id| ContactEvent { ended_at: Some("2026-03-20T12:00:00Z".parse().unwrap()), ..event(id) };
    save_row(&subject.flow, &old(1)).await;
    subject.find(old(1)).await;
    subject.assert_quiet().await;
    assert_eq!(subject.settled(), [1], "a row stands");
    subject.find(old(2)).await;
    assert_eq!(subject.next().await.event, old(2), "no row stands");
    // Within the window the log decides; who asks for a replay of a row wants it.
    save_row(&subject.flow, &event(3)).await;
    subject.find(event(3)).await;
    assert_eq!(subject.next().await.event, event(3));
    // Without an end nobody can tell; the consumer will.
    let endless = ContactEvent { ended_at: None, ..event(4) };
    subject.find(endless.clone()).await;
    assert_eq!(subject.next().await.event, endless);
}

#[tokio::test]
async fn a_store_that_failed_settles_nothing() {
    let mut subject = Subject::new();
    subject.find(event(1)).await;
    let delivery = subject.next().await;
    subject.flow.state.state.store().close().await.unwrap();
    assert!(delivery.ack().await.is_err());
    assert!(subject.settled().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_repeats_each_conversation_is_queued_once() {
    const CONVERSATIONS: u64 = 300;
    let flow = TestFlow::new(8);
    let queue = EmbeddedQueue::open(flow.state.state.store(), Clock::system()).unwrap();
    let settled = Arc::new(AtomicUsize::new(0));
    let found = stream::iter((0..5 * CONVERSATIONS).map({
        let settled = settled.clone();
        // Repeats come close together and far apart.
        move |number| {
            let settled = settled.clone();
            let receipt = Receipt::new(move || {
                settled.fetch_add(1, Ordering::SeqCst);
            });
            FoundEvent::new(event(1 + number * number % CONVERSATIONS), receipt)
        }
    }));
    let stage = Enqueue {
        queue: Arc::new(queue.clone()),
        fresh: Duration::from_secs(3600),
        clock: flow.context.flow.clock.clone(),
    };
    let processed = flow.state.state.processed().clone();
    dedupe(found, processed.clone(), RETENTION, &flow.context)
        .insist(stage, &flow.context.flow)
        .settle(&flow.context.flow)
        .await;
    let distinct: std::collections::BTreeSet<_> =
        (0..5 * CONVERSATIONS).map(|number| 1 + number * number % CONVERSATIONS).collect();
    assert_eq!(settled.load(Ordering::SeqCst) as u64, 5 * CONVERSATIONS);
    assert_eq!(queue.backlog().await.unwrap().live as usize, distinct.len());
    assert_eq!((processed.len(), processed.in_flight()), (distinct.len(), 0));
    let crashed = flow.state.crashed();
    assert!(distinct.iter().all(|id| {
        let key = ConversationKey { tenant: "acme".parse().unwrap(), external_id: id.to_string().parse().unwrap() };
        crashed.state.processed().contains(&key.digest())
    }));
}

#[tokio::test]
async fn what_a_webhook_told_passes_again_when_the_poll_finds_it_after_an_hour() {
    for (minutes, passes) in [(59, false), (61, true)] {
        let mut subject = Subject::new();
        let told = ContactEvent { source: EventSource::Webhook, ..event(1) };
        subject.find(told.clone()).await;
        subject.next().await.ack().await.unwrap();
        subject.flow.context.flow.clock.advance(jiff::SignedDuration::from_mins(minutes));
        subject.find(told).await;
        subject.assert_quiet().await;
        subject.find(event(1)).await;
        if passes {
            subject.next().await.ack().await.unwrap();
        }
        subject.find(event(1)).await;
        subject.assert_quiet().await;
    }
}

#[tokio::test]
async fn what_was_dropped_by_half_a_record_passes_again_when_the_poll_finds_it_with_its_agent() {
    let hop = |stage: &str, outcome: &str, detail: Option<&str>| Hop {
        at: jiff::Timestamp::UNIX_EPOCH,
        stage: stage.to_owned(),
        outcome: outcome.to_owned(),
        attempt: 0,
        took_millis: 0,
        detail: detail.map(str::to_owned),
    };
    for (hop, passes) in [
        (hop("fetch_metadata", "done", Some("never_answered")), true),
        (hop("fetch_metadata", "done", Some("not_a_phone_call")), true),
        (hop("fetch_metadata", "done", Some("not_in_group")), true),
        (hop("fetch_metadata", "done", Some("beyond_retention")), false),
        (hop("fetch_metadata", "not_ready", None), false),
        (hop("upload", "ok", None), false),
    ] {
        let mut subject = Subject::new();
        subject.find(ContactEvent { source: EventSource::Webhook, ..event(1) }).await;
        subject.next().await.ack().await.unwrap();
        subject.flow.context.flow.clock.advance(jiff::SignedDuration::from_secs(6));
        subject.flow.context.catalog.record_hop(&event(1).key(), hop.clone()).await;
        subject.find(event(1)).await;
        if passes {
            subject.next().await.ack().await.unwrap();
        }
        subject.find(event(1)).await;
        subject.assert_quiet().await;
    }
}

#[tokio::test]
async fn what_is_dropped_after_the_poll_has_found_it_passes_at_a_later_listing() {
    let mut subject = Subject::new();
    subject.find(ContactEvent { source: EventSource::Webhook, ..event(1) }).await;
    subject.next().await.ack().await.unwrap();
    subject.find(event(1)).await;
    subject.assert_quiet().await;
    let detail = Some("never_answered".to_owned());
    let (stage, outcome) = ("fetch_metadata".to_owned(), "done".to_owned());
    let at = jiff::Timestamp::UNIX_EPOCH;
    let hop = Hop { at, stage, outcome, attempt: 0, took_millis: 0, detail };
    subject.flow.context.catalog.record_hop(&event(1).key(), hop).await;
    subject.flow.context.flow.clock.advance(jiff::SignedDuration::from_secs(61));
    subject.find(event(1)).await;
    subject.next().await.ack().await.unwrap();
    subject.find(event(1)).await;
    subject.assert_quiet().await;
}

/// The call has come to its end.
async fn finish(flow: &TestFlow, event: &ContactEvent) {
    save_row(flow, event).await;
    flow.context.catalog.complete_without_recording(&event.key(), None).await.unwrap();
}

/// The catalog and the timeline as a question about another producer's calls sees them.
fn foreign(flow: &TestFlow, before: &str) -> Foreign {
    let settings = Arc::new(settings_of("http://127.0.0.1:9".parse().unwrap()));
    let tenants = Tenants::new(settings, Arc::new(|_| Arc::new(Unmetered)), flow.context.metrics.clone());
    let compare = Compare {
        tenants: Arc::new(tenants),
        catalog: flow.context.catalog.clone(),
        processed: Some(flow.state.state.processed().clone()),
        polls: false,
        queue: Arc::new(EmbeddedQueue::open(flow.state.state.store(), flow.context.flow.clock.clone()).unwrap()),
        settle: Duration::from_secs(3600),
        longest_delay: Duration::from_secs(3600),
        clock: flow.context.flow.clock.clone(),
    };
    Foreign { compare, before: before.parse().unwrap() }
}

#[tokio::test]
async fn what_another_producer_found_is_not_doubled_and_what_it_lost_is_found() {
    let mut subject = Subject::of(|flow| Some(foreign(flow, "2026-04-01T16:50:00Z")));
    let catalog = subject.flow.context.catalog.clone();
    let enqueued = |at: &str| Hop {
        at: at.parse().unwrap(),
        stage: "enqueue".to_owned(),
        outcome: "ok".to_owned(),
        attempt: 0,
        took_millis: 1,
        detail: None,
    };
    finish(&subject.flow, &event(1)).await;
    catalog.record_hop(&event(2).key(), enqueued("2026-04-01T16:35:00Z")).await;
    let now = subject.flow.context.flow.clock.now();
    catalog.add_dead_letter(DeadLetter::of_event(&event(3), "upload", "why", now)).await.unwrap();
    let endless = ContactEvent { ended_at: None, ..event(4) };
    finish(&subject.flow, &event(4)).await;
    for known in [event(1), event(2), event(3), endless] {
        subject.find(known.clone()).await;
        subject.assert_quiet().await;
        assert!(subject.flow.state.state.processed().contains(&known.key().digest()), "it is asked of once");
    }
    assert_eq!(subject.settled(), [1, 2, 3, 4]);

    // Nobody has found it; and of the other's message nothing was heard for hours.
    catalog.record_hop(&event(6).key(), enqueued("2026-04-01T10:00:00Z")).await;
    // Ended in this turn: nobody is asked.
    let fresh = ContactEvent { ended_at: Some("2026-04-01T17:00:01Z".parse().unwrap()), ..event(7) };
    finish(&subject.flow, &fresh).await;
    // A replay has asked a moment ago.
    let replayed = ContactEvent { source: EventSource::Reconciliation, ..event(8) };
    finish(&subject.flow, &replayed).await;
    for missing in [event(5), event(6), fresh, replayed] {
        subject.find(missing.clone()).await;
        assert_eq!(subject.next().await.event, missing);
    }
}
