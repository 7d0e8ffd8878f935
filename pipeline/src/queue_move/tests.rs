//! Whatever fails in between, every message arrives, on its lane and as it was.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{EventSource, Settle, SettleError};
use queue::EmbeddedQueue;
use runtime::Clock;
use state::testing::TestState;

use super::*;

/// A queue in a local state of its own.
struct Place {
    state: TestState,
    queue: Arc<EmbeddedQueue>,
}

impl Place {
    fn new() -> Self {
        Self::open(TestState::new())
    }

    fn open(state: TestState) -> Self {
        let queue = Arc::new(EmbeddedQueue::open(state.state.store(), Clock::system()).unwrap());
        Self { state, queue }
    }

    /// As it is found after a power cut.
    fn crashed(&self) -> Self {
        Self::open(self.state.crashed())
    }

    /// Puts calls on it: every third on the lane `backfill`.
    async fn fill(&self, count: u64) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        for number in 1..=count {
            let source = if number % 3 == 0 { EventSource::Backfill } else { EventSource::Poll };
            let event = ContactEvent::new("acme".parse().unwrap(), number.to_string().parse().unwrap(), source);
            let body = Bytes::from(event.encode());
            self.queue.publish(Lane::of(&event), body.clone()).await.unwrap();
            bodies.push(body);
        }
        bodies
    }

    /// Takes everything off it: how often each message was there.
    async fn drain(&self) -> BTreeMap<Bytes, u32> {
        let Backlog { live, backfill, delayed, in_flight } = self.queue.backlog().await.unwrap();
        assert_eq!((delayed, in_flight), (0, 0));
        let mut deliveries = self.queue.deliveries(1);
        let mut found = BTreeMap::new();
        for _ in 0..live + backfill {
            let delivery = deliveries.next().await.unwrap().unwrap();
            *found.entry(delivery.body.clone()).or_default() += 1;
            delivery.settle.ack().await.unwrap();
        }
        found
    }
}

/// What fails, and when.
#[derive(Default)]
struct Plan {
    /// Publishes of which one in so many fails, before it has an effect or after it, in turn.
    publish: Option<u32>,
    /// Acknowledgements of which one in so many fails.
    ack: Option<u32>,
    /// Deliveries after which no more come.
    deliveries: Option<usize>,
}

/// A queue that fails by a plan.
struct Failing {
    inner: Arc<EmbeddedQueue>,
    plan: Plan,
    published: AtomicU32,
    settled: Arc<AtomicU32>,
    /// The most that were in hand at a time.
    most: Arc<Mutex<(u32, u32)>>,
}

impl Failing {
    fn new(place: &Place, plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            inner: place.queue.clone(),
            plan,
            published: AtomicU32::default(),
            settled: Arc::default(),
            most: Arc::default(),
        })
    }
}

struct FailingSettle {
    inner: Option<Box<dyn Settle>>,
    one_in: Option<u32>,
    settled: Arc<AtomicU32>,
    most: Arc<Mutex<(u32, u32)>>,
}

impl Drop for FailingSettle {
    fn drop(&mut self) {
        self.most.lock().unwrap().0 -= 1;
    }
}

#[async_trait]
impl Settle for FailingSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        let count = self.settled.fetch_add(1, Ordering::SeqCst) + 1;
        if self.one_in.is_some_and(|one_in| count.is_multiple_of(one_in)) {
            return Err(SettleError("a cut line".to_owned()));
        }
        self.inner.take().unwrap().ack().await
    }

    async fn defer(mut self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError> {
        self.inner.take().unwrap().defer(event, delay).await
    }
}

#[async_trait]
impl Queue for Failing {
    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        let count = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = self.plan.publish.is_some_and(|one_in| count.is_multiple_of(one_in));
        if fails && self.plan.publish.is_some_and(|one_in| count.is_multiple_of(2 * one_in)) {
            self.inner.publish_delayed(lane, body, delay).await?;
        } else if !fails {
            return self.inner.publish_delayed(lane, body, delay).await;
        }
        Err(QueueError("a broker that restarts".to_owned()))
    }

    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        let (one_in, settled, most) = (self.plan.ack, self.settled.clone(), self.most.clone());
        let taken = self.inner.deliveries(prefetch).map(move |delivery| {
            let delivery = delivery?;
            let mut hand = most.lock().unwrap();
            hand.0 += 1;
            hand.1 = hand.1.max(hand.0);
            let inner = Some(delivery.settle);
            let settle = Box::new(FailingSettle { inner, one_in, settled: settled.clone(), most: most.clone() });
            Ok(QueueDelivery { settle, ..delivery })
        });
        match self.plan.deliveries {
            Some(count) => {
                let broken = async { Err(QueueError("the disk is gone".to_owned())) };
                taken.take(count).chain(futures::stream::once(broken)).boxed()
            }
            None => taken.boxed(),
        }
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        self.inner.backlog().await
    }

    async fn check(&self) -> Result<(), QueueError> {
        self.inner.check().await
    }
}

