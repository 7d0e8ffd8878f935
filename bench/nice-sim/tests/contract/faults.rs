//! Point 10: each fault does what its name says, and all of those that heal leave every call importable.

use std::{collections::BTreeMap, time::Duration};

use nice_sim::{CallSpec, Faults, SimConfig};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, EVER, busy, numbers, sha256};

/// A simulation whose only call is over, with its master contact id.
async fn with(faults: Faults) -> anyhow::Result<(Client, i64)> {
    let client = Client::start(SimConfig { faults, ..SimConfig::default() }).await?;
    let spec = CallSpec { size: Some(200_000), ..CallSpec::new(client.sim.agents()[0]) };
    let call = client.sim.add_call(spec).master_contact_id;
    client.sim.advance(Duration::from_secs(3000));
    Ok((client, call))
}

async fn link(client: &Client, call: i64) -> anyhow::Result<String> {
    let answer = client.playback(call).await?.json::<Value>().await?;
    Client::media_link(&answer).ok_or_else(|| anyhow::anyhow!("no link"))
}

#[tokio::test]
async fn media_break_in_each_way() -> anyhow::Result<()> {
    for faults in
        [Faults { media_truncated: 1.0, ..Faults::none() }, Faults { content_length_long: 1.0, ..Faults::none() }]
    {
        let (client, call) = with(faults.clone()).await?;
        let answer = client.media(&link(&client, call).await?).await?;
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{faults:?}");
    }
    let (client, call) = with(Faults { media_reset: 1.0, ..Faults::none() }).await?;
    let whole = async || anyhow::Ok(client.media(&link(&client, call).await?).await?.bytes().await?);
    assert!(whole().await.is_err(), "a reset may overtake even the head of the answer");
    let (client, call) = with(Faults { content_length_short: 1.0, ..Faults::none() }).await?;
    assert_eq!(client.media(&link(&client, call).await?).await?.bytes().await?.len(), 100_000);
    let slow = Faults { slow_body: 1.0, slow_pause: Duration::from_millis(1), ..Faults::none() };
    let (client, call) = with(slow).await?;
    let whole = client.media(&link(&client, call).await?).await?.bytes().await?;
    assert_eq!(sha256(&whole), client.sim.truth()[0].recordings[0].sha256);
    Ok(())
}

#[tokio::test]
async fn a_reset_is_a_reset() -> anyhow::Result<()> {
    let (client, call) = with(Faults { media_reset: 1.0, ..Faults::none() }).await?;
    let link = link(&client, call).await?;
    let path = link.trim_start_matches(client.sim.base_url());
    let mut socket = tokio::net::TcpStream::connect(client.sim.host()).await?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", client.sim.host()).as_bytes()).await?;
    let end = socket.read_to_end(&mut Vec::new()).await;
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    Ok(())
}

