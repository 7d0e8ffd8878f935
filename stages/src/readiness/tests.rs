//! When calls wait, and that what is learned is shared and outlives its process.

use flow::testing::event;

use super::*;
use crate::testing::TestFlow;

/// The share of the defaults, and no guess.
const BOUNDS: Bounds = Bounds { share: 0.99, guess: Duration::ZERO, longest: Duration::from_secs(24 * 3600) };

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// A consumer of this catalog.
fn consumer(flow: &TestFlow, bounds: Bounds) -> RecordingDelays {
    let context = &flow.context;
    RecordingDelays::new(bounds, context.catalog.clone(), context.flow.clock.clone(), context.metrics.clone())
}

/// What the consumers know together.
async fn known(flow: &TestFlow) -> Option<Duration> {
    flow.context.catalog.readiness(&acme()).await.unwrap().map(|known| known.first_look)
}

/// A flow whose consumers have learned a delay of 1,000 s.
async fn learned() -> TestFlow {
    let flow = TestFlow::new(4);
    let own = LearnedDelay::of_before(Duration::from_secs(1000));
    let lessons = Lessons { factor: 1.0, shortened: false, own };
    flow.context.catalog.note_readiness(&acme(), lessons).await.unwrap();
    flow
}

/// A call that ended so many seconds ago and was found 60 s later.
fn ended_ago(flow: &TestFlow, seconds: i64) -> ContactEvent {
    let mut event = event(1);
    let ended_at = flow.context.flow.clock.now() - secs(seconds);
    (event.ended_at, event.queued_at) = (Some(ended_at), Some(ended_at + secs(60)));
    event
}

#[tokio::test]
async fn a_call_waits_until_its_recording_is_likely_there_and_no_longer() {
    let flow = learned().await;
    let readiness = consumer(&flow, BOUNDS);
    // A queue would keep it for 1,800 s if it were asked for 940.
    assert_eq!(readiness.wait(&ended_ago(&flow, 60)).await, Some(Duration::from_secs(900)));
    assert_eq!(readiness.wait(&ended_ago(&flow, 960)).await, Some(Duration::from_secs(40)));
    for old in [1000, 1001, 86_400 * 365] {
        assert_eq!(readiness.wait(&ended_ago(&flow, old)).await, None, "{old}");
    }
}

#[tokio::test]
async fn after_a_look_in_vain_a_call_waits_a_tenth_of_the_delay_but_not_late_in_its_life() {
    let flow = learned().await;
    let readiness = consumer(&flow, BOUNDS);
    for (missed_ago, ended, expected) in [
        (30, 1030, Some(70)),
        (100, 1100, None),
        (30, 1529, Some(70)),
        (30, 1530, None),
        (30, 86_400, None),
        // Looked at before it was known to be too early.
        (30, 90, Some(900)),
    ] {
        let mut event = ended_ago(&flow, ended);
        event.looked_at = Some(flow.context.flow.clock.now() - secs(missed_ago));
        assert_eq!(readiness.wait(&event).await, expected.map(Duration::from_secs), "{missed_ago} {ended}");
    }
}

#[tokio::test]
async fn a_call_that_ends_in_the_future_or_at_no_known_time_waits_from_its_discovery_on() {
    let flow = learned().await;
    let readiness = consumer(&flow, BOUNDS);
    for ended_at in [Some("2999-01-01T00:00:00Z".parse().unwrap()), None] {
        let mut event = event(1);
        (event.ended_at, event.queued_at) = (ended_at, Some(flow.context.flow.clock.now() - secs(990)));
        assert_eq!(readiness.wait(&event).await, Some(Duration::from_secs(10)));
        event.queued_at = Some(flow.context.flow.clock.now() - secs(1000));
        assert_eq!(readiness.wait(&event).await, None);
    }
}

#[tokio::test]
async fn without_a_share_no_call_waits_and_nothing_is_learned() {
    let flow = learned().await;
    let readiness = consumer(&flow, Bounds { share: 0.0, ..BOUNDS });
    assert_eq!(readiness.wait(&ended_ago(&flow, 60)).await, None);
    let ended_at = flow.context.flow.clock.now() - secs(2000);
    readiness.found(&acme(), ended_at, Some(ended_at + secs(1500))).await;
    readiness.flush().await;
    assert_eq!(known(&flow).await, Some(Duration::from_secs(1000)));
}

#[tokio::test]
async fn what_a_consumer_learned_the_others_know_and_the_next_one_too() {
    let flow = learned().await;
    let (one, other) = (consumer(&flow, BOUNDS), consumer(&flow, BOUNDS));
    for readiness in [&one, &other] {
        assert!(readiness.wait(&ended_ago(&flow, 60)).await.is_some());
    }
    let ended_at = flow.context.flow.clock.now() - secs(1100);
    one.found(&acme(), ended_at, Some(ended_at + secs(1000))).await;
    assert_eq!(other.wait(&ended_ago(&flow, 1000)).await, None, "written at the end, or after a while");
    one.flush().await;
    let longer = known(&flow).await.unwrap();
    assert!((1100..1110).contains(&longer.as_secs()), "{longer:?}");
    flow.context.flow.clock.advance(READ_EVERY);
    for readiness in [one, other, consumer(&flow, BOUNDS)] {
        assert!(readiness.wait(&ended_ago(&flow, 1000)).await.is_some());
    }
}

