//! A contact that NICE does not know: awaited, given up, or dropped, by who named it.

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::clients::quota::Unmetered;
use crate::flow::testing::{Fate, Fates, TestFlow, event};
use crate::flow::{FlowExt, Metrics, serve, task};
use crate::model::EventSource;
use crate::source::test_nice::settings_of;

/// A NICE that knows no contact.
async fn ignorant() -> (Arc<Tenants>, tokio_util::task::AbortOnDropHandle<()>) {
    let token = json!({ "access_token": "e30.e30.x", "expires_in": 3600, "token_type": "Bearer" });
    let router = Router::new()
        .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
        .route("/inContactAPI/services/v33.0/contacts/{id}", get(|| async { StatusCode::NOT_FOUND }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: reqwest::Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = task::spawn("nice", serve::serve(listener, router, Default::default()));
    (Arc::new(Tenants::new(Arc::new(settings_of(base)), Arc::new(|_| Arc::new(Unmetered)), Metrics::new())), server)
}

/// What becomes of an event that is so old.
async fn fate_of(mut event: ContactEvent, age: SignedDuration) -> (Fate, TestFlow) {
    let flow = TestFlow::new(1);
    let context = &flow.context;
    let (tenants, _server) = ignorant().await;
    event.queued_at = Some(context.clock.now() - age);
    let fates = Fates::default();
    let delivery = fates.delivery(event, &context.catalog);
    let (catalog, retry, clock) = (context.catalog.clone(), context.retry.clone(), context.clock.clone());
    let stage = FetchMetadata { tenants, catalog, retry, clock };
    stream::iter([delivery]).through(stage, context).settle(context).await;
    (fates.all().remove(0).1, flow)
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
    assert_eq!(flow.context.metrics.conversations_done.with_label_values(&["unconfirmed"]).get(), 1);
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
        let (fate, _) = fate_of(event, SignedDuration::from_hours(49)).await;
        assert!(matches!(fate, Fate::Acked { shelved: 1 }), "{fate:?}");
    }
}