#[tokio::test]
async fn a_stalled_medium_says_nothing_more() -> anyhow::Result<()> {
    let (client, call) = with(Faults { media_stall: 1.0, ..Faults::none() }).await?;
    let answer = client.media(&link(&client, call).await?).await?;
    assert!(tokio::time::timeout(Duration::from_millis(200), answer.bytes()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn links_and_redirects_lead_astray() -> anyhow::Result<()> {
    let (client, call) = with(Faults { foreign_media_link: 1.0, ..Faults::none() }).await?;
    assert!(!link(&client, call).await?.starts_with(client.sim.base_url()));

    let (client, call) = with(Faults { media_redirect: 1.0, ..Faults::none() }).await?;
    let answer = client.media(&link(&client, call).await?).await?;
    assert_eq!(answer.status(), 307);
    let location = answer.headers()["location"].to_str()?.to_owned();
    assert_eq!(client.media(&location).await?.bytes().await?.len(), 200_000);

    let (client, call) = with(Faults { media_redirect_endless: 1.0, ..Faults::none() }).await?;
    let mut next = link(&client, call).await?;
    for _ in 0..5 {
        let answer = client.media(&next).await?;
        assert_eq!(answer.status(), 302);
        next = answer.headers()["location"].to_str()?.to_owned();
    }

    let (client, call) = with(Faults { media_redirect_foreign: 1.0, ..Faults::none() }).await?;
    let answer = client.media(&link(&client, call).await?).await?;
    assert_eq!(client.sim.violations().len(), 0);
    client.media(answer.headers()["location"].to_str()?).await?;
    assert_eq!(client.sim.violations().len(), 1, "whoever follows has broken a rule");
    Ok(())
}

#[tokio::test]
async fn media_come_packed_nameless_or_byte_by_byte() -> anyhow::Result<()> {
    let (client, call) = with(Faults::none()).await?;
    let plain = client.media(&link(&client, call).await?).await?.bytes().await?;

    client.sim.set_faults(Faults { media_encoding: 1.0, ..Faults::none() });
    let answer = client.media(&link(&client, call).await?).await?;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&answer.bytes().await?[..]), &mut unpacked)?;
    assert!(unpacked == plain);

    client.sim.set_faults(Faults { media_generic_type: 1.0, ..Faults::none() });
    let answer = client.media(&link(&client, call).await?).await?;
    assert_eq!(answer.headers()["content-type"], "binary/octet-stream");
    assert!(answer.bytes().await? == plain);

    let slow_pause = std::time::Duration::from_millis(20);
    client.sim.set_faults(Faults { media_trickle: 1.0, slow_pause, ..Faults::none() });
    let mut answer = client.media(&link(&client, call).await?).await?;
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        let piece = answer.chunk().await?.map(|piece| piece.len());
        assert!(piece.is_some_and(|length| length > 0));
    }
    assert!(begun.elapsed() >= slow_pause, "bytes without a pause between");
    Ok(())
}

#[tokio::test]
async fn json_is_spoiled_in_each_way() -> anyhow::Result<()> {
    let (client, _) = with(Faults { html: 1.0, ..Faults::none() }).await?;
    assert!(client.acd("groups").await.is_err());
    client.sim.set_faults(Faults { truncated_json: 1.0, ..Faults::none() });
    assert!(client.acd("groups").await.is_err());
    client.sim.set_faults(Faults { ids_as_strings: 1.0, ..Faults::none() });
    assert_eq!(client.acd("groups").await?["groups"][0]["groupId"], "1001");
    client.sim.set_faults(Faults { unknown_fields: 1.0, ..Faults::none() });
    assert!(
        client.acd("groups").await?.as_object().is_some_and(|body| body.keys().any(|key| key.starts_with("x-future")))
    );
    client.sim.set_faults(Faults { token_revoked: 1.0, ..Faults::none() });
    assert_eq!(client.acd_status("groups").await?, 401);
    Ok(())
}

#[tokio::test]
async fn heavy_bodies_are_as_heavy_as_they_claim() -> anyhow::Result<()> {
    let (client, _) = with(Faults { gzip_bomb: 1.0, ..Faults::none() }).await?;
    let answer = client.get("/inContactAPI/services/v33.0/groups").await?;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let packed = answer.bytes().await?;
    assert!(packed.len() < 4 << 20);
    let mut first_member = flate2::read::GzDecoder::new(&packed[..]);
    assert_eq!(std::io::copy(&mut first_member, &mut std::io::sink())?, 16 << 20);

    client.sim.set_faults(Faults { huge_json: 1.0, ..Faults::none() });
    let mut answer = client.get("/inContactAPI/services/v33.0/groups").await?;
    let mut read = 0;
    while read < 8 << 20 {
        read += answer.chunk().await?.map_or(usize::MAX, |piece| piece.len());
    }
    Ok(())
}

