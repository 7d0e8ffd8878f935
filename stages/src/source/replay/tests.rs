use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use catalog::Catalog;
use flow::FlowExt;
use futures::StreamExt;
use model::{ContactEvent, ContactId, Conversation, DeadLetter, EventSource};
use queue::{EmbeddedQueue, Queue};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::completeness::{ReportRequest, report};
use crate::dedupe::dedupe;
use crate::enqueue::Enqueue;
use crate::source::found::ReceiptTally;
use crate::source::test_nice::{Call, FakeNice, at, context, tenant};

/// A producer with replays and a webhook-like feed, on an embedded queue and catalog.
struct Rig {
    nice: FakeNice,
    replay: ReplayWorker,
    feed: mpsc::Sender<FoundEvent>,
    queue: Arc<EmbeddedQueue>,
    published: Arc<Mutex<BTreeMap<u64, u32>>>,
    _flow: tokio_util::task::AbortOnDropHandle<()>,
    _state: state::testing::TestState,
}

impl Rig {
    async fn new(calls: Vec<Call>, now: &str) -> Self {
        let state = state::testing::TestState::new();
        Self::on(FakeNice::start(calls).await, state, now)
    }

    fn on(nice: FakeNice, state: state::testing::TestState, now: &str) -> Self {
        let context = context(&state, at(now));
        let queue = Arc::new(EmbeddedQueue::open(state.state.store(), context.flow.clock.clone()).unwrap());
        let (found, replayed) = mpsc::channel(64);
        let (feed, fed) = mpsc::channel(64);
        let retention = Duration::from_secs(3 * 86_400);
        let processed = state.state.processed().clone();
        let sources = futures::stream::select(ReceiverStream::new(replayed), ReceiverStream::new(fed));
        let enqueue =
            Enqueue { queue: queue.clone(), fresh: Duration::from_secs(3600), clock: context.flow.clock.clone() };
        let flow = dedupe(sources, processed.clone(), retention, &context).insist(enqueue, &context.flow);
        let published = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = published.clone();
        let flow = flow.inspect(move |delivery| {
            *counted.lock().unwrap().entry(delivery.event.conversation.get()).or_default() += 1;
        });
        let settled = context.clone();
        let flow = runtime::task::spawn("flow", async move { flow.settle(&settled.flow).await });
        let replay = ReplayWorker {
            tenants: nice.tenants.clone(),
            roster: nice.roster.subscribe(),
            compare: Compare {
                tenants: nice.tenants.clone(),
                catalog: context.catalog.clone(),
                processed: Some(processed.clone()),
                polls: false,
                queue: queue.clone(),
                settle: Duration::from_secs(3600),
                longest_delay: Duration::from_secs(3600),
                clock: context.flow.clock.clone(),
            },
            processed,
            retention,
            queue: queue.clone(),
            has_consumers: false,
            longest_call: Duration::from_secs(4 * 3600),
            found,
            context,
        };
        Self { nice, replay, feed, queue, published, _flow: flow, _state: state }
    }

    fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.replay.context.catalog
    }

    async fn run(&self, kind: RunKind, from: &str, to: &str) -> ReplayRun {
        self.run_between(kind, at(from), at(to)).await
    }

    async fn run_between(&self, kind: RunKind, from: Timestamp, to: Timestamp) -> ReplayRun {
        let clock = &self.replay.context.flow.clock;
        clock.advance(SignedDuration::from_millis(1)); // no two runs begin at the same moment
        let mut run = ReplayRun::new(tenant(), kind, from, to, clock.now());
        run.id = self.catalog().begin_run(&run).await.unwrap();
        self.go_on(run).await
    }

    async fn go_on(&self, run: ReplayRun) -> ReplayRun {
        let (kind, id) = (run.kind, run.id);
        self.replay.clone().run(run).await;
        self.catalog().run(&tenant(), kind, id).await.unwrap().unwrap()
    }

    /// Takes every message off the queue and makes its conversation ready.
    async fn consume(&self) -> u64 {
        let mut deliveries = self.queue.deliveries(64);
        let mut count = 0;
        while self.queue.backlog().await.unwrap() != Default::default() {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let event = ContactEvent::decode(&delivery.body).unwrap();
            self.import(event).await;
            delivery.settle.ack().await.unwrap();
            count += 1;
        }
        count
    }

    async fn import(&self, event: ContactEvent) {
        let call = self.nice.call(event.conversation.get());
        let conversation = Conversation {
            tenant: event.tenant.clone(),
            external_id: event.conversation,
            source: event.source,
            lane: model::Lane::of(&event),
            master: event.conversation,
            agent: event.agent.unwrap(),
            started_at: call.start,
            ended_at: call.end(),
            direction: None,
            customer_number: None,
            metadata: serde_json::json!({}),
        };
        let key = conversation.key();
        self.catalog().save_metadata(&conversation).await.unwrap();
        self.catalog().complete(&key, &[], 0, self.replay.context.flow.clock.now(), None).await.unwrap();
    }

    fn published(&self) -> BTreeMap<u64, u32> {
        self.published.lock().unwrap().clone()
    }

    fn ids(&self) -> BTreeSet<u64> {
        self.published().into_keys().collect()
    }

    async fn tell(&self, id: u64) {
        let call = self.nice.call(id);
        let mut event = ContactEvent::new(tenant(), id.to_string().parse().unwrap(), EventSource::Webhook);
        (event.agent, event.ended_at) = (Some("7".parse().unwrap()), Some(call.end()));
        let mut tally = ReceiptTally::new();
        self.feed.send(FoundEvent::new(event, tally.receipt())).await.unwrap();
        assert!(tally.all_settled().await);
    }
}

