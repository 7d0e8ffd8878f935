//! The analysis queue as its workers see it.

use std::future::poll_fn;
use std::time::Duration;

use deadpool_postgres::Object;
use jiff::{SignedDuration, Unit};
use model::{ContactEvent, ConversationState, EventSource, Lane, StoredRecording};
use tokio_postgres::{AsyncMessage, NoTls};

use super::{
    sample::{at, conversation, event, key, recording},
    *,
};
use crate::AnalysisCounts;

/// A database with so many conversations in the analysis queue, the first one oldest.
async fn queued(count: u64) -> TestDatabase<'static> {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_consumer"));
    // The last one comes first: the order is that of the times.
    for id in (1..=count).rev() {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        catalog.complete(&key(id), &[recording(id)], 0, at(i64::try_from(id).unwrap()), None).await.unwrap();
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
    catalog.complete_without_recording(&key(2), None).await.unwrap();
    catalog.complete(&key(3), &[recording(3)], 0, at(3), None).await.unwrap();
    let id = catalog.conversation(&key(3)).await.unwrap().unwrap().id;
    assert_eq!(announced.await, ("analysis_queue".to_owned(), id), "only what is to be analysed");
}

#[tokio::test]
async fn a_part_that_comes_late_is_given_out_again_once_the_call_was_taken() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_consumer"));
    for id in 1..=3 {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        let number = i64::try_from(id).unwrap();
        catalog.complete(&key(id), &[recording(id)], 1, at(number), None).await.unwrap();
    }
    let database = database.member("test_analysis");
    let worker = database.client().await.unwrap();
    let (ids, claims) = claim(&worker, 2).await;
    assert_eq!(ids, [1, 2]);
    let finish = "select finish_analysis($1, $2)";
    assert!(worker.query_one(finish, &[&claims[0].0, &claims[0].1]).await.unwrap().get::<_, bool>(0));
    // The first is done, the second is being worked on, the third waits.
    for id in 1..=3 {
        let number = i64::try_from(id).unwrap();
        catalog.add_recordings(&key(id), &[late(id)], 0, at(10 + number), None).await.unwrap();
    }
    let stale = worker.query_one(finish, &[&claims[1].0, &claims[1].1]).await.unwrap();
    assert!(!stale.get::<_, bool>(0), "it has not seen the part that came");
    let waiting = catalog.analysis_queue(0, 10).await.unwrap();
    let waiting: Vec<_> = waiting.iter().map(|entry| (entry.key.external_id.get(), entry.enqueued_at)).collect();
    assert_eq!(waiting, [(3, at(3)), (1, at(11)), (2, at(12))]);
    assert_eq!(claim(&worker, 9).await.0, [3, 1, 2]);
    // The same again: nothing is new, and nobody works twice.
    catalog.add_recordings(&key(1), &[late(1)], 0, at(20), None).await.unwrap();
    assert!(claim(&worker, 9).await.0.is_empty());
    assert_eq!(catalog.conversation(&key(1)).await.unwrap().unwrap().recordings.len(), 2);
}

/// The recording of a conversation that comes after [`recording`].
fn late(id: u64) -> StoredRecording {
    let first = recording(id);
    let wav = model::Extension::for_content_type(Some("audio/wav"));
    let key = model::ObjectKey::new(&key(id), conversation(id).started_at, 1, wav);
    StoredRecording { key, ..first }
}

/// One claim: conversation and token.
type Claim = (i64, Timestamp);

/// What one of the functions answers of a claim.
async fn answer(worker: &Object, call: &str, (conversation, claim): Claim) -> bool {
    let row = worker.query_one(&format!("select {call}"), &[&conversation, &claim]).await;
    row.unwrap_or_else(|error| panic!("{call}: {error:?}")).get(0)
}

/// Takes one; the conversation's external id, and the claim.
async fn take(worker: &Object) -> Option<(u64, Claim)> {
    let row = worker.query_opt("select * from claim_analysis(1, 'worker')", &[]).await.unwrap()?;
    let external_id: &str = row.get("external_id");
    Some((external_id.parse().unwrap(), (row.get("conversation_id"), row.get("claim"))))
}

