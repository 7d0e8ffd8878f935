//! A contact that NICE does not know, or only half: awaited, given up, or dropped, by who named it.

use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use flow::{
    FlowExt,
    testing::{Fate, Fates, event},
};
use futures::stream;
use jiff::SignedDuration;
use model::{EventSource, Memberships, Unmetered};
use runtime::task;
use serde_json::json;

use super::*;
use crate::metrics::Metrics;
use crate::serve;
use crate::source::test_nice::{agent, settings_of, tenant};
use crate::tenants::Tenants;
use crate::testing::TestFlow;

/// A NICE that answers so when it is asked for a contact.
async fn serving(contacts: axum::routing::MethodRouter) -> (Arc<Tenants>, tokio_util::task::AbortOnDropHandle<()>) {
    let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
    let router = Router::new()
        .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
        .route("/inContactAPI/services/v33.0/contacts/{id}", contacts);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = task::spawn("nice", serve::serve(listener, router, Default::default()));
    (Arc::new(Tenants::new(Arc::new(settings_of(base)), Arc::new(|_| Arc::new(Unmetered)), Metrics::new())), server)
}

/// A NICE that knows every contact by one record.
async fn knowing(record: serde_json::Value) -> (Arc<Tenants>, tokio_util::task::AbortOnDropHandle<()>) {
    serving(get(move || async move { Json(record) })).await
}

/// A NICE that knows no contact.
async fn ignorant() -> (Arc<Tenants>, tokio_util::task::AbortOnDropHandle<()>) {
    serving(get(|| async { StatusCode::NOT_FOUND })).await
}

/// What becomes of an event that is so old.
async fn fate_of(mut event: ContactEvent, age: SignedDuration) -> (Fate, TestFlow) {
    let flow = TestFlow::new(1);
    let context = &flow.context;
    let (tenants, _server) = ignorant().await;
    event.queued_at = Some(context.flow.clock.now() - age);
    event.awaited_millis = u64::try_from(age.as_millis()).unwrap();
    let fates = Fates::default();
    let delivery = flow.delivery(&fates, event);
    let (catalog, retry, clock) = (context.catalog.clone(), context.flow.retry.clone(), context.flow.clock.clone());
    let stage = FetchMetadata { agents: catalog.clone(), conversations: catalog, retry, clock };
    let tenant = tenants.get(&tenant()).await.unwrap();
    stream::iter([delivery.with(tenant)]).through(stage, &context.flow).settle(&context.flow).await;
    (fates.all().remove(0).1, flow)
}

/// What becomes of an event of which NICE has this record. Agent 7 joined at noon, and the group was read a minute ago.
async fn fate_by(record: serde_json::Value, event: ContactEvent) -> (Result<&'static str, StageError>, TestFlow) {
    let flow = TestFlow::new(1);
    let context = &flow.context;
    let agent = Agent { memberships: Memberships::since("2026-04-01T12:00:00Z".parse().unwrap()), ..agent() };
    context.catalog.save_agents(&tenant(), &[agent]).await.unwrap();
    let read_at = context.flow.clock.now() - SignedDuration::from_mins(1);
    context.catalog.note_agents_read(&tenant(), read_at).await.unwrap();
    let (tenants, _server) = knowing(record).await;
    let (catalog, retry, clock) = (context.catalog.clone(), context.flow.retry.clone(), context.flow.clock.clone());
    let tenant = tenants.get(&tenant()).await.unwrap();
    let outcome =
        FetchMetadata { agents: catalog.clone(), conversations: catalog, retry, clock }.process(&event, tenant).await;
    let told = outcome.map(|outcome| match outcome {
        Outcome::Next(_) => "taken",
        Outcome::Done(reason) => reason,
    });
    (told, flow)
}

/// A record of NICE: the call lasted five minutes and ended at `ended_at`.
fn record(agent: u64, ended_at: &str, warehoused: bool) -> serde_json::Value {
    let ended_at: Timestamp = format!("2026-04-01T{ended_at}Z").parse().unwrap();
    let warehoused_at = warehoused.then(|| (ended_at + SignedDuration::from_secs(47)).to_string());
    json!({
        "contactId": 1, "agentId": agent, "isActive": false, "mediaTypeId": 4,
        "contactStartDate": (ended_at - SignedDuration::from_mins(5)).to_string(), "totalDurationSeconds": 300,
        "lastUpdateTime": ended_at.to_string(), "dateContactWarehoused": warehoused_at,
    })
}

