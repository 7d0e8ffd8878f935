//! The catalog passes the door's suite through links, and is one for all machines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use catalog::{catalog_checks, conformance::Subject};
use jiff::SignedDuration;
use model::{ConversationState, EventSource};
use tokio::time::Instant;

use super::*;
use crate::standins::{Condition, LinkOptions, Weather};

struct Shared {
    server: SharedCatalog,
    weather: Weather,
    processes: u32,
}

fn link(weather: &Weather, machine: u32) -> Link {
    let options = LinkOptions { latency: Duration::ZERO..Duration::ZERO, ..LinkOptions::default() };
    Link::new(weather.clone(), machine, machine.into(), options, || false)
}

impl Subject for Shared {
    async fn fresh() -> Self {
        let server = SharedCatalog::open(Clock::fixed(Timestamp::now()), SharedSettings::new(), 1).unwrap();
        Self { server, weather: Weather::clear(), processes: 0 }
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        let options = LinkOptions { latency: Duration::ZERO..Duration::ZERO, ..LinkOptions::default() };
        let clock = self.server.clock.clone();
        // The server's time passes with each request.
        let lives_on = move || {
            clock.advance(SignedDuration::from_millis(1));
            false
        };
        Arc::new(self.server.through(Link::new(self.weather.clone(), self.processes, 1, options, lives_on)))
    }

    async fn crash(self) -> Self {
        Self { processes: self.processes + 1, ..self }
    }

    async fn settle(&self) {
        self.server.clock.advance(SignedDuration::from_hours(7));
    }
}

catalog_checks!(Shared);

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn conversation(id: u64) -> Conversation {
    let ended_at = "2026-04-01T16:34:25Z".parse().unwrap();
    let contact = ContactId::from_number(id).unwrap();
    Conversation {
        tenant: acme(),
        external_id: contact,
        source: EventSource::Poll,
        lane: model::Lane::Live,
        master: contact,
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at,
        ended_at,
        direction: None,
        customer_number: None,
        metadata: serde_json::json!({}),
    }
}

fn hop() -> Hop {
    Hop {
        at: Timestamp::UNIX_EPOCH,
        stage: "persist".to_owned(),
        outcome: "ok".to_owned(),
        attempt: 0,
        took_millis: 1,
        detail: None,
    }
}

#[tokio::test]
async fn a_turn_fences_the_other_machine_also_through_its_link() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let [one, other] = [1, 2].map(|machine| server.through(link(&weather, machine)));
    let turn = catalog::ProducerTurn::new(acme(), one.begin_turn(&acme()).await.unwrap());
    let writing = one.in_turn(CurrentTurn::only(&turn));
    writing.note_agents_read(&acme(), Timestamp::UNIX_EPOCH).await.unwrap();
    let away = weather.begin_for(1, Condition::Away);
    for catalog in [writing.clone(), writing.pinned()] {
        let error = catalog.note_agents_read(&acme(), Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(error.0.contains("refused"), "still linked: {error}");
    }
    assert_eq!(other.begin_turn(&acme()).await.unwrap(), 2);
    drop(away);
    for catalog in [writing.clone(), writing.pinned()] {
        assert!(catalog.note_agents_read(&acme(), Timestamp::UNIX_EPOCH).await.is_err());
    }
    turn.refused().await;
}

