//! A fake list of completed calls for the tests of the sources: by start, with limits and troubles of its own.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use catalog::EmbeddedCatalog;
use flow::RetryPolicy;
use jiff::{SignedDuration, Timestamp};
use model::{Agent, AgentId, Memberships, TenantId, Unmetered};
use nice::{Auth, GroupKind, GroupSelector, NiceSettings};
use runtime::{Clock, task};
use serde_json::json;
use state::testing::TestState;
use tokio::sync::watch;

use super::roster::Roster;
use crate::metrics::Metrics;
use crate::tenants::{FixedSettings, RecordingScope, Tenants};
use crate::{Context, serve};

/// A call of agent 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) start: Timestamp,
    pub(crate) seconds: u64,
}

impl Call {
    pub(crate) fn new(id: u64, start: Timestamp, seconds: u64) -> Self {
        Self { id, start, seconds }
    }

    pub(crate) fn end(&self) -> Timestamp {
        self.start + SignedDuration::from_secs(self.seconds as i64)
    }
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    /// The most rows of one answer, whatever is asked for; none is 10,000.
    cap: AtomicUsize,
    requests: AtomicU64,
    failing: AtomicU64,
    /// Moves one row to the end of the order at each answer.
    shifting: AtomicU64,
    /// Says nothing of how many rows there are.
    silent_total: AtomicU64,
    /// The total that is said, in percent of the truth; 0: the truth.
    total_percent: AtomicUsize,
    /// Gives the first page whatever is to be passed over.
    ignores_skip: AtomicBool,
    /// Rows that are counted and not given.
    hidden: AtomicU64,
    /// The time of NICE's clock, if it tells it.
    clock: Mutex<Option<Timestamp>>,
    /// A list of more rows is answered with an error; 0: none is.
    too_much: AtomicU64,
}

/// The fake and what a test changes of it.
pub(crate) struct FakeNice {
    shared: Arc<Shared>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) roster: watch::Sender<Roster>,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

impl FakeNice {
    pub(crate) async fn start(calls: Vec<Call>) -> Self {
        let shared = Arc::new(Shared { calls: Mutex::new(calls), ..Shared::default() });
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
            .route("/inContactAPI/services/v33.0/contacts/completed", get(completed))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = task::spawn("nice", serve::serve(listener, router, Default::default()));
        let source = Arc::new(settings_of(base));
        let tenants = Arc::new(Tenants::new(source, Arc::new(|_| Arc::new(Unmetered)), Metrics::new()));
        let (roster, _) = watch::channel(Roster::default());
        Roster::replace(&roster, &[agent()]);
        Self { shared, tenants, roster, _server: server }
    }

