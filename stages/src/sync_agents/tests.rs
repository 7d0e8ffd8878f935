//! The sync on a group that says what a test wants.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use catalog::{CurrentTurn, EmbeddedCatalog, ProducerTurn};
use jiff::SignedDuration;
use model::Unmetered;
use runtime::task;
use serde_json::{Value, json};
use state::testing::TestState;

use super::*;
use crate::serve;
use crate::source::test_nice::{at, settings_of, tenant};

/// What the group answers (nothing: 204), once it may.
type Group = Arc<(Mutex<Option<Value>>, tokio::sync::Semaphore)>;

/// A sync, its group, and the moment at which it is.
struct Rig {
    sync: Arc<SyncAgents>,
    group: Group,
    turn: CurrentTurn,
    clock: Clock,
    catalog: Arc<dyn Catalog>,
    poll: Watermark,
    _server: tokio_util::task::AbortOnDropHandle<()>,
    _state: TestState,
}

const NOON: &str = "2026-04-01T12:00:00Z";

impl Rig {
    async fn new() -> Self {
        Self::reading_every(HoldRules::default().interval).await
    }

    async fn reading_every(interval: Duration) -> Self {
        let group: Group = Arc::new((Mutex::default(), tokio::sync::Semaphore::new(1)));
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
        let groups = json!({ "totalRecords": 1, "groups": [{ "groupId": 1, "groupName": "Knovvu" }] });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
            .route("/inContactAPI/services/v33.0/groups", get(|| async { Json(groups) }))
            .route("/inContactAPI/services/v33.0/groups/1/agents", get(agents))
            .with_state(group.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let _server = task::spawn("nice", serve::serve(listener, router, Default::default()));
        let tenants = Tenants::new(Arc::new(settings_of(base)), Arc::new(|_| Arc::new(Unmetered)), Metrics::new());
        let state = TestState::new();
        let catalog: Arc<dyn Catalog> = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
        let turn = CurrentTurn::default();
        let (catalog_of_it, clock) = (catalog.in_turn(turn.clone()), Clock::fixed(at(NOON)));
        let poll = Watermark::new(catalog_of_it.clone(), tenant());
        let roster = watch::Sender::new(Roster::default());
        let poll_of_it = poll.clone();
        let sync = SyncAgents::new(
            Arc::new(tenants),
            catalog_of_it,
            tenant(),
            roster,
            poll_of_it,
            clock.clone(),
            Metrics::new(),
        );
        let rules = HoldRules { interval, ..HoldRules::default() };
        let sync = Arc::new(sync.with(rules, ImportSince::Before(Duration::from_secs(3600))));
        Self { sync, group, turn, clock, catalog, poll, _server, _state: state }
    }

    /// The group answers with these agents and so many hidden ones from now on.
    fn group(&self, ids: impl IntoIterator<Item = u64>, hidden: u64) {
        let rows: Vec<_> = ids.into_iter().map(|id| json!({ "agentId": id, "userName": "x" })).collect();
        *self.group.0.lock().unwrap() =
            Some(json!({ "totalRecords": rows.len(), "hiddenAgents": hidden, "agents": rows }));
    }

    async fn later(&self, minutes: i64) -> SyncReport {
        self.clock.advance(SignedDuration::from_mins(minutes));
        self.sync.run_once().await.unwrap()
    }

    async fn since(&self, id: u64) -> String {
        let agent = self.catalog.agent(&tenant(), id.to_string().parse().unwrap()).await.unwrap().unwrap();
        agent.memberships.last_since().unwrap().to_string()
    }

    async fn read_at(&self) -> String {
        self.catalog.agents_read_at(&tenant()).await.unwrap().unwrap().to_string()
    }
}

async fn agents(State(group): State<Group>, Query(query): Query<HashMap<String, String>>) -> Response {
    let _may = group.1.acquire().await.unwrap();
    let answer = group.0.lock().unwrap().clone();
    match answer.filter(|_| query["skip"] == "0") {
        Some(answer) => Json(answer).into_response(),
        None => axum::http::StatusCode::NO_CONTENT.into_response(),
    }
}

#[tokio::test]
async fn the_first_agents_count_from_import_since_and_joiners_from_the_last_reading() {
    let rig = Rig::new().await;
    // Nobody is seen at first.
    assert_eq!(rig.later(0).await, SyncReport::default());
    rig.group(1..=20, 0);
    assert_eq!(rig.later(5).await.joined, 20);
    assert_eq!(rig.since(1).await, "2026-04-01T11:00:00Z", "an hour before the first reading");
    rig.group(1..=21, 0);
    assert_eq!(rig.later(10).await.joined, 1);
    assert_eq!(rig.since(21).await, "2026-04-01T12:05:00Z");
}

#[tokio::test]
async fn a_held_reading_writes_nothing_and_does_not_move_the_last_one() {
    let rig = Rig::reading_every(Duration::from_secs(86_400)).await;
    rig.group(1..=20, 2);
    assert_eq!(rig.later(0).await.held, None, "there is nobody yet who could be lost");
    let held = rig.later(10).await.held.unwrap();
    assert_eq!((held.hidden, held.lost), (2, 0), "what is hidden is told at the next reading");
    assert_eq!(rig.sync.accept().await.unwrap().held, None);
    assert_eq!(rig.read_at().await, "2026-04-01T12:10:00Z");

    // Thirteen are gone, and one is new.
    rig.group([1, 2, 3, 4, 5, 6, 7, 30], 2);
    let report = rig.later(10).await;
    assert_eq!((report.held.map(|held| held.lost), report.joined, report.left, report.members), (Some(13), 0, 0, 20));
    assert_eq!(rig.read_at().await, "2026-04-01T12:10:00Z");
    assert_eq!(rig.catalog.agents(&tenant()).await.unwrap().len(), 20, "not even the new one is written");
    assert_eq!(rig.sync.metrics.agents_held.get(), 13);

    // It was right: the new one's calls count from the last reading that was believed.
    rig.poll.advance(at("2026-04-01T12:19:00Z")).await.unwrap();
    assert_eq!(rig.later(24 * 60 - 1).await.held.map(|held| held.lost), Some(13));
    let report = rig.later(1).await;
    assert_eq!((report.held, report.joined, report.left), (None, 1, 13));
    assert_eq!(rig.since(30).await, "2026-04-01T12:10:00Z");
    assert!(rig.poll.get().unwrap() <= at("2026-04-01T12:10:00Z"));
    assert_eq!((rig.sync.metrics.agents_held.get(), rig.read_at().await), (0, "2026-04-02T12:20:00Z".to_owned()));
}

#[tokio::test]
async fn an_answer_without_a_body_is_held_and_one_that_is_whole_ends_the_hold() {
    let rig = Rig::new().await;
    rig.group(1..=3, 0);
    rig.later(0).await;
    *rig.group.0.lock().unwrap() = None;
    assert_eq!(rig.later(10).await.held.map(|held| held.lost), Some(3));
    rig.group(1..=2, 0);
    assert_eq!(rig.later(10).await.left, 1, "a small change passes at once");
    *rig.group.0.lock().unwrap() = None;
    let held = rig.later(10).await.held.unwrap();
    assert_eq!(held.since.to_string(), "2026-04-01T12:30:00Z", "another hold");
    rig.group([], 0);
    assert_eq!(rig.later(10).await.left, 2, "an empty list of a small group");
}

#[tokio::test]
async fn a_reading_that_a_clock_dated_ahead_is_not_believed() {
    let rig = Rig::new().await;
    rig.group([1], 0);
    rig.later(0).await;
    rig.catalog.note_agents_read(&tenant(), at("2026-04-06T12:00:00Z")).await.unwrap();
    rig.group([1, 2], 0);
    assert_eq!(rig.later(10).await.joined, 1);
    assert_eq!(rig.since(2).await, "2026-04-01T12:00:00Z", "an interval ago");
    assert_eq!(rig.read_at().await, "2026-04-01T12:10:00Z");
    // Clocks differ a little.
    rig.catalog.note_agents_read(&tenant(), at("2026-04-01T12:20:30Z")).await.unwrap();
    rig.group([1, 2, 3], 0);
    assert_eq!(rig.later(10).await.joined, 1);
    assert_eq!(rig.since(3).await, "2026-04-01T12:20:00Z");
}

#[tokio::test]
async fn a_sync_that_outlives_its_turn_writes_nothing_under_a_later_one() {
    let rig = Rig::new().await;
    rig.group([1, 2], 0);
    rig.later(0).await;
    let begin = || async { ProducerTurn::new(tenant(), rig.catalog.begin_turn(&tenant()).await.unwrap()) };
    rig.turn.set(Some(begin().await));
    rig.group([1, 2, 3], 0);
    let blocked = rig.group.1.acquire().await.unwrap();
    let sync = rig.sync.clone();
    let outliving = task::spawn("outliving", async move { sync.run_once().await });
    // It is in NICE: the server waits for the one permit.
    while rig.sync.running.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    let (memory, read_at) = (rig.catalog.producer_memory(&tenant()).await.unwrap(), rig.read_at().await);
    // Another producer works, and then this one again.
    begin().await;
    rig.turn.set(Some(begin().await));
    drop(blocked);
    assert!(matches!(outliving.await.unwrap(), Err(SyncError::Catalog(_))));
    assert_eq!((rig.catalog.agents(&tenant()).await.unwrap().len(), rig.read_at().await), (2, read_at));
    assert_eq!(rig.catalog.producer_memory(&tenant()).await.unwrap().held_back, memory.held_back);
    assert_eq!(rig.later(1).await.joined, 1, "what begins in this turn writes in it");
}

#[tokio::test]
async fn a_group_that_is_readable_hours_after_the_first_turn_counts_from_before_that() {
    let rig = Rig::new().await;
    rig.catalog.note_worked_since(&tenant(), at(NOON)).await.unwrap();
    rig.group([1], 0);
    assert_eq!(rig.later(600).await.joined, 1);
    assert_eq!(rig.since(1).await, "2026-04-01T11:00:00Z");
}

#[tokio::test]
async fn after_a_lost_state_agents_count_from_where_the_poll_goes_back_to() {
    let rig = Rig::new().await;
    rig.catalog.note_worked_since(&tenant(), at(NOON)).await.unwrap();
    rig.poll.advance(at("2026-03-29T12:00:00Z")).await.unwrap();
    rig.group([1], 0);
    rig.later(1).await;
    assert_eq!(rig.since(1).await, "2026-03-29T12:00:00Z");
}

#[tokio::test]
async fn a_count_above_the_names_is_told_and_holds_only_where_somebody_is_lost() {
    let rig = Rig::new().await;
    let counted = |ids: &[u64]| {
        let rows: Vec<_> = ids.iter().map(|id| json!({ "agentId": id, "userName": "x" })).collect();
        *rig.group.0.lock().unwrap() = Some(json!({ "totalRecords": 9, "agents": rows }));
    };
    rig.group([1, 2, 3], 0);
    rig.later(0).await;
    counted(&[1, 2, 3]);
    let report = rig.later(10).await;
    assert_eq!((report.held, report.missing, rig.sync.missing()), (None, 6, 6));
    counted(&[1, 2]);
    assert_eq!(rig.later(10).await.held.map(|held| (held.lost, held.hidden)), Some((1, 0)));
}

#[tokio::test]
async fn a_joiner_that_the_sources_were_not_told_of_holds_the_poll_back() {
    let rig = Rig::new().await;
    rig.group([1], 0);
    rig.later(0).await;
    // A sync failed once the joiner was written.
    let mut joiner = rig.catalog.agents(&tenant()).await.unwrap().remove(0);
    joiner.external_id = "2".parse().unwrap();
    rig.catalog.save_agents(&tenant(), &[joiner]).await.unwrap();
    rig.poll.advance(at("2026-04-01T12:09:00Z")).await.unwrap();
    rig.group([1, 2], 0);
    assert_eq!(rig.later(10).await.joined, 0);
    assert_eq!(rig.poll.get(), Some(at("2026-04-01T11:50:00Z")));
    assert!(rig.sync.roster.borrow().is_active("2".parse().unwrap()));
}
