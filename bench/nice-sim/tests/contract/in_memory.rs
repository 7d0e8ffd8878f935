//! The same service without a socket: asked by a function call, on tokio's paused clock.

use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, to_bytes};
use jiff::Timestamp;
use nice_sim::{CallSpec, Faults, Sim, SimConfig, WebhookConfig};
use serde_json::{Value, json};

use crate::client::{EVER, numbers, sha256};

const BASE: &str = "https://acme.nice.test";

/// 2026-04-01T00:00:00Z.
const START: i64 = 1_775_001_600;

/// A simulation in memory, with a token.
pub(crate) struct Memory {
    pub(crate) sim: Sim,
    pub(crate) token: String,
}

impl Memory {
    pub(crate) async fn start(config: SimConfig) -> anyhow::Result<Self> {
        let begun = tokio::time::Instant::now();
        let start = Timestamp::from_second(START)?;
        let sim = Sim::in_memory(config, BASE, move || start + begun.elapsed());
        let mut memory = Self { sim, token: String::new() };
        let (status, body) = memory.new_token().await?;
        anyhow::ensure!(status == 200, "{status}");
        memory.token = body["access_token"].as_str().context("no token")?.to_owned();
        Ok(memory)
    }

    /// The answer to the access-key flow.
    pub(crate) async fn new_token(&self) -> anyhow::Result<(u16, Value)> {
        let tenant = &self.sim.config().tenant;
        let key = json!({ "accessKeyId": tenant.access_key_id, "accessKeySecret": tenant.access_key_secret });
        let request = axum::http::Request::post(format!("{BASE}/authentication/v1/token/access-key"));
        let response = self.sim.call(request.body(Body::from(key.to_string()))?).await;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await?).unwrap_or_default()))
    }

    /// The answer for a path or an absolute link, with the token.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<axum::http::Response<Body>> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{BASE}{path}") };
        let request = axum::http::Request::get(url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json");
        Ok(self.sim.call(request.body(Body::empty())?).await)
    }

    /// The status and the JSON of an ACD answer; null where there is none.
    pub(crate) async fn acd(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.json(&format!("/inContactAPI/services/v33.0/{path}")).await
    }

    /// The status and the JSON of any answer; null where there is none.
    pub(crate) async fn json(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let response = self.get(path).await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&to_bytes(response.into_body(), 8 << 20).await?).unwrap_or_default()))
    }

    /// The status and the JSON of media playback.
    pub(crate) async fn playback(&self, master: i64) -> anyhow::Result<(u16, Value)> {
        self.json(&format!("/media-playback/v1/contacts?acd-call-id={master}&media-type=voice-only")).await
    }

    /// The links that media playback names, in order.
    pub(crate) async fn links(&self, master: i64) -> anyhow::Result<Vec<String>> {
        let (_, body) = self.playback(master).await?;
        let interactions = body["interactions"].as_array().cloned().unwrap_or_default();
        Ok(interactions.iter().filter_map(|one| one["data"]["fileToPlayUrl"].as_str().map(str::to_owned)).collect())
    }

    /// A medium, as a client without a token gets it.
    pub(crate) async fn medium(&self, link: &str) -> anyhow::Result<(u16, anyhow::Result<Vec<u8>>)> {
        let response = self.sim.call(axum::http::Request::get(link).body(Body::empty())?).await;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await;
        Ok((status, body.map(|bytes| bytes.to_vec()).map_err(Into::into)))
    }
}

/// A simulation with small recordings, and a token that outlives any test.
pub(crate) fn small() -> SimConfig {
    let mut config = SimConfig::default();
    config.tenant.token_ttl = Duration::from_secs(60 * 24 * 3600);
    config.day.recording_size = nice_sim::RecordingSize::Between(1024, 8192);
    config
}

