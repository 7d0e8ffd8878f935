//! Requests to the benchmark's server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::QuotaClass;
use reqwest::{Client, StatusCode};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// 429.
    Refused,
    /// No answer; why stands in the log.
    Failed,
}

/// The way to one arena.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    client: Client,
    url: String,
}

impl Asker {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { client, url: url.to_owned() })
    }

    /// One request for work that was there to be done at `due`.
    pub(super) async fn ask(&self, class: QuotaClass, due: Duration) -> Answer {
        let url = format!("{}?class={}&due={}", self.url, class.as_str(), due.as_micros());
        match self.client.get(url).send().await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Answer::Taken,
            Ok(StatusCode::TOO_MANY_REQUESTS) => Answer::Refused,
            Ok(status) => failed(&status),
            Err(error) => failed(&error),
        }
    }
}

fn failed(why: &dyn std::fmt::Display) -> Answer {
    eprintln!("{why}");
    Answer::Failed
}

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
