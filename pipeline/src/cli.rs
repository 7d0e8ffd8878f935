//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use model::ContactId;

use crate::arguments::{moment, number, queue_kind, span};
use crate::completed;
use crate::config::QueueKind;
use crate::operations::agents::ListAgents;
use crate::operations::dead_letters::{ListDeadLetters, ShowDeadLetter};
use crate::operations::trace::TraceConversation;
use crate::output::AnswerForm;

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
  nice-knovvu report --from 2026-04-01 --to 2026-04-02     what became of every call of a day
  nice-knovvu backfill --from 2026-04-01 --to 2026-04-08 --dry-run    what a week would cost

Exit codes: 0 done; 1 failed; 2 usage or settings; 3 an outside system cannot be reached; 4 partly done.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run both services in one process
    Run,
    /// Run the Nice Producer alone (needs PostgreSQL, and RabbitMQ or Fluvio)
    Producer,
    /// Run the Conversation Consumer alone, in any number (needs PostgreSQL, and RabbitMQ or Fluvio)
    Consumer,
    /// Watch simulated calls flow through all stages, on embedded defaults, then read a report
    #[cfg(feature = "demo")]
    Demo(DemoOptions),
    /// The agents of the group
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Whether calls are lost or late, whose fault it is and what to do; then the figures. Exit code 4: degraded, 3: a
    /// system is away
    Status(StatusOptions),
    /// Everything known of one conversation, hop by hop
    Trace(Asked<TraceConversation>),
    /// Compare NICE's calls with the database now, and replay what is missing
    Reconcile(ReconcileOptions),
    /// Import the calls that began in a date range
    Backfill(BackfillOptions),
    /// Ask NICE once more for the recordings that calls lack: of one call, or of those that began in a date range
    Recheck(RecheckOptions),
    /// What became of every call that ended in a date range
    Report(ReportOptions),
    /// Erase a conversation for good: recordings in every version, rows, messages, dead letters; no replay brings it
    /// back
    Erase(EraseOptions),
    /// Read stored recordings back and compare length and SHA-256 with their rows; exit code 4 where one differs
    Verify(VerifyOptions),
    /// Conversations set aside with their reason
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// The queue between producer and consumers
    #[command(subcommand)]
    Queue(QueueCommand),
    /// A tenant's NICE settings in the Knovvu database
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// Bring the Knovvu database to the schema of this version
    Migrate(AnswerForm),
    /// Validate the settings, then each outside system, one line each
    Check {
        /// Print the effective settings first, secrets masked
        #[arg(long)]
        settings: bool,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// The settings in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script; it knows the numbers of backfills and dead letters of the running daemon
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command
    Man {
        /// The directory to write them to, such as /usr/local/share/man/man1
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// A request, and how its answer is shown.
#[derive(Debug, Args)]
pub(crate) struct Asked<R: Args> {
    #[command(flatten)]
    pub(crate) request: R,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Show it again every two seconds, until Ctrl-C; with --json, one line each time
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
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
    /// Go on with more calls until Ctrl-C, and look at them on the operator page
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileOptions {
    /// How long ago a call may have ended (default: the window of the settings)
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) window: Option<std::time::Duration>,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BackfillOptions {
    /// The beginning: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, required = true)]
    pub(crate) from: Option<Timestamp>,
    /// The end, which is not included: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, required = true)]
    pub(crate) to: Option<Timestamp>,
    /// Import the calls of those who were in the group when the call ended (the default)
    #[arg(long, conflicts_with = "members_now")]
    pub(crate) members_then: bool,
    /// Import the calls of those who are in the group today, whenever the call ended: at a first installation
    #[arg(long)]
    pub(crate) members_now: bool,
    /// Import nothing; only show what there is, what it costs and how long it takes
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
    #[command(subcommand)]
    pub(crate) command: Option<BackfillCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackfillCommand {
    /// How far each backfill has come, newest first
    Status {
        /// Only the one with this number
        #[arg(value_parser = number, add = completed::backfills())]
        id: Option<u64>,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// Publish nothing more until it is resumed
    Pause {
        /// Its number
        #[arg(value_parser = number, add = completed::backfills())]
        id: u64,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// Continue one that is paused, or that was a dry run
    Resume {
        /// Its number
        #[arg(value_parser = number, add = completed::backfills())]
        id: u64,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// End it; what is on the queue already is imported
    Cancel {
        /// Its number
        #[arg(value_parser = number, add = completed::backfills())]
        id: u64,
        #[command(flatten)]
        form: AnswerForm,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ReportOptions {
    /// The beginning: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, required = true)]
    pub(crate) from: Option<Timestamp>,
    /// The end, which is not included: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, required = true)]
    pub(crate) to: Option<Timestamp>,
    /// Write each day as a signed file below `[proof] dir`; the range is of whole days that are over
    #[arg(long)]
    pub(crate) sign: bool,
    /// Sign with the key in this file [default: that of the settings]
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub(crate) key_file: Option<PathBuf>,
    /// Why there is no file for the days between the newest one and --from
    #[arg(long, value_name = "REASON", requires = "sign")]
    pub(crate) gap: Option<String>,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
    #[command(subcommand)]
    pub(crate) command: Option<ReportCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Check signed days: signatures, links, balances, no day missing; needs no settings and no daemon
    Verify {
        /// The folder of a tenant, or the directory of several
        dir: PathBuf,
        /// Who may have signed, in hex; may be repeated [default: whoever signed the first file]
        #[arg(long = "public-key", value_name = "KEY")]
        public_keys: Vec<String>,
        /// A hash that was published: the folder must have its file; may be repeated
        #[arg(long = "expect", value_name = "HASH")]
        hashes: Vec<String>,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// Make a key that signs, in a new file, and print its public half
    Keygen {
        /// The file; it must not be there yet
        file: PathBuf,
        #[command(flatten)]
        form: AnswerForm,
    },
}

#[derive(Debug, Args)]
#[command(override_usage = "nice-knovvu recheck <CONVERSATION_ID|--from <TIME> --to <TIME>> [--json]")]
pub(crate) struct RecheckOptions {
    /// NICE's contact id of the leg
    #[arg(conflicts_with_all = ["from", "to"], required_unless_present_any = ["from", "to"])]
    pub(crate) conversation_id: Option<ContactId>,
    /// The earliest start of a call: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "to")]
    pub(crate) from: Option<Timestamp>,
    /// The end, which is not included: RFC 3339, or a date in UTC
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    pub(crate) to: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
pub(crate) struct EraseOptions {
    /// NICE's contact id of the leg
    pub(crate) conversation_id: ContactId,
    /// Erase nothing; only show what would be erased
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Erase even if nothing is known of the id: a later call with this id is dropped
    #[arg(long)]
    pub(crate) yes_unknown: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// The earliest end of a call: RFC 3339, or a date in UTC [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) from: Option<Timestamp>,
    /// The end, which is not included: RFC 3339, or a date in UTC [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) to: Option<Timestamp>,
    /// Only this many conversations, picked at random [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) sample: Option<u32>,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Read the group now, and update the agents
    Sync {
        /// Accept what is read, even if many agents are gone at once or hidden
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// List the agents, former ones too
    List(Asked<ListAgents>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Each setting with its value and where that comes from: default, file, environment, secret file; secrets masked
    Show {
        /// Only this section
        #[arg(long, value_name = "NAME")]
        section: Option<String>,
        #[command(flatten)]
        form: AnswerForm,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, oldest first
    List(ListedLetters),
    /// Show one with its message
    Show(Asked<ShowDeadLetter>),
    /// Put one, or all, back on the queue, behind fresh calls
    Replay(Selected),
    /// Drop one for good, or all that are old
    Drop(Dropped),
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Move every message that waits to another queue, the delayed ones when they are due; one of the two is that of
    /// the settings
    Move(MoveOptions),
}

#[derive(Debug, Args)]
#[command(override_usage = "nice-knovvu queue move <--from <KIND>|--to <KIND>> [--json]")]
pub(crate) struct MoveOptions {
    /// The queue to empty: embedded, rabbitmq or fluvio [default: that of the settings]
    #[arg(long, value_name = "KIND", value_parser = queue_kind(), required_unless_present = "to",
        hide_possible_values = true)]
    pub(crate) from: Option<QueueKind>,
    /// The queue to fill, likewise [default: that of the settings]
    #[arg(long, value_name = "KIND", value_parser = queue_kind(), hide_possible_values = true)]
    pub(crate) to: Option<QueueKind>,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Show them, secrets masked
    Show {
        #[command(flatten)]
        tenant: TenantOption,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// Replace them with the table `[nice]` of a TOML text on stdin, after NICE has accepted them; secrets are sealed
    Set {
        #[command(flatten)]
        tenant: TenantOption,
        /// Do not ask NICE first
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        form: AnswerForm,
    },
    /// Try them on NICE: token, discovery, group, media playback
    Check {
        #[command(flatten)]
        tenant: TenantOption,
        #[command(flatten)]
        form: AnswerForm,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantOption {
    /// The tenant; by default the one of `[tenant] id` in the settings
    #[arg(long = "tenant", value_name = "ID", add = completed::tenants())]
    pub(crate) id: Option<model::TenantId>,
}

#[derive(Debug, Args)]
pub(crate) struct ListedLetters {
    #[command(flatten)]
    pub(crate) filter: ListDeadLetters,
    /// Only how many there are of each stage and reason
    #[arg(long)]
    pub(crate) groups: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "nice-knovvu dead-letters replay <ID|--all|--stage <STAGE>|--reason <TEXT>> [--dry-run] [--json]"
)]
pub(crate) struct Selected {
    /// Its number in the list
    #[arg(value_parser = number, required_unless_present_any = ["all", "stage", "reason"],
        conflicts_with_all = ["all", "stage", "reason"], add = completed::dead_letters())]
    pub(crate) id: Option<u64>,
    /// All of them, or all that --stage and --reason select
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: ListDeadLetters,
    /// Replay nothing; only show which ones
    #[arg(long, conflicts_with = "id")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "nice-knovvu dead-letters drop <ID|--older-than <SPAN>|--stage <STAGE>|--reason <TEXT>> [--dry-run] [--json]"
)]
pub(crate) struct Dropped {
    /// Its number in the list
    #[arg(value_parser = number, required_unless_present_any = ["older_than", "stage", "reason"],
        conflicts_with_all = ["older_than", "stage", "reason"], add = completed::dead_letters())]
    pub(crate) id: Option<u64>,
    /// Every one that was set aside longer ago, such as 30d, of those that --stage and --reason select
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) older_than: Option<std::time::Duration>,
    #[command(flatten)]
    pub(crate) filter: ListDeadLetters,
    /// Drop nothing; only say how many
    #[arg(long, conflicts_with = "id")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) form: AnswerForm,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_number_that_is_none_is_shown_a_right_one() {
        assert_eq!(number("17"), Ok(17));
        for text in ["", "x", "+1", "-1", " 1", "1.5", "#17", "99999999999999999999999"] {
            let error = number(text).unwrap_err();
            assert!(error.contains("such as 17") && error.contains("dead-letters list"), "{text}: {error}");
        }
        for arguments in
            [&["dead-letters", "show", "x"][..], &["backfill", "pause", "x"], &["dead-letters", "drop", "x"]]
        {
            let error = Cli::try_parse_from([&["nice-knovvu"], arguments].concat()).unwrap_err().to_string();
            assert!(error.contains("such as 17") && !error.contains("invalid digit"), "{error}");
        }
    }

    #[test]
    fn a_recheck_is_of_one_call_or_of_a_whole_range() {
        let parsed = |arguments: &[&str]| Cli::try_parse_from([&["nice-knovvu", "recheck"], arguments].concat());
        let (from, to) = (&["--from", "2026-04-01"][..], &["--to", "2026-04-02T00:00:00Z"][..]);
        assert!(parsed(&["698800000001"]).is_ok() && parsed(&[from, to].concat()).is_ok());
        for wrong in [&[][..], from, to, &[&["698800000001"], from, to].concat()] {
            let error = parsed(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Commands without an answer, each with the reason.
    const ANSWERS_NOTHING: [(&str, &str); 6] = [
        ("run", "it serves until it is ended"),
        ("producer", "it serves until it is ended"),
        ("consumer", "it serves until it is ended"),
        ("demo", "it is a show for a person"),
        ("completions", "it prints a script of the shell"),
        ("man", "it writes files for a reader"),
    ];

    #[test]
    fn each_command_that_answers_does_so_in_json_where_it_is_asked_to() {
        let mut mistakes = Vec::new();
        let root = Cli::command();
        let mut commands: Vec<(String, &clap::Command)> =
            root.get_subcommands().map(|command| (command.get_name().to_owned(), command)).collect();
        while let Some((name, command)) = commands.pop() {
            let inner = command.get_subcommands().map(|inner| (format!("{name} {}", inner.get_name()), inner));
            commands.extend(inner);
            let only_holds_others = command.is_subcommand_required_set();
            let answers = !only_holds_others && !ANSWERS_NOTHING.iter().any(|(silent, _)| *silent == name);
            let takes_json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
            if answers != takes_json {
                mistakes.push(format!("{name}: answers {answers}, takes --json {takes_json}"));
            }
        }
        assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    }
}