const NOW: &str = "2026-04-02T02:00:00Z";

/// A call every ten minutes of the day before.
fn day_of_calls() -> Vec<Call> {
    (0..144)
        .map(|n| Call::new(1_000 + n, at("2026-04-01T02:00:00Z") + SignedDuration::from_mins(10 * n as i64), 300))
        .collect()
}

#[tokio::test]
async fn what_was_lost_is_replayed_once_and_the_rest_is_left_alone() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    for id in (1_000..1_144).filter(|id| id % 7 != 0) {
        rig.tell(id).await;
    }
    rig.consume().await;
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.state, run.reason.clone()), (RunState::Done, None));
    assert_eq!((run.found.listed, run.found.missing, run.found.replayed), (144, 21, 21), "{run:?}");
    assert_eq!(run.found.ready, 123);
    assert_eq!(rig.consume().await, 21);
    let again = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((again.found.ready, again.found.missing), (144, 0));
    assert!(rig.published().values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_call_that_waits_on_the_queue_is_not_doubled() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    let first = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!(first.found.replayed, 144);
    // For most of a day at least.
    rig.replay.context.flow.clock.advance(SignedDuration::from_hours(20));
    let second = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((second.found.in_flight, second.found.missing), (144, 0));
    assert!(rig.published().values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_mark_without_a_row_is_replayed_once_it_is_older_than_any_work_in_flight() {
    let rig = Rig::new(vec![Call::new(1, at("2026-04-02T01:20:00Z"), 60)], NOW).await;
    rig.replay.processed.seed([key(1).digest()]).unwrap();
    let young = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((young.found.in_flight, young.found.missing), (1, 0));
    rig.replay.context.flow.clock.advance(SignedDuration::from_mins(30));
    let old = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((old.found.missing, old.found.replayed), (1, 1));
    assert_eq!(rig.published(), BTreeMap::from([(1, 1)]));
}

#[tokio::test]
async fn a_row_without_a_mark_is_marked() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    for id in 1_000..1_144 {
        let mut event = ContactEvent::new(tenant(), id.to_string().parse().unwrap(), EventSource::Poll);
        event.agent = Some("7".parse().unwrap());
        rig.import(event).await;
    }
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.found.ready, run.found.marked, run.found.missing), (144, 144, 0));
    rig.tell(1_003).await;
    assert!(rig.published().is_empty(), "the dedupe knows it now");
    let again = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!(again.found.marked, 0);
}

#[tokio::test]
async fn a_dead_letter_is_not_replayed_and_neither_is_one_that_an_operator_dropped() {
    let rig =
        Rig::new(vec![Call::new(1, at("2026-04-01T08:00:00Z"), 60), Call::new(2, at("2026-04-01T09:00:00Z"), 60)], NOW)
            .await;
    for id in [1, 2] {
        let event = ContactEvent::new(tenant(), ContactId::from_number(id).unwrap(), EventSource::Poll);
        let hop = model::Hop {
            at: at("2026-04-01T10:00:00Z"),
            stage: "fetch_metadata".to_owned(),
            outcome: "dead_letter".to_owned(),
            attempt: 4,
            took_millis: 1,
            detail: Some("poison".to_owned()),
        };
        rig.catalog().record_hop(&event.key(), hop).await;
        let letter = DeadLetter::of_event(&event, "fetch_metadata", "poison", at(NOW));
        rig.catalog().add_dead_letter(letter).await.unwrap();
    }
    let letters = rig.catalog().dead_letters(0, 10).await.unwrap();
    rig.catalog().remove_dead_letter(&letters[1]).await.unwrap();
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.found.dead, run.found.excluded, run.found.missing), (1, 1, 0));
}

