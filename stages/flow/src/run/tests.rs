//! Every way in which a stage can end with an item settles its delivery once, in the right order.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{future::BoxFuture, stream};
use model::{ContactEvent, System, Trouble};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{Fate, Fates, TestFlow, event};

type Answer = Result<Outcome<()>, StageError>;

/// A stage that does what a test wishes, under a name that the metrics know.
struct Does<F>(F);

impl<F: Fn(ContactEvent) -> BoxFuture<'static, Answer> + Send + Sync + 'static> Stage<()> for Does<F> {
    const NAME: &'static str = "upload";
    type Out = ();

    fn process(&self, event: &ContactEvent, (): ()) -> impl Future<Output = Answer> + Send {
        (self.0)(event.clone())
    }
}

/// A stage that answers at once.
fn answers(answer: impl Fn(ContactEvent) -> Answer + Send + Sync + 'static) -> impl Stage<(), Out = ()> {
    let answer = Arc::new(answer);
    Does(move |event| {
        let answer = answer.clone();
        Box::pin(async move { answer(event) }) as BoxFuture<'static, Answer>
    })
}

fn passes(_: ContactEvent) -> Answer {
    Ok(Outcome::Next(()))
}

/// Runs events through a stage and to the end of the flow.
async fn run_all(flow: &TestFlow, events: Vec<ContactEvent>, stage: impl Stage<()>) -> Vec<(u64, Fate)> {
    let fates = Fates::default();
    let deliveries: Vec<_> = events.into_iter().map(|event| fates.delivery(event, &flow.journal)).collect();
    stream::iter(deliveries).through(stage, &flow.context).settle(&flow.context).await;
    fates.all()
}

#[tokio::test]
async fn what_passes_is_acknowledged_at_the_end_of_the_flow() {
    let flow = TestFlow::new(4);
    let fates = Fates::default();
    let delivery = fates.delivery(event(1), &flow.journal);
    let mut passed = stream::iter([delivery]).through(answers(passes), &flow.context);
    let delivery = passed.next().await.unwrap();
    assert_eq!(delivery.event, event(1));
    assert!(fates.all().is_empty(), "not before the end");
    stream::iter([delivery]).settle(&flow.context).await;
    assert_eq!(fates.all(), [(1, Fate::Acked { shelved: 0 })]);
    assert!(passed.next().await.is_none());
    assert_eq!(flow.finished("upload", "ok"), 1);
    assert_eq!(flow.context.metrics.stage_in_flight.with_label_values(&["upload"]).get(), 0);
    assert_eq!(flow.context.metrics.stage_duration.count(&["upload"]), 1);
    let hops = flow.journal.hops(&event(1).key());
    assert_eq!(
        hops.iter().map(|hop| (hop.stage.as_str(), hop.outcome.as_str())).collect::<Vec<_>>(),
        [("upload", "ok")]
    );
}

#[tokio::test]
async fn what_is_done_is_acknowledged_and_its_reason_counted() {
    let flow = TestFlow::new(4);
    let fates = run_all(&flow, vec![event(1)], answers(|_| Ok(Outcome::Done("already_final")))).await;
    assert_eq!(fates, [(1, Fate::Acked { shelved: 0 })]);
    assert_eq!(flow.finished("upload", "done"), 1);
    assert_eq!(flow.context.metrics.conversations_done.with_label_values(&["already_final"]).get(), 1);
}

#[tokio::test]
async fn a_transient_error_defers_by_what_was_asked_and_counts_an_attempt() {
    let flow = TestFlow::new(4);
    let mut before = event(1);
    (before.attempt, before.not_ready) = (3, 2);
    before.further.insert("later".to_owned(), serde_json::json!("kept"));
    let error = || StageError::Transient {
        system: System::Nice,
        reason: "503".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
    };
    let fates = run_all(&flow, vec![before.clone()], answers(move |_| Err(error()))).await;
    let delay = Duration::from_secs(7);
    let mut expected = ContactEvent { attempt: 4, deferrals: 1, ..before };
    expected.troubles.note(Trouble::first("upload", System::Nice, flow.context.clock.now()).waiting(delay));
    assert_eq!(fates, [(1, Fate::Deferred { event: expected, delay })]);
    assert_eq!((flow.finished("upload", "retry"), flow.finished("upload", "dead_letter")), (1, 0));
}

