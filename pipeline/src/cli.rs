//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

/// Brings the calls of a NICE CXone group into Knovvu Analytics as soon as they end.
#[derive(Debug, Parser)]
#[command(name = "nice-knovvu", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The settings file [default: NICE_KNOVVU_CONFIG, else ./nice-knovvu.toml if present]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  nice-knovvu demo                             watch simulated calls flow, with no server at all
  nice-knovvu check --config acme.toml         settings and every outside system, one line each
  nice-knovvu run --config acme.toml           the daemon, both services in one process
  nice-knovvu trace 698800000001               everything known of one conversation

Exit codes: 0 done; 1 failed; 2 usage or settings; 3 an outside system cannot be reached; 4 partly done.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run both services in one process
    Run,
    /// Run the Nice Producer alone (needs RabbitMQ and PostgreSQL)
    Producer,
    /// Run the Conversation Consumer alone, in any number (needs RabbitMQ and PostgreSQL)
    Consumer,
    /// Watch simulated calls flow through all stages, on embedded defaults, then read a report
    #[cfg(feature = "demo")]
    Demo(DemoOptions),
    /// The agents of the group
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Stages, backlog, lag and rate budget
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Everything known of one conversation, hop by hop
    Trace {
        /// NICE's contact id of the leg
        conversation_id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Erase a conversation for good: recordings in every version, rows, messages, dead letters; no replay brings it back
    Erase {
        /// NICE's contact id of the leg
        conversation_id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Conversations set aside with their reason
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// A tenant's NICE settings in the Knovvu database
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// Bring the Knovvu database to the schema of this version
    Migrate,
    /// Validate the settings, then each outside system, one line each
    Check {
        /// Print the effective settings first, secrets masked
        #[arg(long)]
        settings: bool,
    },
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Where the demo keeps its state and recordings; emptied first
    #[arg(long, default_value = "demo-data")]
    pub(crate) dir: PathBuf,
    /// Calls on the simulated day
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) calls: u32,
    /// The simulated day: the same seed gives the same calls
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Read the group now and bring the agents in step
    Sync {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the agents, former ones too
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, oldest first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one with its message
    Show {
        /// Its number in the list
        id: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put one, or all, back on the queue
    Replay(Selected),
    /// Take one off the shelf for good
    Drop {
        /// Its number in the list
        id: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Show them, secrets masked
    Show {
        #[command(flatten)]
        tenant: TenantOption,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace them by the table `[nice]` of a TOML text on stdin; secrets are sealed
    Set {
        #[command(flatten)]
        tenant: TenantOption,
    },
    /// Ask NICE with them: token, discovery, group, media playback
    Check {
        #[command(flatten)]
        tenant: TenantOption,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantOption {
    /// The tenant; by default the one of `[tenant] id` in the settings
    #[arg(long = "tenant", value_name = "ID")]
    pub(crate) id: Option<stages::model::TenantId>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selected {
    /// Its number in the list
    pub(crate) id: Option<u64>,
    /// Every one on the shelf
    #[arg(long)]
    pub(crate) all: bool,
}

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nice-knovvu", &mut script);
    crate::output::bytes(&script);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