#[tokio::test]
async fn a_backfill_plans_first_and_a_dry_run_publishes_nothing() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    rig.tell(1_000).await;
    rig.consume().await;
    let mut run = ReplayRun::new(tenant(), RunKind::Backfill, at("2026-04-01T02:00:00Z"), at(NOW), at(NOW));
    run.plan_only = true;
    run.id = rig.catalog().begin_run(&run).await.unwrap();
    let planned = rig.go_on(run).await;
    let plan = planned.plan.unwrap();
    assert_eq!((planned.state, plan.listed, plan.ready, plan.missing), (RunState::Planned, 144, 1, 143));
    assert_eq!((plan.replayed, rig.ids().len()), (0, 1));
    assert!(rig.catalog().change_run(&planned, RunState::Running, at(NOW)).await.unwrap());
    let done = rig.go_on(ReplayRun { state: RunState::Running, ..planned }).await;
    assert_eq!((done.state, done.found.replayed), (RunState::Done, 143));
    assert_eq!(rig.consume().await, 143);
}

#[tokio::test]
async fn a_backfill_picks_by_the_start_half_open() {
    let start = |time: &str| at(time);
    let calls = vec![
        Call::new(1, start("2026-03-31T23:59:59.999Z"), 600),
        Call::new(2, start("2026-04-01T00:00:00Z"), 60),
        Call::new(3, start("2026-04-01T23:59:59.999Z"), 600),
        Call::new(4, start("2026-04-02T00:00:00Z"), 60),
    ];
    let rig = Rig::new(calls, NOW).await;
    rig.run(RunKind::Backfill, "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z").await;
    assert_eq!(rig.ids(), BTreeSet::from([2, 3]));
}

#[tokio::test]
async fn a_reconciliation_picks_by_the_end_and_finds_calls_that_began_long_before() {
    let calls = vec![
        Call::new(1, at("2026-03-31T22:30:00Z"), 3 * 3600 + 1800),
        Call::new(2, at("2026-04-01T01:00:00Z"), 3599),
        Call::new(3, at("2026-04-02T01:59:00Z"), 59),
    ];
    let rig = Rig::new(calls, NOW).await;
    rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!(rig.ids(), BTreeSet::from([1, 3]));
}

#[tokio::test]
async fn a_run_that_was_killed_anywhere_repeats_a_slice_at_most() {
    let calls: Vec<_> = (0..6_000)
        .map(|n| Call::new(1 + n, at("2026-04-01T02:00:00Z") + SignedDuration::from_secs(14 * n as i64), 10))
        .collect();
    let rig = Rig::new(calls, NOW).await;
    rig.nice.cap(1_000);
    let mut run = ReplayRun::new(tenant(), RunKind::Reconciliation, at("2026-04-01T02:00:00Z"), at(NOW), at(NOW));
    run.id = rig.catalog().begin_run(&run).await.unwrap();
    let mut kills = 0;
    loop {
        let standing = rig.catalog().run(&tenant(), run.kind, run.id).await.unwrap().unwrap();
        if standing.state == RunState::Done {
            run = standing;
            break;
        }
        // The replay dies at some await after as many answers of NICE; the flow lives on or dies with it, both happen.
        let asked = rig.nice.requests();
        let replay = rig.replay.clone().run(standing);
        tokio::select! {
            () = replay => {}
            () = async { while rig.nice.requests() < asked + 1 + kills % 16 { tokio::task::yield_now().await; } } => {}
        }
        kills += 1;
        assert!(kills < 200, "it goes on");
    }
    assert!(kills > 3);
    assert_eq!(rig.published().len(), 6_000);
    assert!(rig.published().values().all(|times| *times == 1));
    assert_eq!(run.found.listed, 6_000);
    assert_eq!(run.found.missing, run.found.replayed);
}

