//! The commands of an operator: ask the running daemon, or do it here where none runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use catalog::HeldReading;
use flow::StageError;
use model::{Agent, DeadLetter};
use reqwest::Method;
use serde::Serialize;
use stages::{
    completeness::ReportError,
    source::{ListError, roster::Roster},
    sync_agents::{SyncAgents, SyncError, SyncReport},
};
use tokio::{sync::watch, time::Instant};

use crate::admin_client::AdminClient;
use crate::cli::{AgentsCommand, DeadLettersCommand, Dropped, Selected};
use crate::config;
use crate::config::{Config, Need};
use crate::doors;
use crate::doors::{Doors, Wanted};
use crate::failure::Failure;
use crate::lease::Held;
use crate::operations::{Older, OperationError, Operations, Status, Trace};
use crate::{output, telemetry};

mod check;
mod database;
mod erase;
mod recheck;
mod replays;
pub(crate) mod tables;
mod verify;

pub(crate) use check::check;
pub(crate) use database::{migrate, settings};
pub(crate) use erase::{Erasing, erase};
pub(crate) use recheck::recheck;
pub(crate) use replays::{backfill, reconcile, report};
pub(crate) use verify::verify;

/// Loads the settings: the whole of them, before anything else is touched.
pub(crate) fn load(flag: Option<&Path>, need: Need) -> Result<Config, Failure> {
    let file = config::settings_file(flag.map(Path::to_owned));
    let config = Config::load(file.as_deref(), std::env::vars_os(), need).map_err(Failure::usage)?;
    // A listing needs no setting that has no default; one without any would show a state that is nobody's.
    if file.is_none() && need == Need::Local && !config.is_set() {
        return Err(Failure::usage(
            "no settings: name a file with --config or in NICE_KNOVVU_CONFIG, write ./nice-knovvu.toml, or set \
             variables such as NICE_KNOVVU_TENANT__ID",
        ));
    }
    Ok(config)
}

type Load<'a> = &'a dyn Fn(Need) -> Result<Config, Failure>;

/// How long a command waits for the local state while another process has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who fulfils an operator's wish.
enum Access {
    Daemon(AdminClient),
    Here(Box<(Operations, Doors, Option<Held>)>),
}

impl Access {
    /// The daemon of this state directory, or else what is wanted itself.
    async fn of(config: &Config, wanted: Wanted) -> Result<Self, Failure> {
        telemetry::start(&config.log)?;
        let begun = Instant::now();
        let doors = loop {
            // What erases needs the recording store, which a daemon on servers may not have, and no state of its own.
            if (wanted != Wanted::Erasure || wanted.local(config))
                && let Some(daemon) = AdminClient::find(&config.state.dir).await?
            {
                return Ok(Self::Daemon(daemon));
            }
            if wanted == Wanted::Listing && wanted.local(config) {
                is_there(&config.state.dir)?;
            }
            match doors::open(config, wanted).await {
                // A daemon that is just starting, or another command: it answers, or is gone, in a moment.
                Err(failure) if failure.is_locked() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                opened => break opened?,
            }
        };
        let (sync, held) = match wanted == Wanted::AgentSync {
            true => (Some(Arc::new(sync_agents(config, &doors)?)), Some(lease(config, &doors).await?)),
            false => (None, None),
        };
        let operations = doors.operations(config, sync);
        Ok(Self::Here(Box::new((operations, doors, held))))
    }

    /// Leaves the local state in order.
    async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Here(here) => here.1.close().await,
        }
    }
}

/// Who only looks makes no state: an empty one would pass for that of a service which has nothing to do.
fn is_there(dir: &Path) -> Result<(), Failure> {
    // What cannot be looked at is named by who opens it.
    if dir.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let here = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    Err(Failure::failed(format!(
        "[state] dir: {} does not exist, so nothing has run with these settings here: start `nice-knovvu run`, or run \
         `nice-knovvu agents sync` once, or correct the directory",
        here.display()
    )))
}

/// Asks the daemon for a path, or the operations here for the same.
macro_rules! ask {
    ($access:expr, $method:ident $path:expr, $operation:ident($($argument:expr),*)) => {
        match &$access {
            Access::Daemon(daemon) => daemon.call(Method::$method, &$path).await?,
            Access::Here(here) => here.0.$operation($($argument),*).await?,
        }
    };
}

use ask;

fn sync_agents(config: &Config, doors: &Doors) -> Result<SyncAgents, Failure> {
    let (roster, _) = watch::channel(Roster::default());
    Ok(doors.sync_agents(config, &doors.turns(config)?, roster))
}

/// Who joins is announced to the poll of the same process: the sync belongs to the tenant's producer.
async fn lease(config: &Config, doors: &Doors) -> Result<Held, Failure> {
    let held = doors.lease(&doors::tenant(config)?).try_hold().await?;
    held.ok_or_else(|| {
        Failure::failed("another producer has the tenant and keeps the agents in step; run `agents sync` where it runs")
    })
}

