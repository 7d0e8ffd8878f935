use std::collections::BTreeSet;

use axum::extract::{Query, State as Shared};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::clients::catalog::{Catalog, EmbeddedCatalog};
use crate::clients::quota::Unmetered;
use crate::clients::test_state::TestState;
use crate::flow::{Clock, Freshness, Metrics, RetryPolicy, serve};
use crate::source::test_nice::{agent, settings_of};

const NOW: &str = "2026-04-01T12:00:00Z";

/// A contact's id and when it was changed last.
type Rows = Arc<Vec<(u64, Option<Timestamp>)>>;

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    updated_since: Timestamp,
    top: usize,
    skip: usize,
}

async fn completed(Shared(rows): Shared<Rows>, Query(asked): Query<Asked>) -> Json<Value> {
    let fits = |changed: &Option<Timestamp>| changed.is_none_or(|changed| changed >= asked.updated_since);
    let rows: Vec<_> = rows.iter().filter(|(_, changed)| fits(changed)).collect();
    let contact = |(id, changed): &&(u64, Option<Timestamp>)| {
        json!({
            "contactId": id, "agentId": 7, "contactStartDate": "2026-04-01T11:00:00Z",
            "totalDurationSeconds": 60, "lastUpdateTime": changed,
        })
    };
    let page: Vec<_> = rows.iter().skip(asked.skip).take(asked.top).map(contact).collect();
    Json(json!({ "lastPollTime": NOW, "totalRecords": rows.len(), "completedContacts": page }))
}

struct Rig {
    poll: Poll,
    state: TestState,
    _roster: watch::Sender<Roster>,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

impl Rig {
    async fn new(rows: Vec<(u64, Option<Timestamp>)>) -> Self {
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
            .route("/inContactAPI/services/v33.0/contacts/completed", get(completed))
            .with_state(Arc::new(rows));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = task::spawn("nice", serve::serve(listener, router, Default::default()));

        let metrics = Metrics::new();
        let tenant: TenantId = "acme".parse().unwrap();
        let state = TestState::new();
        let catalog: Arc<dyn Catalog> = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
        let (roster, reader) = watch::channel(Roster::default());
        Roster::replace(&roster, &[agent()]);
        let poll = Poll {
            tenants: Arc::new(Tenants::new(
                Arc::new(settings_of(base)),
                Arc::new(|_| Arc::new(Unmetered)),
                metrics.clone(),
            )),
            watermark: Watermark::new(catalog.clone(), tenant.clone()),
            tenant,
            roster: reader,
            interval: Duration::from_secs(1),
            overlap: Duration::from_secs(120),
            first_window: Duration::from_secs(3600),
            hot_window: Duration::from_secs(3 * 86_400),
            context: FlowContext {
                clock: Clock::fixed(NOW.parse().unwrap()),
                metrics,
                catalog,
                retry: RetryPolicy {
                    not_ready_delays: vec![Duration::from_secs(1)],
                    recording_deadline: Duration::from_secs(60),
                    error_delay_min: Duration::from_secs(1),
                    error_delay_max: Duration::from_secs(1),
                },
                freshness: Freshness::default(),
                concurrency: 4,
                stopping: Default::default(),
            },
        };
        Self { poll, state, _roster: roster, _server: server }
    }

    /// Makes one listing and settles all that it finds.
    async fn list(&self) -> (Result<(), PassError>, BTreeSet<u64>) {
        self.list_from(self.poll.watermark.position()).await
    }

    async fn list_from(&self, position: Position) -> (Result<(), PassError>, BTreeSet<u64>) {
        let (sender, mut found) = mpsc::channel(64);
        let settle = async {
            let mut ids = BTreeSet::new();
            while let Some(Found { event, receipt, .. }) = found.recv().await {
                ids.insert(event.conversation.get());
                receipt.settled();
            }
            ids
        };
        let list = async move {
            let sender = sender;
            self.poll.list_all(position, &sender).await
        };
        tokio::join!(list, settle)
    }

    fn watermark(&self) -> Option<Timestamp> {
        self.poll.watermark.get()
    }
}

/// The watermark as the disk has it.
async fn stored(state: &TestState) -> Option<Timestamp> {
    let catalog = EmbeddedCatalog::open(state.state.store()).unwrap();
    catalog.producer_memory(&"acme".parse().unwrap()).await.unwrap().poll_watermark
}

fn before_now(millis: i64) -> Option<Timestamp> {
    NOW.parse::<Timestamp>().unwrap().checked_sub(SignedDuration::from_millis(millis)).ok()
}

#[tokio::test]
async fn the_beginning_does_not_creep_forward_while_nothing_can_be_listed() {
    let rig = Rig::new(Vec::new()).await;
    rig.poll.begin().await;
    assert_eq!(rig.watermark(), before_now(3_600_000));
    rig.poll.context.clock.advance(SignedDuration::from_hours(48));
    rig.poll.begin().await;
    assert_eq!(rig.watermark(), before_now(3_600_000));
    assert_eq!(stored(&rig.state.crashed()).await, before_now(3_600_000));
}

#[tokio::test]
async fn a_clock_that_ran_ahead_for_a_moment_blinds_the_poll_no_longer() {
    let rig = Rig::new(vec![(1, before_now(60_000))]).await;
    rig.poll.watermark.advance(before_now(-5 * 86_400_000).unwrap()).await.unwrap();
    rig.poll.begin().await;
    assert_eq!(stored(&rig.state.crashed()).await, before_now(3 * 86_400_000), "as far back as the hot window");
    let (listed, found) = rig.list().await;
    assert!(listed.is_ok() && found.len() == 1);
    assert_eq!(rig.watermark(), before_now(120_000));
}

#[tokio::test]
async fn a_listing_that_began_before_agents_joined_does_not_move_the_watermark() {
    let rig = Rig::new(vec![(1, before_now(60_000))]).await;
    let before = rig.poll.watermark.position();
    drop(rig.poll.watermark.hold_back(before_now(600_000).unwrap()).await.unwrap());
    let (listed, found) = rig.list_from(before).await;
    assert!(listed.is_ok() && found.len() == 1);
    assert_eq!(rig.watermark(), None);
    assert!(rig.list().await.0.is_ok());
    assert_eq!(rig.watermark(), before_now(120_000));
}

#[tokio::test]
async fn a_long_listing_goes_on_where_it_stopped_although_rows_are_shown_again() {
    let mut rows: Vec<_> = (0..12_000_u64).map(|n| (n + 1, before_now(1_200_000 - n as i64 * 50))).collect();
    for at in [500, 3_000, 9_000] {
        let again = rows[at];
        rows.insert(at + 900, again);
    }
    let rig = Rig::new(rows).await;
    let (listed, found) = rig.list().await;
    assert!(listed.is_ok());
    assert_eq!(found.len(), 12_000);
    assert_eq!(rig.watermark(), before_now(120_000));
}

#[tokio::test]
async fn a_long_listing_without_usable_times_is_read_to_its_end() {
    for changed in [None, before_now(60_000), before_now(-86_400_000)] {
        let rig = Rig::new((1..=11_500).map(|id| (id, changed)).collect()).await;
        let (listed, found) = rig.list().await;
        assert!(listed.is_ok());
        assert_eq!(found.len(), 11_500, "{changed:?}");
        assert_eq!(rig.watermark(), before_now(120_000));
    }
}
