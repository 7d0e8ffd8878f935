//! Point 9: the agent's event feed.

use std::time::Duration;

use jiff::SignedDuration;
use nice_sim::CallSpec;
use serde_json::{Value, json};

use crate::client::{Client, quiet};

const ROOT: &str = "/inContactAPI/services/v33.0/agent-sessions";

async fn join(client: &Client, agent: i64) -> anyhow::Result<reqwest::Response> {
    let url = format!("{}{ROOT}/join", client.sim.base_url());
    let request = client.http.post(url).bearer_auth(&client.token).header("Accept", "application/json");
    Ok(request.json(&json!({ "asAgentId": agent })).send().await?)
}

#[tokio::test]
async fn the_feed_tells_of_the_hang_up_and_of_the_end_of_after_call_work() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agent = client.sim.agents()[0];
    let session =
        join(&client, agent).await?.json::<Value>().await?["sessionId"].as_str().unwrap_or_default().to_owned();
    let first = client.json(&format!("{ROOT}/{session}/get-next-event?timeout=0")).await?;
    assert_eq!(first["events"][0]["Type"], "AgentSessionStart");
    let session = first["sessionId"].as_str().unwrap_or_default().to_owned();
    assert_eq!(client.get(&format!("{ROOT}/{session}/get-next-event?timeout=0")).await?.status(), 304);

    let call = client.sim.add_call(CallSpec::new(agent).hang_up_in(SignedDuration::from_secs(5)));
    client.sim.advance(Duration::from_secs(40));
    let next = client.json(&format!("{ROOT}/{session}/get-next-event?timeout=60")).await?;
    assert_ne!(next["sessionId"], session.as_str(), "each answer has another id");
    let last = next["events"].as_array().and_then(|events| events.last()).cloned().unwrap_or_default();
    assert_eq!((&last["Status"], &last["FinalState"]), (&json!("Disconnected"), &json!("True")));
    assert_eq!(last["ContactID"], call.contact_ids[0].to_string());
    Ok(())
}

#[tokio::test]
async fn a_logout_ends_the_feed() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agent = client.sim.agents()[0];
    let session =
        join(&client, agent).await?.json::<Value>().await?["sessionId"].as_str().unwrap_or_default().to_owned();
    client.sim.set_logged_in(agent, false);
    assert_eq!(client.get(&format!("{ROOT}/{session}/get-next-event?timeout=60")).await?.status(), 409);
    assert_eq!(join(&client, agent).await?.status(), 409);
    assert_eq!(client.get(&format!("{ROOT}/{session}/get-next-event?timeout=61")).await?.status(), 400);
    Ok(())
}

#[tokio::test]
async fn ending_an_agents_session_is_a_violation() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let url = format!("{}{ROOT}/abc", client.sim.base_url());
    client.http.delete(url).bearer_auth(&client.token).header("Accept", "application/json").send().await?;
    assert_eq!(client.sim.violations().len(), 1);
    Ok(())
}
