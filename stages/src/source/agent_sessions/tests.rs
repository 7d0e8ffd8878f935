use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State as Shown},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use flow::StageError;
use model::{
    Agent, ApiFamily, ContactEvent, ContactId, EventSource, Memberships, Permit, Quota, QuotaClass, QuotaError,
    Unmetered,
};
use nice::{Join, NiceError, REFUSED_DELAY};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::listener::FAILED_POLLS;
use super::*;
use crate::source::test_nice::settings_of;
use crate::testing::TestFlow;

/// Long enough for the slowest machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the scripted NICE says next of an agent.
enum Say {
    Events(Value),
    Idle,
    Status(u16),
}

/// A NICE that knows nothing but sessions, and takes no session id but the newest.
#[derive(Default)]
struct Nice {
    asked: Mutex<Vec<String>>,
    says: Mutex<HashMap<u64, VecDeque<Say>>>,
    newest: Mutex<HashMap<u64, u64>>,
    /// What a join is answered with; 200 where nothing stands.
    joins: Mutex<HashMap<u64, u16>>,
    said: tokio::sync::Notify,
}

const ROOT: &str = "/inContactAPI/services/v33.0/agent-sessions";

impl Nice {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn count(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(what)).count()
    }

    fn say(&self, agent: u64, what: Say) {
        self.says.lock().unwrap().entry(agent).or_default().push_back(what);
        self.said.notify_waiters();
    }

    /// Another session of the agent: the one before is over.
    fn roll(&self, agent: u64) -> String {
        let mut newest = self.newest.lock().unwrap();
        let nth = newest.entry(agent).or_default();
        *nth += 1;
        format!("{agent}.{nth}")
    }

    fn is_newest(&self, agent: u64, nth: u64) -> bool {
        self.newest.lock().unwrap().get(&agent) == Some(&nth)
    }

    fn next(&self, agent: u64) -> Option<Say> {
        self.says.lock().unwrap().get_mut(&agent)?.pop_front()
    }
}

async fn join(Shown(nice): Shown<Arc<Nice>>, Query(asked): Query<HashMap<String, String>>, body: Bytes) -> Response {
    let agent: u64 = asked["asAgentId"].parse().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({ "asAgentId": agent }));
    nice.note(format!("join {agent}"));
    let status = nice.joins.lock().unwrap().get(&agent).copied().unwrap_or(200);
    match status {
        200 => axum::Json(json!({ "sessionId": nice.roll(agent) })).into_response(),
        status => StatusCode::from_u16(status).unwrap().into_response(),
    }
}

async fn next_event(Shown(nice): Shown<Arc<Nice>>, Path(session): Path<String>, uri: Uri) -> Response {
    assert_eq!(uri.query(), Some("timeout=60"));
    let (agent, nth) = session.split_once('.').unwrap();
    let (agent, nth) = (agent.parse().unwrap(), nth.parse().unwrap());
    nice.note(format!("poll {session}"));
    loop {
        let said = nice.said.notified();
        if !nice.is_newest(agent, nth) {
            return StatusCode::CONFLICT.into_response();
        }
        match nice.next(agent) {
            Some(Say::Events(events)) => {
                return axum::Json(json!({ "sessionId": nice.roll(agent), "events": events })).into_response();
            }
            Some(Say::Idle) => return StatusCode::NOT_MODIFIED.into_response(),
            Some(Say::Status(status)) => return StatusCode::from_u16(status).unwrap().into_response(),
            None => said.await,
        }
    }
}

async fn never(Shown(nice): Shown<Arc<Nice>>, method: Method, uri: Uri) -> StatusCode {
    nice.note(format!("forbidden {method} {uri}"));
    StatusCode::NOT_FOUND
}

/// A budget that counts.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Quota for Counting {
    async fn admit(&self, _: Option<&str>, _: ApiFamily, _: QuotaClass) -> Result<Box<dyn Permit>, QuotaError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Box::new(Unmetered))
    }
}

struct Rig {
    nice: Arc<Nice>,
    flow: TestFlow,
    roster: watch::Sender<Roster>,
    quota: Arc<Counting>,
    source: AgentSessions,
    _server: AbortOnDropHandle<()>,
}

