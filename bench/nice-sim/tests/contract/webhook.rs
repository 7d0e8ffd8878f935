//! Point 11: ended calls are pushed, sometimes twice, sometimes not at all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use nice_sim::{CallSpec, Sim, SimConfig, WebhookConfig};
use serde_json::Value;
use tokio::sync::Mutex;

type Received = Arc<Mutex<Vec<Value>>>;

async fn receive(State(received): State<Received>, headers: HeaderMap, Json(event): Json<Value>) -> StatusCode {
    if headers.get("authorization").is_none_or(|value| value != "Bearer s3cret") {
        return StatusCode::UNAUTHORIZED;
    }
    received.lock().await.push(event);
    StatusCode::ACCEPTED
}

/// Pushes of so many calls, waited for until `enough` have come.
async fn pushed(calls: usize, duplicates: f64, losses: f64, enough: usize) -> anyhow::Result<(Sim, Vec<Value>)> {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/nice/events/contact-ended", listener.local_addr()?);
    let app = Router::new().route("/nice/events/contact-ended", post(receive)).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let receiver =
        WebhookConfig { duplicate_share: duplicates, loss_share: losses, ..WebhookConfig::new(url, "s3cret") };
    let sim = Sim::start(SimConfig { webhook: Some(receiver), ..SimConfig::default() }).await?;
    for _ in 0..calls {
        sim.add_call(CallSpec::new(sim.agents()[0]));
    }
    sim.advance(Duration::from_secs(31));
    while received.lock().await.len() < enough || sim.requests_to("webhook-push") < enough as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let received = received.lock().await.clone();
    Ok((sim, received))
}

#[tokio::test]
async fn every_ended_call_is_pushed_with_its_id() -> anyhow::Result<()> {
    let (sim, events) = pushed(20, 0.0, 0.0, 20).await?;
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        let id = &event["contactId"];
        *by_id.entry(id.as_str().map_or(id.to_string(), str::to_owned)).or_default() += 1;
    }
    let truth: Vec<String> = sim.truth().iter().map(|leg| leg.contact_id.to_string()).collect();
    assert!(truth.iter().all(|id| by_id.get(id) == Some(&1)));
    assert!(
        events.iter().any(|event| event["contactId"].is_string())
            && events.iter().any(|event| event["contactId"].is_number())
    );
    assert_eq!(sim.requests()["webhook-push"][&202], 20);
    Ok(())
}

#[tokio::test]
async fn pushes_can_be_doubled() -> anyhow::Result<()> {
    let (_, events) = pushed(5, 1.0, 0.0, 10).await?;
    assert_eq!(events.len(), 10);
    Ok(())
}

#[tokio::test]
async fn pushes_can_be_lost() -> anyhow::Result<()> {
    let (sim, _) = pushed(40, 0.0, 0.5, 1).await?;
    sim.advance(Duration::from_secs(1));
    assert!(sim.requests_to("webhook-push") < 40);
    Ok(())
}
