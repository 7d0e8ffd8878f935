//! The analysis queue as its workers see it.

use std::future::poll_fn;

use tokio_postgres::{AsyncMessage, NoTls};

use super::sample::{at, conversation, key, recording};
use super::*;

/// A database with so many conversations in the analysis queue, the first one oldest.
async fn queued(count: u64) -> TestDatabase<'static> {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_consumer"));
    // The last one comes first: the order is that of the times.
    for id in (1..=count).rev() {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        catalog.complete(&key(id), &[recording(id)], at(i64::try_from(id).unwrap()), None).await.unwrap();
    }
    database
}

/// Takes at most so many; their external ids, and the claims.
async fn claim(worker: &Object, most: i32) -> (Vec<u64>, Vec<(i64, Timestamp)>) {
    let rows = worker.query("select * from claim_analysis($1, 'worker')", &[&most]).await.unwrap();
    rows.iter()
        .map(|row| {
            let external_id: &str = row.get("external_id");
            (external_id.parse::<u64>().unwrap(), (row.get::<_, i64>("conversation_id"), row.get("claimed_at")))
        })
        .unzip()
}

#[tokio::test]
async fn workers_take_in_order_and_never_the_same() {
    let database = queued(10).await.member("test_analysis");
    let (one, other) = (database.client().await.unwrap(), database.client().await.unwrap());
    one.batch_execute("begin").await.unwrap();
    other.batch_execute("begin").await.unwrap();
    assert_eq!(claim(&one, 3).await.0, [1, 2, 3]);
    assert_eq!(claim(&other, 4).await.0, [4, 5, 6, 7], "what the other one holds is skipped, not waited for");
    one.batch_execute("rollback").await.unwrap();
    other.batch_execute("commit").await.unwrap();
    assert_eq!(claim(&one, 100).await.0, [1, 2, 3, 8, 9, 10], "a worker that dies in its transaction took nothing");
    assert!(claim(&one, 100).await.0.is_empty());
}

#[tokio::test]
async fn a_claim_whose_worker_died_is_given_again_and_its_late_end_is_refused() {
    let database = queued(2).await.member("test_analysis");
    let worker = database.client().await.unwrap();
    let (ids, claims) = claim(&worker, 2).await;
    assert_eq!(ids, [1, 2]);
    let finish = |(conversation, claimed_at): (i64, Timestamp)| {
        let worker = &worker;
        async move {
            let row = worker.query_one("select finish_analysis($1, $2)", &[&conversation, &claimed_at]).await.unwrap();
            row.get::<_, bool>(0)
        }
    };
    assert!(finish(claims[0]).await);
    assert!(!finish(claims[0]).await, "once");
    let release = |age: &'static str| {
        let worker = &worker;
        async move {
            let row = worker.query_one(&format!("select release_analysis('{age}')"), &[]).await.unwrap();
            row.get::<_, i64>(0)
        }
    };
    assert_eq!(release("1 hour").await, 0, "a young claim stays");
    assert_eq!(release("0 seconds").await, 1, "what is finished stays finished");
    let (ids, again) = claim(&worker, 2).await;
    assert_eq!(ids, [2]);
    assert!(!finish(claims[1]).await, "the first worker comes back too late");
    assert!(finish(again[0]).await);
}

#[tokio::test]
async fn what_is_ready_is_announced_with_its_id() {
    let database = queued(1).await;
    let config: tokio_postgres::Config = database.url("test_analysis").parse().unwrap();
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let mut announced = Box::pin(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(told))) => {
                    return (told.channel().to_owned(), told.payload().to_owned());
                }
                Some(Ok(_)) => {}
                other => panic!("the connection ended: {:?}", other.map(|other| other.err())),
            }
        }
    });
    tokio::select! {
        _ = &mut announced => panic!("nobody listens yet"),
        listening = client.batch_execute("listen analysis_queue") => listening.unwrap(),
    }
    let catalog = catalog_of(database.member("test_consumer"));
    for id in [2, 3] {
        catalog.save_metadata(&conversation(id)).await.unwrap();
    }
    catalog.complete_without_recording(&key(2)).await.unwrap();
    catalog.complete(&key(3), &[recording(3)], at(3), None).await.unwrap();
    let id = catalog.conversation(&key(3)).await.unwrap().unwrap().id;
    assert_eq!(announced.await, ("analysis_queue".to_owned(), id), "only what is to be analysed");
}
