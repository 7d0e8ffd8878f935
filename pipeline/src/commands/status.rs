//! `status`: the answer of the daemon, or of this process where none runs; again and again with `--watch`.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::Instant;

use crate::access::Load;
use crate::admin_client::AdminClient;
use crate::cli::StatusOptions;
use crate::command_error::CommandError;
use crate::config::{Config, Need};
use crate::doors::{self, Wanted};
use crate::operations::{
    AdminRequest, Operations, Running, SingleCommand,
    status::{ShowStatus, Status},
};
use crate::{access, output, probes, shutdown, telemetry};

/// Time between two pictures of the live view.
const REDRAWN_EVERY: Duration = Duration::from_secs(2);

/// How long the doors may take to open.
const OPENED_WITHIN: Duration = Duration::from_millis(700);

/// All of it is answered within two seconds.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1900);

/// The least time for each system to answer whether it is there, where a door did not open.
const LEAST_PROBE: Duration = Duration::from_millis(300);

/// A daemon answers within a second; one that stands still does not keep the operator waiting.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// Another command may have the local state for a moment.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// `status`.
pub(crate) async fn status(options: StatusOptions, load: Load<'_>) -> Result<(), CommandError> {
    let config = load(Need::Local)?;
    telemetry::start(&config.log)?;
    if !options.watch {
        let status = find_status(&config).await?;
        options.form.print(&status, ShowStatus::table);
        return ShowStatus::verdict(&status);
    }
    let (stopping, _signals) = shutdown::on_signal().map_err(CommandError::failed)?;
    loop {
        let shown = match find_status(&config).await {
            Ok(status) if options.form.is_json => serde_json::to_string(&status).map_err(CommandError::failed)?,
            Ok(status) => ShowStatus::table(&status),
            // The daemon may be starting anew: the view goes on.
            Err(failure) if options.form.is_json => {
                eprintln!("{}", failure.message());
                String::new()
            }
            Err(failure) => failure.message().to_owned(),
        };
        match options.form.is_json {
            true if shown.is_empty() => {}
            true => output::line(shown),
            false => draw(&shown),
        }
        if stopping.run_until_cancelled(tokio::time::sleep(REDRAWN_EVERY)).await.is_none() {
            return Ok(());
        }
    }
}

/// On a terminal in place of the picture before, elsewhere below it.
fn draw(picture: &str) {
    match std::io::stdout().is_terminal() {
        true => output::line(format!("\u{1b}[H\u{1b}[J{picture}")),
        false => output::line(picture),
    }
}

/// The state of the whole: from the daemon, or from what is asked here. What is away does not keep it waiting.
pub(super) async fn find_status(config: &Config) -> Result<Status, CommandError> {
    let begun = Instant::now();
    loop {
        if let Some(daemon) = AdminClient::find(&config.state.dir).await? {
            return daemon.ask_within(&ShowStatus {}, DAEMON_PATIENCE).await;
        }
        if Wanted::Listing.local(config) {
            access::is_there(&config.state.dir)?;
        }
        match tokio::time::timeout(OPENED_WITHIN, doors::open(config, Wanted::Listing)).await {
            Ok(Ok(doors)) => {
                let operations = Operations::new(config, &doors, Running::default());
                let status = ShowStatus {}.fulfil(&operations.status).await;
                doors.close().await?;
                return Ok(status?);
            }
            Ok(Err(failure)) if failure.is_locked() && begun.elapsed() < STATE_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(Err(failure)) if !failure.is_unreachable() => return Err(failure),
            Ok(Err(_)) | Err(_) => {
                let left = ANSWERED_WITHIN.saturating_sub(begun.elapsed()).max(LEAST_PROBE);
                let answers = probes::all(config, None, left).await?;
                let goal = config.flow.freshness_goal;
                return Ok(Status::of_probes(doors::tenant(config).ok(), goal, &answers));
            }
        }
    }
}
