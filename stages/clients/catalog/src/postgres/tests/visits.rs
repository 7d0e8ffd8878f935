//! Visits are rows, and what programs of before wrote is read beside them.

use model::{ConversationKey, Hop};

use super::*;

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_775_000_000 + second).unwrap()
}

fn key(id: u64) -> ConversationKey {
    ConversationKey { tenant: "acme".parse().unwrap(), external_id: model::ContactId::from_number(id).unwrap() }
}

fn hop(stage: &str, second: i64) -> Hop {
    let (stage, outcome) = (stage.to_owned(), "ok".to_owned());
    Hop { at: at(second), stage, outcome, attempt: 0, took_millis: 1, detail: Some("a\0b".to_owned()) }
}

/// How many rows a table of timelines has.
async fn rows(database: &Database, table: &str) -> i64 {
    let client = database.client().await.unwrap();
    client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
}

/// A row for a hop, as programs of before wrote it.
async fn written_before(database: &Database, key: &ConversationKey, stage: &str, second: i64) {
    let insert =
        "insert into timeline (tenant_id, integration_type, external_id, at, stage, outcome, attempt, took_millis)
        values ($1, 'nice-cxone', $2, $3, $4, 'ok', 0, 1)";
    let client = database.client().await.unwrap();
    let (tenant, id) = (key.tenant.as_str(), key.external_id.to_string());
    client.execute(insert, &[&tenant, &id, &at(second), &stage]).await.unwrap();
}

fn stages(hops: &[Hop]) -> Vec<&str> {
    hops.iter().map(|hop| hop.stage.as_str()).collect()
}

#[tokio::test]
async fn a_visit_is_one_row_and_two_visits_are_read_in_order() {
    let Postgres { database, catalog } = Postgres::fresh().await;
    let (one, other) = (key(1), key(2));
    for (second, stage) in (0..).zip(["dequeue", "persist", "upload"]) {
        catalog.record_hop(&one, hop(stage, second)).await;
        catalog.record_hop(&other, hop(stage, second)).await;
    }
    catalog.flush().await;
    assert_eq!(rows(&database, "timeline_visits").await, 2);
    catalog.record_hop(&one, hop("again", 9)).await;
    assert_eq!(stages(&catalog.hops(&one).await.unwrap()), ["dequeue", "persist", "upload", "again"]);
    assert_eq!(catalog.hops(&other).await.unwrap()[0].detail.as_deref(), Some("ab"));
    assert_eq!(rows(&database, "timeline_visits").await, 3);
    assert_eq!(rows(&database, "timeline").await, 0);
}

#[tokio::test]
async fn what_a_program_of_before_wrote_is_read_beside_visits_and_goes_with_them() {
    let Postgres { database, catalog } = Postgres::fresh().await;
    let (one, other, third) = (key(1), key(2), key(3));
    catalog.record_hop(&one, hop("dequeue", 1)).await;
    catalog.record_hop(&one, hop("upload", 5)).await;
    written_before(&database, &one, "source", 0).await;
    written_before(&database, &one, "persist", 3).await;
    catalog.record_hop(&other, hop("dequeue", 1)).await;
    written_before(&database, &other, "later", 2).await;
    written_before(&database, &third, "alone", 2).await;
    assert_eq!(stages(&catalog.hops(&one).await.unwrap()), ["source", "dequeue", "persist", "upload"]);
    let last = catalog.last_hops(&[one, other, third, key(4)]).await.unwrap();
    let last: Vec<_> = last.iter().map(|hop| hop.as_ref().map(|hop| hop.stage.as_str())).collect();
    assert_eq!(last, [Some("upload"), Some("later"), Some("alone"), None]);
    timeline::prune_now(&database).await.unwrap();
    assert_eq!(rows(&database, "timeline_visits").await + rows(&database, "timeline").await, 0, "they were old");
}

#[tokio::test]
async fn an_erasure_counts_and_takes_the_hops_of_both_tables() {
    let test = TestDatabase::on(test_servers::postgres().await).await;
    let database = test.member("test_consumer");
    let (catalog, one) = (catalog_of(database.clone()), key(1));
    catalog.record_hop(&one, hop("dequeue", 1)).await;
    catalog.record_hop(&one, hop("upload", 5)).await;
    catalog.flush().await;
    written_before(&database, &one, "source", 0).await;
    let mark = "decode(repeat('01', 32), 'hex')";
    let columns = "insert into erasures (tenant_id, digest, asked_at, external_id)";
    test.sql(&format!("{columns} values ('acme', {mark}, now(), '1')")).await;
    let erase = format!("select hops from erase_conversation('acme', 'nice-cxone', '1', {mark})");
    let erased = database.client().await.unwrap().query_one(&erase, &[]).await.unwrap();
    assert_eq!(erased.get::<_, i64>(0), 3);
    assert_eq!(rows(&database, "timeline_visits").await + rows(&database, "timeline").await, 0);
}
