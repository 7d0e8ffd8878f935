//! Points 5 and 7: media playback before and after a recording is there, and its quota.

use std::time::Duration;

use nice_sim::{CallSpec, NotReady, SimConfig};
use serde_json::{Value, json};

use crate::client::{Client, quiet, sha256};

const LATE: Duration = Duration::from_secs(600);

fn late(agent: i64, not_ready: NotReady) -> CallSpec {
    CallSpec { not_ready: Some(not_ready), recording_delay: Some(LATE), size: Some(50_000), ..CallSpec::new(agent) }
}

#[tokio::test]
async fn not_ready_has_three_faces_and_one_end() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agent = client.sim.agents()[0];
    let faces = [NotReady::NotFound, NotReady::NoInteractions, NotReady::NoLink];
    let [hidden, empty, bare] = faces.map(|face| client.sim.add_call(late(agent, face)).master_contact_id);
    client.sim.advance(LATE);

    let answer = client.playback(hidden).await?;
    assert_eq!(answer.status(), 404);
    assert!(answer.json::<Value>().await?["message"].is_string());
    assert_eq!(client.playback(empty).await?.json::<Value>().await?["interactions"], json!([]));
    let answer = client.playback(bare).await?.json::<Value>().await?;
    assert_eq!(answer["interactions"].as_array().map(Vec::len), Some(1));
    assert_eq!(Client::media_link(&answer), None);

    client.sim.advance(Duration::from_secs(60));
    for (call, truth) in [hidden, empty, bare].into_iter().zip(client.sim.truth()) {
        let answer = client.playback(call).await?.json::<Value>().await?;
        assert_eq!(answer["acdcontactId"], call.to_string());
        let medium = client.media(&Client::media_link(&answer).unwrap_or_default()).await?.bytes().await?;
        assert_eq!(sha256(&medium), truth.recordings[0].sha256);
        assert_eq!(medium.len(), 50_000);
    }
    assert_eq!(client.sim.violations(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn what_was_never_recorded_is_not_found_for_ever() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let spec = CallSpec { never_recorded: true, ..CallSpec::new(client.sim.agents()[0]) };
    let call = client.sim.add_call(spec).master_contact_id;
    client.sim.advance(Duration::from_secs(100_000));
    let token = client.new_token().await?;
    let url = format!("{}/media-playback/v1/contacts?acd-call-id={call}", client.sim.base_url());
    assert_eq!(client.http.get(url).bearer_auth(token).send().await?.status(), 404);
    assert_eq!(client.sim.truth()[0].recordings, []);
    Ok(())
}

#[tokio::test]
async fn segments_have_files_of_their_own() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agents = client.sim.agents();
    let spec = CallSpec { size: Some(40_000), elevated: true, ..CallSpec::transferred(&agents[..2]) };
    let call = client.sim.add_call(spec).master_contact_id;
    client.sim.advance(Duration::from_secs(3500));

    let whole = client.playback(call).await?.json::<Value>().await?;
    assert_eq!(whole["elevatedInteraction"], true);
    let voice =
        whole["interactions"].as_array().and_then(|all| all.iter().find(|one| one["mediaType"] == "voice-only"));
    let voice = &voice.cloned().unwrap_or_default()["data"];
    let file = client.media(voice["fileToPlayUrl"].as_str().unwrap_or_default()).await?.bytes().await?;
    assert_eq!(file.len(), 80_000, "as large as its segments together");

    let users = client.acd("agents").await?;
    for (index, leg) in client.sim.truth().iter().enumerate() {
        let segment = voice["segmentsDataList"][index]["segmentId"].as_str().unwrap_or_default();
        let participant = &voice["participantDataList"][index];
        assert_eq!((&participant["segmentId"], &participant["channel"]), (&json!(segment), &json!(1)));
        assert_eq!(participant["userId"], users["agents"][index]["userID"]);
        let body = client.json(&format!("/media-playback/v1/segments/{segment}?media-type=voice-only")).await?;
        assert!(body["Interactions"].is_array(), "segments spell it with a capital");
        let file = client.media(&Client::media_link(&body).unwrap_or_default()).await?.bytes().await?;
        assert_eq!(sha256(&file), leg.recordings[0].sha256);
    }
    assert_eq!(client.get("/media-playback/v1/segments/no-such-segment").await?.status(), 404);
    Ok(())
}

#[tokio::test]
async fn a_download_answers_with_a_link_alone() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let call = client.sim.add_call(CallSpec::new(client.sim.agents()[0])).master_contact_id;
    client.sim.advance(Duration::from_secs(3000));
    let answer = client.json(&format!("/media-playback/v1/contacts?acd-call-id={call}&isDownload=true")).await?;
    assert!(answer["redirectUrl"].as_str().is_some_and(|link| link.contains("/_media/")));
    Ok(())
}

#[tokio::test]
async fn the_shape_of_2018_can_be_asked_for() -> anyhow::Result<()> {
    let mut config = SimConfig::default();
    config.playback.old_shape = true;
    let client = Client::start(config).await?;
    let call = client.sim.add_call(CallSpec::new(client.sim.agents()[0])).master_contact_id;
    client.sim.advance(Duration::from_secs(3000));
    let answer = client.playback(call).await?.json::<Value>().await?;
    assert!(answer["value"]["Interactions"][0]["Interaction"]["data"]["fileToPlayUrl"].is_string());
    Ok(())
}

#[tokio::test]
async fn the_quota_is_150_in_five_minutes() -> anyhow::Result<()> {
    let mut config = SimConfig::default();
    config.playback.retry_after = true;
    let client = Client::start(config).await?;
    for _ in 0..150 {
        assert_eq!(client.playback(1).await?.status(), 404);
    }
    // The bucket refills one in two seconds: on a slow machine a few more get through.
    let mut refused = client.playback(1).await?;
    while refused.status() != 429 {
        refused = client.playback(1).await?;
    }
    assert!(refused.headers().contains_key("retry-after"));
    let body: Value = refused.json().await?;
    assert_eq!(body["route"], "/media-playback/v1/contacts");
    client.sim.advance(Duration::from_secs(300));
    assert_eq!(client.playback(1).await?.status(), 404);
    assert!(client.sim.throttled() >= 1 && client.sim.playback_peak() > 150);
    Ok(())
}

#[tokio::test]
async fn parameters_and_permission_are_checked() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    assert_eq!(client.get("/media-playback/v1/contacts").await?.status(), 400);
    assert_eq!(client.get("/media-playback/v1/contacts?acd-call-id=x").await?.status(), 400);
    let mut config = SimConfig::default();
    config.playback.permitted = false;
    let client = Client::start(config).await?;
    assert_eq!(client.playback(1).await?.status(), 403);
    Ok(())
}