#[tokio::test]
async fn waiting_for_the_budget_is_no_attempt() {
    let flow = TestFlow::new(4);
    let mut before = event(1);
    (before.attempt, before.busy_secs) = (3, 5);
    let wait = Duration::from_secs(1800);
    let stage =
        answers(move |_| Err(StageError::Busy { reason: "no room".to_owned(), waits_for: None, retry_after: wait }));
    let fates = run_all(&flow, vec![before.clone()], stage).await;
    let expected = ContactEvent { busy_secs: 1805, deferrals: 1, ..before };
    assert_eq!(fates, [(1, Fate::Deferred { event: expected, delay: wait })]);
    assert_eq!((flow.finished("upload", "busy"), flow.finished("upload", "retry")), (1, 0));
}

#[tokio::test]
async fn who_comes_too_early_waits_without_an_attempt_and_without_a_look() {
    let flow = TestFlow::new(4);
    let wait = Duration::from_secs(1800);
    let stage = answers(move |_| Err(StageError::Early { reason: "not likely there", retry_after: wait }));
    let fates = run_all(&flow, vec![event(1)], stage).await;
    let due_at = Some(flow.context.clock.now() + wait);
    let expected = ContactEvent { busy_secs: 1800, deferrals: 1, awaited_millis: 1_800_000, due_at, ..event(1) };
    assert_eq!(fates, [(1, Fate::Deferred { event: expected, delay: wait })]);
    assert_eq!((flow.finished("upload", "not_ready"), flow.finished("upload", "retry")), (1, 0));
}

#[tokio::test]
async fn what_is_not_ready_waits_for_its_step() {
    let flow = TestFlow::new(4);
    let stage = answers(|_| Err(StageError::NotReady { reason: "no link yet" }));
    let fates = run_all(&flow, vec![event(1)], stage).await;
    let now = flow.context.clock.now();
    let due_at = Some(now + Duration::from_secs(30));
    let expected = ContactEvent {
        attempt: 1,
        deferrals: 1,
        not_ready: 1,
        awaited_millis: 30_000,
        looked_at: Some(now),
        due_at,
        ..event(1)
    };
    assert_eq!(fates, [(1, Fate::Deferred { event: expected, delay: Duration::from_secs(30) })]);
    assert_eq!((flow.finished("upload", "not_ready"), flow.finished("upload", "retry")), (1, 0));
}

#[tokio::test]
async fn a_dead_letter_stands_before_the_acknowledgement() {
    let flow = TestFlow::new(4);
    let fates = run_all(&flow, vec![event(1)], answers(|_| Err(StageError::permanent("off the list")))).await;
    assert_eq!(fates, [(1, Fate::Acked { shelved: 1 })]);
    let letter = flow.journal.dead_letters().remove(0);
    assert_eq!((letter.stage.as_str(), letter.reason.as_str()), ("upload", "off the list"));
    assert_eq!((letter.tenant_id.as_deref(), letter.conversation_id.as_deref()), (Some("acme"), Some("1")));
    assert_eq!(ContactEvent::decode(&serde_json::to_vec(&letter.message).unwrap()).unwrap(), event(1));
    assert_eq!(flow.finished("upload", "dead_letter"), 1);
    assert_eq!(flow.context.metrics.dead_letters.with_label_values(&["upload"]).get(), 1);
}

#[tokio::test]
async fn a_panic_sets_aside_its_own_item_only() {
    let flow = TestFlow::new(2);
    let events = (1..=10).map(event).collect();
    let stage = answers(|event| if event.conversation.get() == 5 { panic!("poison") } else { passes(event) });
    let mut fates = run_all(&flow, events, stage).await;
    fates.sort_by_key(|(id, _)| *id);
    assert!(fates.iter().all(|(_, fate)| matches!(fate, Fate::Acked { .. })) && fates.len() == 10, "{fates:?}");
    assert_eq!((flow.finished("upload", "ok"), flow.finished("upload", "dead_letter")), (9, 1));
    let letters = flow.journal.dead_letters();
    assert_eq!(letters.iter().map(|letter| letter.reason.as_str()).collect::<Vec<_>>(), ["upload panicked"]);
    assert_eq!(flow.context.metrics.stage_in_flight.with_label_values(&["upload"]).get(), 0);
}

