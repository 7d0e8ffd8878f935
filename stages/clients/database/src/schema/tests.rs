//! The migrations, on a real server.

use futures::future::join_all;

use super::*;
use crate::testing::{open, test_database};

/// A database that was never migrated.
async fn empty() -> Database {
    open(&test_servers::postgres().await.database().await)
}

async fn sql(database: &Database, sql: &str) {
    database.client().await.unwrap().batch_execute(sql).await.unwrap();
}

#[test]
fn every_file_of_migrations_is_embedded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../migrations");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with('V')).collect();
    names.sort();
    assert_eq!(STEPS.iter().map(|(name, _)| format!("{name}.sql")).collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn an_empty_database_is_refused_with_the_remedy_and_migrated_once() {
    let database = empty().await;
    let refused = check(&database).await.unwrap_err().to_string();
    assert!(refused.contains("run: nice-knovvu migrate"), "{refused}");
    assert!(!migrate(&database).await.unwrap().is_empty());
    check(&database).await.unwrap();
    assert_eq!(migrate(&database).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn several_that_migrate_at_once_do_it_once() {
    let database = empty().await;
    let applied = join_all((0..4).map(|_| migrate(&database))).await;
    let steps: Vec<usize> = applied.into_iter().map(|steps| steps.unwrap().len()).collect();
    assert_eq!(steps.iter().filter(|steps| **steps > 0).count(), 1, "{steps:?}");
    check(&database).await.unwrap();
}

#[tokio::test]
async fn tables_that_lack_a_step_are_refused_with_the_remedy() {
    let database = test_database().await;
    sql(
        &database,
        "delete from refinery_schema_history where version = (select max(version) from refinery_schema_history)",
    )
    .await;
    let refused = check(&database).await.unwrap_err().to_string();
    assert!(refused.contains("nice-knovvu migrate"), "{refused}");
}

#[tokio::test]
async fn the_analysis_queue_of_before_is_taken_over_with_its_claims_and_old_programs_go_on() {
    let database = empty().await;
    let mut session = database.dedicated().await.unwrap();
    let before = runner().set_target(refinery_core::Target::Version(10));
    before.run_async(&mut session.client).await.unwrap();
    let client = &session.client;
    client
        .batch_execute(
            "insert into conversations (tenant_id, integration_type, external_id, master_external_id, agent_external_id,
                 started_at, ended_at, metadata, state, source)
             select 'acme', 'nice-cxone', n, n, '7', now(), now(), '{}', 'ready', 'poll' from generate_series(1, 4) n;
             insert into analysis_queue (conversation_id, enqueued_at)
             select id, '2026-04-01T12:00:00Z'::timestamptz + id * interval '1 second' from conversations;
             update analysis_queue set claimed_at = clock_timestamp(), claimed_by = 'old' where conversation_id <= 2;
             update analysis_queue set finished_at = now() where conversation_id = 1",
        )
        .await
        .unwrap();
    migrate(&database).await.unwrap();
    let counts = "select count(*) filter (where finished_at is not null), count(*) filter (where claimed_at is null),
        count(*) filter (where lane = 'live'), (select count(*) from analysis_failed) from analysis_queue";
    let counts = client.query_one(counts, &[]).await.unwrap();
    assert_eq!([0, 1, 2, 3].map(|column| counts.get::<_, i64>(column)), [1, 2, 4, 0]);
    // A worker of before finishes what it has, by what its driver keeps of the time.
    let finish = "select finish_analysis(conversation_id, date_trunc('milliseconds', claimed_at)) from analysis_queue
        where conversation_id = 2";
    assert!(client.query_one(finish, &[]).await.unwrap().get::<_, bool>(0));
    // A consumer of before completes, and a worker that claims by hand is counted.
    client
        .batch_execute(
            "delete from analysis_queue where conversation_id = 4;
             insert into analysis_queue (conversation_id, enqueued_at) values (4, now());
             update analysis_queue set claimed_at = now(), claimed_by = 'by hand' where conversation_id = 4",
        )
        .await
        .unwrap();
    let by_hand = "select attempts, claim is not null, claimed_at >= now() - interval '1 minute' from analysis_queue
        where conversation_id = 4";
    let by_hand = client.query_one(by_hand, &[]).await.unwrap();
    assert_eq!((by_hand.get::<_, i32>(0), by_hand.get::<_, bool>(1), by_hand.get::<_, bool>(2)), (1, true, true));
    check(&database).await.unwrap();
}

#[tokio::test]
async fn tables_of_a_later_version_are_neither_used_nor_changed() {
    let database = test_database().await;
    sql(
        &database,
        "insert into refinery_schema_history (version, name, applied_on, checksum)
         values (9999, 'later', '2030-01-01T00:00:00Z', '1')",
    )
    .await;
    for refused in [check(&database).await.unwrap_err(), migrate(&database).await.unwrap_err()] {
        assert!(refused.to_string().contains("upgrade this nice-knovvu"), "{refused}");
    }
}

#[tokio::test]
async fn a_step_that_was_applied_from_another_file_is_named() {
    let database = test_database().await;
    sql(&database, "update refinery_schema_history set checksum = '1' where version = 1").await;
    for refused in [check(&database).await.unwrap_err(), migrate(&database).await.unwrap_err()] {
        assert!(refused.to_string().contains("step 1 "), "{refused}");
        assert!(refused.to_string().contains("checksum differs"), "{refused}");
    }
}

#[tokio::test]
async fn a_user_without_rights_is_told_so() {
    let database = test_database().await;
    let name = database.client().await.unwrap().query_one("select current_database()", &[]).await.unwrap();
    let (name, user): (String, _) = (name.get(0), "schema_stranger");
    sql(&database, "create user schema_stranger password 'x'").await;
    let stranger = open(&test_servers::postgres().await.url_of(&name, user, "x"));
    let refused = check(&stranger).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("permission denied for table refinery_schema_history"), "{refused}");
    let stranger = open(&test_servers::postgres().await.url_of(&name, user, "wrong"));
    let refused = check(&stranger).await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Refused { .. }), "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");
}
