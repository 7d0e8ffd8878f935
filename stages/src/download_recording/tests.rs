//! Which recordings are opened, at which positions, and what is said of the others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use flow::testing::event;
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, Extension, ObjectKey, StoredRecording, Unmetered};
use nice::MediaHost;
use runtime::task;
use serde_json::{Value, json};

use super::open::{NO_LINK, SOME_WITHOUT_LINK};
use super::*;
use crate::items::PlacedMedia;
use crate::readiness::Bounds;
use crate::serve;
use crate::source::test_nice::{agent, settings_of, tenant};
use crate::tenants::Tenants;
use crate::testing::TestFlow;

/// A NICE that names recordings as a test says, by the path under `/media-playback/v1`.
#[derive(Clone, Default)]
struct Nice(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    base: String,
    answers: BTreeMap<String, Value>,
    legs: Vec<u64>,
    media_asked: Vec<String>,
}

impl Nice {
    /// What is asked under this path names these recordings: how many seconds after the call's start, and their medium,
    /// once there is a link.
    fn names(&self, path: &str, recordings: &[(i64, Option<&str>)]) {
        let interactions: Vec<Value> = recordings.iter().map(|(start, medium)| self.voice(*start, *medium)).collect();
        self.answers(path, json!({ "interactions": interactions }));
    }

    fn answers(&self, path: &str, answer: Value) {
        self.0.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    fn voice(&self, start: i64, medium: Option<&str>) -> Value {
        let base = self.0.lock().unwrap().base.clone();
        let link = medium.map(|medium| format!("{base}/_media/{medium}"));
        let start = (started_at() + SignedDuration::from_secs(start)).to_string();
        json!({ "mediaType": "voice-only", "startTime": start, "data": { "fileToPlayUrl": link } })
    }

    fn media_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().media_asked)
    }
}

async fn playback(State(nice): State<Nice>, Path(path): Path<String>) -> Response {
    let answer = nice.0.lock().unwrap().answers.get(&path).cloned();
    answer.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |answer| Json(answer).into_response())
}

async fn medium(State(nice): State<Nice>, Path(name): Path<String>) -> Response {
    nice.0.lock().unwrap().media_asked.push(name.clone());
    match name.as_str() {
        "broken" => StatusCode::FORBIDDEN.into_response(),
        _ => ([("content-type", "video/mp4")], name).into_response(),
    }
}

async fn hierarchy(State(nice): State<Nice>, Path(id): Path<u64>) -> Json<Value> {
    let legs = nice.0.lock().unwrap().legs.clone();
    let children: Vec<Value> = legs.iter().map(|leg| json!({ "contactId": leg, "masterContactId": id })).collect();
    Json(json!({ "masterContactId": id, "childContacts": children }))
}