#[tokio::test]
async fn what_is_learned_is_written_now_and_then_without_an_end() {
    let flow = learned().await;
    let readiness = consumer(&flow, BOUNDS);
    assert!(readiness.wait(&ended_ago(&flow, 60)).await.is_some());
    for after in [secs(0), WRITE_EVERY] {
        flow.context.flow.clock.advance(after);
        let ended_at = flow.context.flow.clock.now() - secs(1000);
        readiness.found(&acme(), ended_at, None).await;
    }
    let shorter = known(&flow).await.unwrap();
    assert!(shorter < Duration::from_secs(1000), "{shorter:?}");
    let shown = flow.context.metrics.recording_first_look.of("acme", &[]).get();
    assert!((shown - shorter.as_secs_f64()).abs() < 1e-3, "{shown}");
}

#[tokio::test]
async fn a_catalog_that_fails_stops_no_call() {
    let flow = TestFlow::new(4);
    let tree = flow.state.state.store().tree("catalog").unwrap();
    tree.insert(b"lacme\0", "no number").unwrap();
    flow.context.catalog.readiness(&acme()).await.unwrap_err();
    let readiness = consumer(&flow, BOUNDS);
    assert_eq!(readiness.wait(&ended_ago(&flow, 60)).await, None);
    for _ in 0..60 {
        flow.context.flow.clock.advance(secs(30));
        let ended_at = flow.context.flow.clock.now() - secs(100);
        readiness.found(&acme(), ended_at, Some(ended_at + secs(90))).await;
    }
    readiness.flush().await;
    assert!(readiness.wait(&ended_ago(&flow, 60)).await.is_some(), "it goes on with what it knows itself");
    // What was not written is written once the catalog works again.
    tree.remove(b"lacme\0").unwrap();
    readiness.flush().await;
    assert!(known(&flow).await.is_some());
}

#[tokio::test]
async fn before_anything_is_learned_a_call_waits_for_the_guess() {
    let flow = TestFlow::new(4);
    let readiness = consumer(&flow, Bounds { guess: Duration::from_secs(300), ..BOUNDS });
    let waits = async |number: u64| {
        let mut event = ended_ago(&flow, 60);
        event.conversation = number.to_string().parse().unwrap();
        readiness.wait(&event).await.map(|wait| wait.as_secs())
    };
    let mut told = std::collections::BTreeMap::new();
    for number in 1..=1000 {
        *told.entry(waits(number).await).or_insert(0) += 1;
    }
    // The rest of the guess in two hops; or of half the guess, for a few of them.
    assert_eq!(told.keys().collect::<Vec<_>>(), [&Some(60), &Some(120)], "{told:?}");
    assert!((150..=250).contains(&told[&Some(60)]), "{told:?}");
}

#[tokio::test]
async fn early_looks_make_the_delay_shorter_for_all_unless_some_find_nothing() {
    for (missed, expected) in [(false, 600..626), (true, 980..1000)] {
        let flow = learned().await;
        let (one, other) = (consumer(&flow, BOUNDS), consumer(&flow, BOUNDS));
        assert!(one.wait(&ended_ago(&flow, 60)).await.is_some());
        let ended_at = flow.context.flow.clock.now() - secs(500);
        for number in 0..10 {
            one.found(&acme(), ended_at, None).await;
            if missed && number == 5 {
                one.missed(&acme(), ended_at, None);
            }
        }
        one.flush().await;
        flow.context.flow.clock.advance(READ_EVERY);
        assert!(other.wait(&ended_ago(&flow, 60)).await.is_some());
        let known = known(&flow).await.unwrap().as_secs();
        assert!(expected.contains(&known), "{known} {expected:?}");
    }
}

#[test]
fn the_chance_of_a_call_is_the_same_for_all_and_spread_evenly() {
    let mut tenths = [0; 10];
    for number in 698_800_000_000_u64..698_800_010_000 {
        let chance = chance(number.to_string().parse().unwrap());
        tenths[(chance * 10.0) as usize] += 1;
    }
    assert!(tenths.iter().all(|count| (900..1100).contains(count)), "{tenths:?}");
}

#[tokio::test]
async fn the_number_of_tenants_in_memory_is_bounded() {
    let flow = TestFlow::new(4);
    let readiness = consumer(&flow, BOUNDS);
    for number in 0..MOST_TENANTS + 10 {
        let mut event = ended_ago(&flow, 60);
        event.tenant = format!("tenant-{number}").parse().unwrap();
        assert_eq!(readiness.wait(&event).await, None);
    }
    assert_eq!(readiness.inner.lock().len(), MOST_TENANTS);
}
