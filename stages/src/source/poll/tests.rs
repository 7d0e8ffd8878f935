use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::{Query, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use catalog::{Catalog, EmbeddedCatalog, roles::*};
use flow::RetryPolicy;
use jiff::SignedDuration;
use model::Unmetered;
use runtime::Clock;
use serde_json::json;
use state::testing::TestState;

use super::*;
use crate::{
    metrics::Metrics,
    serve,
    source::test_nice::{agent, settings_of},
};

const NOW: &str = "2026-04-01T12:00:00Z";

/// A contact's id and when it was changed last.
type Rows = Vec<(u64, Option<Timestamp>)>;

/// What NICE has, and how it answers.
struct Nice {
    rows: Rows,
    /// The most rows of an answer.
    cap: usize,
    says_total: bool,
    ignores_skip: bool,
    /// More rows at a time are not given.
    too_much: usize,
    /// A row that is no JSON, and what stands in it.
    damaged: Option<(u64, &'static str)>,
    /// Rows that are counted and not given.
    hidden: usize,
    asked: std::sync::Mutex<Vec<String>>,
}

impl Nice {
    fn of(rows: Rows) -> Self {
        Self {
            rows,
            cap: 10_000,
            says_total: true,
            ignores_skip: false,
            too_much: usize::MAX,
            damaged: None,
            hidden: 0,
            asked: Default::default(),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    updated_since: Timestamp,
    top: usize,
    skip: usize,
}

async fn completed(Shared(nice): Shared<Arc<Nice>>, uri: axum::http::Uri, Query(asked): Query<Asked>) -> Response {
    nice.asked.lock().unwrap().push(uri.to_string());
    let fits = |changed: &Option<Timestamp>| changed.is_none_or(|changed| changed >= asked.updated_since);
    let rows: Vec<_> = nice.rows.iter().filter(|(_, changed)| fits(changed)).collect();
    let contact = |(id, changed): &&(u64, Option<Timestamp>)| {
        json!({
            "contactId": id, "agentId": 7, "contactStartDate": "2026-04-01T11:00:00Z",
            "totalDurationSeconds": 60, "lastUpdateTime": changed,
        })
    };
    let skip = if nice.ignores_skip { 0 } else { asked.skip };
    let page: Vec<_> = rows.iter().skip(skip).take(asked.top.min(nice.cap)).map(contact).collect();
    if page.len() > nice.too_much {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if page.is_empty() && nice.hidden > 0 {
        return Json(json!({ "totalRecords": nice.hidden, "completedContacts": [] })).into_response();
    }
    if page.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut body = json!({ "lastPollTime": NOW, "completedContacts": page });
    if nice.says_total {
        body["totalRecords"] = rows.len().into();
    }
    let mut body = body.to_string();
    if let Some((id, damage)) = nice.damaged {
        body = body.replace(&format!("\"contactId\":{id}"), &format!("\"contactId\":{id},{damage}"));
    }
    ([("content-type", "application/json")], body).into_response()
}

struct Rig {
    nice: Arc<Nice>,
    poll: Poll,
    state: TestState,
    _roster: watch::Sender<Roster>,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

impl Rig {
    async fn new(rows: Rows) -> Self {
        Self::on(Nice::of(rows)).await
    }

    async fn on(nice: Nice) -> Self {
        let nice = Arc::new(nice);
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
            .route("/inContactAPI/services/v33.0/contacts/completed", get(completed))
            .with_state(nice.clone());
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
            import_since: ImportSince::Before(Duration::from_secs(3600)),
            recovery_window: Duration::from_secs(3 * 86_400),
            context: Context::new(
                Clock::fixed(NOW.parse().unwrap()),
                metrics,
                catalog,
                RetryPolicy {
                    not_ready_delays: vec![Duration::from_secs(1)],
                    recording_deadline: Duration::from_secs(60),
                    error_delay_min: Duration::from_secs(1),
                    error_delay_max: Duration::from_secs(1),
                },
                4,
            ),
        };
        Self { nice, poll, state, _roster: roster, _server: server }
    }

    /// Makes one listing and settles all that it finds.
    async fn list(&self) -> (Result<Option<ListDoubt>, ListingError>, BTreeSet<u64>) {
        self.list_from(self.poll.watermark.position()).await
    }

    async fn list_from(&self, position: WatermarkPosition) -> (Result<Option<ListDoubt>, ListingError>, BTreeSet<u64>) {
        self.list_with(position, &mut PollState::default()).await
    }

    async fn list_with(
        &self,
        position: WatermarkPosition,
        state: &mut PollState,
    ) -> (Result<Option<ListDoubt>, ListingError>, BTreeSet<u64>) {
        let (sender, mut found) = mpsc::channel(64);
        let settle = async {
            let mut ids = BTreeSet::new();
            while let Some(FoundEvent { event, receipt, .. }) = found.recv().await {
                ids.insert(event.conversation.get());
                receipt.settled();
            }
            ids
        };
        let list = async move {
            let sender = sender;
            self.poll.list(position, state, &sender).await
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
    rig.poll.context.flow.clock.advance(SignedDuration::from_hours(48));
    rig.poll.begin().await;
    assert_eq!(rig.watermark(), before_now(3_600_000));
    assert_eq!(stored(&rig.state.crashed()).await, before_now(3_600_000));
}

#[tokio::test]
async fn the_first_listing_begins_before_the_first_turn_however_late_it_comes() {
    let rig = Rig::new(Vec::new()).await;
    let (watermark, catalog) = (&rig.poll.watermark, &rig.poll.context.catalog);
    catalog.note_worked_since(&rig.poll.tenant, before_now(0).unwrap()).await.unwrap();
    watermark.load().await.unwrap();
    // The group cannot be read for so long.
    rig.poll.context.flow.clock.advance(SignedDuration::from_hours(10));
    rig.poll.begin().await;
    assert_eq!(rig.watermark(), before_now(3_600_000));
}

#[tokio::test]
async fn a_clock_that_ran_ahead_for_a_moment_blinds_the_poll_no_longer() {
    let rig = Rig::new(vec![(1, before_now(60_000))]).await;
    rig.poll.watermark.advance(before_now(-5 * 86_400_000).unwrap()).await.unwrap();
    rig.poll.begin().await;
    assert_eq!(stored(&rig.state.crashed()).await, before_now(3 * 86_400_000), "as far back as the recovery window");
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

fn changed_every_second(count: u64) -> Rows {
    (0..count).map(|n| (n + 1, before_now(1_700_000 - n as i64 * 1_000))).collect()
}

#[tokio::test]
async fn a_list_that_is_cut_short_in_silence_is_read_to_its_end() {
    for (rows, cap, says_total) in [(450, 200, false), (450, 200, true), (1_500, 100, false)] {
        let rig = Rig::on(Nice { cap, says_total, ..Nice::of(changed_every_second(rows)) }).await;
        let (listed, found) = rig.list().await;
        assert!(listed.is_ok());
        assert_eq!(found.len() as u64, rows);
        assert_eq!(rig.watermark(), before_now(120_000));
        let requests = rig.nice.asked.lock().unwrap().len() as u64;
        assert!(requests <= rows / cap as u64 + 4, "{requests} requests for {rows} rows in pages of {cap}");
    }
    // All in one second, which nothing divides.
    let same = (1..=450).map(|id| (id, before_now(60_000))).collect();
    let rig = Rig::on(Nice { cap: 200, says_total: false, ..Nice::of(same) }).await;
    assert_eq!(rig.list().await.1.len(), 450);
}

#[tokio::test]
async fn a_server_that_passes_over_nothing_hides_no_row() {
    let rig = Rig::on(Nice { cap: 200, ignores_skip: true, ..Nice::of(changed_every_second(450)) }).await;
    let (listed, found) = rig.list().await;
    assert!(listed.is_ok());
    assert_eq!(found.len(), 450);
    assert!(rig.nice.asked.lock().unwrap().len() < 20);
}

#[tokio::test]
async fn what_cannot_be_had_at_once_is_asked_for_in_pieces() {
    let rig = Rig::on(Nice { too_much: 300, ..Nice::of(changed_every_second(1_200)) }).await;
    let (listed, found) = rig.list().await;
    assert!(listed.is_ok());
    assert_eq!(found.len(), 1_200);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_goes_on_as_an_id_and_harms_no_other() {
    let rig = Rig::on(Nice { damaged: Some((3, r#""x":1e"#)), ..Nice::of(changed_every_second(5)) }).await;
    let (listed, found) = rig.list().await;
    assert!(listed.is_ok());
    assert_eq!(found, BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(rig.watermark(), before_now(120_000), "the row keeps nobody waiting");
}

#[tokio::test]
async fn a_row_that_damages_its_page_is_passed_over_in_the_end() {
    // A quote too many: nobody can tell where the row ends.
    let rig = Rig::on(Nice { damaged: Some((30, r#""x":"a"b""#)), ..Nice::of(changed_every_second(100)) }).await;
    let (mut state, mut all, mut listings) = (PollState::default(), BTreeSet::new(), 0);
    loop {
        let (listed, found) = rig.list_with(rig.poll.watermark.position(), &mut state).await;
        all.extend(found);
        listings += 1;
        if listed.is_ok() {
            break;
        }
        assert!(listings < 10);
    }
    assert!(!all.contains(&30));
    assert_eq!(all.len(), 99, "its neighbours are unharmed");
    assert_eq!(rig.watermark(), before_now(120_000));
}

#[tokio::test]
async fn a_list_that_hides_all_its_rows_is_none() {
    let rig = Rig::on(Nice { hidden: 450, ..Nice::of(Vec::new()) }).await;
    let (listed, found) = rig.list().await;
    assert!(matches!(listed, Ok(Some(ListDoubt::Total { announced: 450, listed: 0 }))), "{listed:?}");
    assert!(found.is_empty());
}

#[tokio::test]
async fn a_tenant_of_fifty_thousand_calls_a_day_costs_two_requests_a_listing() {
    // Three times the mean, half an hour back.
    let rows = (0..3_125).map(|n| (n + 1, before_now(1_799_000 - n as i64 * 575))).collect();
    let rig = Rig::new(rows).await;
    rig.poll.watermark.advance(before_now(1_800_000).unwrap()).await.unwrap();
    let position = rig.poll.watermark.position();
    // The first one proves that NICE takes the choice of fields.
    assert_eq!(rig.list_from(position).await.1.len(), 3_125);
    rig.nice.asked.lock().unwrap().clear();
    rig.poll.watermark.hold_back(before_now(1_800_000).unwrap()).await.map(drop).unwrap();
    assert_eq!(rig.list().await.1.len(), 3_125);
    let asked = rig.nice.asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "one for the rows, one for what follows: {asked:?}");
    assert!(asked.iter().all(|uri| uri.contains("fields=contactId")), "of each row only what is used");
}
