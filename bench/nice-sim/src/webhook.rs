//! Pushes the end of calls to a receiver, as a Studio script would: once, at the end of after-call work, without retry.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{chance::Dice, clock, config::WebhookConfig, memory::lock, service::Service};

/// How often the schedule is looked at: a push comes at most so much late.
const TICK: Duration = Duration::from_millis(50);

/// A receiver that takes longer loses the event.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pushes under way at a time; a script engine has more lines, a simulator needs none.
const IN_FLIGHT: usize = 32;

/// Takes the bodies that are due: one for each ended leg, none where it is lost, two where it comes twice.
pub(crate) fn due(service: &Service, receiver: &WebhookConfig) -> Vec<Value> {
    let ended = service.world_mut().take_unannounced(service.now());
    let mut dice = lock(&service.announcing);
    let mut bodies = Vec::new();
    for contact_id in ended {
        if dice.hits(receiver.loss_share) {
            continue;
        }
        let Some(body) = event(service, contact_id, &mut dice) else { continue };
        if dice.hits(receiver.duplicate_share) {
            bodies.push(body.clone());
        }
        bodies.push(body);
    }
    bodies
}

/// Announces each ended leg until stopped.
pub(crate) fn announce(
    service: Arc<Service>,
    receiver: WebhookConfig,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send> {
    // Fails only where one is chosen already, and that is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("build the webhook's client")?;
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    Ok(async move {
        let mut pushes = JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            while pushes.try_join_next().is_some() {}
            for body in due(&service, &receiver) {
                let slot = tokio::select! {
                    () = stop.cancelled() => return,
                    slot = Arc::clone(&slots).acquire_owned() => slot,
                };
                let push = client.post(&receiver.url).bearer_auth(&receiver.secret).json(&body);
                let service = Arc::clone(&service);
                pushes.spawn(async move {
                    let status = push.send().await.map_or(0, |answer| answer.status().as_u16());
                    service.counters.answered("webhook-push", status);
                    drop(slot);
                });
            }
        }
    })
}

/// The body: only `contactId` is certain, and ids come as text or as numbers.
fn event(service: &Service, contact_id: i64, dice: &mut Dice) -> Option<Value> {
    let world = service.world();
    let (call, leg) = world.leg(contact_id)?;
    let as_text = dice.hits(0.5);
    let id = |id: i64| if as_text { json!(id.to_string()) } else { json!(id) };
    let mut body = json!({ "eventType": "ContactEnded", "contactId": id(contact_id) });
    if dice.hits(0.8) {
        body["eventId"] = json!(dice.uuid());
        body["masterContactId"] = id(call.master);
        body["agentId"] = id(leg.agent_id);
        body["businessUnitId"] = id(service.config.tenant.business_unit_id);
        body["endedAt"] = json!(clock::write(leg.reported_end()));
    }
    Some(body)
}
