//! The roles of `migrations/roles.sql` suffice for what each service does, and for no more.

use std::collections::BTreeSet;

use database::schema;
use jiff::{SignedDuration, tz::TimeZone};
use model::{AgentId, ConversationState, Hop, Memberships, Retention};
use runtime::Clock;
use tokio_postgres::error::SqlState;

use super::{
    sample::{at, conversation, event, key, recording},
    *,
};
use crate::{
    ConversationCounts, ConversationFilter, ConversationStatus, Fate, GroupStanding, LearnedDelay, Lessons,
    OperatorAct, ReplayRun, RowCount, RunKind, RunState,
};

/// A turn of a rate budget.
const TAKE_OF_A_BUDGET: &str = "
    insert into quota_budgets (account, family, state) values ('nice.example/11ee', 'acd', '{}')
        on conflict (account, family) do update set state = excluded.state";

async fn fresh() -> TestDatabase<'static> {
    TestDatabase::on(test_servers::postgres().await).await
}

/// Asserts that these statements are refused for want of rights.
async fn assert_refused(database: &Database, statements: &[&str]) {
    let client = database.client().await.unwrap();
    for statement in statements {
        let error = client.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error}");
    }
}

pub(super) fn hop() -> Hop {
    Hop { at: at(0), stage: "upload".to_owned(), outcome: "ok".to_owned(), attempt: 0, took_millis: 1, detail: None }
}

/// What the producer does for a replay. The row of conversation 3 stands, and is not final.
async fn assert_replays(catalog: &PostgresCatalog) {
    let tenant = key(3).tenant;
    assert!(catalog.add_dead_letter(DeadLetter::of_event(&event(4), "upload", "why", at(0))).await.unwrap());
    let fates = [Fate::Row(ConversationState::MetadataSaved), Fate::DeadLetter("why".to_owned()), Fate::Unknown];
    assert_eq!(catalog.fates(&[key(3), key(4), key(5)]).await.unwrap(), fates);
    assert_eq!(catalog.last_hops(&[key(3)]).await.unwrap(), [None]);
    assert_eq!(catalog.final_between(&tenant, at(-86_400), at(86_400)).await.unwrap(), RowCount::exactly(0));
    for kind in RunKind::ALL {
        let mut run = ReplayRun::new(tenant.clone(), kind, at(0), at(9), at(10));
        run.id = catalog.begin_run(&run).await.unwrap();
        assert_eq!(catalog.begin_run(&run).await.unwrap(), run.id);
        assert_eq!(catalog.save_run(&run, run.state).await.unwrap(), run.state);
        assert!(catalog.change_run(&run, RunState::Paused, at(11)).await.unwrap());
        run.state = RunState::Paused;
        assert_eq!(catalog.run(&tenant, kind, run.id).await.unwrap().as_ref(), Some(&run));
        assert_eq!(catalog.runs(&tenant, kind, 10).await.unwrap(), [run]);
    }
}

/// What both services do with dead letters and the timeline.
async fn assert_keeps_its_books(catalog: &PostgresCatalog) {
    let event = event(77);
    assert!(catalog.add_dead_letter(DeadLetter::of_event(&event, "upload", "why", at(0))).await.unwrap());
    let letter = catalog.dead_letters(0, 10).await.unwrap().remove(0);
    assert_eq!(catalog.dead_letter(letter.id).await.unwrap().as_ref(), Some(&letter));
    assert!(catalog.remove_dead_letter(&letter).await.unwrap());
    catalog.record_hop(&key(77), hop()).await;
    assert_eq!(catalog.hops(&key(77)).await.unwrap(), [hop()]);
    timeline::prune_now(&catalog.inner.database).await.unwrap();
    assert_eq!(catalog.hops(&key(77)).await.unwrap(), [], "it was old");
    catalog.counts().await.unwrap();
    catalog.check().await.unwrap();
    let act = OperatorAct { id: 0, at: at(0), who: "me".to_owned(), act: "replay".to_owned(), subject: "7".to_owned() };
    catalog.record_act(&act, Duration::from_secs(86_400)).await.unwrap();
    assert_eq!(catalog.acts(None, 1).await.unwrap()[0].subject, "7");
    let filter = ConversationFilter { agent: None, from: at(0), to: at(9), only_exceptions: true };
    catalog.found(&key(1).tenant, &filter, None, 9).await.unwrap();
    let day = at(0).to_zoned(TimeZone::UTC).date();
    catalog.days(&key(1).tenant, day, day).await.unwrap();
    let changes = [
        "delete from audit",
        "update audit set who = 'you'",
        "insert into audit (at, who, act, subject) values (now(), '', '', '')",
    ];
    assert_refused(&catalog.inner.database, &changes).await;
}

