//! Signed links: bytes, ranges, expiry, and what must never be sent to them.

use std::time::Duration;

use futures::StreamExt;
use nice_sim::{CallSpec, SimConfig};
use serde_json::Value;

use crate::client::{Client, quiet, sha256};

/// A simulation with one finished call, and the link to its recording.
async fn with_medium(config: SimConfig, spec: impl FnOnce(i64) -> CallSpec) -> anyhow::Result<(Client, String)> {
    let client = Client::start(config).await?;
    let call = client.sim.add_call(spec(client.sim.agents()[0])).master_contact_id;
    client.sim.advance(Duration::from_secs(3000));
    let answer = client.playback(call).await?.json::<Value>().await?;
    let link = Client::media_link(&answer).ok_or_else(|| anyhow::anyhow!("no link"))?;
    Ok((client, link))
}

fn sized(size: u64) -> impl FnOnce(i64) -> CallSpec {
    move |agent| CallSpec { size: Some(size), ..CallSpec::new(agent) }
}

#[tokio::test]
async fn a_link_needs_no_token_and_a_token_is_a_violation() -> anyhow::Result<()> {
    let (client, link) = with_medium(quiet(), sized(300_000)).await?;
    let answer = client.media(&link).await?;
    assert_eq!(answer.headers()["content-type"], "video/mp4");
    assert_eq!(answer.headers()["content-length"], "300000");
    assert_eq!(sha256(&answer.bytes().await?), client.sim.truth()[0].recordings[0].sha256);
    assert_eq!(client.sim.violations().len(), 0);
    assert_eq!(client.get(&link).await?.status(), 200);
    assert_eq!(client.sim.violations().len(), 1);
    Ok(())
}

#[tokio::test]
async fn ranges_give_the_same_bytes() -> anyhow::Result<()> {
    let (client, link) = with_medium(quiet(), sized(300_000)).await?;
    let whole = client.media(&link).await?.bytes().await?;
    for (range, start, end) in [("bytes=0-0", 0, 1), ("bytes=65530-", 65_530, 300_000), ("bytes=-5", 299_995, 300_000)]
    {
        let answer = client.http.get(&link).header("Range", range).send().await?;
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.headers()["content-range"], format!("bytes {start}-{}/300000", end - 1).as_str());
        assert_eq!(answer.bytes().await?, whole[start..end]);
    }
    let answer = client.http.get(&link).header("Range", "bytes=300000-").send().await?;
    assert_eq!(answer.status(), 416);
    let answer = client.http.get(&link).header("Range", "bytes=5-").header("If-Range", "\"other\"").send().await?;
    assert_eq!(answer.status(), 200, "another file than the one that was begun");
    Ok(())
}

#[tokio::test]
async fn ranges_and_lengths_can_be_missing() -> anyhow::Result<()> {
    let mut config = quiet();
    config.playback.ranges = false;
    config.playback.content_length = false;
    let (client, link) = with_medium(config, sized(100_000)).await?;
    let answer = client.http.get(&link).header("Range", "bytes=5-").send().await?;
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, None));
    assert_eq!(answer.bytes().await?.len(), 100_000);
    Ok(())
}

#[tokio::test]
async fn a_link_expires_and_cannot_be_forged() -> anyhow::Result<()> {
    let (client, link) = with_medium(quiet(), sized(40_000)).await?;
    assert_eq!(client.media(&link.replace("signature=", "signature=0")).await?.status(), 403);
    assert_eq!(client.media(&link.replace("expires=", "expires=9")).await?.status(), 403);
    client.sim.advance(Duration::from_secs(299));
    client.sim.advance(Duration::from_secs(2));
    let answer = client.media(&link).await?;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await?.contains("<Code>AccessDenied</Code>"));
    Ok(())
}

#[tokio::test]
async fn the_first_requests_can_break() -> anyhow::Result<()> {
    let spec = |agent| CallSpec { size: Some(200_000), break_first: 2, ..CallSpec::new(agent) };
    let (client, link) = with_medium(quiet(), spec).await?;
    for _ in 0..2 {
        assert!(client.media(&link).await?.bytes().await.is_err());
    }
    assert_eq!(client.media(&link).await?.bytes().await?.len(), 200_000);
    Ok(())
}

#[tokio::test]
async fn empty_and_tiny_recordings_are_served() -> anyhow::Result<()> {
    for size in [0, 1, 100] {
        let (client, link) = with_medium(quiet(), sized(size)).await?;
        let bytes = client.media(&link).await?.bytes().await?;
        assert_eq!(bytes.len() as u64, size);
        assert_eq!(sha256(&bytes), client.sim.truth()[0].recordings[0].sha256);
    }
    Ok(())
}

#[tokio::test]
async fn gibibytes_are_never_held() -> anyhow::Result<()> {
    let size = 6 << 30;
    let (client, link) = with_medium(quiet(), sized(size)).await?;
    let answer = client.media(&link).await?;
    assert_eq!(answer.content_length(), Some(size));
    let first = answer.bytes_stream().next().await;
    assert!(first.is_some_and(|piece| piece.is_ok()));
    let answer = client.http.get(&link).header("Range", format!("bytes={}-", size - 3)).send().await?;
    assert_eq!(answer.bytes().await?.len(), 3);
    Ok(())
}