impl Rig {
    async fn new(agents: impl IntoIterator<Item = u64>) -> Self {
        let nice = Arc::new(Nice::default());
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { axum::Json(token) }))
            .route(&format!("{ROOT}/join"), post(join))
            .route(&format!("{ROOT}/{{session}}/get-next-event"), get(next_event))
            .fallback(never)
            .with_state(nice.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = task::spawn("nice", async move { axum::serve(listener, router).await.unwrap() });

        let tenant: TenantId = "acme".parse().unwrap();
        let flow = TestFlow::new(4);
        let (roster, reader) = watch::channel(Roster::default());
        let quota = Arc::new(Counting::default());
        let budget = quota.clone();
        let source = AgentSessions {
            tenants: Arc::new(Tenants::new(
                Arc::new(settings_of(base)),
                Arc::new(move |_| budget.clone()),
                flow.context.metrics.clone(),
            )),
            tenant,
            roster: reader,
            join_interval: Duration::ZERO,
            most: MOST_LISTENERS,
            waits: Waits {
                rejoin: Duration::from_millis(5),
                rejoin_max: Duration::from_millis(20),
                after_call: Duration::from_secs(600),
                failed: Duration::from_millis(1),
                poll: Duration::from_millis(1),
            },
            context: flow.context.clone(),
        };
        let rig = Self { nice, flow, roster, quota, source, _server: server };
        rig.group(agents);
        rig
    }

    fn group(&self, agents: impl IntoIterator<Item = u64>) {
        Roster::replace(&self.roster, &agents.into_iter().map(agent).collect::<Vec<_>>());
    }

    fn listen(&self) -> Listening {
        Listening(Box::pin(agent_sessions(self.source.clone())))
    }

    fn shared(&self) -> SharedNice {
        SharedNice::new(self.source.clone())
    }

    fn in_state(&self, state: &str) -> i64 {
        self.flow.context.metrics.agent_sessions.with_label_values(&[state]).get()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Rig {
    /// Whatever a test does, nothing but joins and polls may be seen at NICE: never a DELETE.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.nice.count("forbidden"), 0, "{:?}", self.nice.asked.lock().unwrap());
        }
    }
}

struct Listening(std::pin::Pin<Box<dyn Stream<Item = FoundEvent> + Send>>);

impl Listening {
    async fn next(&mut self) -> ContactEvent {
        let found = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something is found");
        let FoundEvent { event, receipt, .. } = found.expect("the source goes on");
        receipt.settled();
        event
    }

    /// What is found from now on until the source ends.
    async fn rest(self) -> Vec<u64> {
        let rest = tokio::time::timeout(PATIENCE, self.0.collect::<Vec<_>>()).await.expect("the source ends");
        rest.into_iter().map(|found| found.event.conversation.get()).collect()
    }
}

fn agent(id: u64) -> Agent {
    Agent {
        external_id: AgentId::from_number(id).unwrap(),
        user_id: None,
        user_name: String::new(),
        first_name: String::new(),
        last_name: String::new(),
        memberships: Memberships::since(jiff::Timestamp::UNIX_EPOCH),
    }
}

fn call(contact: u64, status: &str, last: &str) -> Value {
    json!({
        "Type": "CallContactEvent", "ContactID": contact.to_string(), "MasterID": "698800000000", "Status": status,
        "FinalState": last, "LastStateChangeTimeUTC": "2026-04-01T16:34:25.990Z",
    })
}

#[tokio::test]
async fn a_final_disconnect_is_found_with_its_master_agent_and_end() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    rig.nice.say(7, Say::Events(json!([{ "Type": "AgentSessionStart" }, call(1, "Active", "False")])));
    rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "True")])));
    let event = found.next().await;
    assert_eq!((event.conversation.get(), event.source), (1, EventSource::AgentSession));
    assert_eq!(event.master.map(ContactId::get), Some(698_800_000_000));
    assert_eq!(event.agent.map(AgentId::get), Some(7));
    assert_eq!(event.ended_at, Some("2026-04-01T16:34:25.990Z".parse().unwrap()));
    assert_eq!(rig.flow.finished("source", "ok"), 1);
    let counted = |kind| rig.flow.context.metrics.agent_session_events.with_label_values(&[kind]).get();
    assert_eq!((counted("session_start"), counted("call")), (1, 2));
}

#[tokio::test]
async fn each_answer_names_the_session_of_the_next_poll_and_polls_cost_no_budget() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    for contact in 1..=3 {
        rig.nice.say(7, Say::Idle);
        rig.nice.say(7, Say::Events(json!([call(contact, "Disconnected", "True")])));
        assert_eq!(found.next().await.conversation.get(), contact);
    }
    assert_eq!(rig.nice.count("join"), 1, "an old id would have been refused");
    assert_eq!(rig.quota.0.load(std::sync::atomic::Ordering::SeqCst), 1, "the join");
}

