//! The line of one process: who waits, who is sent away, and what becomes of a permit.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use model::{ApiFamily, Permit, Quota, QuotaClass, QuotaError};
use runtime::{Clock, task};
use state::testing::TestState;
use tokio::time::{Instant, sleep};

use super::{simulation::MemoryStore, *};
use crate::QuotaMetrics;

const RATE: Rate = Rate { limit: 10, window: Duration::from_secs(300) };

/// The wall clock that goes with a paused runtime, and how far it is ahead.
fn paused_clock() -> (Clock, Arc<AtomicI64>) {
    let (wall, begun) = (Timestamp::from_second(1_795_348_800).unwrap(), Instant::now());
    let ahead = Arc::new(AtomicI64::new(0));
    let secs = ahead.clone();
    let clock = move || {
        let ahead = SignedDuration::from_secs(secs.load(Ordering::SeqCst));
        wall + SignedDuration::try_from(begun.elapsed()).unwrap() + ahead
    };
    (Clock::asking(clock), ahead)
}

fn gate_on(store: impl BudgetStore, rate: Rate) -> QuotaGate {
    QuotaGate::new(Arc::new(store), ApiFamily::MediaPlayback, Terms::new(rate, 0.5), QuotaMetrics::default())
}

fn gate(rate: Rate) -> (QuotaGate, MemoryStore) {
    let store = MemoryStore::new(paused_clock().0);
    (gate_on(store.clone(), rate), store)
}

async fn used(store: &MemoryStore, rate: Rate) -> u32 {
    store.usage(&Terms::new(rate, 0.5)).await.unwrap().used()
}

