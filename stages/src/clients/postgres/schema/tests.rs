//! The migrations, on a real server.

use futures::future::join_all;

use super::*;
use crate::clients::postgres::test_database::{open, test_database};

/// A database that was never migrated.
async fn empty() -> Database {
    open(&test_servers::postgres().await.database().await)
}

async fn sql(database: &Database, sql: &str) {
    database.client().await.unwrap().batch_execute(sql).await.unwrap();
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
