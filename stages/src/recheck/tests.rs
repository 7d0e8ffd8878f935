//! What is put on the queue once more, what the consumer lets pass of it, and when the night does it by itself.

use flow::{
    FlowExt,
    testing::{Fate, Fates, event},
};
use futures::{StreamExt, stream};
use model::{AgentId, Conversation, ConversationState};
use queue::EmbeddedQueue;

use super::*;
use crate::dequeue::SkipFinal;
use crate::metrics::Metrics;
use crate::source::test_nice::{settings_of, tenant};
use crate::testing::TestFlow;

const DAY: SignedDuration = SignedDuration::from_hours(24);

struct Rig {
    flow: TestFlow,
    queue: Arc<EmbeddedQueue>,
}

impl Rig {
    fn new() -> Self {
        let flow = TestFlow::new(1);
        let queue = EmbeddedQueue::open(flow.state.state.store(), flow.context.flow.clock.clone()).unwrap();
        Self { flow, queue: Arc::new(queue) }
    }

    fn recheck_at(&self, now: Timestamp) -> Recheck {
        Recheck { catalog: self.flow.context.catalog.clone(), queue: self.queue.clone(), clock: Clock::fixed(now) }
    }

    /// A call that began so long ago, in this state.
    async fn call(&self, id: u64, age: SignedDuration, state: ConversationState) -> Conversation {
        let ended_at = self.flow.context.flow.clock.now() - age;
        let event = ContactEvent { ended_at: Some(ended_at), ..event(id) };
        let call = Conversation {
            tenant: event.tenant.clone(),
            external_id: event.conversation,
            source: event.source,
            lane: Lane::of(&event),
            master: event.conversation,
            agent: AgentId::from_number(7).unwrap(),
            started_at: ended_at,
            ended_at,
            direction: None,
            customer_number: None,
            metadata: serde_json::json!({}),
        };
        let catalog = &self.flow.context.catalog;
        catalog.save_metadata(&call).await.unwrap();
        match state {
            ConversationState::MetadataSaved => {}
            ConversationState::Ready => catalog.complete(&call.key(), &[], 0, ended_at, None).await.unwrap(),
            ConversationState::NoRecording => catalog.complete_without_recording(&call.key(), None).await.unwrap(),
        }
        call
    }

    /// The messages on the queue, taken off it.
    async fn messages(&self) -> Vec<ContactEvent> {
        let count = self.queue.backlog().await.unwrap();
        assert_eq!(count.live, 0, "live calls go first");
        let mut deliveries = self.queue.deliveries(100);
        let mut events = Vec::new();
        for _ in 0..count.backfill {
            let delivery = deliveries.next().await.unwrap().unwrap();
            events.push(ContactEvent::decode(&delivery.body).unwrap());
            delivery.settle.ack().await.unwrap();
        }
        events
    }
}

#[tokio::test]
async fn the_night_looks_at_each_call_once_at_its_age_and_leaves_no_night_out() {
    let rig = Rig::new();
    let now = rig.flow.context.flow.clock.now();
    let age = Duration::from_secs(7 * 86_400);
    for (id, days) in [(1, 9), (2, 7), (3, 6), (4, 2)] {
        rig.call(id, DAY * days + SignedDuration::from_hours(1), ConversationState::NoRecording).await;
    }
    rig.call(5, DAY * 7 + SignedDuration::from_hours(2), ConversationState::Ready).await;
    // The first night takes a day's calls: what is older comes by the command.
    assert_eq!(rig.recheck_at(now).due(&tenant(), age, now).await.unwrap(), 1);
    let events = rig.messages().await;
    assert_eq!(
        (events[0].conversation.get(), events[0].recheck, events[0].source),
        (2, true, EventSource::Reconciliation)
    );
    assert_eq!(rig.recheck_at(now).due(&tenant(), age, now).await.unwrap(), 0, "once");
    // Nobody ran for four nights.
    assert_eq!(rig.recheck_at(now + DAY * 5).due(&tenant(), age, now + DAY * 5).await.unwrap(), 2);
    let found: Vec<_> = rig.messages().await.iter().map(|event| event.conversation.get()).collect();
    assert_eq!(found, [3, 4]);
    assert_eq!(
        rig.recheck_at(now).due(&tenant(), age, now).await.unwrap(),
        0,
        "a clock that was set back repeats nothing"
    );
    let hops = rig.flow.context.catalog.hops(&event(3).key()).await.unwrap();
    assert_eq!(hops[0].detail.as_deref(), Some("recheck"), "`trace` tells of it");
}

