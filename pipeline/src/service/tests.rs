use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    stream,
    stream::{BoxStream, StreamExt},
};
use model::Lane;
use queue::{Backlog, Queue, QueueDelivery, QueueError};
use runtime::task;
use stages::{Context, source::roster::Roster};

use super::*;
use crate::config::Need;

/// Everything embedded below `dir`, and a NICE that is not there.
fn config(dir: &Path) -> Config {
    let pairs = [
        ("TENANT__ID", "acme".to_owned()),
        ("STATE__DIR", dir.join("state").display().to_string()),
        ("RECORDINGS__DIR", dir.join("recordings").display().to_string()),
        ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("FLOW__GRACE", "1s".to_owned()),
        ("NICE__ISSUER", "http://127.0.0.1:1".to_owned()),
        ("NICE__AUTH_FLOW", "access_key".to_owned()),
        ("NICE__ACCESS_KEY_ID", "id".to_owned()),
        ("NICE__ACCESS_KEY_SECRET", "secret".to_owned()),
        ("NICE__GROUP", "Knovvu".to_owned()),
    ];
    let env = pairs.map(|(key, value)| (format!("NICE_KNOVVU_{key}"), value));
    Config::load(None, env, Need::Service).unwrap()
}

/// As patient as a service: what was open a moment ago may still let go of the state.
async fn open(config: &Config) -> OpenDoors {
    start::open_patiently(config, Service::Run).await.unwrap()
}

fn context(config: &Config, doors: &OpenDoors) -> Context {
    Context::new(
        doors.clock.clone(),
        doors.metrics.clone(),
        doors.shared.catalog.clone(),
        doors::retry_policy(config),
        4,
    )
}

/// A queue whose deliveries end with an error.
struct Broken;

#[async_trait]
impl Queue for Broken {
    async fn publish(&self, _lane: Lane, _body: Bytes) -> Result<(), QueueError> {
        Err(QueueError("broken".to_owned()))
    }

    async fn publish_delayed(&self, _lane: Lane, _body: Bytes, _delay: Duration) -> Result<(), QueueError> {
        Err(QueueError("broken".to_owned()))
    }

    fn deliveries(&self, _prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        stream::once(async { Err(QueueError("broken".to_owned())) }).chain(stream::pending()).boxed()
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        Ok(Backlog::default())
    }

    async fn check(&self) -> Result<(), QueueError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_queue_that_fails_is_named_and_the_disk_is_not_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut doors = open(&config).await;
    doors.shared.queue = Arc::new(Broken);
    let failure =
        serve_until(&config, Service::Run, doors, Front::Listens, CancellationToken::new()).await.unwrap_err();
    assert!(failure.message().starts_with("the queue failed"), "{}", failure.message());
}

#[tokio::test]
async fn the_first_listing_reaches_back_as_far_as_the_settings_say_though_an_earlier_start_made_none() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    for _ in 0..2 {
        let doors = open(&config).await;
        let poll = NiceProducer::new(&config, &doors, &context(&config, &doors), Sources::All).unwrap().poll.unwrap();
        assert_eq!((poll.watermark.get(), poll.import_since), (None, config.events.import_since));
        // As it is after the ids of the catalog were read back: the state is empty no longer.
        let digest = model::ConversationKey { tenant: poll.tenant, external_id: "1".parse().unwrap() }.digest();
        doors.state().unwrap().processed().seed([digest]).unwrap();
        doors.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_flow_that_breaks_ends_the_producer() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let doors = open(&config).await;
    // No stage can work on nothing at a time: it panics.
    let mut context = context(&config, &doors);
    context.flow.concurrency = 0;
    let producer = NiceProducer::new(&config, &doors, &context, Sources::All).unwrap();
    tokio::time::timeout(Duration::from_secs(30), producer.run()).await.expect("it goes on without its flow");
}

#[tokio::test]
async fn a_turn_does_not_begin_with_the_agents_of_the_turn_before() {
    use catalog::PostgresCatalog;
    use database::{DatabaseOptions, ProducerLease, schema};
    use model::{Agent, Memberships};
    use secrecy::SecretString;

    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let url = SecretString::from(test_servers::postgres().await.database().await);
    let database = doors::Database::new(DatabaseOptions { url, connections: 4, service: "test" }).unwrap();
    schema::migrate(&database).await.unwrap();
    let catalog = PostgresCatalog::new(database.clone(), None);
    let mut doors = open(&config).await;
    doors.shared.catalog = Arc::new(catalog);
    let tenant = doors::tenant(&config).unwrap();
    let agent = Agent {
        external_id: "7".parse().unwrap(),
        user_id: None,
        user_name: "ann".to_owned(),
        first_name: "Ann".to_owned(),
        last_name: "Bell".to_owned(),
        memberships: Memberships::since(jiff::Timestamp::UNIX_EPOCH),
    };
    doors.shared.catalog.save_agents(&tenant, &[agent]).await.unwrap();

    let mut producer = NiceProducer::new(&config, &doors, &context(&config, &doors), Sources::All).unwrap();
    producer.lease = crate::lease::Lease::Contended(ProducerLease::new(database.clone(), tenant));
    let mut working = producer.working.subscribe();
    let mut roster = producer.poll.as_ref().unwrap().roster.clone();
    let _producing = task::spawn("producer", producer.run());
    roster.wait_for(Roster::is_known).await.unwrap();

    // The session that has the lease ends, and the agents cannot be read.
    let end = "alter table agents rename to agents_elsewhere;
               select pg_terminate_backend(pid) from pg_locks join pg_database d on d.oid = database
               where locktype = 'advisory' and datname = current_database()";
    database.client().await.unwrap().batch_execute(end).await.unwrap();
    // The next turn may begin before anybody has seen the end of this one; what it forgets stays forgotten.
    let forgotten = roster.wait_for(|roster| !roster.is_known());
    let is_forgotten = tokio::time::timeout(Duration::from_secs(60), forgotten).await.is_ok();
    assert!(is_forgotten, "who joined during another producer's turn would be left out");
    working.wait_for(|working| *working).await.unwrap();
    assert!(!roster.borrow().is_known(), "nobody has read the group in this turn");
}
