//! The sync on a group that says what a test wants.

use std::sync::Mutex;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::clients::catalog::EmbeddedCatalog;
use crate::clients::quota::Unmetered;
use crate::clients::test_state::TestState;
use crate::flow::{serve, task};
use crate::source::test_nice::{at, settings_of, tenant};

/// A sync, what its group answers (nothing: 204), and the moment at which it is.
struct Rig {
    sync: SyncAgents,
    group: Arc<Mutex<Option<Value>>>,
    clock: Clock,
    catalog: Arc<dyn Catalog>,
    poll: Watermark,
    _server: tokio_util::task::AbortOnDropHandle<()>,
    _state: TestState,
}

const NOON: &str = "2026-04-01T12:00:00Z";

impl Rig {
    async fn new() -> Self {
        let group: Arc<Mutex<Option<Value>>> = Arc::default();
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
        let (poll, clock) = (Watermark::new(catalog.clone(), tenant()), Clock::fixed(at(NOON)));
        let roster = watch::Sender::new(Roster::default());
        let (catalog_of_it, poll_of_it) = (catalog.clone(), poll.clone());
        let sync = SyncAgents::new(
            Arc::new(tenants),
            catalog_of_it,
            tenant(),
            roster,
            poll_of_it,
            clock.clone(),
            Metrics::new(),
        );
        Self { sync, group, clock, catalog, poll, _server, _state: state }
    }

    /// The group answers with these agents and so many hidden ones from now on.
    fn group(&self, ids: impl IntoIterator<Item = u64>, hidden: u64) {
        let rows: Vec<_> = ids.into_iter().map(|id| json!({ "agentId": id, "userName": "x" })).collect();
        *self.group.lock().unwrap() =
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

async fn agents(State(group): State<Arc<Mutex<Option<Value>>>>) -> Response {
    match group.lock().unwrap().clone() {
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
    let rig = Rig::new().await;
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
    *rig.group.lock().unwrap() = None;
    assert_eq!(rig.later(10).await.held.map(|held| held.lost), Some(3));
    rig.group(1..=2, 0);
    assert_eq!(rig.later(10).await.left, 1, "a small change passes at once");
    *rig.group.lock().unwrap() = None;
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
    assert_eq!(rig.since(2).await, "2026-04-01T11:10:00Z");
    assert_eq!(rig.read_at().await, "2026-04-01T12:10:00Z");
}