/// As in production, but for the times.
const PACE: Pace =
    Pace { look: Duration::from_millis(20), pause: Duration::from_millis(20), patience: Duration::from_secs(60) };

async fn moved(from: Arc<dyn Queue>, to: Arc<dyn Queue>) -> Result<MoveProgress, MoveFailure> {
    move_at(PACE, from, to, &CancellationToken::new(), |_| {}).await
}

/// Every message is there; only where copies may be, more than once.
fn assert_whole(found: &BTreeMap<Bytes, u32>, bodies: &[Bytes], copies: bool) {
    let missing: Vec<_> = bodies.iter().filter(|body| !found.contains_key(*body)).collect();
    assert!(missing.is_empty(), "{} of {} are lost", missing.len(), bodies.len());
    assert_eq!(found.len(), bodies.len(), "nothing else came");
    if !copies {
        assert!(found.values().all(|times| *times == 1), "nothing failed, and yet there are copies");
    }
}

#[tokio::test]
async fn everything_arrives_as_it_was_and_on_its_lane() {
    let (from, to) = (Place::new(), Place::new());
    let mut bodies = from.fill(300).await;
    for strange in [&b"not JSON"[..], b"", b"{\"schema\":99,\"integrationType\":\"nice-cxone\"}"] {
        from.queue.publish(Lane::Backfill, Bytes::from_static(strange)).await.unwrap();
        bodies.push(Bytes::from_static(strange));
    }
    // Fields that this version does not know, and blanks, stay as they are.
    let spaced = br#" {"schema":1,"integrationType":"nice-cxone","tenantId":"acme","conversationId":"9999","x":[1]} "#;
    from.queue.publish(Lane::Live, Bytes::from_static(spaced)).await.unwrap();
    bodies.push(Bytes::from_static(spaced));

    let source = Failing::new(&from, Plan::default());
    let progress = moved(source.clone(), to.queue.clone()).await.unwrap();
    assert!(progress.is_done);
    assert_eq!((progress.live, progress.backfill, progress.unreadable, progress.repeated), (204, 100, 3, 0));
    assert_eq!(from.queue.backlog().await.unwrap(), Backlog::default());
    let waiting = to.queue.backlog().await.unwrap();
    assert_eq!((waiting.live, waiting.backfill), (204, 100), "what cannot be read goes to the lane of fresh calls");
    assert_whole(&to.drain().await, &bodies, false);
    let most = source.most.lock().unwrap().1;
    assert!(most > 1 && most as usize <= AT_ONCE, "{most} were in hand at a time");
}

#[tokio::test]
async fn a_delayed_message_is_waited_for() {
    let clock = Clock::fixed("2026-04-01T12:00:00Z".parse().unwrap());
    let state = TestState::new();
    let from = EmbeddedQueue::open(state.state.store(), clock.clone()).unwrap();
    let (from, to) = (Place { state, queue: Arc::new(from) }, Place::new());
    let mut bodies = from.fill(3).await;
    bodies.push(Bytes::from_static(b"late"));
    from.queue.publish_delayed(Lane::Live, bodies[3].clone(), Duration::from_secs(3600)).await.unwrap();

    let mut waited = 0;
    let wait = |progress: &MoveProgress| {
        assert!(!progress.is_done || progress.moved() == 4, "{progress:?}");
        waited += u32::from(progress.moved() == 3 && progress.left.delayed == 1);
        if waited == 2 * QUIET_LOOKS {
            clock.advance(jiff::SignedDuration::from_hours(1));
        }
    };
    let (source, target) = (from.queue.clone(), to.queue.clone());
    let progress = move_at(PACE, source, target, &CancellationToken::new(), wait).await.unwrap();
    assert!(progress.is_done && progress.moved() == 4, "{progress:?}");
    assert_whole(&to.drain().await, &bodies, false);
}

#[tokio::test]
async fn a_message_that_is_over_the_limit_is_moved_too() {
    let (mut from, to) = (Place::new(), Place::new());
    let bodies = from.fill(1).await;
    for _ in 0..=queue::DELIVERY_LIMIT {
        let delivery = from.queue.deliveries(1).next().await.unwrap().unwrap();
        // The count of the delivery is on the disk.
        from.queue.check().await.unwrap();
        let crashed = from.crashed();
        drop(delivery);
        from = crashed;
    }
    let over = from.queue.deliveries(1).next().await.unwrap().unwrap();
    assert!(over.over_limit);
    drop(over);
    let progress = moved(from.queue.clone(), to.queue.clone()).await.unwrap();
    assert!(progress.is_done && progress.moved() == 1, "{progress:?}");
    let mut deliveries = to.queue.deliveries(1);
    let delivery = deliveries.next().await.unwrap().unwrap();
    assert!(!delivery.over_limit && delivery.body == bodies[0], "it is counted anew there");
}