/// An event that has waited for two days for `stage` to stop failing, each wait an hour, all charged to it.
fn troubled(id: u64, system: System, at: &str) -> ContactEvent {
    let hour = 3600 * 1000;
    let met = Trouble::first("upload", system, "2026-03-30T16:00:00Z".parse().unwrap());
    let at = at.parse().unwrap();
    let mut event = event(id);
    event.troubles.note(Trouble { times: 48, at, delay_millis: hour, charged_millis: 47 * hour, ..met });
    event
}

/// The calls on the shelf.
async fn set_aside(flow: &TestFlow) -> Vec<String> {
    let letters = flow.journal.dead_letters();
    letters.into_iter().filter_map(|letter| letter.conversation_id).collect()
}

#[tokio::test]
async fn a_call_that_fails_while_others_pass_ends_in_a_dead_letter_that_goes_back_by_itself() {
    let flow = TestFlow::new(1);
    let calls = vec![event(9), troubled(1, System::Nice, "2026-04-01T16:00:00Z")];
    let stage = answers(|event| match event.conversation.get() {
        9 => passes(event),
        _ => Err(StageError::transient(System::Nice, "503")),
    });
    run_all(&flow, calls, stage).await;
    assert_eq!(set_aside(&flow).await, ["1"]);
    let letter = flow.journal.dead_letters().remove(0);
    assert_eq!((letter.reason.as_str(), letter.cause), ("gave up after 49 attempts: 503", Some(System::Nice)));
    assert_eq!(letter.replay_at, Some(flow.context.clock.now() + jiff::SignedDuration::from_hours(1)));
}

#[tokio::test]
async fn no_call_is_given_up_while_a_stage_fails_for_all_however_long_that_lasts() {
    let flow = TestFlow::new(1);
    let calls = (1..=40).map(|id| troubled(id, System::Nice, "2026-04-01T16:00:00Z")).collect();
    let fates = run_all(&flow, calls, answers(|_| Err(StageError::transient(System::Nice, "503")))).await;
    assert!(fates.len() == 40 && fates.iter().all(|(_, fate)| matches!(fate, Fate::Deferred { .. })), "{fates:?}");
    // What concerns one call only, as far as it can tell, concerns many here.
    let calls = (1..=40).map(|id| troubled(id, System::Call, "2026-04-01T16:00:00Z")).collect();
    run_all(&flow, calls, answers(|_| Err(StageError::transient(System::Call, "403")))).await;
    assert!(set_aside(&flow).await.is_empty());
}

#[tokio::test]
async fn days_on_the_queue_do_not_count_against_a_call() {
    let flow = TestFlow::new(1);
    let mut old = event(1);
    (old.ended_at, old.attempt) = (Some("2026-01-01T16:00:00Z".parse().unwrap()), 400);
    old.troubles.note(Trouble::first("upload", System::Call, "2026-03-15T16:00:00Z".parse().unwrap()));
    let fates = run_all(&flow, vec![old], answers(|_| Err(StageError::transient(System::Call, "403")))).await;
    assert!(matches!(&fates[..], [(1, Fate::Deferred { .. })]), "{fates:?}");
}

