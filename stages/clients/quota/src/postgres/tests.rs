//! Many processes, a server that dies, and roles.

use std::sync::Mutex;

use database::{
    schema,
    testing::{TestDatabase, open, test_database},
};
use model::{Quota, QuotaClass, QuotaError};
use runtime::task;
use test_servers::Postgres;
use tokio::time::Instant;

use super::*;
use crate::{Budgets, Patience, QuotaMetrics, Rate, TenantQuota};

const AN_HOUR: Duration = Duration::from_secs(3600);
const ACCOUNT: Option<&str> = Some("nice.example/11ee");

fn rate(limit: u32, window: Duration) -> Rate {
    Rate { limit, window }
}

/// What a process has of the budgets.
fn quota(database: &Database, rate: Rate, patience: Patience) -> TenantQuota {
    let terms = Terms::new(rate, 0.5);
    let stores = Arc::new(SharedStores::new(database.clone()));
    let budgets = Arc::new(Budgets::new(stores, terms, terms, QuotaMetrics::default()));
    TenantQuota::new(budgets, "acme".parse().unwrap(), patience)
}

fn impatient(database: &Database, rate: Rate) -> TenantQuota {
    quota(database, rate, Patience::UpTo(Duration::ZERO))
}

async fn admit(quota: &TenantQuota) -> Result<bool, QuotaError> {
    let permit = quota.admit(ACCOUNT, ApiFamily::MediaPlayback, QuotaClass::Live).await;
    permit.map(|mut permit| permit.leave())
}

async fn usage(database: &Database, rate: Rate, family: ApiFamily) -> Usage {
    let store = SharedStores::new(database.clone()).open(ACCOUNT.unwrap(), family).unwrap();
    store.usage(&Terms::new(rate, 0.5)).await.unwrap()
}

async fn databases(count: usize) -> Vec<Database> {
    let url = test_servers::postgres().await.database().await;
    schema::migrate(&open(&url)).await.unwrap();
    (0..count).map(|_| open(&url)).collect()
}

fn is_full(answer: &Result<bool, QuotaError>) -> bool {
    matches!(answer, Err(QuotaError { retry_after: Some(_), .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_holds_more_than_the_limit_while_processes_come_and_go() {
    let databases = databases(4).await;
    let rate = rate(24, Duration::from_secs(2));
    let log = Arc::new(Mutex::new(Vec::new()));
    let hammer = |database: &Database| {
        let (quota, log) = (Arc::new(quota(database, rate, Patience::Endless)), log.clone());
        let hammering = (0..6).map(move |_| {
            let (quota, log) = (quota.clone(), log.clone());
            task::spawn("hammer", async move {
                loop {
                    let mut permit = quota.admit(ACCOUNT, ApiFamily::MediaPlayback, QuotaClass::Live).await.unwrap();
                    assert!(permit.leave());
                    log.lock().unwrap().push(Instant::now());
                }
            })
        });
        hammering.collect::<Vec<_>>()
    };
    let until_sent = async |count: usize| {
        while log.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut hammers: Vec<_> = databases[..3].iter().map(hammer).collect();
    until_sent(18).await;
    drop(hammers.remove(0));
    hammers.push(hammer(&databases[3]));
    until_sent(72).await;
    drop(hammers);
    let mut sent = log.lock().unwrap().clone();
    sent.sort();
    for pair in sent.windows(rate.limit as usize + 1) {
        assert!(pair[rate.limit as usize] - pair[0] > rate.window);
    }
}

#[tokio::test]
async fn what_a_killed_process_was_granted_counts_for_the_next() {
    let databases = databases(2).await;
    let rate = rate(6, AN_HOUR);
    let first = impatient(&databases[0], rate);
    for _ in 0..4 {
        assert!(admit(&first).await.unwrap());
    }
    drop(first);
    let second = impatient(&databases[1], rate);
    assert_eq!(usage(&databases[1], rate, ApiFamily::MediaPlayback).await.available(), 2);
    for _ in 0..2 {
        assert!(admit(&second).await.unwrap());
    }
    assert!(is_full(&admit(&second).await));
    assert_eq!(usage(&databases[1], rate, ApiFamily::Acd).await.available(), 6, "each family has its own");
}

#[tokio::test]
async fn a_refusal_is_seen_by_every_process() {
    let databases = databases(2).await;
    let rate = rate(40, AN_HOUR);
    let (one, other) = (impatient(&databases[0], rate), impatient(&databases[1], rate));
    for _ in 0..29 {
        assert!(admit(&one).await.unwrap());
    }
    let mut permit = one.admit(ACCOUNT, ApiFamily::MediaPlayback, QuotaClass::Live).await.unwrap();
    assert!(permit.leave());
    permit.refused(Some(Duration::from_secs(90)));
    while usage(&databases[1], rate, ApiFamily::MediaPlayback).await.refused.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_full(&admit(&other).await));
    let usage = usage(&databases[1], rate, ApiFamily::MediaPlayback).await;
    assert_eq!((usage.limit, usage.limit_now, usage.available()), (40, 29, 0), "what was in use but for that one");
}

#[tokio::test]
async fn each_service_may_take_of_the_budget_and_nobody_else() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let rate = rate(6, AN_HOUR);
    for (user, left) in [("test_producer", 5), ("test_consumer", 4)] {
        let member = database.member(user);
        assert!(admit(&impatient(&member, rate)).await.unwrap());
        assert_eq!(usage(&member, rate, ApiFamily::MediaPlayback).await.available(), left);
    }
    let stranger = admit(&impatient(&database.member("test_analysis"), rate)).await;
    assert!(matches!(stranger, Err(QuotaError { retry_after: None, .. })), "{stranger:?}");
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
    assert_eq!(granted, 40);
}

#[tokio::test]
async fn without_the_database_nothing_is_sent_and_nothing_is_forgotten() {
    let server = Postgres::start().await;
    let database = open(&server.database().await);
    schema::migrate(&database).await.unwrap();
    let quota = impatient(&database, rate(4, AN_HOUR));
    assert!(admit(&quota).await.unwrap());
    server.kill().await;
    let answer = admit(&quota).await;
    assert!(matches!(answer, Err(QuotaError { retry_after: None, .. })), "{answer:?}");
    server.start_again().await;
    while admit(&quota).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(usage(&database, rate(4, AN_HOUR), ApiFamily::MediaPlayback).await.available() <= 2);
}

#[tokio::test]
async fn a_process_that_hangs_in_its_turn_lets_go_of_the_row() {
    let database = test_database().await;
    let rate = rate(6, AN_HOUR);
    let quota = quota(&database, rate, Patience::WORKER);
    assert!(admit(&quota).await.unwrap());
    let mut hangs = database.client().await.unwrap();
    let turn = hangs.transaction().await.unwrap();
    turn.query_one(LIMITS, &[]).await.unwrap();
    turn.query_one(LOAD, &[&ACCOUNT.unwrap(), &"media_playback"]).await.unwrap();
    let began = Instant::now();
    while admit(&quota).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the row is still locked");
    }
}
