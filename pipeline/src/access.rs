//! Who does an operator's request: the running daemon, or this process if none runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::Clock;
use stages::source::roster::Roster;
use stages::sync_agents::SyncAgents;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::Served;
use crate::admin_client::AdminClient;
use crate::command_error::CommandError;
use crate::config::{self, Config, Need};
use crate::doors::{self, OpenDoors, Wanted};
use crate::lease::LeaseGuard;
use crate::operations::{Operations, Running, SingleCommand};
use crate::{output::AnswerForm, telemetry};

/// Loads the settings: the whole of them, before anything else is touched.
pub(crate) fn load(flag: Option<&Path>, need: Need) -> Result<Config, CommandError> {
    let file = config::settings_file(flag.map(Path::to_owned));
    let config = Config::load(file.as_deref(), std::env::vars_os(), need).map_err(CommandError::usage)?;
    // A listing needs no setting without a default. If nothing is set at all, it would show the state of nobody.
    if file.is_none() && need == Need::Local && !config.is_set() {
        return Err(CommandError::usage(
            "no settings: name a file with --config or in NICE_KNOVVU_CONFIG, write ./nice-knovvu.toml, or set \
             variables such as NICE_KNOVVU_TENANT__ID",
        ));
    }
    Ok(config)
}

/// Loads the settings that a command needs.
pub(crate) type Load<'a> = &'a dyn Fn(Need) -> Result<Config, CommandError>;

/// A command that is one request: asks, prints the answer, and ends as the answer says.
pub(crate) async fn answer<R: SingleCommand + Served>(
    request: R,
    form: AnswerForm,
    load: Load<'_>,
) -> Result<(), CommandError> {
    request.check(Clock::system().now())?;
    let access = Access::of(&load(R::NEED)?, R::WANTED).await?;
    let answer = access.ask(request).await?;
    form.print(&answer, R::table);
    access.close().await?;
    R::verdict(&answer)
}

/// How long a command waits for the local state while another process has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who does a request.
pub(crate) enum Access {
    Daemon(AdminClient),
    Here(Box<(Operations, OpenDoors, Option<LeaseGuard>)>),
}

impl Access {
    /// The daemon of this state directory, or else what is wanted itself.
    pub(crate) async fn of(config: &Config, wanted: Wanted) -> Result<Self, CommandError> {
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
        let operations = Operations::new(config, &doors, Running { sync, ..Running::default() });
        Ok(Self::Here(Box::new((operations, doors, held))))
    }

    /// Asks for one thing.
    pub(crate) async fn ask<R: Served>(&self, request: R) -> Result<R::Answer, CommandError> {
        match self {
            Self::Daemon(daemon) => daemon.ask(&request).await,
            Self::Here(here) => Ok(request.fulfil(R::handler(&here.0)).await?),
        }
    }

    /// Leaves the local state in order.
    pub(crate) async fn close(self) -> Result<(), CommandError> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Here(here) => here.1.close().await,
        }
    }
}

/// A listing creates no state: an empty one would look like a service that has nothing to do.
pub(crate) fn is_there(dir: &Path) -> Result<(), CommandError> {
    // If the directory cannot be read, opening it says why.
    if dir.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let here = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    Err(CommandError::failed(format!(
        "[state] dir: {} does not exist, so nothing has run with these settings here: start `nice-knovvu run`, or run \
         `nice-knovvu agents sync` once, or correct the directory",
        here.display()
    )))
}

fn sync_agents(config: &Config, doors: &OpenDoors) -> Result<SyncAgents, CommandError> {
    let (roster, _) = watch::channel(Roster::default());
    Ok(doors.sync_agents(config, &doors.turns(config)?, roster))
}

/// Who joins is announced to the poll of the same process: the sync belongs to the tenant's producer.
async fn lease(config: &Config, doors: &OpenDoors) -> Result<LeaseGuard, CommandError> {
    let held = doors.lease(&doors::tenant(config)?).try_hold().await?;
    held.ok_or_else(|| {
        CommandError::failed(
            "another producer works for the tenant and syncs its agents; run `agents sync` where it runs",
        )
    })
}