/// The stage, the world that it asks, and the machinery under it.
pub(crate) struct Rig {
    stage: DownloadRecording,
    tenants: Arc<Tenants>,
    nice: Nice,
    pub(crate) flow: TestFlow,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

pub(crate) async fn rig() -> Rig {
    let nice = Nice::default();
    let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
    let router = Router::new()
        .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
        .route("/media-playback/v1/{*path}", get(playback))
        .route("/inContactAPI/services/v33.0/contacts/{id}/hierarchy", get(hierarchy))
        .route("/_media/{name}", get(medium))
        .with_state(nice.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    nice.0.lock().unwrap().base = format!("http://{address}");
    let server = task::spawn("nice", serve::serve(listener, router, Default::default()));
    let mut settings = settings_of(format!("http://{address}").parse().unwrap());
    settings.nice.media_hosts = vec![address.to_string().parse::<MediaHost>().unwrap()];
    let flow = TestFlow::new(1);
    let context = &flow.context;
    let tenants =
        Arc::new(Tenants::new(Arc::new(settings), Arc::new(|_| Arc::new(Unmetered)), context.metrics.clone()));
    let bounds = Bounds { share: 0.0, guess: Duration::ZERO, longest: Duration::from_secs(3600) };
    let (catalog, clock) = (context.catalog.clone(), context.flow.clock.clone());
    let readiness = RecordingDelays::new(bounds, catalog.clone(), clock, context.metrics.clone());
    let stage = DownloadRecording {
        agents: catalog.clone(),
        conversations: catalog,
        retry: context.flow.retry.clone(),
        readiness,
        metrics: context.metrics.clone(),
    };
    Rig { stage, tenants, nice, flow, _server: server }
}

fn started_at() -> Timestamp {
    "2026-04-01T16:00:00Z".parse().unwrap()
}

impl Rig {
    /// What the stage makes of a call.
    pub(crate) async fn open(&self, call: &TestCall) -> Result<Outcome<RecordedConversation>, StageError> {
        let tenant = self.tenants.get(&tenant()).await.unwrap();
        let fetched = FetchedConversation { tenant, conversation: call.conversation.clone() };
        self.stage.process(&call.event, fetched).await
    }

    /// NICE names these recordings of the call.
    pub(crate) fn names(&self, recordings: &[(i64, Option<&str>)]) {
        self.nice.names("contacts", recordings);
    }
}

/// An event, and what NICE knows of its call.
#[derive(Clone)]
pub(crate) struct TestCall {
    pub(crate) event: ContactEvent,
    pub(crate) conversation: Conversation,
}

impl std::ops::Deref for TestCall {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

/// A call of one leg that ended, and was waited for, `age` before the clock of the tests, and was looked for so often
/// in vain.
pub(crate) fn conversation(age: SignedDuration, not_ready: u32) -> TestCall {
    let ended_at = "2026-04-01T17:00:00Z".parse::<Timestamp>().unwrap() - age;
    let awaited_millis = u64::try_from(age.as_millis()).unwrap();
    let event =
        ContactEvent { ended_at: Some(ended_at), queued_at: Some(ended_at), not_ready, awaited_millis, ..event(1) };
    let conversation = Conversation {
        tenant: event.tenant.clone(),
        external_id: event.conversation,
        source: event.source,
        lane: model::Lane::of(&event),
        master: event.conversation,
        agent: agent().external_id,
        started_at: started_at(),
        ended_at,
        direction: None,
        customer_number: None,
        metadata: json!({}),
    };
    TestCall { event, conversation }
}

/// What the stage makes of it: positions with media, how many are missing; or the word or reason.
async fn outcome(rig: &Rig, call: TestCall) -> Result<(Vec<(u32, String)>, u32), String> {
    match rig.open(&call).await {
        Ok(Outcome::Next(RecordedConversation { media, missing, .. })) => {
            let mut read = Vec::new();
            for PlacedMedia { position, media, .. } in media {
                let bytes: Vec<_> = futures::TryStreamExt::try_collect(media.into_stream()).await.unwrap();
                read.push((position, String::from_utf8(bytes.concat()).unwrap()));
            }
            Ok((read, missing))
        }
        Ok(Outcome::Done(word)) => Err(word.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test]
async fn a_part_that_is_late_is_awaited_and_given_up_when_it_is_long_overdue() {
    let rig = rig().await;
    rig.nice.names("contacts", &[(90, Some("c")), (60, None), (0, Some("a"))]);
    for early in [conversation(HOUR, 0), conversation(HOUR, 9), conversation(HOUR * 25, 2)] {
        assert_eq!(outcome(&rig, early).await, Err(SOME_WITHOUT_LINK.to_owned()));
    }
    assert!(rig.nice.media_asked().is_empty(), "nothing is opened only to be dropped");
    let parts = vec![(0, "a".to_owned()), (2, "c".to_owned())];
    for late in [conversation(HOUR * 24, 3), conversation(HOUR * 48, 2)] {
        assert_eq!(outcome(&rig, late).await, Ok((parts.clone(), 1)), "each has its place among all that are named");
    }
    rig.nice.names("contacts", &[(90, Some("c")), (60, Some("b")), (0, Some("a"))]);
    let whole = ["a", "b", "c"].map(str::to_owned);
    let (read, missing) = outcome(&rig, conversation(HOUR, 0)).await.unwrap();
    assert_eq!((read, missing), ((0..).zip(whole).collect(), 0));
}

#[tokio::test]
async fn a_medium_that_is_refused_does_not_cost_the_others() {
    let rig = rig().await;
    rig.nice.names("contacts", &[(0, Some("broken")), (60, Some("b"))]);
    let refused = outcome(&rig, conversation(HOUR, 5)).await.unwrap_err();
    assert_eq!(outcome(&rig, conversation(HOUR * 49, 5)).await, Ok((vec![(1, "b".to_owned())], 1)));
    rig.nice.names("contacts", &[(0, Some("broken"))]);
    assert_eq!(outcome(&rig, conversation(HOUR * 49, 5)).await, Err(refused), "alone it is an error as before");
}

#[tokio::test]
async fn only_what_nice_does_not_name_counts_as_no_recording() {
    let rig = rig().await;
    assert_eq!(outcome(&rig, conversation(HOUR * 49, 5)).await, Ok((Vec::new(), 0)));
    rig.nice.names("contacts", &[(0, None)]);
    assert_eq!(outcome(&rig, conversation(HOUR, 5)).await, Err(NO_LINK.to_owned()));
    let given_up = outcome(&rig, conversation(HOUR * 49, 5)).await.unwrap_err();
    assert!(given_up.contains("gave none of them until the deadline"), "{given_up}");
}

#[tokio::test]
async fn the_same_holds_for_the_segments_of_a_leg() {
    let rig = rig().await;
    let segment = |id: &str, from: i64, to: i64| {
        let time = |seconds| (started_at() + SignedDuration::from_secs(seconds)).to_string();
        json!({ "segmentId": id, "startTime": time(from), "endTime": time(to) })
    };
    let mut contact = rig.nice.voice(0, Some("all"));
    contact["data"]["segmentsDataList"] =
        json!([segment("s-1", 0, 60), segment("s-2", 60, 120), segment("s-3", 120, 180)]);
    rig.nice.answers("contacts", json!({ "interactions": [contact] }));
    rig.nice.0.lock().unwrap().legs = vec![1, 2];
    rig.nice.names("segments/s-1", &[(0, Some("one"))]);
    rig.nice.names("segments/s-3", &[(120, Some("three"))]);
    // The second is not known yet.
    let leg = |age, looks| {
        let mut leg = conversation(age, looks);
        leg.conversation.started_at = started_at();
        leg
    };
    assert_eq!(outcome(&rig, leg(SignedDuration::from_mins(30), 0)).await, Err(SOME_WITHOUT_LINK.to_owned()));
    let mut old = leg(HOUR * 49, 5);
    old.conversation.ended_at = started_at() + SignedDuration::from_mins(30);
    let parts = vec![(0, "one".to_owned()), (2, "three".to_owned())];
    assert_eq!(outcome(&rig, old).await, Ok((parts, 1)));
}

/// Makes the call ready with its second recording, a minute after its start; two are missing.
async fn store_second(rig: &Rig, call: &TestCall) {
    let catalog = &rig.flow.context.catalog;
    catalog.save_metadata(call).await.unwrap();
    let wav = Extension::for_content_type(Some("audio/wav"));
    let stored = StoredRecording {
        key: ObjectKey::new(&call.key(), call.started_at, 1, wav),
        bucket: "recordings".to_owned(),
        size_bytes: 1,
        sha256: "0".repeat(64),
        content_type: "audio/wav".to_owned(),
        source: Some(format!("contact {}", started_at() + SignedDuration::from_secs(60))),
    };
    catalog.complete(&call.key(), &[stored], 2, call.ended_at, None).await.unwrap();
}

#[tokio::test]
async fn a_recheck_opens_what_lacks_and_ends_where_that_is_nothing() {
    let rig = rig().await;
    let catalog = &rig.flow.context.catalog;
    let mut call = conversation(HOUR * 200, 0);
    store_second(&rig, &call).await;
    call.event.recheck = true;
    let nothing = Err(NOTHING_NEW.to_owned());
    assert_eq!(outcome(&rig, call.clone()).await, nothing, "NICE does not know the call any more");
    rig.nice.names("contacts", &[(0, None), (60, Some("b")), (90, Some("broken"))]);
    assert_eq!(outcome(&rig, call.clone()).await, nothing);
    rig.nice.names("contacts", &[(0, None), (60, Some("b")), (90, Some("c"))]);
    assert_eq!(outcome(&rig, call.clone()).await, Ok((vec![(2, "c".to_owned())], 1)));
    assert!(!rig.nice.media_asked().contains(&"b".to_owned()), "what is stored is not fetched again");
    rig.nice.names("contacts", &[(0, Some("a")), (60, Some("b")), (90, Some("c"))]);
    let (read, missing) = outcome(&rig, call).await.unwrap();
    assert_eq!((read.len(), missing), (2, 0));
    // Nobody learns from it how long recordings take.
    assert_eq!(catalog.readiness(&tenant()).await.unwrap(), None);
}

#[tokio::test]
async fn a_recheck_knows_what_is_stored_by_its_start_and_not_by_its_rank() {
    let rig = rig().await;
    let mut call = conversation(HOUR * 200, 0);
    store_second(&rig, &call).await;
    call.event.recheck = true;
    // One has come before it since.
    rig.nice.names("contacts", &[(0, Some("a")), (30, Some("x")), (60, Some("b"))]);
    let found = vec![(0, "a".to_owned()), (2, "x".to_owned())];
    assert_eq!(outcome(&rig, call).await, Ok((found, 0)), "no recording twice, and none passed over");
    assert!(!rig.nice.media_asked().contains(&"b".to_owned()));
}

#[tokio::test]
async fn where_no_start_stays_as_it_was_the_rank_tells_what_lacks() {
    let rig = rig().await;
    let mut call = conversation(HOUR * 200, 0);
    store_second(&rig, &call).await;
    call.event.recheck = true;
    rig.nice.names("contacts", &[(5, Some("a")), (65, Some("b")), (95, Some("c"))]);
    let found = vec![(0, "a".to_owned()), (2, "c".to_owned())];
    assert_eq!(outcome(&rig, call).await, Ok((found, 0)));
    assert!(!rig.nice.media_asked().contains(&"b".to_owned()));
}

#[tokio::test]
async fn a_recheck_that_does_not_find_again_what_is_stored_opens_nothing() {
    let rig = rig().await;
    let mut call = conversation(HOUR * 200, 0);
    store_second(&rig, &call).await;
    call.event.recheck = true;
    let refused = Err(NOT_LINED_UP.to_owned());
    let mut timeless = rig.nice.voice(60, Some("b"));
    timeless.as_object_mut().unwrap().remove("startTime");
    let first = rig.nice.voice(0, Some("a"));
    rig.nice.answers("contacts", json!({ "interactions": [first, timeless] }));
    assert_eq!(outcome(&rig, call.clone()).await, refused, "it may be any of the two");
    rig.nice.names("contacts", &[(0, Some("a")), (60, Some("b")), (60, Some("c"))]);
    assert_eq!(outcome(&rig, call.clone()).await, refused, "two began with it");
    let base = rig.nice.0.lock().unwrap().base.clone();
    let (first, second) = (rig.nice.voice(0, None), rig.nice.voice(90, None));
    rig.nice
        .answers("contacts", json!({ "interactions": [first, second], "fileToPlayUrl": format!("{base}/_media/all") }));
    assert_eq!(outcome(&rig, call).await, refused, "a link beside those that have none");
    assert!(rig.nice.media_asked().is_empty());
}
