//! Completions: the shell asks this program how a line goes on, so that it knows what the daemon has.

use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::access;
use crate::admin::Served;
use crate::admin_client::AdminClient;
use crate::command_error::CommandError;
use crate::config::Need;
use crate::operations::dead_letters::ListDeadLetters;
use crate::operations::replays::ListBackfills;
use crate::output;

/// The variable by which a shell's script asks.
const ASKED: &str = "NICE_KNOVVU_COMPLETE";

/// Nobody waits longer for a completion.
const PATIENCE: Duration = Duration::from_secs(1);

/// Candidates that are offered.
const MOST: usize = 50;

/// Answers a shell that asks, and ends the process then.
pub(crate) fn answer(command_line: fn() -> clap::Command) {
    CompleteEnv::with_factory(command_line).var(ASKED).bin("nice-knovvu").complete();
}

/// Prints the script by which a shell asks.
pub(crate) fn script(shell: Shell) -> Result<(), CommandError> {
    let (name, mut script) = (shell.to_string(), Vec::new());
    let shells = Shells::builtins();
    let known =
        shells.completer(&name).ok_or_else(|| CommandError::usage(format!("{name}: no such shell is known")))?;
    known
        .write_registration(ASKED, "nice-knovvu", "nice-knovvu", "nice-knovvu", &mut script)
        .map_err(CommandError::failed)?;
    output::bytes(&script);
    Ok(())
}

/// The numbers of backfills.
pub(crate) fn backfills() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let backfills = asked(ListBackfills {}).unwrap_or_default();
        let of = |backfill: &crate::operations::replays::BackfillProgress| {
            let run = &backfill.run;
            let help = format!("{} from {} to {}", run.state.as_str(), run.from, run.to);
            CompletionCandidate::new(run.id.to_string()).help(Some(help.into()))
        };
        backfills.iter().take(MOST).map(of).collect()
    })
}

/// The numbers of dead letters.
pub(crate) fn dead_letters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let letters = asked(ListDeadLetters::default()).unwrap_or_default();
        let of = |letter: &model::DeadLetter| {
            CompletionCandidate::new(letter.id.to_string())
                .help(Some(format!("{}: {}", letter.stage, letter.reason).into()))
        };
        letters.iter().take(MOST).map(of).collect()
    })
}

/// The tenants of the database, as far as it answers.
pub(crate) fn tenants() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let listed = blocking(async {
            let config = access::load(None, Need::Local).ok()?;
            let database = crate::doors::database(&config).ok()??;
            let catalog = crate::doors::server_catalog(&config, &database).await.ok()?;
            catalog.tenants().await.ok()
        });
        let tenants = listed.unwrap_or_default();
        tenants.into_iter().take(MOST).map(|tenant| CompletionCandidate::new(tenant.to_string())).collect()
    })
}

/// What the running daemon answers; none where none runs, or not in time.
fn asked<R: Served>(request: R) -> Option<R::Answer> {
    blocking(async {
        let config = access::load(None, Need::Local).ok()?;
        AdminClient::find(&config.state.dir).await.ok()??.ask(&request).await.ok()
    })
}

fn blocking<T>(asking: impl Future<Output = Option<T>>) -> Option<T> {
    crate::doors::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await.ok().flatten() })
}