#[tokio::test]
async fn a_backfill_keeps_the_queue_short_and_its_pause_takes_effect_there() {
    let calls: Vec<_> = (0..1_200)
        .map(|n| Call::new(1 + n, at("2026-04-01T02:00:00Z") + SignedDuration::from_secs(60 * n as i64), 10))
        .collect();
    let mut rig = Rig::new(calls, NOW).await;
    rig.replay.has_consumers = true;
    let mut run = ReplayRun::new(tenant(), RunKind::Backfill, at("2026-04-01T02:00:00Z"), at(NOW), at(NOW));
    run.id = rig.catalog().begin_run(&run).await.unwrap();
    let working = runtime::task::spawn("run", rig.replay.clone().run(run.clone()));
    while rig.published().len() < LEAD as usize {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let standing = rig.catalog().run(&tenant(), run.kind, run.id).await.unwrap().unwrap();
    assert!(rig.catalog().change_run(&standing, RunState::Paused, at(NOW)).await.unwrap());
    working.await.unwrap(); // it obeys although nobody takes from the queue
    assert_eq!(rig.published().len(), LEAD as usize);

    let paused = rig.catalog().run(&tenant(), run.kind, run.id).await.unwrap().unwrap();
    assert!(rig.catalog().change_run(&paused, RunState::Running, at(NOW)).await.unwrap());
    let running = ReplayRun { state: RunState::Running, ..paused };
    let working = runtime::task::spawn("run", rig.replay.clone().run(running));
    while !working.is_finished() {
        rig.consume().await;
        tokio::task::yield_now().await;
    }
    rig.consume().await;
    assert_eq!(rig.published().len(), 1_200);
    assert!(rig.published().values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_pause_holds_and_a_cancel_ends() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    let mut run = ReplayRun::new(tenant(), RunKind::Backfill, at("2026-04-01T02:00:00Z"), at(NOW), at(NOW));
    run.id = rig.catalog().begin_run(&run).await.unwrap();
    assert!(rig.catalog().change_run(&run, RunState::Paused, at(NOW)).await.unwrap());
    let paused = rig.go_on(run).await;
    assert_eq!((paused.state, rig.published().len()), (RunState::Paused, 0));
    assert!(rig.catalog().change_run(&paused, RunState::Cancelled, at(NOW)).await.unwrap());
    let cancelled = rig.go_on(paused.clone()).await;
    assert_eq!((cancelled.state, cancelled.finished_at), (RunState::Cancelled, Some(at(NOW))));
    assert!(!rig.catalog().change_run(&paused, RunState::Running, at(NOW)).await.unwrap(), "the end is the end");
}

#[tokio::test]
async fn nice_in_trouble_stops_a_run_only_for_a_while() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    rig.nice.fail_next(3);
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.state, run.found.replayed, run.reason), (RunState::Done, 144, None));
}

#[tokio::test]
async fn a_month_with_lost_repeated_reordered_and_late_events_balances_to_zero() {
    let mut random = rand::rngs::StdRng::seed_from_u64(4);
    let begin = at("2026-03-01T00:00:00Z");
    let calls: Vec<_> = (0..30 * 120_u64)
        .map(|n| {
            let start = begin + SignedDuration::from_secs((n * 720 + random.random_range(0..720)) as i64);
            Call::new(10_000 + n, start, random.random_range(5..4 * 3600))
        })
        .collect();
    let (mut deliveries, mut lost) = (Vec::new(), BTreeSet::new());
    for call in &calls {
        if random.random_bool(0.05) {
            lost.insert(call.id);
            continue;
        }
        for _ in 0..10 {
            deliveries.push((call.end() + SignedDuration::from_secs(random.random_range(0..86_400)), call.id));
        }
    }
    deliveries.shuffle(&mut random);
    deliveries.sort_by_key(|(at, _)| at.as_second() / 3_600); // in order by the hour, and in none within it
    let rig = Rig::new(calls.clone(), "2026-03-01T00:00:00Z").await;
    let clock = &rig.replay.context.flow.clock;
    let mut deliveries = deliveries.into_iter().peekable();
    let (mut replayed, mut night) = (0, at("2026-03-02T02:00:00Z"));
    let mut covered = begin;
    while night < at("2026-04-03T00:00:00Z") {
        while let Some((_, id)) = deliveries.next_if(|(at, _)| *at <= night) {
            rig.tell(id).await;
        }
        clock.advance(night.duration_since(clock.now()));
        rig.consume().await;
        let run = rig.run_between(RunKind::Reconciliation, covered, night).await;
        assert_eq!(run.state, RunState::Done, "{run:?}");
        replayed += run.found.replayed;
        covered = night;
        night += SignedDuration::from_hours(24);
    }
    rig.consume().await;
    let published = rig.published();
    assert_eq!(published.keys().copied().collect::<BTreeSet<_>>(), calls.iter().map(|call| call.id).collect());
    assert!(published.values().all(|times| *times == 1), "each reached the queue once");
    assert!(replayed >= lost.len() as u64, "{replayed} replayed of {} lost", lost.len());

    // A report reaches back as far as NICE does.
    let question = |from: &str, to: &str| ReportRequest {
        tenants: rig.nice.tenants.clone(),
        tenant: tenant(),
        roster: rig.nice.roster.borrow().clone(),
        compare: rig.replay.compare.clone(),
        from: at(from),
        to: at(to),
        longest_call: Duration::from_secs(4 * 3600),
    };
    let complete = report(question("2026-03-04T00:00:00Z", "2026-04-01T00:00:00Z")).await.unwrap();
    let in_range = |call: &&Call| call.end() >= at("2026-03-04T00:00:00Z") && call.end() < at("2026-04-01T00:00:00Z");
    assert_eq!(complete.total.ended, calls.iter().filter(in_range).count() as u64);
    assert_eq!((complete.total.ready, complete.total.missing), (complete.total.ended, 0));
    assert!(complete.exceptions.is_empty());
    assert_eq!(complete.days.len(), 28);
}

