//! The catalog passes the door's suite on a real server, as the roles of the services.

use std::time::Duration;

use database::testing::TestDatabase;
use model::{Agent, DeadLetter, Memberships};

use super::*;
use crate::{
    RowCount,
    conformance::{Subject, catalog_checks},
    roles::*,
};

mod analysis;
mod fates;
mod faults;
mod roles;
mod sample;
mod security;
mod visits;

/// The catalog as a service has it.
fn catalog_of(database: Database) -> PostgresCatalog {
    PostgresCatalog::new(database, Some(TombstoneKey::derived(&[7; 32])))
}

struct Postgres {
    database: Database,
    catalog: PostgresCatalog,
}

impl Subject for Postgres {
    async fn fresh() -> Self {
        let database = TestDatabase::on(test_servers::postgres().await).await.member("test_services");
        Self { catalog: catalog_of(database.clone()), database }
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(self.catalog.clone())
    }

    /// What the process had in memory is gone.
    async fn crash(self) -> Self {
        let Self { database, catalog } = self;
        assert_eq!(Arc::strong_count(&catalog.inner), 1, "no caller holds on to the dead process");
        drop(catalog);
        Self { catalog: catalog_of(database.clone()), database }
    }

    async fn settle(&self) {
        let age = "update erasures set asked_at = asked_at - interval '7 hours' where done_at is null";
        self.database.client().await.unwrap().batch_execute(age).await.unwrap();
    }
}

catalog_checks!(Postgres);

#[tokio::test]
async fn agents_that_an_earlier_program_wrote_are_members_since_ever_up_to_their_end() {
    let subject = Postgres::fresh().await;
    let tenant: TenantId = "acme".parse().unwrap();
    let write = "
        insert into agents (tenant_id, external_id, user_name, first_name, last_name, is_active, member_until) values
            ('acme', '1', '', '', '', true, null), ('acme', '2', '', '', '', false, '2026-04-01T12:00:00Z'),
            ('acme', '3', '', '', '', false, null)";
    subject.database.client().await.unwrap().batch_execute(write).await.unwrap();
    let until: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
    let expected = [(true, None), (false, Some(until)), (false, None)];
    let read = async || {
        let agents = subject.catalog.agents(&tenant).await.unwrap();
        agents.into_iter().map(|agent| agent.memberships).collect::<Vec<_>>()
    };
    assert_eq!(read().await, expected.map(|(is_active, until)| Memberships::unknown_since(is_active, until)));
    // One that still runs changes what this one has written.
    let agents = subject.catalog.agents(&tenant).await.unwrap();
    subject.catalog.save_agents(&tenant, &agents).await.unwrap();
    let leave = "update agents set is_active = false, member_until = '2026-04-02T12:00:00Z' where external_id = '1'";
    subject.database.client().await.unwrap().batch_execute(leave).await.unwrap();
    let left = Memberships::unknown_since(false, Some("2026-04-02T12:00:00Z".parse().unwrap()));
    assert_eq!(read().await[0], left);
}

#[tokio::test]
async fn no_time_is_stored_beyond_the_clock_of_the_server() {
    let subject = Postgres::fresh().await;
    let (catalog, tenant) = (subject.catalog(), "acme".parse().unwrap());
    let clock = catalog.clock(Timestamp::UNIX_EPOCH).await.unwrap();
    let ahead = clock + jiff::SignedDuration::from_hours(5 * 24);
    let moved = catalog.advance_poll(&tenant, ahead, None).await.unwrap().poll_watermark.unwrap();
    let since = catalog.note_worked_since(&tenant, ahead).await.unwrap().worked_since.unwrap();
    let later = catalog.clock(Timestamp::UNIX_EPOCH).await.unwrap();
    for stored in [moved, since] {
        assert!(stored >= clock && stored <= later, "{clock} {stored} {later}");
    }
}

