//! One seed is one world and one day.

use jiff::SignedDuration;
use nice_sim::{Sim, SimConfig, TruthLeg};

use crate::client::{busy, http_client};

/// What does not depend on when the simulation began.
fn timeless(truth: &[TruthLeg]) -> Vec<(i64, i64, i64, SignedDuration, String, Vec<String>)> {
    (truth.iter())
        .map(|leg| {
            let files = leg.recordings.iter().map(|recording| recording.sha256.clone()).collect();
            let duration = leg.ended_at.duration_since(leg.started_at);
            (leg.contact_id, leg.master_contact_id, leg.agent_id, duration, leg.customer_number.clone(), files)
        })
        .collect()
}

#[tokio::test]
async fn a_seed_repeats_and_another_differs() -> anyhow::Result<()> {
    let day = async |seed| -> anyhow::Result<_> {
        let sim = Sim::start(SimConfig { seed, ..busy(60) }).await?;
        let truth = timeless(&sim.truth());
        sim.shutdown().await;
        Ok(truth)
    };
    let first = day(1).await?;
    assert_eq!(first, day(1).await?);
    assert_ne!(first, day(2).await?);
    Ok(())
}

#[tokio::test]
async fn a_day_has_every_kind_of_call() -> anyhow::Result<()> {
    let sim = Sim::start(busy(300)).await?;
    let start = jiff::Timestamp::now() - SignedDuration::from_secs(5);
    let truth = sim.truth();
    assert!(truth.iter().any(|leg| leg.legs == 3) && truth.iter().any(|leg| leg.legs == 2));
    assert!(truth.iter().any(|leg| leg.recordings.is_empty()));
    assert!(truth.iter().any(|leg| !leg.in_group) && truth.iter().any(|leg| leg.in_group));
    assert!(truth.iter().all(|leg| leg.hung_up_at > start), "no leg is history");
    assert!(truth.iter().all(|leg| leg.recordings.len() <= 1), "the segments of one agent do not touch");
    let recorded = truth.iter().flat_map(|leg| &leg.recordings);
    let hashes: std::collections::BTreeSet<_> = recorded.clone().map(|recording| &recording.sha256).collect();
    assert_eq!(hashes.len(), recorded.count(), "no two recordings are equal");
    Ok(())
}

#[tokio::test]
async fn a_stopped_simulation_answers_nobody() -> anyhow::Result<()> {
    let sim = Sim::start(SimConfig::default()).await?;
    let http = http_client().build()?;
    let url = format!("{}/.well-known/openid-configuration", sim.base_url());
    assert_eq!(http.get(&url).send().await?.status(), 200);
    sim.shutdown().await;
    assert!(http.get(&url).send().await.is_err(), "neither on a new connection nor on the open one");
    Ok(())
}
