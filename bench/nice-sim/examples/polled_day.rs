//! A simulated day of 2,000 calls and a poll of its last two hours every 30 seconds, with chosen fields and with all.
//! Prints what it took.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use jiff::Timestamp;
use nice_sim::{Faults, RecordingSize, Sim, SimConfig};
use serde_json::{Value, json};

const BASE: &str = "https://acme.nice.test";
const CALLS: usize = 2000;
const FIELDS: &str = "contactId,masterContactId,contactStartDate,lastUpdateTime,totalDurationSeconds,agentId,mediaTypeId,isOutbound,\
                      fromAddress,toAddress,skillId,campaignId,teamId,acwSeconds";

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    for fields in [Some(FIELDS), None] {
        let mut config = SimConfig { faults: Faults { late_rows: 0.05, ..Faults::none() }, ..SimConfig::default() };
        config.day.calls = CALLS;
        config.day.over = Duration::from_secs(24 * 3600);
        config.day.recording_size = RecordingSize::Between(1024, 8192);
        config.tenant.token_ttl = Duration::from_secs(7 * 24 * 3600);
        let (start, begun) = (Timestamp::from_second(1_775_001_600)?, tokio::time::Instant::now());
        let took = Instant::now();
        let sim = Sim::in_memory(config, BASE, move || start + begun.elapsed());
        let key = json!({ "accessKeyId": sim.config().tenant.access_key_id, "accessKeySecret": sim.config().tenant.access_key_secret });
        let request =
            Request::post(format!("{BASE}/authentication/v1/token/access-key")).body(Body::from(key.to_string()))?;
        let body: Value = serde_json::from_slice(&to_bytes(sim.call(request).await.into_body(), 1 << 20).await?)?;
        let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap_or_default());
        let get = |path: String| {
            Request::get(format!("{BASE}{path}"))
                .header("authorization", &bearer)
                .header("accept", "application/json")
                .body(Body::empty())
        };
        let fields = fields.map_or(String::new(), |fields| format!("&fields={fields}"));
        let (mut bytes, mut polls) = (0, 0);
        for _ in 0..2 * 60 * 24 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let since = (start + begun.elapsed() - jiff::SignedDuration::from_hours(2)).strftime("%Y-%m-%dT%H:%M:%SZ");
            let request = get(format!(
                "/inContactAPI/services/v33.0/contacts/completed?updatedSince={since}&mediaTypeId=4&orderBy=lastUpdateTime%20asc&top=1000{fields}"
            ))?;
            let response = sim.call(request).await;
            bytes += to_bytes(response.into_body(), 64 << 20).await?.len();
            polls += 1;
        }
        let polling = took.elapsed();
        let truth = sim.truth();
        println!(
            "{polls} polls, {} MB in {polling:?}; the truth of {} legs in {:?}",
            bytes >> 20,
            truth.len(),
            took.elapsed() - polling
        );
    }
    Ok(())
}