#[tokio::test]
async fn rows_come_twice_late_without_agent_and_with_hostile_ids() -> anyhow::Result<()> {
    let client = Client::start(busy(40)).await?;
    client.to_the_end();
    let list = format!("contacts/completed?{EVER}&orderBy=contactId%20asc");
    let clean = numbers(&client.acd(&list).await?["completedContacts"], "contactId");

    client.sim.set_faults(Faults { rows_inserted: 1.0, ..Faults::none() });
    let first = numbers(&client.acd(&format!("{list}&top=10")).await?["completedContacts"], "contactId");
    let second = numbers(&client.acd(&format!("{list}&top=10&skip=10")).await?["completedContacts"], "contactId");
    assert_eq!((&first[..], second[0]), (&clean[..10], clean[9]));

    client.sim.set_faults(Faults { rows_vanish: 1.0, ..Faults::none() });
    let second = numbers(&client.acd(&format!("{list}&top=10&skip=10")).await?["completedContacts"], "contactId");
    assert_eq!(second[0], clean[11]);

    client.sim.set_faults(Faults { duplicate_rows: 0.5, ..Faults::none() });
    let mut doubled = numbers(&client.acd(&list).await?["completedContacts"], "contactId");
    assert!(doubled.len() > clean.len());
    doubled.sort_unstable();
    doubled.dedup();
    assert_eq!(doubled, clean);

    client.sim.set_faults(Faults { null_agents: 0.5, ..Faults::none() });
    let rows = client.acd(&list).await?["completedContacts"].clone();
    assert!(rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["agentId"].is_null())));
    assert!(clean.iter().all(|id| numbers(&rows, "contactId").contains(id)));

    client.sim.set_faults(Faults { hostile_rows: 1.0, ..Faults::none() });
    assert_eq!(client.acd(&list).await?["completedContacts"][0]["contactId"], "../x");

    client.sim.set_faults(Faults { foreign_next_link: 1.0, ..Faults::none() });
    let page = client.acd(&format!("{list}&top=10")).await?;
    let next = page["_links"]["next"].as_str().unwrap_or_default();
    assert!(!next.starts_with(client.sim.base_url()));
    client.get(next).await?;
    assert!(client.sim.violations()[0].contains("bearer"));
    Ok(())
}

/// Repeats a request until it is answered with 200 and whole JSON, with a new token when it must.
async fn patiently(client: &mut Client, path: &str) -> anyhow::Result<Option<Value>> {
    for _ in 0..200 {
        let answer = client.get(path).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => client.token = client.new_token().await?,
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => return Ok(None),
            StatusCode::OK => {
                if let Ok(body) = answer.json().await {
                    return Ok(Some(body));
                }
            }
            _ => {}
        }
    }
    anyhow::bail!("{path}: not in two hundred tries")
}

#[tokio::test]
async fn with_all_that_heals_every_call_can_be_imported() -> anyhow::Result<()> {
    let mut config = busy(25);
    config.seed = 11;
    config.faults = Faults { slow_pause: Duration::from_millis(1), ..Faults::all(11) };
    config.playback.limit = 100_000;
    let mut client = Client::start(config).await?;
    client.to_the_end();
    client.token = client.new_token().await?;

    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    for skip in (0..).step_by(10) {
        let path = format!(
            "/inContactAPI/services/v33.0/contacts/completed?{EVER}&orderBy=contactId%20asc&top=10&skip={skip}"
        );
        let Some(page) = patiently(&mut client, &path).await? else { break };
        for row in page["completedContacts"].as_array().into_iter().flatten() {
            rows.insert(row["contactId"].to_string().trim_matches('"').to_owned(), row.clone());
        }
    }
    for leg in client.sim.truth() {
        assert!(rows.contains_key(&leg.contact_id.to_string()), "{} is listed", leg.contact_id);
        if leg.legs > 1 || leg.recordings.is_empty() {
            continue;
        }
        let path = format!("/media-playback/v1/contacts?acd-call-id={}&media-type=voice-only", leg.contact_id);
        let body = patiently(&mut client, &path).await?.unwrap_or_default();
        let link = Client::media_link(&body).unwrap_or_default();
        let mut whole = None;
        for _ in 0..200 {
            match client.media(&link).await {
                // One that comes packed is asked for again: the next may be plain.
                Ok(answer) if answer.status() == 200 && !answer.headers().contains_key("content-encoding") => {
                    whole = answer.bytes().await.ok();
                }
                _ => continue, // an error of the store, or a reset that overtook the answer
            }
            if whole.is_some() {
                break;
            }
        }
        assert_eq!(sha256(&whole.unwrap_or_default()), leg.recordings[0].sha256);
    }
    Ok(())
}