fn webhook_event() -> ContactEvent {
    ContactEvent { ended_at: None, ..told_by_webhook(0) }
}

fn told_by_webhook(unknown: u32) -> ContactEvent {
    ContactEvent { source: EventSource::Webhook, not_ready: unknown, unknown, ..event(1) }
}

#[tokio::test]
async fn a_contact_that_only_a_webhook_named_is_looked_for_within_an_hour_and_dropped_with_a_counted_reason() {
    let (fate, _) = fate_of(told_by_webhook(0), SignedDuration::from_mins(5)).await;
    let Fate::Deferred { event, .. } = fate else { panic!("{fate:?}") };
    assert_eq!((event.unknown, event.not_ready, event.is_unconfirmed()), (1, 1, true));
    assert_eq!(QuotaClass::of_look_up(&event), QuotaClass::Unconfirmed);
    assert_eq!(QuotaClass::of(&event), QuotaClass::Retry, "once NICE knows it, it is a call as any other");

    let (fate, flow) = fate_of(told_by_webhook(4), SignedDuration::from_mins(61)).await;
    assert_eq!(fate, Fate::Acked { shelved: 0 });
    assert_eq!(flow.context.metrics.flow.conversations_done.with_label_values(&["unconfirmed"]).get(), 1);
}

#[tokio::test]
async fn one_that_was_looked_for_late_is_looked_for_again() {
    for unknown in 0..3 {
        let (fate, _) = fate_of(told_by_webhook(unknown), SignedDuration::from_hours(40)).await;
        let Fate::Deferred { event, .. } = fate else { panic!("{fate:?}") };
        assert_eq!(event.unknown, unknown + 1, "an outage, or a full budget, is no answer");
    }
}

#[tokio::test]
async fn one_that_nice_has_known_once_or_that_the_poll_found_is_awaited_until_the_deadline() {
    let known_once = ContactEvent { not_ready: 5, ..told_by_webhook(4) };
    assert!(!known_once.is_unconfirmed());
    let polled = ContactEvent { not_ready: 4, unknown: 4, ..event(1) };
    for event in [known_once, polled] {
        let (fate, _) = fate_of(event.clone(), SignedDuration::from_hours(40)).await;
        assert!(matches!(fate, Fate::Deferred { .. }), "{fate:?}");
        let (fate, flow) = fate_of(event, SignedDuration::from_hours(49)).await;
        assert!(matches!(fate, Fate::Acked { shelved: 1 }), "{fate:?}");
        let letter = flow.context.catalog.dead_letters(0, 1).await.unwrap().remove(0);
        assert!(letter.replay_at.is_some(), "what NICE named and forgot it may remember: {letter:?}");
    }
}

#[tokio::test]
async fn one_that_nice_had_known_and_knows_no_more_goes_back_by_itself() {
    for (unknown, source, goes_back) in [(4, EventSource::Poll, true), (4, EventSource::Webhook, false)] {
        let event = ContactEvent { source, not_ready: 4, unknown, ..event(1) };
        // The deadline decides before the short life of a webhook's does.
        let (_, flow) = fate_of(event, SignedDuration::from_hours(49)).await;
        let letters = flow.context.catalog.dead_letters(0, 10).await.unwrap();
        assert_eq!(letters[0].replay_at.is_some(), goes_back, "{source:?}");
    }
}

#[tokio::test]
async fn a_call_whose_group_was_not_read_until_the_deadline_comes_again_by_itself() {
    let flow = TestFlow::new(1);
    let read_at = flow.context.flow.clock.now() - SignedDuration::from_hours(2);
    flow.context.catalog.note_agents_read(&tenant(), read_at).await.unwrap();
    let given_up = ContactEvent { not_ready: 9, awaited_millis: 49 * 3600 * 1000, ..webhook_event() };
    let letter = is_taken(record(8, "16:58:00", true), given_up, &flow).await;
    let Err(StageError::SetAside { system: System::Nice, reason }) = letter else { panic!("{letter:?}") };
    assert!(reason.contains("the group was not read"), "{reason}");
}

