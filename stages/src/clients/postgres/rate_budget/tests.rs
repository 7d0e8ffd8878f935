//! Never more than N in any W, over any number of processes and whatever becomes of them.

use std::sync::atomic::AtomicUsize;

use test_servers::Postgres;

use super::*;
use crate::clients::postgres::test_database::{TestDatabase, open};
use crate::clients::postgres::{schema, test_database};

const AN_HOUR: Duration = Duration::from_secs(3600);

fn rate(limit: u32, window: Duration) -> Rate {
    Rate { limit, window }
}

/// What a process has of the budget.
fn quota(database: &Database, rate: Rate, patience: Patience) -> SharedQuota {
    with_reserve(database, rate, 0.5, patience)
}

fn with_reserve(database: &Database, rate: Rate, live_reserve: f64, patience: Patience) -> SharedQuota {
    let shares = Shares::new(rate, live_reserve);
    SharedQuota::new(database.clone(), "acme".parse().unwrap(), shares, shares, patience, Metrics::new())
}

fn impatient(database: &Database, rate: Rate) -> SharedQuota {
    quota(database, rate, Patience::UpTo(Duration::ZERO))
}

async fn admit(quota: &SharedQuota) -> Result<(), NiceError> {
    quota.admit(ApiFamily::MediaPlayback, QuotaClass::Live).await
}

/// Lets the next lease have so many more grants than are waited for.
fn look_ahead(quota: &SharedQuota, ahead: i64) {
    let mut pool = quota.media_playback.lane(QuotaClass::Live).pool();
    (pool.ahead, pool.asked_at) = (ahead, Some(Instant::now()));
}

async fn available(quota: &SharedQuota) -> usize {
    quota.usage(ApiFamily::MediaPlayback).await.unwrap().available()
}

fn is_full(answer: &Result<(), NiceError>) -> bool {
    matches!(answer, Err(NiceError::Quota { retry_after: Some(_), .. }))
}

/// Another process's view of the same database.
async fn databases(count: usize) -> Vec<Database> {
    let url = test_servers::postgres().await.database().await;
    schema::migrate(&open(&url)).await.unwrap();
    (0..count).map(|_| open(&url)).collect()
}

