//! A plain HTTP client with a token, and the configurations that the tests start from.

use std::time::Duration;

use anyhow::Context;
use nice_sim::{Sim, SimConfig};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

/// The far past: everything has changed since then.
pub(crate) const EVER: &str = "updatedSince=2020-01-01T00:00:00Z";

/// A plain HTTP client.
pub(crate) fn http_client() -> reqwest::ClientBuilder {
    // Fails only where one is chosen already, and that is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
}

/// A simulation with a client that has a token.
pub(crate) struct Client {
    pub(crate) sim: Sim,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

impl Client {
    /// Starts a simulation and asks for a token.
    pub(crate) async fn start(config: SimConfig) -> anyhow::Result<Self> {
        let http =
            http_client().timeout(Duration::from_secs(30)).redirect(reqwest::redirect::Policy::none()).build()?;
        let mut client = Self { sim: Sim::start(config).await?, http, token: String::new() };
        client.token = client.new_token().await?;
        Ok(client)
    }

    /// A token by the access-key flow, asked for until it is given.
    pub(crate) async fn new_token(&self) -> anyhow::Result<String> {
        let tenant = &self.sim.config().tenant;
        let key = json!({ "accessKeyId": tenant.access_key_id, "accessKeySecret": tenant.access_key_secret });
        let url = format!("{}/authentication/v1/token/access-key", self.sim.base_url());
        for _ in 0..100 {
            let answer = self.http.post(&url).json(&key).send().await?;
            if answer.status() == StatusCode::OK {
                let body: Value = answer.json().await?;
                return Ok(body["access_token"].as_str().context("no token")?.to_owned());
            }
        }
        anyhow::bail!("no token in a hundred tries")
    }

    /// Asks for a path of the simulation, or for an absolute link.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.sim.base_url()) };
        Ok(self.http.get(url).bearer_auth(&self.token).header("Accept", "application/json").send().await?)
    }

    /// An ACD answer that must be 200.
    pub(crate) async fn acd(&self, path: &str) -> anyhow::Result<Value> {
        self.json(&format!("/inContactAPI/services/v33.0/{path}")).await
    }

    /// An ACD answer's status.
    pub(crate) async fn acd_status(&self, path: &str) -> anyhow::Result<u16> {
        Ok(self.get(&format!("/inContactAPI/services/v33.0/{path}")).await?.status().as_u16())
    }

    /// Any JSON answer that must be 200.
    pub(crate) async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path).await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "{path}: {}", answer.status());
        Ok(answer.json().await?)
    }

    /// The media-playback answer for a call.
    pub(crate) async fn playback(&self, acd_call_id: i64) -> anyhow::Result<Response> {
        self.get(&format!("/media-playback/v1/contacts?acd-call-id={acd_call_id}&media-type=voice-only")).await
    }

    /// The link to a medium, from a playback answer of any shape.
    pub(crate) fn media_link(body: &Value) -> Option<String> {
        let interactions = body["interactions"].as_array().or(body["Interactions"].as_array())?;
        let link = interactions.iter().find_map(|one| one["data"]["fileToPlayUrl"].as_str())?;
        Some(link.to_owned())
    }

    /// Fetches a medium without a token.
    pub(crate) async fn media(&self, link: &str) -> anyhow::Result<Response> {
        Ok(self.http.get(link).send().await?)
    }

    /// Moves the clock past everything that can happen to the calls there are.
    pub(crate) fn to_the_end(&self) {
        self.sim.advance(self.sim.longest_tail() + self.sim.config().day.over + Duration::from_secs(60));
    }
}

/// An empty day.
pub(crate) fn quiet() -> SimConfig {
    SimConfig::default()
}

/// A day of so many calls.
pub(crate) fn busy(calls: usize) -> SimConfig {
    let mut config = SimConfig::default();
    config.day.calls = calls;
    config
}

/// The numbers under `key` in a list.
pub(crate) fn numbers(rows: &Value, key: &str) -> Vec<i64> {
    rows.as_array().map_or(Vec::new(), |rows| rows.iter().filter_map(|row| row[key].as_i64()).collect())
}

/// Lower-case hex SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
