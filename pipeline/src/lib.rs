//! NICE → Knovvu: the calls of a NICE CXone group, in Knovvu Analytics as soon as they end.
//!
//! `README.md` has the picture of the whole, `docs/ARCHITECTURE.md` the map. The flow of each service is in
//! `nice_producer.rs` and `conversation_consumer.rs`. Here: parse, load all settings before any port, file or server is
//! touched, then the one command that was asked for.

mod access;
mod admin;
mod admin_client;
mod admission;
mod arguments;
mod cli;
mod command_error;
mod commands;
mod completed;
mod config;
mod conversation_consumer;
#[cfg(feature = "demo")]
mod demo;
#[cfg(test)]
mod docs;
mod doors;
pub mod embed;
mod heartbeat;
mod lease;
mod nice_producer;
mod nightly;
mod observe;
mod observer;
mod operations;
mod output;
mod page;
mod probes;
mod proof;
pub mod queue_move;
mod rebuild;
mod replays;
mod service;
mod shutdown;
mod style;
mod systemd;
mod systems;
mod tables;
mod telemetry;
mod turns;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use access::answer;
use cli::{Asked, Cli, Command, EraseOptions, RecheckOptions};
use command_error::CommandError;
use doors::Service;
use operations::erase::{EraseConversation, ShowErasable};
use operations::recheck::{RecheckConversation, RecheckRange};

/// The executable: parses the command line and does the one command.
pub fn run() -> ExitCode {
    // Where a shell asks how a line goes on, this answers and ends the process.
    completed::answer(Cli::command);
    let cli = Cli::parse();
    doors::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CommandError::failed(format!("cannot start: {error}")).report(),
    };
    let ended = runtime.block_on(dispatch(cli));
    // Work that still blocks a thread must not hold up the end of the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(cli: Cli) -> Result<(), CommandError> {
    let load = |need| access::load(cli.config.as_deref(), need);
    match cli.command {
        Command::Run => service::run(load(config::Need::Service)?, Service::Run).await,
        Command::Producer => service::run(load(config::Need::Producer)?, Service::Producer).await,
        Command::Consumer => service::run(load(config::Need::Consumer)?, Service::Consumer).await,
        #[cfg(feature = "demo")]
        Command::Demo(options) => demo::run(options).await,
        Command::Agents(command) => commands::agents(command, &load).await,
        Command::Status(options) => commands::status(options, &load).await,
        Command::Trace(Asked { request, form }) => answer(request, form, &load).await,
        Command::Erase(EraseOptions { conversation_id, dry_run: true, form, .. }) => {
            answer(ShowErasable { conversation_id }, form, &load).await
        }
        Command::Erase(EraseOptions { conversation_id, yes_unknown, form, .. }) => {
            answer(EraseConversation { conversation_id, yes_unknown }, form, &load).await
        }
        Command::Verify(options) => commands::verify(options, &load).await,
        Command::DeadLetters(command) => commands::dead_letters(command, &load).await,
        Command::Queue(command) => commands::queue(command, &load).await,
        Command::Reconcile(options) => commands::reconcile(options, &load).await,
        Command::Backfill(options) => commands::backfill(options, &load).await,
        Command::Recheck(RecheckOptions { conversation_id: Some(conversation_id), form, .. }) => {
            answer(RecheckConversation { conversation_id }, form, &load).await
        }
        Command::Recheck(RecheckOptions { from: Some(from), to: Some(to), form, .. }) => {
            answer(RecheckRange { from, to }, form, &load).await
        }
        Command::Recheck(_) => {
            Err(CommandError::usage("CONVERSATION_ID, or --from and --to: one of the two is needed"))
        }
        Command::Report(options) => commands::report(options, &load).await,
        Command::Settings(command) => commands::settings(command, &load).await,
        Command::Migrate(form) => commands::migrate(form, &load).await,
        Command::Check { settings, form } => commands::check(load(config::Need::Service)?, settings, form).await,
        Command::Config(command) => commands::config(command, &load),
        Command::Completions { shell } => completed::script(shell),
        Command::Man { dir } => commands::man(&dir),
    }
}