/// A process that sends as many requests as it may, until it is killed.
struct Hammer {
    sent: Arc<AtomicUsize>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Hammer {
    fn new(database: &Database, rate: Rate, tasks: usize, log: &Arc<Mutex<Vec<Instant>>>) -> Self {
        let quota = Arc::new(quota(database, rate, Patience::Endless));
        let sent = Arc::new(AtomicUsize::new(0));
        let hammering = (0..tasks).map(|_| {
            let (quota, sent, log) = (quota.clone(), sent.clone(), log.clone());
            task::spawn("hammer", async move {
                loop {
                    admit(&quota).await.unwrap();
                    log.lock().unwrap().push(Instant::now());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let tasks = hammering.collect();
        Self { sent, _tasks: tasks }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Returns once so many requests were sent by all.
async fn until_sent(log: &Arc<Mutex<Vec<Instant>>>, count: usize) {
    while log.lock().unwrap().len() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_no_window_holds_more(log: &Arc<Mutex<Vec<Instant>>>, rate: Rate) {
    let mut sent = log.lock().unwrap().clone();
    sent.sort();
    for (index, end) in sent.iter().enumerate() {
        let within = sent[..=index].iter().filter(|at| end.duration_since(**at) <= rate.window).count();
        assert!(within <= rate.limit as usize, "{within} requests within {:?}", rate.window);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_holds_more_than_the_limit_while_processes_come_and_go() {
    let databases = databases(4).await;
    let rate = rate(24, Duration::from_secs(2));
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut hammers: Vec<_> = databases[..3].iter().map(|database| Hammer::new(database, rate, 6, &log)).collect();
    until_sent(&log, 18).await;
    drop(hammers.remove(0));
    hammers.push(Hammer::new(&databases[3], rate, 6, &log));
    until_sent(&log, 72).await;
    drop(hammers);
    assert_no_window_holds_more(&log, rate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_want_everything_each_has_its_share() {
    let databases = databases(2).await;
    let rate = rate(24, Duration::from_secs(1));
    let log = Arc::new(Mutex::new(Vec::new()));
    let many = Hammer::new(&databases[0], rate, 12, &log);
    let few = Hammer::new(&databases[1], rate, 4, &log);
    until_sent(&log, 96).await;
    let (many, few) = (many.sent(), few.sent());
    assert!(many >= 12 && few >= 12, "{many} and {few}");
    assert_no_window_holds_more(&log, rate);
}

#[tokio::test]
async fn a_restart_does_not_spend_the_window_twice() {
    let databases = databases(2).await;
    let rate = rate(6, AN_HOUR);
    let first = impatient(&databases[0], rate);
    for _ in 0..4 {
        admit(&first).await.unwrap();
    }
    drop(first);
    let second = impatient(&databases[1], rate);
    assert_eq!(available(&second).await, 2);
    admit(&second).await.unwrap();
    admit(&second).await.unwrap();
    assert!(is_full(&admit(&second).await));
    assert_eq!(second.usage(ApiFamily::Acd).await.unwrap().available(), 6, "each family has its own");
}

#[tokio::test]
async fn each_service_may_take_of_the_budget_and_nobody_else() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let rate = rate(6, AN_HOUR);
    for (user, left) in [("test_producer", 5), ("test_consumer", 4)] {
        let quota = impatient(&database.member(user), rate);
        admit(&quota).await.unwrap();
        assert_eq!(available(&quota).await, left);
    }
    let stranger = admit(&impatient(&database.member("test_analysis"), rate)).await;
    assert!(matches!(stranger, Err(NiceError::Quota { retry_after: None, .. })), "{stranger:?}");
}

#[tokio::test]
async fn what_a_killed_process_held_counts_as_used() {
    let databases = databases(2).await;
    let rate = rate(80, AN_HOUR);
    let first = impatient(&databases[0], rate);
    look_ahead(&first, 5);
    admit(&first).await.unwrap();
    drop(first);
    assert_eq!(available(&impatient(&databases[1], rate)).await, 80 - 6);
}

#[tokio::test]
async fn what_is_not_used_is_given_back() {
    let database = test_database().await;
    let rate = rate(80, AN_HOUR);
    let quota = impatient(&database, rate);
    look_ahead(&quota, 5);
    admit(&quota).await.unwrap();
    assert_eq!(available(&quota).await, 74);
    let returning = quota.media_playback.lane(QuotaClass::Live).returning.lock().unwrap().take().unwrap();
    returning.await.unwrap();
    assert_eq!(available(&quota).await, 79);
    admit(&quota).await.unwrap();
    assert_eq!(available(&quota).await, 78);
}

#[tokio::test]
async fn each_that_finds_no_room_is_told_a_turn_of_its_own() {
    let quota = impatient(&test_database().await, rate(2, AN_HOUR));
    admit(&quota).await.unwrap();
    admit(&quota).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..2 {
        let Err(NiceError::Quota { retry_after: Some(wait), .. }) = admit(&quota).await else { panic!("no room") };
        waits.push(wait);
    }
    assert!(waits[0] <= AN_HOUR && waits[0] > AN_HOUR / 4, "{waits:?}");
    assert_ne!(waits[0], waits[1]);
}

#[tokio::test]
async fn fast_requests_ask_the_database_seldom() {
    let database = test_database().await;
    let quota = impatient(&database, rate(1_000_000, Duration::from_secs(1)));
    for _ in 0..20_000 {
        admit(&quota).await.unwrap();
    }
    let client = database.client().await.unwrap();
    let takes: i64 = client.query_one("select takes from rate_budgets", &[]).await.unwrap().get(0);
    assert!(takes < 400, "asked {takes} times");
}

#[test]
fn of_150_in_5_minutes_nearly_all_can_be_used() {
    let rate = rate(150, Duration::from_secs(300));
    let counted = rate.counted_for() + usable_at_least(rate);
    assert!(rate.window.as_secs_f64() / counted.as_secs_f64() > 0.995, "{counted:?}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_withholds_for_a_window_at_most() {
    let database = test_database().await;
    let quota = impatient(&database, rate(1, Duration::from_secs(60)));
    admit(&quota).await.unwrap();
    let ahead = "update rate_leases set taken_at = taken_at + '1 day', counts_until = counts_until + '1 day'";
    database.client().await.unwrap().execute(ahead, &[]).await.unwrap();
    let Err(NiceError::Quota { retry_after: Some(wait), .. }) = admit(&quota).await else { panic!("it counts") };
    assert!(wait <= Duration::from_secs(61), "{wait:?}");
}

/// What the database's clock looks like after it was set back by a day: all its notes are of tomorrow.
async fn set_back(database: &Database) {
    let ahead = "update rate_leases set taken_at = taken_at + '1 day', counts_until = counts_until + '1 day';
        update rate_budgets set closed_at = closed_at + '1 day', closed_until = closed_until + '1 day',
            live_waits_until = live_waits_until + '1 day', next_even_at = next_even_at + '1 day',
            reconciliation_waits_until = reconciliation_waits_until + '1 day'";
    database.client().await.unwrap().batch_execute(ahead).await.unwrap();
}

/// So many seconds pass for what the database has noted.
async fn pass(database: &Database, secs: u32) {
    let passes = format!(
        "update rate_leases set taken_at = taken_at - '{secs} s'::interval,
            counts_until = counts_until - '{secs} s'::interval;
        update rate_budgets set closed_at = closed_at - '{secs} s'::interval,
            closed_until = closed_until - '{secs} s'::interval, next_even_at = next_even_at - '{secs} s'::interval,
            live_waits_until = live_waits_until - '{secs} s'::interval,
            reconciliation_waits_until = reconciliation_waits_until - '{secs} s'::interval"
    );
    database.client().await.unwrap().batch_execute(&passes).await.unwrap();
}

#[tokio::test]
async fn after_the_clock_is_set_back_a_pause_ends_when_it_is_over() {
    let database = test_database().await;
    let rate = rate(60, Duration::from_secs(60));
    let quota = impatient(&database, rate);
    for _ in 0..3 {
        admit(&quota).await.unwrap();
    }
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(90))).await;
    set_back(&database).await;
    let quota = impatient(&database, rate);
    assert!(is_full(&admit(&quota).await), "it is closed");
    let closed_for = quota.usage(ApiFamily::MediaPlayback).await.unwrap().closed_for.unwrap();
    assert!(closed_for <= Duration::from_secs(90), "{closed_for:?}");
    pass(&database, 90).await;
    admit(&impatient(&database, rate)).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_was_asked_for_before_a_refusal_is_not_used_in_the_pause() {
    let quota = impatient(&test_database().await, rate(80, AN_HOUR));
    let lane = quota.media_playback.lane(QuotaClass::Live);
    let asked_at = Instant::now();
    let (room_in, at_least) = (Duration::ZERO, Duration::from_secs(10));
    let answer = |lease: i64, asked_at| Taken { asked_at, lease: Some(lease), granted: 10, room_in, limit_now: 80 };
    tokio::time::sleep(Duration::from_millis(2)).await;
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(60))).await;
    {
        let mut pool = lane.pool();
        pool.keep(&answer(1, asked_at), at_least, at_least);
        assert!(matches!(pool.look(Instant::now()), Look::Closed(Why::Full { .. })), "{pool:?}");
        let told: Vec<_> = pool.spent.iter().map(|lease| (lease.id, lease.used, lease.left)).collect();
        assert_eq!(told, [(1, 0, 10)], "all of it is given back");
        pool.keep(&answer(2, Instant::now()), at_least, at_least);
        assert!(matches!(pool.look(Instant::now()), Look::Granted), "one of after the refusal is the database's word");
    }
}

#[tokio::test]
async fn a_refusal_after_the_clock_is_set_back_closes_for_a_pause_at_most() {
    let database = test_database().await;
    let rate = rate(60, Duration::from_secs(60));
    let quota = impatient(&database, rate);
    admit(&quota).await.unwrap();
    quota.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(90))).await;
    set_back(&database).await;
    let (closed_for, _) = quota.media_playback.account.note_refusal(None).await.unwrap();
    assert!(closed_for > Duration::from_secs(80) && closed_for <= Duration::from_secs(90), "{closed_for:?}");
}

#[tokio::test]
async fn after_the_clock_is_set_back_a_backfill_has_its_next_place() {
    let database = test_database().await;
    let rate = rate(40, AN_HOUR);
    admit_as(&impatient(&database, rate), QuotaClass::Backfill).await.unwrap();
    // A live call and a comparison wait.
    let wait = "update rate_budgets set live_waits_until = clock_timestamp() + '2 s'::interval,
                    reconciliation_waits_until = clock_timestamp() + '2 s'::interval";
    database.client().await.unwrap().execute(wait, &[]).await.unwrap();
    set_back(&database).await;
    assert!(is_full(&admit_as(&impatient(&database, rate), QuotaClass::Backfill).await), "one at a time");
    pass(&database, 181).await;
    admit_as(&impatient(&database, rate), QuotaClass::Backfill).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_however_the_database_isolates() {
    let url = test_servers::postgres().await.database().await;
    schema::migrate(&open(&url)).await.unwrap();
    let setup = "do $$ begin execute format('alter database %I set default_transaction_isolation = \
                 ''repeatable read''', current_database()); end $$";
    open(&url).client().await.unwrap().batch_execute(setup).await.unwrap();
    let rate = rate(40, AN_HOUR);
    let asking = (0..4).flat_map(|_| {
        let quota = Arc::new(impatient(&open(&url), rate));
        (0..20).map(move |_| {
            let quota = quota.clone();
            task::spawn("ask", async move { admit(&quota).await.is_ok() })
        })
    });
    let answers = futures::future::join_all(asking.collect::<Vec<_>>()).await;
    let granted = answers.into_iter().filter(|granted| *granted.as_ref().unwrap()).count();
    assert!((1..=40).contains(&granted), "{granted}");
}

#[tokio::test]
async fn without_the_database_nothing_is_sent_and_nothing_is_forgotten() {
    let server = Postgres::start().await;
    let database = open(&server.database().await);
    schema::migrate(&database).await.unwrap();
    let quota = impatient(&database, rate(4, AN_HOUR));
    admit(&quota).await.unwrap();
    server.kill().await;
    let answer = admit(&quota).await;
    assert!(matches!(answer, Err(NiceError::Quota { retry_after: None, .. })), "{answer:?}");
    server.start_again().await;
    while admit(&quota).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(available(&quota).await <= 2);
}

async fn admit_as(quota: &SharedQuota, class: QuotaClass) -> Result<(), NiceError> {
    quota.admit(ApiFamily::MediaPlayback, class).await
}

#[tokio::test]
async fn classes_that_have_time_leave_the_reserve_alone() {
    let databases = databases(2).await;
    let rate = rate(6, AN_HOUR);
    let turns = [(0, QuotaClass::Backfill), (1, QuotaClass::Reconciliation), (0, QuotaClass::Backfill)];
    for (database, class) in turns {
        let quota = impatient(&databases[database], rate);
        admit_as(&quota, class).await.unwrap();
        assert!(is_full(&admit_as(&quota, class).await), "one at a time");
        clear_notes(&databases[0]).await;
    }
    let (one, other) = (impatient(&databases[0], rate), impatient(&databases[1], rate));
    for (quota, class) in [(&one, QuotaClass::Reconciliation), (&other, QuotaClass::Backfill)] {
        assert!(is_full(&admit_as(quota, class).await), "half of it is not theirs");
        clear_notes(&databases[0]).await;
    }
    for class in [QuotaClass::Live, QuotaClass::Retry, QuotaClass::Agents] {
        admit_as(&other, class).await.unwrap();
    }
    let usage = one.usage(ApiFamily::MediaPlayback).await.unwrap();
    assert_eq!((usage.limit, usage.limit_now, usage.used(), usage.available()), (6, 6, 6, 0));
    assert!(usage.by_class.contains(&(QuotaClass::Backfill, 2)), "{usage:?}");
}

/// Forgets that somebody waits, and begins the even pace anew, as if a spacing had passed.
async fn clear_notes(database: &Database) {
    let forget = "update rate_budgets set live_waits_until = null, reconciliation_waits_until = null,
                      next_even_at = null";
    database.client().await.unwrap().execute(forget, &[]).await.unwrap();
}

#[tokio::test]
async fn while_a_live_call_waits_anywhere_a_backfill_has_nothing() {
    let databases = databases(2).await;
    let rate = rate(4, AN_HOUR);
    let (live, bulk) = (impatient(&databases[0], rate), impatient(&databases[1], rate));
    for _ in 0..4 {
        admit_as(&live, QuotaClass::Live).await.unwrap();
    }
    assert!(is_full(&admit_as(&live, QuotaClass::Live).await));
    // Room for one: it is not the backfill's.
    let client = databases[0].client().await.unwrap();
    client.execute("delete from rate_leases where id = (select min(id) from rate_leases)", &[]).await.unwrap();
    let asked = admit_as(&bulk, QuotaClass::Backfill).await;
    let Err(NiceError::Quota { retry_after: Some(wait), .. }) = asked else { panic!("{asked:?}") };
    assert!(wait <= Duration::from_secs(2), "{wait:?}");
    client.execute("update rate_budgets set live_waits_until = clock_timestamp()", &[]).await.unwrap();
    let bulk = impatient(&databases[1], rate);
    admit_as(&bulk, QuotaClass::Backfill).await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_classes_and_pace() {
    let databases = databases(2).await;
    let rate = rate(10, AN_HOUR);
    let first = impatient(&databases[0], rate);
    admit_as(&first, QuotaClass::Backfill).await.unwrap();
    admit_as(&first, QuotaClass::Live).await.unwrap();
    drop(first);
    let second = impatient(&databases[1], rate);
    let asked = admit_as(&second, QuotaClass::Backfill).await;
    assert!(is_full(&asked), "its next place comes a spacing later: {asked:?}");
    let usage = second.usage(ApiFamily::MediaPlayback).await.unwrap();
    assert_eq!(usage.by_class, [(QuotaClass::Live, 1), (QuotaClass::Backfill, 1)]);
}

#[tokio::test]
async fn a_refusal_is_seen_by_every_process_and_lowers_the_limit_once() {
    let databases = databases(2).await;
    let rate = rate(40, AN_HOUR);
    let (one, other) = (impatient(&databases[0], rate), impatient(&databases[1], rate));
    for _ in 0..11 {
        admit(&one).await.unwrap();
    }
    for _ in 0..3 {
        one.refused(ApiFamily::MediaPlayback, Some(Duration::from_secs(90))).await;
    }
    let asked = admit(&other).await;
    let Err(NiceError::Quota { retry_after: Some(wait), .. }) = asked else { panic!("{asked:?}") };
    assert!(wait > Duration::from_secs(60) && wait < AN_HOUR + rate.spacing(), "{wait:?}");
    assert!(is_full(&admit(&one).await));
    let usage = other.usage(ApiFamily::MediaPlayback).await.unwrap();
    assert_eq!((usage.limit, usage.limit_now), (40, 10), "what was granted, but for the one that was refused");
    assert!(usage.closed_for.is_some());

    // NICE is content for a window, and for another.
    let client = databases[0].client().await.unwrap();
    for limit_now in [10, 10, 10, 12, 15] {
        assert_eq!(other.usage(ApiFamily::MediaPlayback).await.unwrap().limit_now, limit_now);
        let passes = "update rate_budgets set closed_at = closed_at - '3601 s'::interval,
                          closed_until = closed_until - '3601 s'::interval";
        client.execute(passes, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_of_the_version_before_still_takes_of_the_budget() {
    let database = test_database().await;
    let rate = rate(6, AN_HOUR);
    let quota = impatient(&database, rate);
    admit_as(&quota, QuotaClass::Backfill).await.unwrap();
    let take = "select granted from take_rate_lease('acme', 'media_playback', 6, 3600, 10, 4, array[]::bigint[], \
                array[]::bigint[], array[]::float8[])";
    let granted: i64 = database.client().await.unwrap().query_one(take, &[]).await.unwrap().get(0);
    assert_eq!(granted, 4);
    let usage = quota.usage(ApiFamily::MediaPlayback).await.unwrap();
    assert_eq!(usage.by_class, [(QuotaClass::Live, 4), (QuotaClass::Backfill, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_saturate_with_a_backfill_no_window_holds_more() {
    let databases = databases(2).await;
    let rate = rate(40, Duration::from_secs(4));
    let log = Arc::new(Mutex::new(Vec::new()));
    let hammering: Vec<_> = databases
        .iter()
        .map(|database| {
            let quota = Arc::new(with_reserve(database, rate, 0.0, Patience::Endless));
            let log = log.clone();
            task::spawn("hammer", async move {
                loop {
                    admit_as(&quota, QuotaClass::Backfill).await.unwrap();
                    log.lock().unwrap().push(Instant::now());
                }
            })
        })
        .collect();
    until_sent(&log, 120).await;
    drop(hammering);
    assert_no_window_holds_more(&log, rate);
}
