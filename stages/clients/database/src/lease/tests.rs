//! The lease between two producers, on a real server.

use futures::FutureExt;

use super::*;
use crate::testing::{TestDatabase, open};

async fn database() -> TestDatabase<'static> {
    TestDatabase::on(test_servers::postgres().await).await
}

fn lease(database: &TestDatabase<'_>, tenant: &str) -> ProducerLease {
    ProducerLease::new(database.member("test_producer"), tenant.parse().unwrap())
}

#[tokio::test]
async fn a_tenant_has_one_producer_and_tenants_do_not_share() {
    let database = database().await;
    let held = lease(&database, "acme").try_take().await.unwrap().unwrap();
    assert!(lease(&database, "acme").try_take().await.unwrap().is_none());
    assert!(lease(&database, "other").try_take().await.unwrap().is_some());
    assert!(held.lost().now_or_never().is_none());
}

#[tokio::test]
async fn who_waits_is_told_who_has_it_and_takes_over_when_it_is_let_go() {
    let database = database().await;
    let (first, second) = (lease(&database, "acme"), lease(&database, "acme"));
    let held = first.try_take().await.unwrap().unwrap();
    let session = database.member("test_producer").dedicated().await.unwrap();
    let holder = second.holder(&session.client).await.unwrap().unwrap();
    assert!(holder.starts_with("test at 127.0.0.1, server process "), "{holder}");
    let waiting = second.wait();
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    let held = waiting.await;
    assert!(first.try_take().await.unwrap().is_none());
    drop(held);
}

#[tokio::test]
async fn a_holder_learns_that_its_session_is_gone_and_another_takes_over() {
    let database = database().await;
    let held = lease(&database, "acme").wait().await;
    database
        .sql(
            "select pg_terminate_backend(pid) from pg_locks
             where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
        )
        .await;
    held.lost().await;
    lease(&database, "acme").wait().await;
}

#[tokio::test]
async fn a_holder_learns_that_the_server_died_and_waits_until_it_is_back() {
    let server = test_servers::Postgres::start().await;
    let database = TestDatabase::on(&server).await;
    let (first, second) = (lease(&database, "acme"), lease(&database, "acme"));
    let held = first.wait().await;
    server.kill().await;
    held.lost().await;
    assert!(first.try_take().await.is_err_and(|error| error.is_passing()));
    let waiting = second.wait();
    let (held, ()) = futures::join!(waiting, server.start_again());
    assert!(first.try_take().await.unwrap().is_none());
    drop(held);
}

#[tokio::test]
async fn a_holder_whose_server_hangs_gives_the_lease_up() {
    let server = test_servers::Postgres::start().await;
    let database = TestDatabase::on(&server).await;
    let held = lease(&database, "acme").wait().await;
    server.freeze();
    tokio::time::pause();
    timeout(PING + ANSWER + Duration::from_secs(1), held.lost()).await.unwrap();
    server.thaw();
}

#[tokio::test]
async fn a_pool_that_lends_sessions_by_the_transaction_is_refused_with_the_remedy() {
    let database = database().await;
    for pool_mode in ["pool_mode = transaction", "pool_mode = statement"] {
        let pool = test_servers::PgBouncer::before(test_servers::postgres().await, pool_mode).await;
        let pooled = open(&pool.url(&database.name));
        let lease = ProducerLease::new(pooled.clone(), "acme".parse().unwrap());
        for refused in [check_session(&pooled).await.unwrap_err(), lease.try_take().await.unwrap_err()] {
            assert!(matches!(refused, DatabaseError::Settings(_)), "{pool_mode}: {refused}");
            assert!(refused.to_string().contains("pool_mode = session"), "{pool_mode}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_pool_of_sessions_is_as_good_as_the_server() {
    let database = database().await;
    let pool = test_servers::PgBouncer::before(test_servers::postgres().await, "pool_mode = session").await;
    let pooled = open(&pool.url(&database.name));
    check_session(&pooled).await.unwrap();
    let held = ProducerLease::new(pooled.clone(), "acme".parse().unwrap()).try_take().await.unwrap().unwrap();
    assert!(lease(&database, "acme").try_take().await.unwrap().is_none());
    assert!(timeout(PING * 2, held.lost()).await.is_err(), "its lock is that of its session");
    // The lease's session and those of the pool of connections, each with its bounds.
    let bounds = "select current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')";
    for client in [pooled.dedicated().await.unwrap().client, session(&pooled).await.unwrap().client] {
        let bounds = client.query_one(bounds, &[]).await.unwrap();
        assert_eq!([0, 1].map(|column| bounds.get::<_, &str>(column)), ["30s", "1min"]);
    }
    let bounds = pooled.query("read the bounds", bounds, &[]).await.unwrap();
    assert_eq!([0, 1].map(|column| bounds[0].get::<_, &str>(column)), ["30s", "1min"]);
}

#[tokio::test]
async fn a_holder_whose_lock_is_gone_from_its_session_gives_the_lease_up() {
    let database = database().await;
    let session = session(&database.member("test_producer")).await.unwrap();
    // As it is where a pool has given the lock to another session of the server.
    let held = HeldLease::keep(session, lease(&database, "acme").number());
    timeout(PING + ANSWER, held.lost()).await.unwrap();
}
