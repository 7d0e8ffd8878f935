//! Points 1 and 2: one port, discovery, and the flows that give a token.

use std::time::Duration;

use nice_sim::SimConfig;
use serde_json::{Value, json};

use crate::client::{Client, quiet};

#[tokio::test]
async fn discovery_names_this_port_and_no_other() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let base = client.sim.base_url().to_owned();
    let document: Value =
        client.http.get(format!("{base}/.well-known/openid-configuration")).send().await?.json().await?;
    assert_eq!(document["token_endpoint"], format!("{base}/auth/token"));
    assert_eq!(document["issuer"], base);

    let tenant = client.sim.config().tenant.tenant_id.clone();
    let url = format!("{base}/.well-known/cxone-configuration?tenantId={tenant}");
    let document: Value = client.http.get(url).send().await?.json().await?;
    assert_eq!((&document["api_endpoint"], &document["auth_endpoint"]), (&json!(base), &json!(base)));
    assert_eq!(document["tenantId"], tenant);
    Ok(())
}

#[tokio::test]
async fn the_password_grant_takes_the_secret_in_header_or_form_and_refreshes() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let url = format!("{}/auth/token", client.sim.base_url());
    let tenant = client.sim.config().tenant.clone();
    let grant =
        [("grant_type", "password"), ("username", &*tenant.access_key_id), ("password", &*tenant.access_key_secret)];
    let by_header = client.http.post(&url).basic_auth(&tenant.client_id, Some(&tenant.client_secret)).form(&grant);
    let answer: Value = by_header.send().await?.json().await?;
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)));

    let mut with_secret = grant.to_vec();
    with_secret.extend([("client_id", &*tenant.client_id), ("client_secret", &*tenant.client_secret)]);
    let answer: Value = client.http.post(&url).form(&with_secret).send().await?.json().await?;
    let refresh_token = answer["refresh_token"].as_str().unwrap_or_default();

    let refresh =
        [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", &*tenant.client_id)];
    assert_eq!(client.http.post(&url).form(&refresh).send().await?.status(), 200);
    assert_eq!(client.http.post(&url).form(&refresh).send().await?.status(), 401, "a refresh token works once");
    Ok(())
}

#[tokio::test]
async fn a_wrong_secret_is_refused() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let base = client.sim.base_url();
    let tenant = client.sim.config().tenant.clone();
    let grant =
        [("grant_type", "password"), ("username", &*tenant.access_key_id), ("password", &*tenant.access_key_secret)];
    let answer = client.http.post(format!("{base}/auth/token")).basic_auth(&tenant.client_id, Some("x")).form(&grant);
    let answer = answer.send().await?;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await?["error"], "invalid_client");

    let key = json!({ "accessKeyId": tenant.access_key_id, "accessKeySecret": "x" });
    let answer = client.http.post(format!("{base}/authentication/v1/token/access-key")).json(&key).send().await?;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await?["status"], 401);
    Ok(())
}

#[tokio::test]
async fn the_userhub_refresh_has_names_of_its_own() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let base = client.sim.base_url();
    let tenant = client.sim.config().tenant.clone();
    let key = json!({ "accessKeyId": tenant.access_key_id, "accessKeySecret": tenant.access_key_secret });
    let issued: Value =
        client.http.post(format!("{base}/authentication/v1/token/access-key")).json(&key).send().await?.json().await?;
    let body = json!({ "token": issued["refresh_token"] });
    let answer: Value =
        client.http.post(format!("{base}/public/user/refresh")).json(&body).send().await?.json().await?;
    assert!(answer["token"].is_string() && answer["refreshToken"].is_string());
    assert_eq!(answer["tokenExpirationTimeSec"], 3600);
    Ok(())
}

#[tokio::test]
async fn a_token_ends_by_time_and_by_revocation() -> anyhow::Result<()> {
    let mut client = Client::start(quiet()).await?;
    assert_eq!(client.acd_status("groups").await?, 200);
    client.sim.advance(Duration::from_secs(3601));
    assert_eq!(client.acd_status("groups").await?, 401);
    client.token = client.new_token().await?;
    assert_eq!(client.acd_status("groups").await?, 200);
    client.sim.revoke_tokens();
    assert_eq!(client.acd_status("groups").await?, 401);
    assert_eq!(client.playback(1).await?.status(), 401);
    assert_eq!(client.sim.token_requests(), 2);
    Ok(())
}

#[tokio::test]
async fn the_acd_wants_to_be_told_how_to_render() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    let url = format!("{}/inContactAPI/services/v33.0/groups", client.sim.base_url());
    let answer = client.http.get(&url).bearer_auth(&client.token).send().await?;
    assert_eq!(answer.status(), 406);
    assert!(answer.headers().contains_key("icStatusDescription"));
    Ok(())
}

#[tokio::test]
async fn paths_match_in_any_case_and_versions_with_any_v() -> anyhow::Result<()> {
    let client = Client::start(quiet()).await?;
    for root in ["inContactAPI/services/v30.0", "incontactapi/services/V35.0", "InContactAPI/Services/v17.0"] {
        assert_eq!(client.get(&format!("/{root}/groups")).await?.status(), 200, "{root}");
    }
    assert_eq!(client.get("/inContactAPI/services/v33.0/no-such-thing").await?.status(), 404);
    Ok(())
}

#[tokio::test]
async fn the_acd_quota_answers_in_a_header() -> anyhow::Result<()> {
    let mut config = SimConfig::default();
    config.acd.rate_limit = Some((2, Duration::from_secs(3600)));
    let client = Client::start(config).await?;
    assert_eq!((client.acd_status("groups").await?, client.acd_status("groups").await?), (200, 200));
    let answer = client.get("/inContactAPI/services/v33.0/groups").await?;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("icStatusDescription"));
    assert_eq!(answer.text().await?, "");
    assert_eq!(client.sim.throttled(), 1);
    Ok(())
}