fn key(id: u64) -> model::ConversationKey {
    model::ConversationKey { tenant: tenant(), external_id: ContactId::from_number(id).unwrap() }
}

#[tokio::test]
async fn calls_from_before_an_agent_joined_are_neither_replayed_nor_missing_unless_today_counts() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    // Joined at noon, away in the afternoon from three to four, and back.
    let mut member = crate::source::test_nice::agent();
    member.memberships = model::Memberships::since(at("2026-04-01T12:00:00Z"));
    member.memberships.leave(at("2026-04-01T15:00:00Z"));
    member.memberships.join(at("2026-04-01T16:00:00Z"));
    Roster::replace(&rig.nice.roster, std::slice::from_ref(&member));
    let then: Vec<u64> =
        day_of_calls().iter().filter(|call| member.was_member_at(Some(call.end()))).map(|call| call.id).collect();
    assert_eq!(then.len(), 78);
    let night = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((night.found.listed, night.found.missing), (78, 78), "{night:?}");
    assert_eq!(rig.ids().into_iter().collect::<Vec<_>>(), then);
    rig.consume().await;
    let question = ReportRequest {
        tenants: rig.nice.tenants.clone(),
        tenant: tenant(),
        roster: rig.nice.roster.borrow().clone(),
        compare: rig.replay.compare.clone(),
        from: at("2026-04-01T00:00:00Z"),
        to: at(NOW),
        longest_call: Duration::from_secs(4 * 3600),
    };
    let complete = report(question).await.unwrap();
    assert_eq!((complete.total.ended, complete.total.ready, complete.total.missing), (78, 78, 0));
    let backfill = rig.run(RunKind::Backfill, "2026-04-01T00:00:00Z", NOW).await;
    assert_eq!((backfill.plan.unwrap().listed, backfill.plan.unwrap().missing), (78, 0));

    rig.replay.context.flow.clock.advance(SignedDuration::from_millis(1));
    let now = rig.replay.context.flow.clock.now();
    let mut of_today = ReplayRun::new(tenant(), RunKind::Backfill, at("2026-04-01T00:00:00Z"), at(NOW), now);
    of_today.members = model::Members::Now;
    of_today.id = rig.catalog().begin_run(&of_today).await.unwrap();
    let of_today = rig.go_on(of_today).await;
    assert_eq!((of_today.members, of_today.found.missing), (model::Members::Now, 144 - 78));
    let mut deliveries = rig.queue.deliveries(64);
    let body = deliveries.next().await.unwrap().unwrap().body;
    assert!(ContactEvent::decode(&body).unwrap().members_now, "the consumer admits it as well");
}

#[tokio::test]
async fn a_call_that_was_dropped_by_half_a_record_is_found_by_the_night() {
    let rig = Rig::new(vec![Call::new(1, at("2026-04-01T22:00:00Z"), 60)], NOW).await;
    rig.tell(1).await;
    let mut deliveries = rig.queue.deliveries(1);
    deliveries.next().await.unwrap().unwrap().settle.ack().await.unwrap();
    let (stage, outcome) = ("fetch_metadata".to_owned(), "done".to_owned());
    let (at, detail) = (at("2026-04-01T22:01:10Z"), Some("never_answered".to_owned()));
    let hop = model::Hop { at, stage, outcome, attempt: 0, took_millis: 0, detail };
    rig.catalog().record_hop(&key(1), hop).await;
    let night = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((night.found.missing, night.found.replayed), (1, 1), "{night:?}");
    assert_eq!(rig.published(), BTreeMap::from([(1, 2)]));
}