    pub(crate) fn call(&self, id: u64) -> Call {
        *self.shared.calls.lock().unwrap().iter().find(|call| call.id == id).unwrap()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_next(&self, requests: u64) {
        self.shared.failing.store(requests, Ordering::SeqCst);
    }

    pub(crate) fn cap(&self, rows: usize) {
        self.shared.cap.store(rows, Ordering::SeqCst);
    }

    /// As many answers move a row while they are given.
    pub(crate) fn shift(&self, answers: u64) {
        self.shared.shifting.store(answers, Ordering::SeqCst);
    }

    /// The total is wrong from now on.
    pub(crate) fn say_percent_of_total(&self, percent: usize) {
        self.shared.total_percent.store(percent, Ordering::SeqCst);
    }

    pub(crate) fn hide(&self, rows: u64) {
        self.shared.hidden.store(rows, Ordering::SeqCst);
    }

    pub(crate) fn tell_time(&self, time: Timestamp) {
        *self.shared.clock.lock().unwrap() = Some(time);
    }

    pub(crate) fn ignore_skip(&self) {
        self.shared.ignores_skip.store(true, Ordering::SeqCst);
    }

    /// Refuses lists of more rows, however few are asked for at a time.
    pub(crate) fn refuse_more_than(&self, rows: u64) {
        self.shared.too_much.store(rows, Ordering::SeqCst);
    }

    pub(crate) fn say_no_total(&self) {
        self.shared.silent_total.store(1, Ordering::SeqCst);
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    start_date: Option<Timestamp>,
    end_date: Option<Timestamp>,
    updated_since: Option<Timestamp>,
    top: usize,
    skip: usize,
}

async fn completed(State(nice): State<Arc<Shared>>, Query(asked): Query<Asked>) -> Response {
    nice.requests.fetch_add(1, Ordering::SeqCst);
    if take(&nice.failing) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let cap = match nice.cap.load(Ordering::SeqCst) {
        0 => 10_000,
        cap => cap,
    };
    let mut calls = nice.calls.lock().unwrap();
    let fits = |call: &&Call| match (asked.start_date, asked.end_date, asked.updated_since) {
        (Some(from), Some(to), _) => call.start >= from && call.start < to,
        (_, _, since) => since.is_some_and(|since| call.end() >= since),
    };
    let mut listed: Vec<Call> = calls.iter().filter(fits).copied().collect();
    if asked.updated_since.is_some() {
        listed.sort_by_key(Call::end);
    }
    if take(&nice.shifting) {
        // The first row that was shown changes, and so comes last in the order of changes.
        if let Some(first) = listed.first() {
            let place = calls.iter().position(|call| call == first).unwrap();
            let moved = calls.remove(place);
            calls.push(moved);
        }
    }
    let hidden = nice.hidden.load(Ordering::SeqCst);
    if listed.is_empty() && hidden > 0 {
        return Json(json!({ "totalRecords": hidden, "completedContacts": [] })).into_response();
    }
    if listed.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    if nice.too_much.load(Ordering::SeqCst) > 0 && listed.len() as u64 > nice.too_much.load(Ordering::SeqCst) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let skip = if nice.ignores_skip.load(Ordering::SeqCst) { 0 } else { asked.skip };
    let page: Vec<_> = listed.iter().skip(skip).take(asked.top.min(cap)).map(row).collect();
    let factor = nice.total_percent.load(Ordering::SeqCst);
    let total = (nice.silent_total.load(Ordering::SeqCst) == 0).then_some(match factor {
        0 => listed.len(),
        percent => listed.len() * percent / 100,
    });
    let mut body = json!({ "completedContacts": page });
    if let Some(time) = *nice.clock.lock().unwrap() {
        body["lastPollTime"] = time.to_string().into();
    }
    if let Some(total) = total {
        body["totalRecords"] = total.into();
    }
    Json(body).into_response()
}

fn take(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn row(call: &Call) -> serde_json::Value {
    json!({
        "contactId": call.id, "agentId": 7, "mediaTypeId": 4, "contactStartDate": call.start.to_string(),
        "totalDurationSeconds": call.seconds, "lastUpdateTime": call.end().to_string(),
    })
}

/// The settings of the one tenant, whose NICE answers at `base`.
pub(crate) fn settings_of(base: reqwest::Url) -> FixedSettings {
    let nice = NiceSettings {
        issuer: base.clone(),
        auth: Auth::AccessKey { access_key_id: "key".into(), access_key_secret: "secret".into() },
        api_version: "v33.0".into(),
        group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: "Knovvu".into() },
        acd_url: Some(base.clone()),
        facade_url: Some(base.clone()),
        auth_url: Some(base),
        media_hosts: Vec::new(),
        private_media_hosts: Vec::new(),
    };
    FixedSettings { tenant: tenant(), nice, scope: RecordingScope::Leg, retention: Default::default() }
}

/// The one member of the group.
pub(crate) fn agent() -> Agent {
    Agent {
        external_id: AgentId::from_number(7).unwrap(),
        user_id: None,
        user_name: String::new(),
        first_name: String::new(),
        last_name: String::new(),
        memberships: Memberships::since(Timestamp::UNIX_EPOCH),
    }
}

pub(crate) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub(crate) fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// The machinery on an embedded catalog, with a clock that stands still.
pub(crate) fn context(state: &TestState, now: Timestamp) -> Context {
    Context::new(
        Clock::fixed(now),
        Metrics::new(),
        Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap()),
        RetryPolicy {
            not_ready_delays: vec![Duration::from_secs(1)],
            recording_deadline: Duration::from_secs(60),
            error_delay_min: Duration::from_millis(1),
            error_delay_max: Duration::from_millis(2),
        },
        16,
    )
}
