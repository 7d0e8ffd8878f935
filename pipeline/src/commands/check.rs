//! `check`: the settings are valid already; each outside system follows, one line each.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use stages::clients::nice::{ApiFamily, NiceClient, NiceError, Quota};
use stages::flow::Metrics;
use stages::model::ContactId;

use crate::admin_client::AdminClient;
use crate::config::Config;
use crate::doors;
use crate::failure::Failure;
use crate::{output, telemetry};

/// Exit code 3 when one of the outside systems does not answer as it must, 1 when it is our own state.
pub(crate) async fn check(config: Config, show_settings: bool) -> Result<(), Failure> {
    telemetry::start(&config.log)?;
    doors::built_in(&config)?;
    doors::sources(&config)?;
    let nice = NiceClient::new(doors::nice_settings(&config)?, Arc::new(Unmetered), Metrics::new())
        .map_err(|error| Failure::usage(format!("[nice]: {error}")))?;
    if show_settings {
        output::line(config.to_redacted_toml());
    }
    output::line("settings         ok");
    let (mut broken_here, mut broken) = (Vec::new(), Vec::new());
    match AdminClient::find(&config.state.dir).await? {
        Some(daemon) => report("daemon", daemon.ready(), &mut broken_here).await,
        None => local(&config, &mut broken_here).await,
    }
    report("nice", nice.check(), &mut broken).await;
    report("media playback", playback(&nice), &mut broken).await;
    if !broken_here.is_empty() {
        return Err(Failure::failed(format!("not in order: {}", [broken_here, broken].concat().join(", "))));
    }
    if !broken.is_empty() {
        return Err(Failure::unreachable(format!("not in order: {}", broken.join(", "))));
    }
    Ok(())
}

/// The embedded stores, which only one process at a time can open.
async fn local(config: &Config, broken: &mut Vec<String>) {
    let doors = match doors::open(config).await {
        Ok(doors) => doors,
        Err(failure) => return report("local state", async { Err(failure.message()) }, broken).await,
    };
    report("local state", async { doors.state.store().check() }, broken).await;
    report("queue", doors.queue.check(), broken).await;
    report("catalog", doors.catalog.check(), broken).await;
    report("recording store", doors.recordings.check(), broken).await;
    if let Err(error) = doors.state.store().close().await {
        report("local state", async { Err(error) }, broken).await;
    }
}

/// Asks for a call that cannot be: "not there" is the answer of a service that works and lets us in.
async fn playback(nice: &NiceClient) -> Result<(), NiceError> {
    let nobodys = ContactId::from_number(1).map_err(|error| NiceError::permanent(error.to_string()))?;
    match nice.contact_playback(nobodys).await {
        Ok(_) | Err(NiceError::NotReady { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A check makes a handful of requests, and must not wait for the budget that a running daemon uses.
struct Unmetered;

#[async_trait]
impl Quota for Unmetered {
    async fn admit(&self, _family: ApiFamily) -> Result<(), NiceError> {
        Ok(())
    }
}

async fn report<E: std::fmt::Display>(
    name: &'static str,
    answer: impl Future<Output = Result<(), E>>,
    broken: &mut Vec<String>,
) {
    match answer.await {
        Ok(()) => output::line(format!("{name:<16} ok")),
        Err(error) => {
            output::line(format!("{name:<16} {error}"));
            broken.push(format!("{name} ({error})"));
        }
    }
}