/// The shelf: external id, attempts and reason.
async fn shelf(worker: &Object) -> Vec<(String, i32, String)> {
    let rows = worker
        .query("select external_id, attempts, reason from analysis_failed order by failed_at, conversation_id", &[])
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn release(worker: &Object, age: &str) -> i64 {
    worker.query_one(&format!("select release_analysis('{age}')"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn one_that_kills_every_worker_goes_to_the_shelf_and_the_rest_goes_on() {
    let database = queued(2).await.member("test_analysis");
    let worker = database.client().await.unwrap();
    for _ in 0..5 {
        assert_eq!(take(&worker).await.unwrap().0, 1, "the oldest");
        assert_eq!(release(&worker, "0 seconds").await, 1);
    }
    assert_eq!(take(&worker).await.unwrap().0, 2, "the sixth worker lives");
    let [(id, attempts, reason)] = &shelf(&worker).await[..] else { panic!("one is on the shelf") };
    assert_eq!((id.as_str(), *attempts, reason.as_str()), ("1", 5, "no sign of life from its worker at attempt 5"));
    assert_eq!(release(&worker, "1 hour").await, 0, "what lies there is nobody's claim");
    let conversation = "select conversation_id from analysis_failed order by failed_at, conversation_id";
    let conversation: i64 = worker.query_one(conversation, &[]).await.unwrap().get(0);
    for expected in [true, false] {
        let retried = worker.query_one("select retry_analysis($1)", &[&conversation]).await.unwrap();
        assert_eq!(retried.get::<_, bool>(0), expected);
    }
    let (id, claim) = take(&worker).await.unwrap();
    assert_eq!((id, shelf(&worker).await), (1, Vec::new()), "it is as new");
    assert!(answer(&worker, "finish_analysis($1, $2)", claim).await);
}

#[tokio::test]
async fn a_failure_is_counted_with_its_reason_and_a_give_back_is_not() {
    let database = queued(2).await.member("test_analysis");
    let worker = database.client().await.unwrap();
    for _ in 0..7 {
        let (id, claim) = take(&worker).await.unwrap();
        assert_eq!(id, 1);
        assert!(answer(&worker, "release_analysis($1, $2)", claim).await);
        assert!(!answer(&worker, "release_analysis($1, $2)", claim).await, "once");
        assert!(!answer(&worker, "fail_analysis($1, $2, 'late')", claim).await);
    }
    for attempt in 1..=5 {
        let (id, claim) = take(&worker).await.unwrap();
        assert_eq!(id, 1);
        assert!(answer(&worker, &format!("fail_analysis($1, $2, 'no speech, {attempt}')"), claim).await);
        assert!(!answer(&worker, "finish_analysis($1, $2)", claim).await, "the claim is over");
    }
    assert_eq!(shelf(&worker).await, [("1".to_owned(), 5, "no speech, 5".to_owned())]);
    let (id, claim) = take(&worker).await.unwrap();
    assert_eq!(id, 2);
    assert!(answer(&worker, "fail_analysis($1, $2, '', for_good => true)", claim).await, "no use in another attempt");
    assert_eq!(shelf(&worker).await[1..], [("2".to_owned(), 1, "no reason given".to_owned())]);
    assert!(take(&worker).await.is_none());
}

#[tokio::test]
async fn no_two_claims_of_an_entry_have_the_same_token_and_each_is_of_whole_milliseconds() {
    let database = queued(1).await.member("test_analysis");
    let worker = database.client().await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..20 {
        let (_, claim) = take(&worker).await.unwrap();
        assert_eq!(claim.1.round(Unit::Millisecond).unwrap(), claim.1, "every driver hands it back unharmed");
        assert!(answer(&worker, "release_analysis($1, $2)", claim).await);
        claims.push(claim);
    }
    assert!(claims.windows(2).all(|pair| pair[0].1 < pair[1].1), "{claims:?}");
    let row = worker.query_one("select conversation_id, claimed_at from claim_analysis(1)", &[]).await.unwrap();
    for stale in claims {
        assert!(!answer(&worker, "finish_analysis($1, $2)", stale).await, "it is another one's by now");
    }
    // By the time of the claim too, whatever a driver makes of what lies below the millisecond.
    let claimed_at = row.get::<_, Timestamp>(1) + SignedDuration::from_micros(999);
    assert!(answer(&worker, "finish_analysis($1, $2)", (row.get(0), claimed_at)).await);
}

#[tokio::test]
async fn an_entry_that_is_put_back_by_hand_is_as_new() {
    let queue = queued(2).await;
    let worker = queue.member("test_analysis").client().await.unwrap();
    let (_, failed) = take(&worker).await.unwrap();
    assert!(answer(&worker, "fail_analysis($1, $2, 'bad', true)", failed).await);
    let (_, finished) = take(&worker).await.unwrap();
    assert!(answer(&worker, "finish_analysis($1, $2)", finished).await);
    queue.sql("update analysis_queue set claimed_at = null, claimed_by = null, finished_at = null").await;
    assert_eq!(shelf(&worker).await, []);
    for expected in [1, 2] {
        let (id, claim) = take(&worker).await.unwrap();
        assert_eq!(id, expected);
        assert!(answer(&worker, "finish_analysis($1, $2)", claim).await);
    }
    let attempts = worker.query_one("select min(attempts), max(attempts) from analysis_queue", &[]).await.unwrap();
    assert_eq!((attempts.get::<_, i32>(0), attempts.get::<_, i32>(1)), (1, 1));
}

#[tokio::test]
async fn a_sign_of_life_keeps_a_claim() {
    let queue = queued(2).await;
    let database = queue.member("test_analysis");
    let worker = database.client().await.unwrap();
    let (_, kept) = take(&worker).await.unwrap();
    let (_, lost) = take(&worker).await.unwrap();
    queue.sql("update analysis_queue set claimed_at = claimed_at - interval '2 hours'").await;
    assert!(answer(&worker, "extend_analysis($1, $2)", kept).await);
    assert_eq!(release(&worker, "1 hour").await, 1);
    for call in ["extend_analysis($1, $2)", "finish_analysis($1, $2)"] {
        assert!(!answer(&worker, call, lost).await, "{call}");
        assert!(answer(&worker, call, kept).await, "{call}");
    }
}

#[tokio::test]
async fn calls_that_have_just_ended_go_before_a_backfill_of_older_ones() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let catalog = catalog_of(database.member("test_consumer"));
    let complete = async |id: u64, source: EventSource, late: bool| {
        let mut conversation = conversation(id);
        conversation.source = source;
        conversation.lane = Lane::of(&ContactEvent { source, late, ..event(id) });
        catalog.save_metadata(&conversation).await.unwrap();
        catalog.complete(&key(id), &[recording(id)], 0, at(i64::try_from(id).unwrap()), None).await.unwrap();
    };
    complete(1, EventSource::Backfill, false).await;
    complete(2, EventSource::Reconciliation, false).await;
    complete(3, EventSource::Poll, true).await;
    complete(4, EventSource::Webhook, false).await;
    complete(5, EventSource::Poll, false).await;
    let worker = database.member("test_analysis").client().await.unwrap();
    assert_eq!(claim(&worker, 3).await.0, [4, 5, 1]);
    assert_eq!(claim(&worker, 3).await.0, [2, 3]);
}

#[tokio::test]
async fn what_was_finished_long_ago_goes_and_nothing_else() {
    let queue = queued(5).await;
    let worker = queue.member("test_analysis").client().await.unwrap();
    for number in 0..4 {
        let (_, claim) = take(&worker).await.unwrap();
        match number {
            3 => assert!(answer(&worker, "fail_analysis($1, $2, 'bad', true)", claim).await),
            _ => assert!(answer(&worker, "finish_analysis($1, $2)", claim).await),
        }
    }
    queue
        .sql(
            "update analysis_queue set finished_at = now() - interval '31 days' where conversation_id in
                 (select id from conversations where external_id in ('1', '2'));
             update analysis_queue set failed_at = now() - interval '99 days' where failed_at is not null",
        )
        .await;
    let catalog = catalog_of(queue.member("test_consumer"));
    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(catalog.prune_analysis(days(30)).await.unwrap(), 2);
    assert_eq!(catalog.prune_analysis(days(30)).await.unwrap(), 0);
    let left = "select external_id from analysis_queue join conversations on id = conversation_id order by 1";
    let left = worker.query(left, &[]).await.unwrap();
    assert_eq!(left.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["3", "4", "5"]);
    assert_eq!(catalog.status(&key(1)).await.unwrap().state(), Some(ConversationState::Ready), "its row stays");
    let counts = AnalysisCounts { waiting: 1, claimed: 0, failed: 1 };
    for member in ["test_consumer", "test_producer"] {
        assert_eq!(catalog_of(queue.member(member)).analysis_counts().await.unwrap(), Some(counts), "{member}");
    }
}

#[tokio::test]
async fn an_erased_conversation_leaves_the_shelf_too() {
    let queue = queued(1).await;
    let worker = queue.member("test_analysis").client().await.unwrap();
    let (_, claim) = take(&worker).await.unwrap();
    assert!(answer(&worker, "fail_analysis($1, $2, 'bad', true)", claim).await);
    let catalog = catalog_of(queue.member("test_consumer"));
    catalog.begin_erasure(&key(1), at(0)).await.unwrap();
    assert!(catalog.erase_rows(&key(1)).await.unwrap().conversation);
    assert_eq!(shelf(&worker).await, []);
    assert!(!answer(&worker, "finish_analysis($1, $2)", claim).await);
}
