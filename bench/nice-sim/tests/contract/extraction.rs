//! Data extraction: jobs, their pace, and the file behind the signed link.

use std::time::Duration;

use jiff::{SignedDuration, civil::Date, tz::TimeZone};
use nice_sim::{CallSpec, ExtractionOutcome};
use reqwest::Response;
use serde_json::{Value, json};

use crate::client::{Client, quiet};

const JOBS: &str = "/data-extraction/v1/jobs";

/// Asks for a job of these days.
async fn begin(client: &Client, version: &str, first: Date, last: Date) -> anyhow::Result<Response> {
    let entity = "recording-interaction-metadata";
    let body = json!({
        "entityName": entity, "version": version, "startDate": first.to_string(), "endDate": last.to_string(),
    });
    let url = format!("{}{JOBS}", client.sim.base_url());
    Ok(client.http.post(url).bearer_auth(&client.token).json(&body).send().await?)
}

/// Runs a job to its end and returns what its status then is.
async fn run(client: &Client, version: &str, first: Date, last: Date) -> anyhow::Result<Value> {
    let answer = begin(client, version, first, last).await?;
    anyhow::ensure!(answer.status() == 202, "{}", answer.status());
    let id: String = answer.json().await?;
    let path = format!("{JOBS}/{id}");
    assert_eq!(client.json(&path).await?["jobStatus"]["status"], "RUNNING");
    client.sim.advance(client.sim.config().extraction.job_time);
    Ok(client.json(&path).await?["jobStatus"].clone())
}

async fn file(client: &Client, version: &str, first: Date, last: Date) -> anyhow::Result<String> {
    let job = run(client, version, first, last).await?;
    let link = job["result"]["url"].as_str().unwrap_or_default().to_owned();
    let answer = client.media(&link).await?;
    anyhow::ensure!(answer.status() == 200, "{}", answer.status());
    Ok(String::from_utf8(answer.bytes().await?.to_vec())?)
}

/// Today, as the simulation has it.
fn today() -> Date {
    jiff::Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn days_ago(days: i64) -> Date {
    today().saturating_sub(SignedDuration::from_hours(24 * days))
}

#[tokio::test]
async fn a_file_has_a_row_for_each_segment_of_its_days_however_old() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let agents = client.sim.agents();
    let old = CallSpec::transferred(&agents[..2]).hang_up_in(SignedDuration::from_hours(-24 * 50));
    let old = client.sim.add_call(old);
    client.sim.add_call(CallSpec::new(agents[2]).hang_up_in(SignedDuration::from_hours(-24 * 45)));
    let text = file(&client, "10", days_ago(51), days_ago(49)).await?;
    assert!(text.starts_with("\u{feff}ACD Call ID"));
    for id in &old.contact_ids {
        assert_eq!(text.matches(&format!(",{id},")).count(), 1, "{text}");
    }
    assert_eq!(text.matches(&format!("{},", old.master_contact_id)).count(), 1 + 2, "{text}");
    assert_eq!(text.matches("Success").count(), 2);
    assert!(text.contains("\"Billing, \"\"gold\"\"; Sales\""));
    Ok(())
}

#[tokio::test]
async fn older_columns_stand_in_another_order() -> anyhow::Result<()> {
    let mut config = quiet();
    config.extraction.byte_order_mark = false;
    let client = Client::start(config).await?;
    let text = file(&client, "7", today(), today()).await?;
    assert!(text.starts_with("DNIS,ANI,"), "{text}");
    assert!(!text.contains("Disposition"));
    Ok(())
}

#[tokio::test]
async fn a_second_job_or_an_early_call_is_refused() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let status = async |version| anyhow::Ok(begin(&client, version, today(), today()).await?.status().as_u16());
    assert_eq!(status("10").await?, 202);
    client.sim.advance(Duration::from_secs(5));
    assert_eq!(status("10").await?, 403, "one job at a time");
    client.sim.advance(Duration::from_secs(20));
    assert_eq!(status("10").await?, 403, "the last call was 20 s ago");
    client.sim.advance(Duration::from_secs(30));
    assert_eq!(status("9").await?, 400);
    client.sim.advance(Duration::from_secs(30));
    assert_eq!(status("10").await?, 202);
    assert_eq!(client.json(JOBS).await?.as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn without_the_permission_every_call_is_refused() -> anyhow::Result<()> {
    let mut config = quiet();
    config.extraction.permitted = false;
    let client = Client::start(config).await?;
    assert_eq!(begin(&client, "10", today(), today()).await?.status(), 403);
    assert_eq!(client.get(JOBS).await?.status(), 403);
    Ok(())
}

#[tokio::test]
async fn a_job_can_end_without_a_file() -> anyhow::Result<()> {
    for (outcome, word) in [
        (ExtractionOutcome::Failed, "FAILED"),
        (ExtractionOutcome::Cancelled, "CANCELLED"),
        (ExtractionOutcome::Expired, "EXPIRED"),
    ] {
        let mut config = quiet();
        config.extraction.outcome = outcome;
        let job = run(&Client::start(config).await?, "10", today(), today()).await?;
        assert_eq!(job["status"], word);
        assert!(job["result"]["url"].is_null());
    }
    Ok(())
}

#[tokio::test]
async fn a_link_lives_for_thirty_seconds_and_a_token_sent_to_it_is_a_violation() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let job = run(&client, "10", today(), today()).await?;
    let link = job["result"]["url"].as_str().unwrap_or_default();
    assert_eq!(client.media(&link.replace("signature=", "signature=0")).await?.status(), 403);
    assert_eq!(client.get(link).await?.status(), 200);
    assert_eq!(client.sim.violations().len(), 1);
    client.sim.advance(Duration::from_secs(30));
    assert_eq!(client.media(link).await?.status(), 403);
    Ok(())
}

#[tokio::test]
async fn a_new_interaction_appears_late() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let call = CallSpec::new(client.sim.agents()[0]).hang_up_in(SignedDuration::from_mins(-10));
    let id = client.sim.add_call(call).contact_ids[0].to_string();
    assert!(!file(&client, "10", days_ago(1), today()).await?.contains(&id));
    client.sim.advance(client.sim.config().extraction.delay);
    assert!(file(&client, "10", days_ago(1), today()).await?.contains(&id));
    Ok(())
}
