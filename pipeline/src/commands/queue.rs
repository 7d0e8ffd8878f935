//! `queue move`: from the queue of before to that of the settings, or the other way round.

use std::path::Path;

use queue::Backlog;
use runtime::Clock;
use serde::Serialize;
use stages::metrics::Metrics;
use state::{Opened, StateOptions};
use std::time::Duration;
use tokio::time::Instant;

use crate::access::Load;
use crate::admin_client::AdminClient;
use crate::cli::{MoveOptions, QueueCommand};
use crate::command_error::CommandError;
use crate::config::{CatalogKind, Config, Need, QueueKind};
use crate::doors::QueuePlace;
use crate::queue_move::{MoveProgress, move_messages};
use crate::{doors, shutdown, telemetry};

/// Time between two lines of progress.
const LINE: Duration = Duration::from_secs(5);

/// What was moved.
#[derive(Debug, Serialize)]
struct MoveReport {
    from: &'static str,
    to: &'static str,
    #[serde(flatten)]
    progress: MoveProgress,
}

/// `queue`.
pub(crate) async fn queue(command: QueueCommand, load: Load<'_>) -> Result<(), CommandError> {
    let QueueCommand::Move(MoveOptions { from, to, form }) = command;
    let config = load(Need::Local)?;
    let (from, to) = ends(from, to, config.queue.kind)?;
    telemetry::start(&config.log)?;
    for kind in [from, to] {
        doors::validate_queue(&config, kind)?;
    }
    let is_one = |kind| from == kind || to == kind;
    let database = match is_one(QueueKind::Fluvio) {
        true => doors::database(&config)?,
        false => None,
    };
    let is_local =
        is_one(QueueKind::Embedded) || (is_one(QueueKind::Fluvio) && config.catalog.kind == CatalogKind::Embedded);
    let opened = match is_local {
        true => Some(state(&config, from).await?),
        false => None,
    };
    let (stopping, _signals) = shutdown::on_signal().map_err(CommandError::failed)?;
    let place = QueuePlace { state: opened.as_ref().map(|opened| opened.state.store()), database: database.as_ref() };
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let source = doors::queue(&config, from, place, &clock, &metrics).await?;
    let target = doors::queue(&config, to, place, &clock, &metrics).await?;
    let moved = move_messages(source.clone(), target.clone(), &stopping, lines()).await;
    source.close().await;
    target.close().await;
    if let Some(opened) = opened {
        opened.state.store().close().await?;
    }
    let (progress, failure) = match moved {
        Ok(progress) => (progress, None),
        Err(failure) => (failure.progress, Some(failure.to_string())),
    };
    form.print(&MoveReport { from: from.as_str(), to: to.as_str(), progress }, outcome);
    match failure {
        Some(reason) => Err(CommandError::unreachable(format!("{reason}; {GOES_ON}"))),
        None if progress.is_done => Ok(()),
        None => Err(CommandError::partly(format!("not all is moved; {GOES_ON}"))),
    }
}

const GOES_ON: &str = "nothing is lost, and the same command goes on";

/// Both queues; one is that of the settings.
fn ends(
    from: Option<QueueKind>,
    to: Option<QueueKind>,
    configured: QueueKind,
) -> Result<(QueueKind, QueueKind), CommandError> {
    let (from, to) = (from.unwrap_or(configured), to.unwrap_or(configured));
    if from == to {
        return Err(CommandError::usage(format!(
            "--from, --to: both are {}, the [queue] kind of the settings is {}; name the other queue",
            from.as_str(),
            configured.as_str()
        )));
    }
    if configured != from && configured != to {
        return Err(CommandError::usage(format!(
            "--from, --to: the [queue] kind of the settings is {}, and must be one of the two",
            configured.as_str()
        )));
    }
    Ok((from, to))
}

/// The local state, which a process that runs has for itself alone.
async fn state(config: &Config, from: QueueKind) -> Result<Opened, CommandError> {
    let dir = &config.state.dir;
    let here = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    if from == QueueKind::Embedded && !is_there(dir) {
        let here = here.display();
        return Err(CommandError::failed(format!("[state] dir: {here} does not exist, so no queue lies there")));
    }
    let in_use = || {
        CommandError::failed(format!(
            "[state] dir: a running process has {} for itself; stop it, move the messages, and start it again",
            here.display()
        ))
    };
    if AdminClient::find(dir).await?.is_some() {
        return Err(in_use());
    }
    match doors::open_state(config, StateOptions::default(), &Metrics::new()).await {
        Err(failure) if failure.is_locked() => Err(in_use()),
        opened => opened,
    }
}

/// If it cannot be read, opening it says why.
fn is_there(dir: &Path) -> bool {
    dir.try_exists().unwrap_or(true)
}

/// Lines on stderr while it goes on: seldom, and only where something changes.
fn lines() -> impl FnMut(&MoveProgress) {
    let mut told: Option<(Instant, MoveProgress)> = None;
    move |progress| {
        if told.is_none_or(|(at, before)| at.elapsed() >= LINE && before != *progress) {
            eprintln!("{}", left(progress));
            told = Some((Instant::now(), *progress));
        }
    }
}

/// How far it came, in a line.
fn left(progress: &MoveProgress) -> String {
    let Backlog { live, backfill, delayed, in_flight } = progress.left;
    let line = format!("{} moved; left: {live} live, {backfill} backfill, {in_flight} in hand", progress.moved());
    match delayed {
        0 => line,
        delayed => format!("{line}, {delayed} delayed, which are moved when they are due, within an hour"),
    }
}

/// What was moved, for a person.
fn outcome(report: &MoveReport) -> String {
    let MoveReport { from, to, progress } = report;
    let MoveProgress { live, backfill, unreadable, repeated, is_done, .. } = progress;
    let mut lines =
        vec![format!("{from} → {to}: {} messages moved ({live} live, {backfill} backfill)", progress.moved())];
    if *unreadable > 0 {
        lines.push(format!("{unreadable} could not be read; consumers set them aside as dead letters"));
    }
    if *repeated > 0 {
        lines.push(format!("{repeated} are on both queues: the acknowledgement failed; copies have no effect"));
    }
    lines.push(match is_done {
        true => format!("{from} is empty"),
        false => left(progress),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_between_the_queue_of_the_settings_and_another() {
        use QueueKind::{Embedded, Fluvio, Rabbitmq};
        assert_eq!(ends(Some(Rabbitmq), None, Fluvio).unwrap(), (Rabbitmq, Fluvio));
        assert_eq!(ends(None, Some(Fluvio), Rabbitmq).unwrap(), (Rabbitmq, Fluvio));
        assert_eq!(ends(Some(Embedded), Some(Fluvio), Fluvio).unwrap(), (Embedded, Fluvio));
        for (from, to) in [(Some(Fluvio), None), (None, Some(Fluvio)), (Some(Rabbitmq), Some(Embedded))] {
            let refused = ends(from, to, Fluvio).unwrap_err();
            assert!(refused.message().contains("[queue] kind"), "{from:?}, {to:?}: {}", refused.message());
        }
    }
}