#[tokio::test]
async fn a_reading_of_the_group_that_is_to_come_tells_of_nobody_and_costs_no_look() {
    let flow = TestFlow::new(1);
    let read_at = flow.context.flow.clock.now() + SignedDuration::from_hours(2);
    flow.context.catalog.note_agents_read(&tenant(), read_at).await.unwrap();
    let looked_at_once = ContactEvent { not_ready: 1, ..webhook_event() };
    let outcome = is_taken(record(8, "16:58:00", true), looked_at_once, &flow).await;
    assert!(matches!(outcome, Err(StageError::Early { .. })), "{outcome:?}");
}

#[tokio::test]
async fn half_a_record_is_awaited_and_the_whole_one_six_seconds_later_is_taken() {
    // The clock of these tests stands at 17:00:00.
    let mut half = record(0, "16:58:00", false);
    half["totalDurationSeconds"] = serde_json::Value::Null;
    let (fate, _) = fate_by(half.clone(), webhook_event()).await;
    assert!(matches!(fate, Err(StageError::NotReady { .. })), "{fate:?}");
    half.as_object_mut().unwrap().remove("agentId");
    assert!(matches!(fate_by(half, webhook_event()).await.0, Err(StageError::NotReady { .. })));
    // Begun hours ago: its start says nothing of its end.
    let mut long = record(0, "13:00:00", false);
    (long["totalDurationSeconds"], long["lastUpdateTime"]) = (json!(0), json!("2026-04-01T16:59:58Z"));
    assert!(matches!(fate_by(long, webhook_event()).await.0, Err(StageError::NotReady { .. })));
    let mut chat = record(7, "16:58:00", false);
    chat["mediaTypeId"] = json!(3);
    assert!(matches!(fate_by(chat, webhook_event()).await.0, Err(StageError::NotReady { .. })));
    let stranger = record(8, "16:58:00", false);
    assert!(matches!(fate_by(stranger, webhook_event()).await.0, Err(StageError::NotReady { .. })));

    let (fate, _) = fate_by(record(7, "16:58:00", false), webhook_event()).await;
    assert_eq!(fate.unwrap(), "taken");
}

#[tokio::test]
async fn of_a_final_record_the_verdict_is_said_at_once() {
    let mut chat = record(7, "16:58:00", true);
    chat["mediaTypeId"] = json!(3);
    let mut whole_chat = record(7, "16:49:59", false);
    whole_chat["mediaTypeId"] = json!(3);
    for (record, verdict) in [
        (record(0, "16:58:00", true), "never_answered"),
        (record(0, "15:59:59", false), "never_answered"),
        (chat, "not_a_phone_call"),
        (whole_chat, "not_a_phone_call"),
        (record(8, "16:49:59", false), "not_in_group"),
        (record(8, "16:58:00", true), "not_in_group"),
        (record(8, "15:59:59", false), "not_in_group"),
        (record(7, "11:59:59", true), "not_in_group"),
        (record(7, "12:00:00", true), "taken"),
    ] {
        let (fate, _) = fate_by(record.clone(), webhook_event()).await;
        assert_eq!(fate.unwrap(), verdict, "{record}");
    }
    // Nobody has taken it yet, minutes after its end.
    let unanswered = fate_by(record(0, "16:40:00", false), webhook_event()).await.0;
    assert!(matches!(unanswered, Err(StageError::NotReady { .. })), "{unanswered:?}");
    // One that stays half until the deadline.
    let given_up = ContactEvent { not_ready: 9, awaited_millis: 49 * 3600 * 1000, ..webhook_event() };
    let mut half = record(0, "16:58:00", false);
    half["totalDurationSeconds"] = serde_json::Value::Null;
    assert_eq!(fate_by(half, given_up).await.0.unwrap(), "never_answered");
}