pub(crate) async fn sleep(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_lives_its_life_in_simulated_time() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let begun = std::time::Instant::now();
    let call = memory.sim.add_call(CallSpec::new(memory.sim.agents()[0]));
    assert_eq!(memory.acd(&format!("contacts/completed?{EVER}")).await?.0, 204);
    sleep(76).await;
    let (status, body) = memory.acd(&format!("contacts/completed?{EVER}")).await?;
    assert_eq!((status, numbers(&body["completedContacts"], "contactId")), (200, call.contact_ids.clone()));
    assert_eq!(body["completedContacts"][0]["lastUpdateTime"], "2026-04-01T00:00:30Z");
    sleep(1800).await;
    let link = memory.links(call.master_contact_id).await?.remove(0);
    assert!(link.starts_with(BASE), "{link}");
    let (status, medium) = memory.medium(&link).await?;
    assert_eq!((status, sha256(&medium?)), (200, memory.sim.truth()[0].recordings[0].sha256.clone()));
    sleep(300).await;
    assert_eq!(memory.medium(&link).await?.0, 403, "the link has expired");
    assert!(begun.elapsed() < Duration::from_secs(600), "nobody waits for simulated time");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_ends_with_an_error_and_the_trap_knows_its_callers() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let call = memory.sim.add_call(CallSpec::new(memory.sim.agents()[0]));
    sleep(1900).await;
    for faults in [
        Faults { media_reset: 1.0, ..Faults::none() },
        Faults { media_truncated: 1.0, ..Faults::none() },
        Faults { content_length_long: 1.0, ..Faults::none() },
    ] {
        memory.sim.set_faults(faults.clone());
        let link = memory.links(call.master_contact_id).await?.remove(0);
        let (status, medium) = memory.medium(&link).await?;
        assert_eq!(status, 200);
        assert!(medium.is_err(), "{faults:?}");
    }
    memory.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    let link = memory.links(call.master_contact_id).await?.remove(0);
    assert!(link.starts_with(memory.sim.trap_base()), "{link}");
    assert_eq!(memory.sim.violations(), Vec::<String>::new());
    assert_eq!(memory.medium(&link).await?.0, 200);
    assert_eq!(memory.sim.violations().len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_run() -> anyhow::Result<()> {
    async fn run(seed: u64) -> anyhow::Result<String> {
        let mut config = SimConfig { seed, faults: Faults::all(seed), ..small() };
        config.day.calls = 40;
        config.webhook = Some(WebhookConfig::new("", ""));
        let Ok(memory) = Memory::start(config).await else { return Ok("no token".to_owned()) };
        let mut seen = String::new();
        for _ in 0..30 {
            sleep(60).await;
            let response = memory.get(&format!("/inContactAPI/services/v33.0/contacts/completed?{EVER}")).await?;
            seen += &format!("{} {:?}\n", response.status(), to_bytes(response.into_body(), 8 << 20).await?);
            seen += &format!("{:?}\n", memory.sim.take_announcements());
        }
        Ok(seen + &format!("{:?}", memory.sim.truth()))
    }
    assert_eq!(run(3).await?, run(3).await?);
    assert_ne!(run(3).await?, run(4).await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn announcements_are_taken_with_losses_and_duplicates() -> anyhow::Result<()> {
    let mut config = small();
    config.day.calls = 400;
    config.day.transfer_share = 0.0;
    config.webhook = Some(WebhookConfig { duplicate_share: 0.2, loss_share: 0.2, ..WebhookConfig::new("", "") });
    let memory = Memory::start(config).await?;
    sleep(20).await;
    assert_eq!(memory.sim.take_announcements(), Vec::<Value>::new(), "nobody's after-call work is over");
    sleep(100).await;
    let taken = memory.sim.take_announcements();
    let id = |body: &Value| body["contactId"].as_i64().or_else(|| body["contactId"].as_str()?.parse().ok());
    let mut ids: Vec<i64> = taken.iter().filter_map(id).collect();
    assert_eq!(ids.len(), taken.len());
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() < 380 && taken.len() > ids.len() + 20, "{} of which {} differ", taken.len(), ids.len());
    assert_eq!(memory.sim.take_announcements(), Vec::<Value>::new(), "each is taken once");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn calls_are_placed_days_ahead_and_the_truth_of_a_day_is_told_alone() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let (agent, start) = (memory.sim.agents()[0], Timestamp::from_second(START)?);
    let after = |hours: i64| start + jiff::SignedDuration::from_hours(hours);
    for day in 0..30 {
        memory.sim.place(CallSpec::new(agent), after(24 * day + 12));
    }
    let truth = memory.sim.truth();
    assert_eq!(
        truth.iter().map(|leg| leg.hung_up_at).collect::<Vec<_>>(),
        (0..30).map(|day| after(24 * day + 12)).collect::<Vec<_>>()
    );
    assert_eq!(memory.sim.truth_of(after(48)..after(96)), truth[2..4]);
    sleep(2 * 24 * 3600).await;
    let (_, body) = memory.acd(&format!("contacts/completed?{EVER}")).await?;
    assert_eq!(body["totalRecords"], 2);
    let (_, body) = memory.acd("contacts/completed?updatedSince=2026-04-02T00:00:00Z").await?;
    assert_eq!(numbers(&body["completedContacts"], "contactId"), [truth[1].contact_id]);
    Ok(())
}