#[tokio::test]
async fn it_goes_by_its_own_clock_where_a_machines_is_ahead() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let catalog = server.through(link(&weather, 1));
    let now = server.clock.now();
    let ahead = now + SignedDuration::from_hours(5);
    assert_eq!(catalog.clock(ahead).await.unwrap(), now);
    assert_eq!(catalog.advance_poll(&acme(), ahead, None).await.unwrap().poll_watermark, Some(now));
    assert_eq!(catalog.note_worked_since(&acme(), ahead).await.unwrap().worked_since, Some(now));
    assert_eq!(catalog.begin_erasure(&conversation(1).key(), ahead).await.unwrap().asked_at, now);
    let first = catalog.retention_turn(&acme()).await.unwrap();
    let other = server.through(link(&weather, 2));
    assert!(first.is_some() && other.retention_turn(&acme()).await.unwrap().is_none());
    drop(first);
    assert!(other.retention_turn(&acme()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_has_no_answer_is_done_or_not() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let catalog = server.through(link(&weather, 3));
    for id in 1..=60 {
        let spell = weather.begin(Condition::Refuses(1.0));
        catalog.save_metadata(&conversation(id)).await.unwrap_err();
        catalog.record_hop(&conversation(id).key(), hop()).await;
        drop(spell);
        assert_eq!(catalog.hops(&conversation(id).key()).await.unwrap(), [], "a hop is lost");
    }
    let done = catalog.counts().await.unwrap().metadata_saved;
    assert!((10..50).contains(&done), "{done} of 60");
}

#[tokio::test]
async fn a_full_disk_is_read_and_not_written() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let catalog = server.through(link(&weather, 4));
    catalog.save_metadata(&conversation(1)).await.unwrap();
    let _full = weather.begin(Condition::Full);
    assert!(catalog.save_metadata(&conversation(2)).await.is_err());
    let state = catalog.status(&conversation(1).key()).await.unwrap().state();
    assert_eq!(state, Some(ConversationState::MetadataSaved));
    assert_eq!(catalog.status(&conversation(2).key()).await.unwrap().state(), None);
    catalog.check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_and_slowness_take_the_time_they_take() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let catalog = server.through(link(&weather, 5));
    let silent = weather.begin(Condition::Silent);
    let since = Instant::now();
    let error = catalog.readiness(&acme()).await.unwrap_err();
    assert!(error.0.contains("no answer in time"), "{error}");
    assert_eq!(since.elapsed().as_secs(), 15);
    drop(silent);
    let slow = weather.begin(Condition::Slow(Duration::from_secs(4)));
    let since = Instant::now();
    catalog.readiness(&acme()).await.unwrap();
    assert!((2..=6).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    drop(slow);
    let _slower = weather.begin(Condition::Slow(Duration::from_secs(400)));
    assert!(catalog.readiness(&acme()).await.unwrap_err().0.contains("no answer in time"));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_sat_out_and_a_long_one_is_told() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let database = Link::new(weather.clone(), 6, 6, LinkOptions::database(), || false);
    let catalog = server.through(database);
    let spell = weather.begin(Condition::Away);
    let ending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(spell);
    });
    catalog.readiness(&acme()).await.unwrap();
    ending.await.unwrap();
    let _long = weather.begin(Condition::Away);
    let since = Instant::now();
    catalog.readiness(&acme()).await.unwrap_err();
    assert!((25..=31).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_machine_has_sent_has_no_effect() {
    let Shared { server, weather, .. } = Shared::fresh().await;
    let killed = Arc::new(AtomicBool::new(false));
    let is_killed = {
        let killed = killed.clone();
        move || killed.load(Ordering::SeqCst)
    };
    let catalog = server.through(Link::new(weather.clone(), 7, 7, LinkOptions::default(), is_killed));
    let saving = async {
        catalog.save_metadata(&conversation(1)).await.unwrap();
    };
    let kill = async { killed.store(true, Ordering::SeqCst) };
    let both = async { futures::join!(saving, kill) };
    assert!(tokio::time::timeout(Duration::from_secs(60), both).await.is_err(), "it has no answer");
    let other = server.through(link(&weather, 8));
    assert_eq!(other.status(&conversation(1).key()).await.unwrap().state(), None);
}

#[tokio::test]
async fn the_order_of_pending_erasures_is_the_seeds() {
    let order = async |seed| {
        let server = SharedCatalog::open(Clock::fixed(Timestamp::now()), SharedSettings::new(), seed).unwrap();
        for id in 1..=8 {
            server.embedded().begin_erasure(&conversation(id).key(), Timestamp::now()).await.unwrap();
        }
        let pending = server.embedded().pending_erasures(None, 10).await.unwrap();
        pending.into_iter().map(|erasure| erasure.key.external_id).collect::<Vec<_>>()
    };
    assert_eq!(order(1).await, order(1).await);
    assert_ne!(order(1).await, order(2).await);
}