/// `agents sync` and `agents list`.
pub(crate) async fn agents(command: AgentsCommand, load: Load<'_>) -> Result<(), Failure> {
    match command {
        AgentsCommand::Sync { accept, json } => {
            let access = Access::of(&load(Need::Nice)?, Wanted::AgentSync).await?;
            let report: SyncReport = match accept {
                true => ask!(access, POST "/agents/accept", accept_agents()),
                false => ask!(access, POST "/agents/sync", sync_agents()),
            };
            print(json, &report, tables::agents::sync);
            access.close().await?;
            match report.held {
                Some(held) => Err(Failure::partly(tables::agents::held(&held))),
                None => Ok(()),
            }
        }
        AgentsCommand::List { json } => {
            let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
            let agents: Vec<Agent> = ask!(access, GET "/agents", agents());
            print(json, &agents, |agents| tables::agents::list(agents));
            let held: Option<HeldReading> = ask!(access, GET "/agents/held", held_reading());
            if let Some(held) = held {
                eprintln!("{}", tables::agents::held(&held));
            }
            access.close().await
        }
    }
}

/// `status`.
pub(crate) async fn status(json: bool, load: Load<'_>) -> Result<(), Failure> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    let status: Status = ask!(access, GET "/status", status());
    print(json, &status, tables::status);
    access.close().await
}

/// `trace`.
pub(crate) async fn trace(id: String, json: bool, load: Load<'_>) -> Result<(), Failure> {
    // Before it becomes part of a path.
    let id: model::ContactId = id.parse().map_err(|error| Failure::usage(format!("CONVERSATION_ID: {error}")))?;
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    let trace: Trace = ask!(access, GET format!("/trace/{id}"), trace(&id.to_string()));
    print(json, &trace, tables::trace);
    access.close().await
}

/// `dead-letters`.
pub(crate) async fn dead_letters(command: DeadLettersCommand, load: Load<'_>) -> Result<(), Failure> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    match command {
        DeadLettersCommand::List { json } => {
            let letters: Vec<DeadLetter> = ask!(access, GET "/dead-letters", dead_letters());
            print(json, &letters, |letters| tables::dead_letters(letters));
        }
        DeadLettersCommand::Show { id, json } => {
            let letter: DeadLetter = ask!(access, GET format!("/dead-letters/{id}"), dead_letter(id));
            print(json, &letter, tables::dead_letter);
        }
        DeadLettersCommand::Replay(Selected { id: Some(id), .. }) => {
            let () = ask!(access, POST format!("/dead-letters/{id}/replay"), replay(id));
            output::line(format!("dead letter {id} is back on the queue"));
        }
        DeadLettersCommand::Replay(Selected { id: None, dry_run: true, .. }) => {
            let letters: Vec<DeadLetter> = ask!(access, GET "/dead-letters", dead_letters());
            print(false, &letters, |letters| tables::dead_letters(letters));
            output::line(format!("{} dead letters would go back to the queue", letters.len()));
        }
        DeadLettersCommand::Replay(Selected { id: None, .. }) => replay_all(&access).await?,
        DeadLettersCommand::Drop(Dropped { id: Some(id), .. }) => {
            let () = ask!(access, DELETE format!("/dead-letters/{id}"), drop_dead_letter(id));
            output::line(format!("dead letter {id} is dropped"));
        }
        DeadLettersCommand::Drop(Dropped { older_than, dry_run, .. }) => {
            let older_than_secs = older_than.unwrap_or(Duration::MAX).as_secs();
            let what = Older { older_than_secs, dry_run };
            let count: u64 = match &access {
                Access::Daemon(daemon) => daemon.post("/dead-letters/drop", &what).await?,
                Access::Here(here) => here.0.drop_dead_letters(what).await?,
            };
            let verb = if dry_run { "would be dropped" } else { "are dropped" };
            output::line(format!("{count} dead letters {verb}"));
        }
    }
    access.close().await
}

/// Replays every letter; those that cannot be replayed stay, and are named.
async fn replay_all(access: &Access) -> Result<(), Failure> {
    let letters: Vec<DeadLetter> = ask!(access, GET "/dead-letters", dead_letters());
    let mut stayed = 0;
    for letter in &letters {
        let id = letter.id;
        let replayed: Result<(), Failure> = match access {
            Access::Daemon(daemon) => daemon.call(Method::POST, &format!("/dead-letters/{id}/replay")).await,
            Access::Here(here) => here.0.replay(id).await.map_err(Failure::from),
        };
        if let Err(failure) = replayed {
            stayed += 1;
            eprintln!("{}", failure.message());
        }
    }
    output::line(format!("{} of {} dead letters are back on the queue", letters.len() - stayed, letters.len()));
    if stayed > 0 {
        return Err(Failure::partly(format!("{stayed} dead letters stay on the shelf")));
    }
    Ok(())
}

/// Results go to stdout: as JSON for a script, or as a table for a person.
fn print<T: Serialize>(json: bool, result: &T, table: impl FnOnce(&T) -> String) {
    match json.then(|| serde_json::to_string_pretty(result)) {
        Some(Ok(text)) => output::line(text),
        Some(Err(error)) => eprintln!("nice-knovvu: {error}"),
        None => output::line(table(result)),
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Sync(SyncError::Settings(StageError::Permanent { .. }))
            | OperationError::Report(ReportError::List(ListError::Settings(StageError::Permanent { .. }))) => {
                Self::failed(error)
            }
            OperationError::Sync(SyncError::Nice(_) | SyncError::Settings(_))
            | OperationError::Erasure(_)
            | OperationError::Report(ReportError::List(_)) => Self::unreachable(error),
            OperationError::NoTenant(_) | OperationError::Invalid(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
