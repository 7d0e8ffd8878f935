use flow::testing::event;
use jiff::SignedDuration;
use queue::EmbeddedQueue;

use super::*;
use crate::testing::TestFlow;

struct Rig {
    shelf: DeadLetterReplayer,
    flow: TestFlow,
}

/// A shelf at `hours` after the flow's time.
fn rig() -> Rig {
    let flow = TestFlow::new(4);
    let context = &flow.context;
    let queue = Arc::new(EmbeddedQueue::open(flow.state.state.store(), context.flow.clock.clone()).unwrap());
    let shelf = DeadLetterReplayer {
        letters: context.catalog.clone(),
        timelines: context.catalog.clone(),
        queue,
        outside: context.flow.outside.clone(),
        blame: context.flow.blame.clone(),
        longest: Duration::from_secs(90 * 24 * 3600),
        clock: context.flow.clock.clone(),
        metrics: context.metrics.clone(),
    };
    Rig { shelf, flow }
}

impl Rig {
    fn at(&self, hours: i64) -> DeadLetterReplayer {
        let clock = Clock::fixed(self.flow.context.flow.clock.now() + SignedDuration::from_hours(hours));
        DeadLetterReplayer {
            letters: self.shelf.letters.clone(),
            timelines: self.shelf.timelines.clone(),
            queue: self.shelf.queue.clone(),
            outside: self.shelf.outside.clone(),
            blame: self.shelf.blame.clone(),
            clock,
            metrics: self.shelf.metrics.clone(),
            ..self.shelf
        }
    }

    async fn set_aside(&self, id: u64, replays: u32, cause: Option<System>) {
        let event = ContactEvent { replays, ..event(id) };
        let mut letter = DeadLetter::of_event(&event, "upload", "gave up", self.flow.context.flow.clock.now());
        if let Some(system) = cause {
            letter = letter.caused_by(system, &event);
        }
        self.shelf.letters.add_dead_letter(letter).await.unwrap();
    }

    async fn left(&self) -> Vec<String> {
        let letters = self.shelf.letters.dead_letters(0, 99).await.unwrap();
        letters.into_iter().filter_map(|letter| letter.conversation_id).collect()
    }
}

#[tokio::test]
async fn a_letter_of_a_passing_cause_goes_back_by_itself_behind_fresh_calls() {
    let rig = rig();
    rig.set_aside(1, 0, Some(System::MediaHost)).await;
    rig.set_aside(2, 3, Some(System::RecordingStore)).await;
    rig.set_aside(3, 0, None).await;
    assert_eq!(rig.at(0).look().await.unwrap(), 0, "not at once");
    assert_eq!(rig.at(1).look().await.unwrap(), 1);
    assert_eq!(rig.left().await, ["2", "3"]);
    let backlog = rig.shelf.queue.backlog().await.unwrap();
    assert_eq!((backlog.live, backlog.backfill), (0, 1));
    assert_eq!(rig.at(7).look().await.unwrap(), 0, "the fourth time it waits for eight hours");
    assert_eq!(rig.at(8).look().await.unwrap(), 1);
    assert_eq!(rig.left().await, ["3"], "what is wrong with the call itself is a person's");
    assert_eq!(rig.flow.context.metrics.dead_letters_replayed.get(), 2);
}

#[tokio::test]
async fn a_letter_stays_while_its_system_fails_for_many() {
    let rig = rig();
    rig.set_aside(1, 0, Some(System::Nice)).await;
    let now = rig.flow.context.flow.clock.now() + SignedDuration::from_hours(2);
    let blame = &rig.flow.context.flow.blame;
    for id in 11..=14 {
        let failure = flow::blame::Failure { system: System::Nice, reason: "a 503", before: None };
        blame.failed("upload", &event(id).key(), failure, now);
    }
    assert_eq!(rig.at(2).look().await.unwrap(), 0);
    blame.passed("upload", &event(15).key(), now);
    assert_eq!(rig.at(2).look().await.unwrap(), 1);
}

#[tokio::test]
async fn a_message_that_goes_back_is_as_new_and_knows_how_often() {
    let rig = rig();
    rig.set_aside(1, 0, Some(System::Nice)).await;
    rig.at(1).look().await.unwrap();
    let mut deliveries = rig.shelf.queue.deliveries(1);
    let delivery = futures::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
    let event = ContactEvent::decode(&delivery.body).unwrap();
    assert_eq!((event.replays, event.attempt, event.late, event.troubles.is_empty()), (1, 0, true, true));
    assert_eq!(event.queued_at, Some(rig.flow.context.flow.clock.now() + SignedDuration::from_hours(1)));
}

#[tokio::test]
async fn what_stands_for_too_long_is_dropped_and_counted() {
    let rig = rig();
    rig.set_aside(1, 0, None).await;
    assert_eq!(rig.at(90 * 24).clear().await.unwrap(), 0);
    assert_eq!(rig.at(90 * 24 + 1).clear().await.unwrap(), 1);
    assert!(rig.left().await.is_empty());
    assert_eq!(rig.flow.context.metrics.dead_letters_dropped.get(), 1);
}