#[tokio::test]
async fn a_target_that_fails_now_and_then_costs_copies_and_no_message() {
    let (from, to) = (Place::new(), Place::new());
    let bodies = from.fill(200).await;
    let target = Failing::new(&to, Plan { publish: Some(7), ..Plan::default() });
    let progress = moved(from.queue.clone(), target).await.unwrap();
    assert!(progress.is_done && progress.moved() == 200, "{progress:?}");
    assert_eq!(from.queue.backlog().await.unwrap(), Backlog::default());
    assert_whole(&to.drain().await, &bodies, true);
}

#[tokio::test]
async fn an_acknowledgement_that_fails_costs_copies_and_no_message() {
    let (from, to) = (Place::new(), Place::new());
    let bodies = from.fill(100).await;
    let source = Failing::new(&from, Plan { ack: Some(5), ..Plan::default() });
    let progress = moved(source, to.queue.clone()).await.unwrap();
    assert!(progress.is_done && progress.repeated > 0, "{progress:?}");
    assert_eq!(progress.moved() - progress.repeated, 100, "{progress:?}");
    assert_eq!(from.queue.backlog().await.unwrap(), Backlog::default());
    let found = to.drain().await;
    assert_whole(&found, &bodies, true);
    assert_eq!(found.values().sum::<u32>() as u64, progress.moved());
}

#[tokio::test]
async fn a_source_that_fails_ends_the_move_and_the_next_one_goes_on() {
    let (from, to) = (Place::new(), Place::new());
    let bodies = from.fill(100).await;
    let source = Failing::new(&from, Plan { deliveries: Some(30), ..Plan::default() });
    let failure = moved(source, to.queue.clone()).await.unwrap_err();
    assert!(failure.to_string().contains("the disk is gone"), "{failure}");
    assert!(!failure.progress.is_done && failure.progress.moved() == 30, "{:?}", failure.progress);
    let left = from.queue.backlog().await.unwrap();
    assert_eq!(left.live + left.backfill, 70, "the rest is still there");

    let progress = moved(from.queue.clone(), to.queue.clone()).await.unwrap();
    assert!(progress.is_done && progress.moved() == 70, "{progress:?}");
    assert_whole(&to.drain().await, &bodies, false);
}

#[tokio::test]
async fn a_target_that_stays_away_ends_the_move_and_keeps_every_message() {
    let (from, to) = (Place::new(), Place::new());
    let bodies = from.fill(10).await;
    let target = Failing::new(&to, Plan { publish: Some(1), ..Plan::default() });
    let pace = Pace { patience: Duration::from_millis(200), ..PACE };
    let never = CancellationToken::new();
    let failure = move_at(pace, from.queue.clone(), target, &never, |_| {}).await.unwrap_err();
    assert!(failure.to_string().contains("a broker that restarts"), "{failure}");
    assert_eq!(failure.progress.moved(), 0);
    assert_whole(&from.drain().await, &bodies, false);
}

#[tokio::test]
async fn a_move_that_is_stopped_hands_back_what_it_holds() {
    let (from, to) = (Place::new(), Place::new());
    let bodies = from.fill(500).await;
    let stopping = CancellationToken::new();
    stopping.cancel();
    let progress = move_at(PACE, from.queue.clone(), to.queue.clone(), &stopping, |_| {}).await.unwrap();
    assert!(!progress.is_done);
    let left = from.queue.backlog().await.unwrap();
    assert_eq!((left.live + left.backfill, left.in_flight), (500 - progress.moved(), 0));
    let progress = moved(from.queue.clone(), to.queue.clone()).await.unwrap();
    assert!(progress.is_done);
    assert_whole(&to.drain().await, &bodies, false);
}

#[tokio::test]
async fn a_move_that_is_killed_anywhere_loses_nothing() {
    for published in [1, 65, 130, 199] {
        let (from, to) = (Place::new(), Place::new());
        let bodies = from.fill(200).await;
        let target = Failing::new(&to, Plan::default());
        let mut moving = Box::pin(moved(from.queue.clone(), target.clone()));
        let reached = std::future::poll_fn(|context| match target.published.load(Ordering::SeqCst) >= published {
            true => Poll::Ready(()),
            false => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        });
        tokio::select! {
            biased;
            () = reached => {}
            _ = &mut moving => panic!("it was done before {published} were published"),
        }
        // It stands still now. Both disks are left as they are, and nothing is handed back.
        for place in [&from, &to] {
            place.queue.check().await.unwrap();
        }
        let (from_left, to_left) = (from.crashed(), to.crashed());
        drop(moving);
        let progress = moved(from_left.queue.clone(), to_left.queue.clone()).await.unwrap();
        assert!(progress.is_done);
        assert_whole(&to_left.drain().await, &bodies, true);
    }
}