#[tokio::test]
async fn a_range_is_published_whole_however_many_pages_it_has() {
    let rig = Rig::new();
    let now = rig.flow.context.flow.clock.now();
    let count = PAGE as u64 * 2 + 1;
    for id in 1..=count {
        rig.call(id, DAY, ConversationState::NoRecording).await;
    }
    let recheck = rig.recheck_at(now);
    let published = recheck.range(&tenant(), now - DAY, now, EventSource::Backfill).await.unwrap();
    assert_eq!((published, rig.queue.backlog().await.unwrap().backfill), (count, count));
}

#[tokio::test]
async fn a_recheck_passes_where_the_final_row_lacks_recordings_and_nowhere_else() {
    let rig = Rig::new();
    let context = &rig.flow.context;
    rig.call(1, DAY, ConversationState::NoRecording).await;
    rig.call(2, DAY, ConversationState::Ready).await;
    rig.call(3, DAY, ConversationState::MetadataSaved).await;
    let settings = Arc::new(settings_of("http://127.0.0.1:1".parse().unwrap()));
    let quota = Arc::new(|_: &_| Arc::new(model::Unmetered) as _);
    let tenants = Arc::new(crate::tenants::Tenants::new(settings, quota, Metrics::new()));
    let (blame, retry, clock) = (context.flow.blame.clone(), context.flow.retry.clone(), context.flow.clock.clone());
    let skip = SkipFinal { tenants, catalog: context.catalog.clone(), blame, retry, clock };
    let outcome = async |id, recheck| {
        let outcome = flow::Stage::process(&skip, &ContactEvent { recheck, ..event(id) }, ()).await.unwrap();
        match outcome {
            flow::Outcome::Next(_) => "passes",
            flow::Outcome::Done(word) => word,
        }
    };
    let words = [outcome(1, true).await, outcome(2, true).await, outcome(3, true).await, outcome(4, true).await];
    assert_eq!(words, ["passes", NOTHING_NEW, NOTHING_NEW, NOTHING_NEW]);
    let words = [outcome(1, false).await, outcome(2, false).await, outcome(3, false).await];
    assert_eq!(words, ["already_final", "already_final", "passes"]);
}

/// A stage that fails for good.
struct Broken;

impl flow::Stage<()> for Broken {
    const NAME: &'static str = "upload";
    type Out = ();

    async fn process(&self, _: &ContactEvent, (): ()) -> Result<flow::Outcome<()>, flow::StageError> {
        Err(flow::StageError::permanent("the link leaves the allowed hosts"))
    }
}

#[tokio::test]
async fn a_recheck_that_fails_for_good_leaves_no_dead_letter() {
    let rig = Rig::new();
    let context = &rig.flow.context;
    rig.call(1, DAY, ConversationState::NoRecording).await;
    let fates = Fates::default();
    let events = [ContactEvent { recheck: true, ..event(1) }, event(2)];
    let deliveries = events.map(|event| rig.flow.delivery(&fates, event));
    stream::iter(deliveries).through(Broken, &context.flow).settle(&context.flow).await;
    assert_eq!(fates.all(), [(1, Fate::Acked { shelved: 0 }), (2, Fate::Acked { shelved: 1 })]);
    assert_eq!(context.metrics.flow.conversations_done.with_label_values(&["recheck_given_up"]).get(), 1);
    let state = context.catalog.status(&event(1).key()).await.unwrap().state();
    assert_eq!(state, Some(ConversationState::NoRecording));
}
