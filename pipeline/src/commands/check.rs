//! `check`: the settings are valid already; each outside system follows, one line each.

use std::future::Future;

use crate::config::Config;
use crate::doors;
use crate::failure::Failure;
use crate::{output, telemetry};

/// Exit code 3 when one of the systems does not answer as it must.
pub(crate) async fn check(config: Config, show_settings: bool) -> Result<(), Failure> {
    telemetry::start(&config.log)?;
    doors::built_in(&config)?;
    if show_settings {
        output::line(config.to_redacted_toml());
    }
    output::line("settings         ok");
    let mut broken = Vec::new();
    if crate::admin_client::AdminClient::find(&config.state.dir).await?.is_some() {
        output::line("local state      ok (in use by the running daemon; its /readyz tells of queue and catalog)");
        return Err(Failure::failed("stop the daemon to check the embedded stores, or ask it: nice-knovvu status"));
    }
    let doors = doors::open(&config).await?;
    report("local state", async { doors.state.store().check() }, &mut broken).await;
    report("queue", doors.queue.check(), &mut broken).await;
    report("catalog", doors.catalog.check(), &mut broken).await;
    report("recording store", doors.recordings.check(), &mut broken).await;
    let nice = doors::nice(&config, &doors)?;
    report("nice", nice.check(), &mut broken).await;
    doors.state.store().close().await?;
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::unreachable(format!("not in order: {}", broken.join(", "))))
}

async fn report<E: std::fmt::Display>(
    name: &'static str,
    answer: impl Future<Output = Result<(), E>>,
    broken: &mut Vec<&'static str>,
) {
    match answer.await {
        Ok(()) => output::line(format!("{name:<16} ok")),
        Err(error) => {
            output::line(format!("{name:<16} {error}"));
            broken.push(name);
        }
    }
}