#[tokio::test]
async fn a_session_that_ends_gives_its_calls_and_is_joined_again() {
    for end in [409, 404, 410] {
        let rig = Rig::new([7]).await;
        let mut found = rig.listen();
        rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "False"), call(2, "Active", "False")])));
        rig.nice.say(7, Say::Status(end));
        assert_eq!(found.next().await.conversation.get(), 1, "the one whose phone was down");
        rig.nice.say(7, Say::Events(json!([call(3, "Disconnected", "False"), { "Type": "AgentSessionEnd" }])));
        assert_eq!(found.next().await.conversation.get(), 3);
        rig.nice.say(7, Say::Events(json!([call(2, "Disconnected", "True")])));
        assert_eq!(found.next().await.conversation.get(), 2);
        assert!(rig.nice.count("join") >= 3);
    }
}

#[tokio::test]
async fn an_agent_who_logs_in_later_is_joined_then() {
    let rig = Rig::new([7, 8]).await;
    rig.nice.joins.lock().unwrap().extend([(7, 409), (8, 404)]);
    let mut found = rig.listen();
    rig.until("asked again", |rig| rig.nice.count("join 7") >= 3 && rig.nice.count("join 8") >= 3).await;
    assert_eq!((rig.in_state("absent"), rig.in_state("joined")), (2, 0));
    rig.nice.joins.lock().unwrap().clear();
    rig.until("joined", |rig| (rig.in_state("absent"), rig.in_state("joined")) == (0, 2)).await;
    rig.nice.say(8, Say::Events(json!([call(1, "Disconnected", "True")])));
    assert_eq!(found.next().await.agent.map(AgentId::get), Some(8));
    assert_eq!(rig.flow.finished("source", "retry"), 0, "to be absent is no failure");
}

#[tokio::test]
async fn a_call_whose_final_event_does_not_come_is_found_all_the_same() {
    let mut rig = Rig::new([7]).await;
    rig.source.waits.after_call = Duration::from_millis(1);
    let mut found = rig.listen();
    rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "False")])));
    rig.until("taken", |rig| rig.nice.count("poll") >= 2).await;
    rig.nice.say(7, Say::Idle);
    assert_eq!(found.next().await.conversation.get(), 1);
}

#[tokio::test]
async fn a_call_that_only_rang_is_found_without_an_agent() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    rig.nice.say(7, Say::Events(json!([call(1, "Incoming", "False"), call(1, "Disconnected", "True")])));
    assert_eq!(found.next().await.agent, None);
    let answered = [call(2, "Incoming", "False"), call(2, "Active", "False"), call(2, "Disconnected", "True")];
    rig.nice.say(7, Say::Events(json!(answered)));
    assert_eq!(found.next().await.agent.map(AgentId::get), Some(7));
}

#[tokio::test]
async fn who_leaves_the_group_is_let_go_after_the_present_poll_and_who_joins_is_listened_to() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    rig.until("joined", |rig| rig.nice.count("poll 7") == 1).await;
    let left_at = "2026-04-01T16:50:00Z".parse().unwrap();
    let mut leaver = agent(7);
    leaver.memberships.leave(left_at);
    Roster::replace(&rig.roster, &[leaver, agent(8)]);
    rig.until("the joiner is joined", |rig| rig.nice.count("poll 8") == 1).await;
    let mut late = call(2, "Disconnected", "True");
    late["LastStateChangeTimeUTC"] = json!("2026-04-01T16:55:00Z");
    rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "True"), late])));
    assert_eq!(found.next().await.conversation.get(), 1, "it ended while the agent was in the group");
    rig.until("let go", |rig| (rig.in_state("absent"), rig.in_state("joined")) == (0, 1)).await;
    assert_eq!((rig.nice.count("poll 7"), rig.flow.finished("source", "done")), (1, 1));
    rig.flow.context.flow.stopping.cancel();
    assert_eq!(found.rest().await, Vec::<u64>::new());
}

#[tokio::test]
async fn a_troubled_poll_keeps_its_session_and_one_that_fails_on_and_on_is_joined_anew() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    for status in [500, 503, 429] {
        rig.nice.say(7, Say::Status(status));
    }
    rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "True")])));
    assert_eq!(found.next().await.conversation.get(), 1);
    assert_eq!((rig.nice.count("join"), rig.flow.finished("source", "retry")), (1, 3));
    for _ in 0..FAILED_POLLS {
        rig.nice.say(7, Say::Status(500));
    }
    rig.until("joined anew", |rig| rig.nice.count("join") == 2).await;
    rig.nice.say(7, Say::Status(400));
    rig.until("joined anew", |rig| rig.nice.count("join") == 3).await;
}