#[tokio::test]
async fn a_backfill_of_todays_members_takes_their_calls_from_before() {
    let of_today = |queued_at: &str| ContactEvent {
        source: EventSource::Backfill,
        members_now: true,
        queued_at: Some(format!("2026-04-01T{queued_at}Z").parse().unwrap()),
        ..event(1)
    };
    let before = record(7, "11:00:00", true);
    assert_eq!(fate_by(before.clone(), of_today("16:50:00")).await.0.unwrap(), "taken");
    let then = ContactEvent { members_now: false, ..of_today("16:50:00") };
    assert_eq!(fate_by(before.clone(), then).await.0.unwrap(), "not_in_group");
    assert_eq!(fate_by(record(8, "11:00:00", true), of_today("16:50:00")).await.0.unwrap(), "not_in_group");
    // One whose dead letter is replayed after its agent has left.
    let flow = TestFlow::new(1);
    let mut memberships = Memberships::since("2026-04-01T12:00:00Z".parse().unwrap());
    memberships.leave("2026-04-01T16:55:00Z".parse().unwrap());
    flow.context.catalog.save_agents(&tenant(), &[Agent { memberships, ..agent() }]).await.unwrap();
    flow.context.catalog.note_agents_read(&tenant(), flow.context.flow.clock.now()).await.unwrap();
    let found_at = of_today("16:50:00").queued_at;
    for (first_queued_at, taken) in [(found_at, true), (None, false)] {
        let event = ContactEvent { first_queued_at, ..of_today("16:58:00") };
        let event = ContactEvent::decode(&event.encode()).unwrap();
        assert_eq!(is_taken(before.clone(), event, &flow).await.unwrap(), taken);
    }
}

#[tokio::test]
async fn while_the_group_is_not_read_a_call_of_nobody_is_looked_at_rarely() {
    let flow = TestFlow::new(1);
    let read_at = flow.context.flow.clock.now() - SignedDuration::from_hours(2);
    flow.context.catalog.note_agents_read(&tenant(), read_at).await.unwrap();
    let looked_at = |not_ready| ContactEvent { not_ready, ..webhook_event() };
    let first = is_taken(record(8, "16:58:00", true), looked_at(0), &flow).await;
    assert!(matches!(first, Err(StageError::NotReady { .. })), "{first:?}");
    let second = is_taken(record(8, "16:58:00", true), looked_at(1), &flow).await;
    let Err(StageError::Early { retry_after, .. }) = second else { panic!("{second:?}") };
    assert_eq!(Some(&retry_after), flow.context.flow.retry.not_ready_delays.last());
}

/// Whether an event is taken of which NICE has this record.
async fn is_taken(record: serde_json::Value, event: ContactEvent, flow: &TestFlow) -> Result<bool, StageError> {
    let (tenants, _server) = knowing(record).await;
    let (catalog, retry) = (flow.context.catalog.clone(), flow.context.flow.retry.clone());
    let stage = FetchMetadata {
        agents: catalog.clone(),
        conversations: catalog,
        retry,
        clock: flow.context.flow.clock.clone(),
    };
    let tenant = tenants.get(&tenant()).await.unwrap();
    stage.process(&event, tenant).await.map(|outcome| matches!(outcome, Outcome::Next(_)))
}

#[tokio::test]
async fn a_reading_of_the_group_in_the_time_to_come_proves_nothing() {
    let flow = TestFlow::new(1);
    let context = &flow.context;
    let ahead = context.flow.clock.now() + SignedDuration::from_hours(100);
    context.catalog.note_agents_read(&tenant(), ahead).await.unwrap();
    let (tenants, _server) = knowing(record(7, "16:58:00", true)).await;
    let (catalog, retry, clock) = (context.catalog.clone(), context.flow.retry.clone(), context.flow.clock.clone());
    let tenant = tenants.get(&tenant()).await.unwrap();
    let outcome = FetchMetadata { agents: catalog.clone(), conversations: catalog, retry, clock }
        .process(&webhook_event(), tenant)
        .await;
    assert!(matches!(outcome, Err(StageError::NotReady { .. })), "a joiner is not known yet");
}