#[tokio::test(start_paused = true)]
async fn who_needs_a_system_that_is_away_waits_in_place_and_goes_on_when_it_is_back() {
    let flow = TestFlow::new(4);
    let is_back = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let probe: crate::outside::Probe = {
        let is_back = is_back.clone();
        Arc::new(move || {
            let answer = is_back.load(Ordering::SeqCst).then_some(()).ok_or("refused".to_owned());
            Box::pin(std::future::ready(answer))
        })
    };
    let _asking = task::spawn("outside", flow.context.outside.clone().watch(System::RecordingStore, probe));
    let tries = Arc::new(AtomicUsize::new(0));
    let stage = answers({
        let (tries, is_back) = (tries.clone(), is_back.clone());
        move |event| {
            tries.fetch_add(1, Ordering::SeqCst);
            match is_back.load(Ordering::SeqCst) {
                true => passes(event),
                false => Err(StageError::transient(System::RecordingStore, "refused")),
            }
        }
    });
    let back = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        is_back.store(true, Ordering::SeqCst);
    };
    let begun = tokio::time::Instant::now();
    let (fates, ()) = tokio::join!(run_all(&flow, vec![event(1)], stage), back);
    assert_eq!(fates, [(1, Fate::Acked { shelved: 0 })]);
    assert!(begun.elapsed() < Duration::from_secs(302), "{:?}", begun.elapsed());
    assert!(tries.load(Ordering::SeqCst) <= 4, "nothing is asked meanwhile: {}", tries.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_leaves_the_item_with_its_origin() {
    let flow = TestFlow::new(4);
    flow.journal.fails.store(true, Ordering::Relaxed);
    let fates = run_all(&flow, vec![event(1)], answers(|_| Err(StageError::permanent("bad")))).await;
    assert!(matches!(&fates[..], [(1, Fate::Deferred { .. })]), "{fates:?}");
    assert_eq!(flow.finished("upload", "dead_letter"), 0);
}

#[tokio::test]
async fn a_failed_acknowledgement_is_counted_and_stops_nobody() {
    let flow = TestFlow::new(1);
    let fates = Fates::default();
    let deliveries = [(1, true), (2, false)].map(|(id, fails)| fates.delivery_with(event(id), &flow.journal, fails));
    stream::iter(deliveries).through(answers(passes), &flow.context).settle(&flow.context).await;
    assert_eq!(fates.all(), [(1, Fate::AckFailed), (2, Fate::Acked { shelved: 0 })]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_works_on_so_many_at_a_time_and_not_more() {
    let flow = TestFlow::new(5);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let all_busy = Arc::new(Semaphore::new(0));
    let stage = {
        let (now, most, all_busy) = (now.clone(), most.clone(), all_busy.clone());
        Does(move |event| {
            let (now, most, all_busy) = (now.clone(), most.clone(), all_busy.clone());
            Box::pin(async move {
                let busy = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(busy, Ordering::SeqCst);
                if busy == 5 {
                    // So many are at work together; from now on nobody waits.
                    all_busy.close();
                }
                drop(all_busy.acquire().await);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                passes(event)
            }) as BoxFuture<'static, Answer>
        })
    };
    let fates = run_all(&flow, (1..=200).map(event).collect(), stage).await;
    assert_eq!(fates.len(), 200);
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_stage_bounds_what_is_taken_from_the_source() {
    let flow = TestFlow::new(4);
    let fates = Fates::default();
    let taken = Arc::new(AtomicUsize::new(0));
    let source = stream::iter(1..=1_000_u64).map({
        let (fates, taken, catalog) = (fates.clone(), taken.clone(), flow.journal.clone());
        move |id| {
            taken.fetch_add(1, Ordering::SeqCst);
            fates.delivery(event(id), &catalog)
        }
    });
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let slow = {
        let (started, release) = (started.clone(), release.clone());
        Does(move |event| {
            let (started, release) = (started.clone(), release.clone());
            Box::pin(async move {
                started.notify_one();
                drop(release.acquire().await);
                passes(event)
            }) as BoxFuture<'static, Answer>
        })
    };
    let through = source.through(answers(passes), &flow.context).through(slow, &flow.context);
    let context = flow.context.clone();
    let ending = task::spawn("end", async move { through.settle(&context).await });
    started.notified().await;
    // Until it comes to rest.
    let mut last = usize::MAX;
    while taken.load(Ordering::SeqCst) != last {
        last = taken.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Each of the two stages: four at work, four in the channel behind it, one on its way into that.
    assert!(last <= 2 * (4 + 4 + 1), "{last} items are held");
    assert!(last >= 8, "the stages are kept busy: {last}");
    release.close();
    ending.await.unwrap();
    assert_eq!(fates.all().len(), 1_000);
    assert!(fates.all().iter().all(|(_, fate)| matches!(fate, Fate::Acked { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_flow_hands_every_unsettled_delivery_back() {
    let flow = TestFlow::new(4);
    let fates = Fates::default();
    let taken = Arc::new(AtomicUsize::new(0));
    let source = stream::iter(1..=1_000_u64).map({
        let (fates, taken, catalog) = (fates.clone(), taken.clone(), flow.journal.clone());
        move |id| {
            taken.fetch_add(1, Ordering::SeqCst);
            fates.delivery(event(id), &catalog)
        }
    });
    let stuck = Does(|event: ContactEvent| {
        Box::pin(async move {
            if event.conversation.get() > 3 {
                std::future::pending::<()>().await;
            }
            passes(event)
        }) as BoxFuture<'static, Answer>
    });
    let mut passed = source.through(answers(passes), &flow.context).through(stuck, &flow.context);
    let held = passed.next().await.unwrap();
    drop(passed);
    // The tasks end at their next turn.
    let since = Instant::now();
    while fates.all().len() + 1 < taken.load(Ordering::SeqCst) {
        assert!(since.elapsed().as_secs() < 30, "{} of {} came back", fates.all().len(), taken.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(fates.all().iter().all(|(_, fate)| *fate == Fate::HandedBack), "{:?}", fates.all());
    let (_, held) = held.take();
    held.ack().await.unwrap();
    assert_eq!(fates.all().last().map(|(_, fate)| fate.clone()), Some(Fate::Acked { shelved: 0 }));
}

#[tokio::test]
async fn insisting_repeats_in_place_until_it_succeeds() {
    let flow = TestFlow::new(4);
    let fates = Fates::default();
    let tries = Arc::new(AtomicUsize::new(0));
    let stage = answers({
        let tries = tries.clone();
        move |event| match tries.fetch_add(1, Ordering::SeqCst) {
            0..5 => Err(StageError::transient(System::Queue, "no broker")),
            _ => passes(event),
        }
    });
    let delivery = fates.delivery(event(1), &flow.journal);
    stream::iter([delivery]).insist(stage, &flow.context).settle(&flow.context).await;
    assert_eq!(fates.all(), [(1, Fate::Acked { shelved: 0 })]);
    assert_eq!((flow.finished("upload", "retry"), flow.finished("upload", "ok")), (5, 1));
    // What repeating does not help is settled as in any stage.
    let permanent = answers(|_| Err(StageError::permanent("bad")));
    let delivery = fates.delivery(event(2), &flow.journal);
    stream::iter([delivery]).insist(permanent, &flow.context).settle(&flow.context).await;
    assert_eq!(fates.all().last(), Some(&(2, Fate::Acked { shelved: 1 })));
}

#[tokio::test]
async fn insisting_ends_when_the_service_drains() {
    let mut flow = TestFlow::new(4);
    flow.context.retry.error_delay_min = Duration::from_secs(3600);
    flow.context.retry.error_delay_max = Duration::from_secs(3600);
    let fates = Fates::default();
    let tried = Arc::new(Notify::new());
    let stage = answers({
        let tried = tried.clone();
        move |_| {
            tried.notify_one();
            Err(StageError::transient(System::Queue, "no broker"))
        }
    });
    let delivery = fates.delivery(event(1), &flow.journal);
    let ending = stream::iter([delivery]).insist(stage, &flow.context).settle(&flow.context);
    let stopping = flow.context.stopping.clone();
    let stop = async {
        tried.notified().await;
        stopping.cancel();
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(ending, stop) }).await.expect("no hour passes");
    assert_eq!(fates.all(), [(1, Fate::HandedBack)]);
    assert_eq!(flow.finished("upload", "handed_back"), 1);
}

#[tokio::test]
async fn the_work_on_what_the_queue_has_taken_back_ends() {
    let flow = TestFlow::new(4);
    let (fates, lost, begun) = (Fates::default(), CancellationToken::new(), Arc::new(Notify::new()));
    let stage = {
        let begun = begun.clone();
        Does(move |_| {
            begun.notify_one();
            Box::pin(std::future::pending()) as BoxFuture<'static, Answer>
        })
    };
    let delivery = fates.delivery(event(1), &flow.journal).lost_with(lost.clone());
    let mut passed = stream::iter([delivery]).through(stage, &flow.context);
    let in_flight = flow.context.metrics.stage_in_flight.with_label_values(&["upload"]);
    let taken_back = async {
        begun.notified().await;
        assert_eq!(in_flight.get(), 1);
        lost.cancel();
    };
    let (passed, ()) = futures::join!(passed.next(), taken_back);
    assert!(passed.is_none());
    assert_eq!(fates.all(), [(1, Fate::HandedBack)]);
    assert_eq!((in_flight.get(), flow.finished("upload", "handed_back")), (0, 1));
}

#[tokio::test]
async fn what_was_taken_back_between_two_stages_goes_no_further() {
    let flow = TestFlow::new(4);
    let (fates, lost) = (Fates::default(), CancellationToken::new());
    let delivery = fates.delivery(event(1), &flow.journal).lost_with(lost.clone());
    let passed = stream::iter([delivery]).through(answers(passes), &flow.context);
    let passed = passed.inspect(move |_| lost.cancel());
    let mut passed = passed.through(answers(|_| panic!("nobody works on it")), &flow.context);
    assert!(passed.next().await.is_none());
    assert_eq!(fates.all(), [(1, Fate::HandedBack)]);
}
