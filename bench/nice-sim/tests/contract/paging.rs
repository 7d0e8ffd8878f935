//! Paging, projection, old shapes and the contact lists' parameters.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use nice_sim::{CallSpec, SimConfig};
use serde_json::Value;

use crate::client::{Client, EVER, busy, numbers, quiet};

/// Follows `_links.next` to the end and returns all rows.
async fn follow(client: &Client, first: &str, key: &str) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut next = Some(format!("/inContactAPI/services/v33.0/{first}"));
    while let Some(path) = next {
        let page = client.json(&path).await?;
        rows.extend(page[key].as_array().cloned().unwrap_or_default());
        next = page["_links"]["next"].as_str().map(str::to_owned);
    }
    Ok(rows)
}

#[tokio::test]
async fn next_links_are_absolute_and_end() -> anyhow::Result<()> {
    let mut config = quiet();
    config.acd.admin_page_max = 6;
    let client = Client::start(config).await?;
    let first = client.acd("agents").await?;
    assert_eq!(first["agents"].as_array().map(Vec::len), Some(3), "the default page is half of the largest");
    assert!(first["_links"]["next"].as_str().is_some_and(|next| next.starts_with(client.sim.base_url())));
    let rows = follow(&client, "agents?top=1000", "agents").await?;
    assert_eq!(rows.len(), 20);
    assert_eq!(client.sim.requests_to("agents"), 1 + 4);
    assert_eq!(client.acd_status("agents?skip=20").await?, 204);
    assert_eq!(client.acd_status("agents?top=none").await?, 400);
    Ok(())
}

#[tokio::test]
async fn completed_contacts_are_paged_in_the_order_asked_for() -> anyhow::Result<()> {
    let client = Client::start(busy(40)).await?;
    client.to_the_end();
    let rows = follow(
        &client,
        &format!("contacts/completed?{EVER}&mediaTypeId=4&orderBy=contactId%20desc&top=7"),
        "completedContacts",
    )
    .await?;
    let ids = numbers(&Value::from(rows), "contactId");
    assert!(ids.is_sorted_by(|a, b| a > b));
    let listed: BTreeSet<i64> = ids.into_iter().collect();
    let truth: BTreeSet<i64> = client.sim.truth().iter().map(|leg| leg.contact_id).collect();
    assert!(listed.is_superset(&truth));
    Ok(())
}

#[tokio::test]
async fn a_date_range_is_half_open_and_on_the_start() -> anyhow::Result<()> {
    let client = Client::start(busy(30)).await?;
    client.to_the_end();
    let mut truth = client.sim.truth();
    truth.sort_by_key(|leg| leg.started_at);
    let (from, to) = (truth[5].started_at, truth[20].started_at);
    let format = |at: jiff::Timestamp| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let path = format!("contacts/completed?startDate={}&endDate={}&mediaTypeId=4", format(from), format(to));
    let listed: BTreeSet<i64> =
        numbers(&client.acd(&path).await?["completedContacts"], "contactId").into_iter().collect();
    for leg in &truth {
        assert_eq!(listed.contains(&leg.contact_id), (from..to).contains(&leg.started_at));
    }
    assert_eq!(client.acd_status(&format!("contacts/completed?startDate={}", format(from))).await?, 400);
    assert_eq!(client.acd_status("contacts/completed?updatedSince=2026-04-01T00:00:00+00:00").await?, 400);
    Ok(())
}

#[tokio::test]
async fn fields_names_the_columns() -> anyhow::Result<()> {
    let client = Client::start(busy(3)).await?;
    client.to_the_end();
    let page = client.acd(&format!("contacts/completed?{EVER}&fields=contactId,agentId&top=1")).await?;
    let keys: Vec<String> =
        page["completedContacts"][0].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, ["agentId", "contactId"]);
    Ok(())
}

#[tokio::test]
async fn names_follow_the_version() -> anyhow::Result<()> {
    let client = Client::start(busy(3)).await?;
    client.to_the_end();
    for (version, present, absent) in [
        (29, ["contactStart", "fromAddr", "mediaType", "ACWSeconds"], "contactStartDate"),
        (33, ["contactStartDate", "fromAddress", "mediaTypeId", "acwSeconds"], "contactStart"),
    ] {
        let page = client.json(&format!("/inContactAPI/services/v{version}.0/contacts/completed?{EVER}")).await?;
        let row = &page["completedContacts"][0];
        assert!(present.iter().all(|key| !row[key].is_null()), "{version}: {row}");
        assert!(row[absent].is_null());
    }
    Ok(())
}

#[tokio::test]
async fn scalars_can_be_text_inside_a_result_set() -> anyhow::Result<()> {
    let mut config: SimConfig = busy(3);
    config.acd.scalars_as_strings = true;
    config.acd.result_set_wrapper = true;
    let client = Client::start(config).await?;
    client.to_the_end();
    let page = client.acd(&format!("contacts/completed?{EVER}")).await?;
    let row = &page["resultSet"]["completedContacts"][0];
    assert!(row["contactId"].is_string() && row["totalDurationSeconds"].is_string());
    assert!(["True", "False"].contains(&row["isOutbound"].as_str().unwrap_or_default()));
    Ok(())
}

#[tokio::test]
async fn completed_contacts_reach_back_thirty_days() -> anyhow::Result<()> {
    let listed = async |config: SimConfig| {
        let client = Client::start(config).await?;
        let agent = client.sim.agents()[0];
        let call = |days: i64| CallSpec::new(agent).hang_up_in(SignedDuration::from_hours(-24 * days));
        let ids = [29, 31].map(|days| client.sim.add_call(call(days)).contact_ids[0]);
        let rows = client.acd(&format!("contacts/completed?{EVER}")).await?;
        let found: BTreeSet<i64> = numbers(&rows["completedContacts"], "contactId").into_iter().collect();
        anyhow::Ok(ids.map(|id| found.contains(&id)))
    };
    assert_eq!(listed(quiet()).await?, [true, false]);
    let mut endless = quiet();
    endless.acd.completed_reach = None;
    assert_eq!(listed(endless).await?, [true, true]);
    Ok(())
}