#[tokio::test]
async fn a_drain_passes_on_what_is_remembered_and_ends() {
    let rig = Rig::new([7, 8]).await;
    let found = rig.listen();
    rig.nice.say(7, Say::Events(json!([call(1, "Disconnected", "False"), call(2, "Active", "False")])));
    rig.until("taken", |rig| rig.nice.count("poll 7") == 2 && rig.nice.count("poll 8") == 1).await;
    rig.flow.context.flow.stopping.cancel();
    assert_eq!(found.rest().await, [1]);
    assert_eq!((rig.in_state("absent"), rig.in_state("joined")), (0, 0));
}

#[tokio::test]
async fn a_slow_dedupe_holds_the_listeners_up_and_loses_nothing() {
    let rig = Rig::new([7]).await;
    let mut found = rig.listen();
    let calls = 2 * BOUND as u64;
    let events: Vec<_> = (1..=calls).map(|contact| call(contact, "Disconnected", "True")).collect();
    rig.nice.say(7, Say::Events(json!(events)));
    rig.until("the channel is full", |rig| rig.flow.finished("source", "ok") >= BOUND as u64).await;
    assert_eq!(rig.nice.count("poll"), 1);
    for contact in 1..=calls {
        assert_eq!(found.next().await.conversation.get(), contact);
    }
}

#[tokio::test]
async fn more_agents_than_can_be_listened_to_leave_the_rest_to_the_poll() {
    let mut rig = Rig::new(1..=5).await;
    rig.source.most = 3;
    let _found = rig.listen();
    rig.until("joined", |rig| rig.in_state("joined") == 3).await;
    rig.group(3..=5);
    for leaver in [1, 2] {
        rig.nice.say(leaver, Say::Idle);
    }
    rig.until("others take the places", |rig| rig.nice.count("poll 4") + rig.nice.count("poll 5") == 2).await;
    assert_eq!(rig.in_state("joined"), 3);
}

#[tokio::test]
async fn refused_joins_pause_all_of_them_and_an_absent_agent_none() {
    let rig = Rig::new([]).await;
    let shared = rig.shared();
    let waits = |shared: &SharedNice| shared.pace.lock().unwrap().next.saturating_duration_since(Instant::now());
    let refused = || Err(StageError::from(NiceError::refused("403")));
    shared.note(&refused());
    shared.note(&refused());
    shared.note(&Ok(Join::Absent));
    shared.note(&refused());
    shared.note(&refused());
    assert_eq!(waits(&shared), Duration::ZERO, "it may be a matter of those agents");
    shared.note(&refused());
    assert!(waits(&shared) > REFUSED_DELAY / 2);
}

#[tokio::test]
async fn thousands_of_polls_that_fail_at_once_come_back_spread() {
    let rig = Rig::new([]).await;
    let shared = rig.shared();
    assert_eq!(shared.spread(), Duration::ZERO);
    let joined: Vec<_> = (0..6_000).map(|_| shared.counted("joined")).collect();
    let waits: Vec<_> = joined.iter().map(|_| shared.spread()).collect();
    let in_second = |second: u64| waits.iter().filter(|wait| wait.as_secs() == second).count();
    assert!((0..60).all(|second| in_second(second) < 200), "some hundred in each of sixty seconds");
    assert!(waits.iter().all(|wait| wait.as_secs() < 60));
}

/// The memory of this process.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_agents_are_listened_to_at_once() {
    const AGENTS: u64 = 2_000;
    let rig = Rig::new(1..=AGENTS).await;
    let before = resident_kib();
    let mut found = rig.listen();
    rig.until("all polled", |rig| rig.nice.count("poll") as u64 >= AGENTS).await;
    assert_eq!(rig.in_state("joined"), AGENTS as i64);
    let grown = resident_kib() - before;
    println!("{} KiB per listener, its server's side of the connection included", grown / AGENTS as i64);
    assert!(grown < 128 * AGENTS as i64, "{grown} KiB");
    let told = |agent| (agent, VecDeque::from([Say::Events(json!([call(agent, "Disconnected", "True")]))]));
    rig.nice.says.lock().unwrap().extend((1..=AGENTS).map(told));
    rig.nice.said.notify_waiters();
    let mut heard = Vec::new();
    while heard.len() < AGENTS as usize {
        heard.push(found.next().await.agent.unwrap().get());
    }
    heard.sort_unstable();
    assert_eq!(heard, (1..=AGENTS).collect::<Vec<_>>());
}