fn told(answer: Result<Box<dyn Permit>, QuotaError>) -> Duration {
    match answer {
        Err(QuotaError { retry_after: Some(wait), .. }) => wait,
        answer => panic!("there is room: {answer:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_sent_away_for_a_minute_at_most_and_not_with_the_others() {
    let (gate, _) = gate(RATE);
    for _ in 0..RATE.limit {
        assert!(gate.admit(QuotaClass::Live, Patience::WORKER).await.unwrap().leave());
    }
    let began = Instant::now();
    let waits: Vec<_> = join_all((0..200).map(|_| gate.admit(QuotaClass::Live, Patience::WORKER)))
        .await
        .into_iter()
        .map(told)
        .collect();
    assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60)), "{waits:?}");
    let within = |from, to| waits.iter().filter(|wait| (from..to).contains(&wait.as_secs())).count();
    for second in (30..60).step_by(6) {
        assert!(within(second, second + 6) >= 10, "they come back spread: {waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_were_sent_away_leave_no_place_unused_although_a_queue_is_late() {
    let rate = Rate { limit: 2, window: Duration::from_secs(1) };
    let (gate, _) = gate(rate);
    let (gate, done) = (Arc::new(gate), Arc::new(AtomicUsize::new(0)));
    // As many at a time as a consumer has workers.
    let workers = Arc::new(tokio::sync::Semaphore::new(16));
    let began = Instant::now();
    let calls = (0..116).map(|_| async {
        loop {
            let worker = workers.acquire().await.unwrap();
            match gate.admit(QuotaClass::Live, Patience::WORKER).await {
                Ok(mut permit) => {
                    assert!(permit.leave());
                    sleep(Duration::from_millis(50)).await;
                    done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                answer => {
                    drop(worker);
                    // The steps of a queue double.
                    sleep(
                        Duration::from_secs(told(answer).as_secs_f64().ceil() as u64)
                            .max(Duration::from_secs(1))
                            .mul_f64(1.9),
                    )
                    .await;
                }
            }
        }
    });
    join_all(calls).await;
    let (took, least) = (began.elapsed().as_secs_f64(), 116.0 / 2.0);
    assert!(took <= least * 1.5, "{took} s instead of {least}");
}

#[tokio::test(start_paused = true)]
async fn of_those_that_wait_the_first_class_goes_first_and_within_it_the_first_that_came() {
    let rate = Rate { limit: 2, window: Duration::from_secs(10) };
    let (gate, _) = gate(rate);
    let gate = Arc::new(gate);
    // The retries have had what their floor gives them.
    for class in [QuotaClass::Live, QuotaClass::Retry] {
        assert!(gate.admit(class, Patience::Endless).await.unwrap().leave());
    }
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (number, class) in [QuotaClass::Retry, QuotaClass::Live, QuotaClass::Live].into_iter().enumerate() {
        let (gate, order) = (gate.clone(), order.clone());
        waiting.push(task::spawn("wait", async move {
            assert!(gate.admit(class, Patience::Endless).await.unwrap().leave());
            order.lock().unwrap().push((class, number));
        }));
        sleep(Duration::from_millis(1)).await;
    }
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [(QuotaClass::Live, 1), (QuotaClass::Live, 2), (QuotaClass::Retry, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_not_used_gives_its_place_back() {
    let (gate, store) = gate(RATE);
    drop(gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap());
    assert!(gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap().leave());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(used(&store, RATE).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_takes_no_place() {
    let (gate, store) = gate(RATE);
    for _ in 0..50 {
        let asked = gate.admit(QuotaClass::Live, Patience::Endless);
        assert!(tokio::time::timeout(Duration::ZERO, asked).await.is_err());
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(used(&store, RATE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_until_a_window_after_its_answer() {
    let rate = Rate { limit: 1, window: Duration::from_secs(100) };
    let (gate, _) = gate(rate);
    let mut permit = gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap();
    assert!(permit.leave());
    sleep(Duration::from_secs(25)).await;
    drop(permit);
    let began = Instant::now();
    drop(gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap());
    let waited = began.elapsed().as_secs_f64();
    assert!((100.0..101.5).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_held_for_long_does_not_leave() {
    let (gate, _) = gate(RATE);
    let mut permit = gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(!permit.leave());
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_one_request_tries_and_the_others_follow_its_answer() {
    let rate = Rate { limit: 100, ..RATE };
    let (gate, store) = gate(rate);
    let gate = Arc::new(gate);
    let mut permit = gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap();
    assert!(permit.leave());
    permit.refused(None);
    let in_flight = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let asking = (0..5).map(|_| async {
        let mut permit = gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap();
        assert!(permit.leave());
        assert!(began.elapsed() >= Duration::from_secs(2), "it is paused");
        most.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(Duration::from_millis(300)).await;
        in_flight.fetch_sub(1, Ordering::SeqCst);
    });
    join_all(asking).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
    let usage = store.usage(&Terms::new(rate, 0.5)).await.unwrap();
    assert_eq!((usage.limit_now, usage.pace()), (100, "recovering"), "little was in use: only a pause");
}

#[tokio::test(start_paused = true)]
async fn at_a_high_rate_the_store_is_asked_seldom() {
    struct Counted(MemoryStore, Arc<AtomicUsize>);
    #[async_trait]
    impl BudgetStore for Counted {
        async fn turn(
            &self,
            request: &BudgetRequest,
            age: &(dyn Fn() -> Duration + Send + Sync),
        ) -> Result<BudgetDecision, StoreError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(2)).await;
            self.0.turn(request, age).await
        }

        async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
            self.0.usage(terms).await
        }
    }
    let rate = Rate { limit: 1_000_000, window: Duration::from_secs(1) };
    let (store, asked) = (MemoryStore::new(paused_clock().0), Arc::new(AtomicUsize::new(0)));
    let gate = gate_on(Counted(store.clone(), asked.clone()), rate);
    for _ in 0..20_000 {
        assert!(gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap().leave());
    }
    assert!(asked.load(Ordering::SeqCst) < 400, "{asked:?}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(used(&store, rate).await, 0, "what was taken ahead is given back");
}

/// Nothing but failures, until it works.
struct Broken(MemoryStore, Arc<AtomicUsize>);

#[async_trait]
impl BudgetStore for Broken {
    async fn turn(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError> {
        if self.1.load(Ordering::SeqCst) > 0 {
            return Err(StoreError { what: "it is away".to_owned(), may_be_saved: false });
        }
        self.0.turn(request, age).await
    }

    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
        self.0.usage(terms).await
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_nothing_is_sent_and_nothing_is_forgotten() {
    let (store, broken) = (MemoryStore::new(paused_clock().0), Arc::new(AtomicUsize::new(0)));
    let gate = gate_on(Broken(store.clone(), broken.clone()), RATE);
    let mut permit = gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap();
    assert!(permit.leave());
    broken.store(1, Ordering::SeqCst);
    let answer = gate.admit(QuotaClass::Live, Patience::WORKER).await;
    assert!(matches!(&answer, Err(QuotaError { retry_after: None, .. })), "{answer:?}");
    drop(permit);
    sleep(Duration::from_secs(30)).await;
    broken.store(0, Ordering::SeqCst);
    drop(gate.admit(QuotaClass::Live, Patience::Endless).await.unwrap());
    sleep(Duration::from_secs(271)).await;
    assert_eq!(used(&store, RATE).await, 0, "its answer was told late, and when it was");
}

#[tokio::test]
async fn a_restart_keeps_what_counts_and_what_a_refusal_taught() {
    let state = TestState::new();
    let tenant = "acme".parse().unwrap();
    let terms = Terms::new(RATE, 0.5);
    let budgets = |state: &TestState| {
        let stores = Arc::new(LocalStores::new(state.state.clone()));
        Arc::new(Budgets::new(stores, terms, terms, QuotaMetrics::default()))
    };
    let before = budgets(&state);
    let quota = TenantQuota::new(before.clone(), "acme".parse().unwrap(), Patience::WORKER);
    for class in [QuotaClass::Live, QuotaClass::Backfill] {
        let permit = quota.admit(Some("nice.example/11ee"), ApiFamily::MediaPlayback, class).await;
        assert!(permit.unwrap().leave());
    }
    let permit = quota.admit(Some("nice.example/11ee"), ApiFamily::MediaPlayback, QuotaClass::Live).await.unwrap();
    permit.refused(Some(Duration::from_secs(200)));
    // The next question tells of the refusal, and its grant makes it durable.
    while before.usage(&tenant, ApiFamily::MediaPlayback).await.unwrap().refused.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    state.state.store().commit().await.unwrap();

    let state = state.crashed();
    let after = budgets(&state);
    let usage = after.usage(&tenant, ApiFamily::MediaPlayback).await.unwrap();
    assert_eq!(usage.by_class, [(QuotaClass::Live, 2), (QuotaClass::Backfill, 1)]);
    assert_eq!((usage.limit, usage.available(), usage.pace()), (10, 0, "paused"));
    let quota = TenantQuota::new(after.clone(), "acme".parse().unwrap(), Patience::WORKER);
    told(quota.admit(Some("nice.example/11ee"), ApiFamily::MediaPlayback, QuotaClass::Live).await);
    drop(quota.admit(Some("nice.example/11ee"), ApiFamily::Acd, QuotaClass::Live).await.unwrap());
}

#[tokio::test]
async fn two_tenants_of_one_nice_tenant_share_its_budget_and_others_do_not() {
    let state = TestState::new();
    let terms = Terms::new(RATE, 0.5);
    let stores = Arc::new(LocalStores::new(state.state.clone()));
    let budgets = Arc::new(Budgets::new(stores, terms, terms, QuotaMetrics::default()));
    let ask = async |tenant: &str, account: Option<&str>| {
        let quota = TenantQuota::new(budgets.clone(), tenant.parse().unwrap(), Patience::UpTo(Duration::ZERO));
        quota.admit(account, ApiFamily::MediaPlayback, QuotaClass::Live).await.map(|mut permit| permit.leave())
    };
    for number in 0..RATE.limit {
        let tenant = if number % 2 == 0 { "one" } else { "other" };
        assert!(ask(tenant, Some("nice.example/11ee")).await.unwrap());
    }
    assert!(ask("one", Some("nice.example/11ee")).await.is_err());
    assert!(ask("other", Some("nice.example/11ee")).await.is_err());
    assert!(ask("third", Some("nice.example/22ff")).await.unwrap());
    assert!(ask("nameless", None).await.unwrap());
    let used =
        async |tenant: &str| budgets.usage(&tenant.parse().unwrap(), ApiFamily::MediaPlayback).await.unwrap().used();
    assert_eq!((used("one").await, used("other").await, used("third").await), (10, 10, 1));
}

#[test]
fn the_limit_is_explained_in_words() {
    let now: Timestamp = "2026-11-29T10:44:30Z".parse().unwrap();
    let at = |count, closed_for: Option<u64>, full_pace_in: u64| Usage {
        limit: 150,
        limit_now: 100,
        by_class: Vec::new(),
        refused: Some(Refused {
            count,
            ago: Duration::from_secs(120),
            closed_for: closed_for.map(Duration::from_secs),
            full_pace_in: Duration::from_secs(full_pace_in),
        }),
    };
    assert_eq!(at(3, None, 236).in_words(now), "NICE refused 3 requests at 10:42, back at full pace in 4 min");
    let paused = "NICE refused a request at 10:42, nothing is sent for 8 s, back at full pace in 10 min";
    assert_eq!(at(1, Some(8), 600).in_words(now), paused);
    assert_eq!(Usage { refused: None, ..at(0, None, 0) }.in_words(now), "full pace");
}