#[tokio::test]
async fn the_producer_can_do_its_work_and_no_more() {
    let database = fresh().await;
    let producer = database.member("test_producer");
    schema::check(&producer).await.unwrap();
    let catalog = catalog_of(producer.clone());
    let tenant = key(1).tenant;
    let agent = Agent {
        external_id: AgentId::from_number(7).unwrap(),
        user_id: None,
        user_name: "ann@example.com".to_owned(),
        first_name: "Ann".to_owned(),
        last_name: "Lee".to_owned(),
        memberships: Memberships::since(at(0)),
    };
    for _ in 0..2 {
        catalog.save_agents(&tenant, std::slice::from_ref(&agent)).await.unwrap();
        catalog.note_agents_read(&tenant, at(1)).await.unwrap();
    }
    assert_eq!(catalog.agents(&tenant).await.unwrap(), [agent]);
    assert_eq!(catalog.agents_read_at(&tenant).await.unwrap(), Some(at(1)));
    let standing = GroupStanding { accepted_hidden: 1, held: None };
    catalog.save_group_standing(&tenant, &standing).await.unwrap();
    assert_eq!(catalog.group_standing(&tenant).await.unwrap(), standing);
    assert_eq!(catalog.known(&[key(1)]).await.unwrap(), [false]);
    assert_eq!(catalog.status(&key(1)).await.unwrap().state(), None);
    assert_keeps_its_books(&catalog).await;
    let consumer = catalog_of(database.member("test_consumer"));
    consumer.save_metadata(&conversation(3)).await.unwrap();
    let traced = catalog.conversation(&key(3)).await.unwrap().unwrap();
    assert_eq!((traced.customer_number, traced.metadata), (None, serde_json::json!({})), "it needs no personal data");
    assert!(catalog.save_metadata(&conversation(1)).await.is_err());
    assert_replays(&catalog).await;
    assert_refused(
        &producer,
        &[
            "select customer_number from conversations",
            "select metadata from conversations",
            "update conversations set state = 'ready'",
            "insert into recording_readiness (tenant_id, first_look_secs) values ('acme', 1)",
            "delete from conversations",
            "delete from agents",
            "delete from reconciliation_runs",
            "delete from backfills",
            "delete from recordings",
            "insert into analysis_queue (conversation_id, enqueued_at) values (1, now())",
            "select claim_analysis(1)",
            "select retry_analysis(1)",
            "select prune_analysis('0 seconds')",
            "select reason from analysis_queue",
            "insert into tenants (tenant_id, slug) values ('mine', 'mine')",
            "update refinery_schema_history set checksum = ''",
            "alter table conversations add column mine text",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_consumer_can_do_its_work_and_no_more() {
    let database = fresh().await;
    let consumer = database.member("test_consumer");
    schema::check(&consumer).await.unwrap();
    let catalog = catalog_of(consumer.clone());
    for id in [1, 2] {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        catalog.save_metadata(&conversation(id)).await.unwrap();
    }
    catalog.complete(&key(1), &[recording(1)], 0, at(1), None).await.unwrap();
    catalog.complete_without_recording(&key(2), None).await.unwrap();
    assert_eq!(catalog.status(&key(1)).await.unwrap().state(), Some(ConversationState::Ready));
    catalog.add_recordings(&key(2), &[recording(2)], 1, at(1), None).await.unwrap();
    assert_eq!(catalog.lacking(&key(1).tenant, at(-1000), at(1000), None, 9).await.unwrap().len(), 1);
    assert_eq!(catalog.conversation(&key(1)).await.unwrap().unwrap().recordings.len(), 1);
    assert_eq!(catalog.analysis_queue(0, 10).await.unwrap().len(), 2);
    assert_eq!(catalog.known(&[key(1), key(3)]).await.unwrap(), [true, false]);
    let tenant = key(1).tenant;
    assert_eq!(catalog.agents(&tenant).await.unwrap(), []);
    assert_eq!(catalog.agent(&tenant, AgentId::from_number(7).unwrap()).await.unwrap(), None);
    assert_eq!(catalog.agents_read_at(&tenant).await.unwrap(), None);
    let learned = LearnedDelay::of_before(std::time::Duration::from_secs(1000));
    let lessons = Lessons { factor: 1.0, shortened: false, own: learned };
    for _ in 0..2 {
        assert_eq!(catalog.note_readiness(&tenant, lessons).await.unwrap(), learned);
    }
    assert_eq!(catalog.readiness(&tenant).await.unwrap(), Some(learned));
    assert_keeps_its_books(&catalog).await;
    for kind in RunKind::ALL {
        assert_eq!(catalog.runs(&tenant, kind, 10).await.unwrap(), [], "`status` reads them");
        let run = ReplayRun::new(tenant.clone(), kind, at(0), at(9), at(10));
        catalog.begin_run(&run).await.expect_err("replays are the producer's");
    }
    assert_refused(
        &consumer,
        &[
            "update reconciliation_runs set state = 'done'",
            "update backfills set state = 'cancelled'",
            "delete from backfills",
            "insert into reconciliation_runs (tenant_id, window_from, window_to, started_at) values ('acme', now(), now(), now())",
            "delete from recording_readiness",
            "delete from conversations",
            "truncate conversations cascade",
            "update conversations set external_id = '9'",
            "update conversations set tenant_id = 'other'",
            "update recordings set sha256 = ''",
            "delete from recordings",
            "delete from analysis_queue",
            "update analysis_queue set claimed_at = now()",
            "update agents set is_active = true",
            "insert into tenants (tenant_id, slug) values ('mine', 'mine')",
            "drop table timeline",
            "update timeline_visits set hops = '[]'",
            "delete from erasures",
            "update erasure_key set fingerprint = ''",
            "delete from erasure_key",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_consumer_deletes_what_was_erased_and_nothing_else() {
    let database = fresh().await;
    let consumer = database.member("test_consumer");
    let catalog = catalog_of(consumer.clone());
    for id in [1, 2] {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        catalog.complete(&key(id), &[recording(id)], 0, at(1), None).await.unwrap();
    }
    assert!(catalog.erase_rows(&key(1)).await.is_err(), "no erasure is pending");
    let erasure = catalog.begin_erasure(&key(1), at(0)).await.unwrap();
    assert!(catalog.erase_rows(&key(2)).await.is_err(), "another one's is");
    // The tombstone of one conversation does not open the way to another.
    let client = consumer.client().await.unwrap();
    let digest = erasure.tombstone.as_bytes().as_slice();
    let forged = client.query("select erase_conversation('acme', 'nice-cxone', '2', $1)", &[&digest]).await;
    assert_eq!(forged.unwrap_err().code(), Some(&SqlState::NO_DATA_FOUND));
    assert!(catalog.erase_rows(&key(1)).await.unwrap().conversation);
    let ages = SignedDuration::from_hours(1000);
    let ahead = erasure.asked_at + ages;
    assert!(!catalog.finish_erasure(&erasure, ahead).await.unwrap(), "the database's clock counts");
    database.sql("update erasures set asked_at = asked_at - interval '361 minutes'").await;
    let erasure = catalog.pending_erasures(None, 10).await.unwrap().remove(0);
    assert!(catalog.finish_erasure(&erasure, erasure.asked_at - ages).await.unwrap());
    assert!(catalog.conversation(&key(2)).await.unwrap().is_some());
    // Nothing tells any more which one it was.
    let left = client.query_one("select external_id is null and started_at is null from erasures", &[]).await.unwrap();
    assert!(left.get::<_, bool>(0));

    let producer = database.member("test_producer");
    let seen = catalog_of(producer.clone());
    assert_eq!(seen.known(&[key(1), key(3)]).await.unwrap(), [true, false]);
    assert_eq!(seen.status(&key(1)).await.unwrap(), ConversationStatus::Erased);
    seen.check_key().await.unwrap();
    assert_refused(
        &producer,
        &[
            "select external_id from erasures",
            "insert into erasures (tenant_id, digest, asked_at, external_id) values ('acme', '', now(), '1')",
            "select erase_conversation('acme', 'nice-cxone', '2', '')",
            "select expired_conversations('acme', 'nice-cxone', now(), null, null, 10)",
            "select expire_conversations('acme', 'nice-cxone', now(), array['2'])",
        ],
    )
    .await;
    let analysis = database.member("test_analysis");
    assert_refused(&analysis, &["select * from erasures", "select erase_conversation('acme', 'nice-cxone', '2', '')"])
        .await;
}

#[tokio::test]
async fn another_key_is_refused_before_it_brings_back_what_was_erased() {
    let database = fresh().await;
    let with =
        |key: u8| PostgresCatalog::new(database.member("test_services"), Some(TombstoneKey::derived(&[key; 32])));
    with(1).check_key().await.unwrap();
    with(1).begin_erasure(&key(1), at(0)).await.unwrap();
    with(1).check_key().await.unwrap();
    assert_eq!(with(1).status(&key(1)).await.unwrap(), ConversationStatus::Erased);
    let refused = with(2).check_key().await.unwrap_err().to_string();
    assert!(refused.contains("[catalog] erasure_key"), "{refused}");
    let refused = with(2).begin_erasure(&key(2), at(0)).await.unwrap_err().to_string();
    assert!(refused.contains("[catalog] erasure_key"), "{refused}");
    let keyless = PostgresCatalog::new(database.member("test_services"), None);
    keyless.check_key().await.unwrap();
    let refused = keyless.begin_erasure(&key(2), at(0)).await.unwrap_err().to_string();
    assert!(refused.contains("[catalog] seal_key"), "{refused}");
}

#[tokio::test]
async fn what_is_beyond_the_retention_goes_and_nothing_else() {
    let database = fresh().await;
    let catalog = catalog_of(database.member("test_consumer"));
    for id in 1..=6 {
        catalog.save_metadata(&conversation(id)).await.unwrap();
        catalog.record_hop(&key(id), hop()).await;
    }
    catalog.add_dead_letter(DeadLetter::of_event(&event(1), "upload", "why", at(0))).await.unwrap();
    for id in [1, 2, 5, 6] {
        catalog.complete(&key(id), &[recording(id)], 0, at(1), None).await.unwrap();
    }
    database
        .sql(
            "update conversations set ended_at = now() - case external_id
                 when '1' then interval '3 days' when '2' then interval '25 hours' when '3' then interval '31 hours'
                 when '4' then interval '25 hours' when '5' then interval '23 hours' else interval '9 days' end;
             update conversations set tenant_id = 'other' where external_id = '6';
             insert into tenants (tenant_id, slug) values ('acme', 'acme'), ('other', 'other');
             insert into nice_settings (tenant_id, issuer, auth_flow, access_key_id, access_key_secret, group_kind,
                 \"group\", api_version, media_hosts, recording_scope, retention)
             select tenant_id, 'https://x', 'access_key', 'x', 'v1.x', 'team', 'x', 'v33.0', array['x'], 'leg',
                 case tenant_id when 'acme' then interval '1 day' end from tenants",
        )
        .await;
    let tenant = key(1).tenant;
    let (forever, now) = (Retention::default(), Clock::system().now());
    let expired_by = async |now, limit| -> Vec<u64> {
        let expired = catalog.expired(&tenant, forever, now, None, limit).await.unwrap();
        let mut ids: Vec<u64> = expired.iter().map(|expired| expired.external_id.get()).collect();
        // Two of them ended on the same day, or on two, as the time of day has it.
        ids.sort_unstable();
        ids
    };
    let expired = async |limit| expired_by(now, limit).await;
    // The database's own settings count. What is not final is kept for six hours more.
    assert_eq!(expired(10).await, [1, 2, 3]);
    let (ahead, behind) = (now + SignedDuration::from_hours(240), now - SignedDuration::from_mins(90));
    assert_eq!(expired_by(ahead, 10).await, [1, 2, 3], "by the database's clock, where ours is ahead");
    assert_eq!(expired_by(behind, 10).await, [1], "by ours, where the database's is ahead");
    // Page by page, each once, with the places of their recordings.
    let (mut after, mut pages) = (None, Vec::new());
    while let Some(one) = catalog.expired(&tenant, forever, now, after.as_ref(), 1).await.unwrap().pop() {
        let places: Vec<_> = one.recordings.iter().map(|place| place.object_key.clone()).collect();
        let id = one.external_id.get();
        assert_eq!(places, if id == 3 { Vec::new() } else { vec![recording(id).key.to_string()] });
        assert!(one.recordings.iter().all(|place| place.bucket == "recordings"));
        pages.push(id);
        after = Some(one);
    }
    assert_eq!(pages.first(), Some(&1));
    assert_eq!(pages.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    assert_eq!(pages.len(), 3);
    let short: Vec<_> = [2, 3].map(|id| key(id).external_id).into();
    assert_eq!(catalog.expire_rows(&tenant, forever, behind, &short).await.unwrap(), 0, "neither is over by our clock");
    assert_eq!(expired(1).await, [1], "the oldest first");
    let all: Vec<_> = (1..=6).map(|id| key(id).external_id).collect();
    assert_eq!(catalog.expire_rows(&tenant, forever, now, &all).await.unwrap(), 3);
    assert_eq!(expired(10).await, Vec::<u64>::new());
    for id in [1, 2, 3] {
        assert!(catalog.conversation(&key(id)).await.unwrap().is_none());
        assert_eq!(catalog.hops(&key(id)).await.unwrap(), []);
        assert_eq!(catalog.status(&key(id)).await.unwrap(), ConversationStatus::Unknown, "no tombstone");
    }
    for id in [4, 5] {
        assert!(catalog.conversation(&key(id)).await.unwrap().is_some());
    }
    assert_eq!(catalog.dead_letters(0, 10).await.unwrap(), []);
    let other = "other".parse().unwrap();
    assert_eq!(catalog.expire_rows(&other, forever, now, &all).await.unwrap(), 0, "kept for ever");
}

#[tokio::test]
async fn a_tenant_with_nothing_to_expire_does_not_read_the_rows_of_others() {
    let database = fresh().await;
    database
        .sql(
            "insert into conversations (tenant_id, integration_type, external_id, master_external_id,
                 agent_external_id, started_at, ended_at, metadata, state, source)
             select 'other', 'nice-cxone', n, n, '7', now() - interval '9 days', now() - interval '9 days', '{}', 'ready',
                 'poll' from generate_series(1, 20000) n;
             insert into tenants (tenant_id, slug) values ('acme', 'acme');
             insert into nice_settings (tenant_id, issuer, auth_flow, access_key_id, access_key_secret, group_kind,
                 \"group\", api_version, media_hosts, recording_scope, retention)
             values ('acme', 'https://x', 'access_key', 'x', 'v1.x', 'team', 'x', 'v33.0', array['x'], 'leg', '1 day');
             analyze conversations",
        )
        .await;
    let mut client = database.admin.client().await.unwrap();
    let looking = client.transaction().await.unwrap();
    let none = looking.query("select expired_conversations('acme', 'nice-cxone', now(), null, null, 100)", &[]).await;
    assert!(none.unwrap().is_empty());
    let read = "select pg_stat_get_xact_numscans('conversations_of_tenant_by_day'::regclass),
        pg_stat_get_xact_tuples_returned('conversations_of_tenant_by_day'::regclass),
        pg_stat_get_xact_tuples_returned('conversations'::regclass)
            + pg_stat_get_xact_tuples_returned('conversations_by_day'::regclass)";
    let read = looking.query_one(read, &[]).await.unwrap();
    assert_eq!([0, 1, 2].map(|column| read.get::<_, i64>(column)), [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_begun_before_the_tombstone_is_found_by_a_later_look() {
    let database = fresh().await;
    let catalog = catalog_of(database.member("test_consumer"));
    // As a statement that has begun and is not committed yet.
    let mut writer = database.admin.client().await.unwrap();
    let begun = writer.transaction().await.unwrap();
    begun
        .execute(
            "insert into conversations (tenant_id, integration_type, external_id, master_external_id,
                agent_external_id, started_at, ended_at, metadata, state, source)
             values ('acme', 'nice-cxone', '1', '1', '7', now(), now(), '{}', 'metadata_saved', 'poll')",
            &[],
        )
        .await
        .unwrap();
    let erasure = catalog.begin_erasure(&key(1), at(0)).await.unwrap();
    assert!(!catalog.erase_rows(&key(1)).await.unwrap().conversation, "nothing is to be seen of it");
    begun.commit().await.unwrap();
    assert!(catalog.conversation(&key(1)).await.unwrap().is_some(), "there it is");
    assert!(catalog.complete(&key(1), &[recording(1)], 0, at(1), None).await.is_err(), "it does not become ready");
    assert_eq!(catalog.pending_erasures(None, 10).await.unwrap(), [erasure]);
    assert!(catalog.erase_rows(&key(1)).await.unwrap().conversation);
    assert!(catalog.conversation(&key(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn the_analysis_reads_conversations_and_no_secrets() {
    let database = fresh().await;
    let analysis = database.member("test_analysis");
    let client = analysis.client().await.unwrap();
    client.batch_execute("select * from conversations; select * from recordings; select * from agents").await.unwrap();
    assert_refused(
        &analysis,
        &[
            "select * from nice_settings",
            "select client_secret from nice_settings",
            TAKE_OF_A_BUDGET,
            "select * from dead_letters",
            "select * from timeline",
            "select * from timeline_visits",
            "update conversations set state = 'ready'",
            "insert into analysis_queue (conversation_id, enqueued_at) values (1, now())",
            "delete from analysis_queue",
            "update analysis_queue set enqueued_at = now()",
            "update analysis_queue set lane = 'live'",
            "select prune_analysis('0 seconds')",
        ],
    )
    .await;
    for service in ["test_producer", "test_consumer"] {
        let service = database.member(service);
        let client = service.client().await.unwrap();
        client.batch_execute("select * from nice_settings").await.unwrap();
        client.batch_execute(TAKE_OF_A_BUDGET).await.unwrap();
        let forged = ["delete from nice_settings", "update nice_settings set issuer = ''", "delete from quota_budgets"];
        assert_refused(&service, &forged).await;
    }
}

#[tokio::test]
async fn rows_that_another_program_wrote_with_the_documented_columns_are_read() {
    let database = fresh().await;
    database
        .sql(
            "insert into tenants (tenant_id, slug) values ('acme', 'acme');
             insert into agents (tenant_id, external_id, user_name, first_name, last_name, is_active)
             values ('acme', '7', 'ann', 'Ann', 'Lee', true);
             insert into conversations (tenant_id, integration_type, external_id, master_external_id,
                 agent_external_id, started_at, ended_at, direction, customer_number, metadata, state, source)
             values ('acme', 'nice-cxone', '1', '1', '7', now(), now(), null, null, '{}', 'ready', 'backfill');
             insert into recordings (conversation_id, position, bucket, object_key, size_bytes, sha256, content_type)
             select id, 0, 'b', 'k', 0, repeat('0', 64), 'audio/wav' from conversations;
             insert into analysis_queue (conversation_id, enqueued_at) select id, now() from conversations;
             insert into dead_letters (tenant_id, conversation_id, stage, reason, message, at)
             values ('acme', '2', 'upload', 'by hand', '{}', now()), ('acme', '3', 'upload', 'by hand', '{}', now());",
        )
        .await;
    let catalog = catalog_of(database.member("test_services"));
    assert_eq!(catalog.conversation(&key(1)).await.unwrap().unwrap().recordings.len(), 1);
    assert_eq!(catalog.agents(&key(1).tenant).await.unwrap().len(), 1);
    assert_eq!(catalog.analysis_queue(0, 10).await.unwrap().len(), 1);
    assert_eq!(catalog.known(&[key(1), key(2), key(3), key(4)]).await.unwrap(), [true, true, true, false]);
    let counts = ConversationCounts { ready: 1, dead_letters: 2, ..ConversationCounts::default() };
    assert_eq!(catalog.counts().await.unwrap(), counts);
    database.sql("delete from conversations").await;
    assert_eq!(
        catalog.counts().await.unwrap(),
        ConversationCounts { dead_letters: 2, ..ConversationCounts::default() }
    );
    assert!(catalog.analysis_queue(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_id_outside_the_grammar_finds_no_place_in_the_tables() {
    let database = fresh().await;
    let client = database.member("test_consumer").client().await.unwrap();
    for id in ["", "0", "007", "-1", " 1", "1 ", "../1", "1'", "12345678901234567890", "\u{661}"] {
        let error = client
            .execute(
                "insert into conversations (tenant_id, integration_type, external_id, master_external_id,
                    agent_external_id, started_at, ended_at, metadata, state, source)
                 values ('acme', 'nice-cxone', $1, '1', '7', now(), now(), '{}', 'metadata_saved', 'poll')",
                &[&id],
            )
            .await
            .expect_err(id);
        assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{id:?}: {error}");
    }
}