#[tokio::test]
async fn a_write_that_waits_for_the_beginning_of_another_turn_is_refused() {
    let subject = Postgres::fresh().await;
    let (catalog, tenant) = (subject.catalog(), "acme".parse().unwrap());
    let turn = crate::ProducerTurn::new(tenant, catalog.begin_turn(&"acme".parse().unwrap()).await.unwrap());
    let writing = catalog.in_turn(CurrentTurn::only(&turn));
    let mut other = subject.database.dedicated().await.unwrap();
    let begins = other.client.transaction().await.unwrap();
    begins.execute("update producer_turns set turn = turn + 1", &[]).await.unwrap();
    let writes = writing.note_agents_read(&turn.tenant, Timestamp::UNIX_EPOCH);
    tokio::pin!(writes);
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), writes.as_mut()).await;
    assert!(waits.is_err(), "whether the turn stands is not known yet");
    begins.commit().await.unwrap();
    assert!(writes.await.is_err());
    assert_eq!(catalog.agents_read_at(&turn.tenant).await.unwrap(), None);
}

#[tokio::test]
async fn counting_a_range_ends_in_time_and_says_that_it_is_an_estimate() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    database
        .sql(
            "insert into conversations (tenant_id, integration_type, external_id, master_external_id,
                 agent_external_id, started_at, ended_at, metadata, state, source)
             select 'acme', 'nice-cxone', n, n, '7', '2026-04-01T12:00:00Z'::timestamptz + n * interval '1 minute',
                 '2026-04-01T12:01:00Z'::timestamptz + n * interval '1 minute', '{}', 'ready', 'poll'
             from generate_series(1, 100000) n;
             analyze conversations",
        )
        .await;
    let member = database.member("test_producer");
    let (tenant, from) = ("acme".parse().unwrap(), "2026-04-01T12:00:00Z".parse::<Timestamp>().unwrap());
    let to = from + jiff::SignedDuration::from_mins(50_001);
    let counted = conversations::compare::final_between(&member, &tenant, from, to, conversations::compare::COUNTING)
        .await
        .unwrap();
    assert_eq!(counted, RowCount::exactly(50_000));
    let about =
        conversations::compare::final_between(&member, &tenant, from, to, Duration::from_millis(1)).await.unwrap();
    assert!(about.is_about && (40_000..60_000).contains(&about.rows), "{about:?}");
    // What bounded it is gone with it.
    let bound = member.query("read the bound", "select current_setting('statement_timeout')", &[]).await.unwrap();
    assert_eq!(bound[0].get::<_, &str>(0), "30s");
}

#[tokio::test]
async fn the_letter_of_a_conversation_is_found_without_reading_the_others() {
    let subject = Postgres::fresh().await;
    let client = subject.database.client().await.unwrap();
    client
        .batch_execute(
            "insert into dead_letters (tenant_id, conversation_id, stage, reason, message, at)
             select 'acme', n, 'upload', 'no ' || n, '{}', now() from generate_series(1, 20000) n",
        )
        .await
        .unwrap();
    let letter = subject.catalog.dead_letter_of(&sample::key(7777)).await.unwrap().unwrap();
    assert_eq!(letter.reason, "no 7777");
    let plan = format!("explain {}", dead_letters::DEAD_LETTER_OF.replace("$1", "'acme'").replace("$2", "'7777'"));
    let plan: Vec<String> = client.query(&plan, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(!plan.join("\n").contains("Seq Scan"), "{plan:#?}");
}

#[tokio::test]
async fn one_process_at_a_time_sees_to_a_tenants_retention() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let (one, other) = (catalog_of(database.member("test_consumer")), catalog_of(database.member("test_consumer")));
    let [acme, beta]: [TenantId; 2] = ["acme", "beta"].map(|id| id.parse().unwrap());
    let turn = one.retention_turn(&acme).await.unwrap();
    assert!(turn.is_some() && other.retention_turn(&acme).await.unwrap().is_none());
    assert!(other.retention_turn(&beta).await.unwrap().is_some(), "another tenant is free");
    drop(turn);
    // The server learns of it in a moment.
    let begun = std::time::Instant::now();
    while other.retention_turn(&acme).await.unwrap().is_none() {
        assert!(begun.elapsed().as_secs() < 60, "the turn does not end with its session");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