#[tokio::test]
async fn a_list_that_does_not_add_up_is_never_called_whole() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    let honest = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((honest.doubtful, honest.doubt), (0, None));
    rig.nice.say_percent_of_total(150);
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.state, run.found.listed), (RunState::Done, 144), "it ends, with what there is");
    assert!(run.doubtful > 0, "{run:?}");
    assert!(run.doubt.unwrap().contains("announced"));
    let report = report(question(&rig, "2026-04-01T02:00:00Z", NOW)).await.unwrap();
    assert!(report.doubtful > 0 && report.doubt.is_some());
}

fn question(rig: &Rig, from: &str, to: &str) -> ReportRequest {
    ReportRequest {
        tenants: rig.nice.tenants.clone(),
        tenant: tenant(),
        roster: rig.nice.roster.borrow().clone(),
        compare: rig.replay.compare.clone(),
        from: at(from),
        to: at(to),
        longest_call: rig.replay.longest_call,
    }
}

#[tokio::test]
async fn what_the_poll_has_yet_to_come_to_is_not_missing_and_is_published_all_the_same() {
    let mut rig = Rig::new(day_of_calls(), NOW).await;
    rig.replay.compare.polls = true;
    rig.catalog().advance_poll(&tenant(), at("2026-04-02T01:00:00Z"), None).await.unwrap();
    let before = report(question(&rig, "2026-04-01T02:00:00Z", NOW)).await.unwrap();
    // Those that ended in the last hour: at 01:05 and every ten minutes from then on.
    assert_eq!((before.total.not_looked_for_yet, before.total.missing), (6, 138));
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!((run.found.missing, run.found.replayed, run.found.in_flight), (138, 138, 6));
    assert_eq!(rig.ids().len(), 144, "a poll that stands still loses nothing");
    // No stored time is believed beyond now.
    let mut ahead = Rig::new(day_of_calls(), NOW).await;
    ahead.replay.compare.polls = true;
    ahead.catalog().advance_poll(&tenant(), at("2026-04-07T00:00:00Z"), None).await.unwrap();
    let report = report(question(&ahead, "2026-04-01T02:00:00Z", NOW)).await.unwrap();
    assert_eq!((report.total.not_looked_for_yet, report.total.missing), (0, 144));
}

#[tokio::test]
async fn a_run_says_up_to_when_nices_clock_had_come() {
    let rig = Rig::new(day_of_calls(), NOW).await;
    for (told, to) in [("2026-04-02T01:59:00Z", NOW), ("2026-03-30T00:00:00Z", "2026-04-01T02:00:00Z")] {
        rig.nice.tell_time(at(told));
        let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
        assert_eq!((run.to, run.reached), (at(to), at(to)), "NICE's clock at {told}");
    }
}

#[tokio::test]
async fn a_call_that_lasts_longer_than_any_is_found_by_its_end() {
    let began = at("2026-03-31T00:00:00Z");
    let ended_before = Call::new(3, began, 3600);
    let calls = vec![Call::new(1, began, 40 * 3600), Call::new(2, at("2026-04-01T12:00:00Z"), 60), ended_before];
    let rig = Rig::new(calls, NOW).await;
    rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!(rig.ids(), BTreeSet::from([1, 2]));
    let report = report(question(&rig, "2026-04-01T02:00:00Z", NOW)).await.unwrap();
    assert_eq!(report.total.ended, 2);
}

#[tokio::test]
async fn a_piece_that_cannot_be_had_keeps_no_run_open_and_is_looked_at_the_next_night() {
    let mut calls = day_of_calls();
    let crowd = at("2026-04-01T10:00:01Z");
    calls.extend((0..700).map(|n| Call::new(5_000 + n, crowd + SignedDuration::from_millis(10 * n as i64), 5)));
    let rig = Rig::new(calls, NOW).await;
    rig.nice.refuse_more_than(300);
    let run = rig.run(RunKind::Reconciliation, "2026-04-01T02:00:00Z", NOW).await;
    assert_eq!(run.state, RunState::Done, "{run:?}");
    assert!(run.doubtful > 0 && run.doubt.unwrap().contains("cannot be read"));
    assert!(run.open_since.unwrap() <= crowd, "the next night begins there at the latest");
    assert!(rig.ids().iter().filter(|id| **id < 5_000).count() >= 143);
}
