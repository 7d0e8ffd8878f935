//! B6, quota: a limit that a client does not know the shape of, that others share, and that a crash must not spend twice.
//!
//! A server counts 150 requests in a window in one of three ways. Against each of them every program does the same
//! work at the same time, in an arena of its own: a backfill that takes what it gets, live calls, the nightly
//! comparison. The windows run faster than NICE's; waits are told in tokens, a token being a window divided by the
//! limit. What is counted is what the server saw.

mod limiter;
mod report;
mod server;
mod worker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use test_servers::Postgres;

pub(crate) use worker::{WorkerOptions, run as worker};

use self::limiter::Shape;
use self::report::{Phases, Report};
use self::server::Server;
use crate::lines::Lines;
use crate::machine;
use crate::program::install;

/// NICE's usual limit.
const LIMIT: u32 = 150;

/// What a stranger takes of a window.
const STRANGERS: u32 = LIMIT * 3 / 10;

/// Workers of the backfill.
const WORKERS: usize = 8;

/// What `bench quota` may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The length of a window in seconds; NICE's has 300
    #[arg(long, default_value_t = 60.0)]
    window: f64,
    /// Live calls in a window
    #[arg(long, default_value_t = 20.0)]
    live: f64,
    /// Requests of the nightly comparison in a window
    #[arg(long, default_value_t = 3.0)]
    reconciliation: f64,
    /// The programs
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Program::ALL)]
    programs: Vec<Program>,
    /// Where the peers' dependencies are installed, with pip and npm, if they are not there
    #[arg(long, default_value = "target/bench-peers")]
    peers_dir: PathBuf,
    /// Where states and logs go
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// Our ledger in the local state; backfill may take everything.
    Local,
    /// The same, with half of the limit kept for live calls.
    LocalReserve,
    /// Our ledger in PostgreSQL; backfill may take everything.
    Shared,
    /// Python: airbyte-cdk's moving window.
    Airbyte,
    /// Node: bottleneck with a reservoir.
    Bottleneck,
    /// Exponential back-off alone.
    Backoff,
    /// A fixed sleep after each request.
    Sleep,
}

impl Program {
    const ALL: [Self; 7] =
        [Self::Local, Self::LocalReserve, Self::Shared, Self::Airbyte, Self::Bottleneck, Self::Backoff, Self::Sleep];

    /// The name in tables.
    fn name(self) -> &'static str {
        match self {
            Self::Local => "ours, local",
            Self::LocalReserve => "ours, local, reserve 0.5",
            Self::Shared => "ours, PostgreSQL",
            Self::Airbyte => "airbyte-cdk",
            Self::Bottleneck => "bottleneck",
            Self::Backoff => "exponential back-off",
            Self::Sleep => "fixed sleep",
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// What a program says when it works.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Begun {
    /// Requests a second that a backfill is promised.
    pace: Option<f64>,
}

/// A program in its arena.
struct Running {
    program: Program,
    shape: Shape,
    command: Command,
    child: Lines,
    pace: Option<f64>,
}

/// Runs all programs against all shapes at once, and prints the tables.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("bench-quota-").tempdir_in(&options.dir)?;
    let (dir, window) = (temporary.path(), Duration::from_secs_f64(options.window));
    let places: Vec<(Program, Shape)> =
        options.programs.iter().flat_map(|program| Shape::ALL.map(|shape| (*program, shape))).collect();
    let database = match options.programs.contains(&Program::Shared) {
        true => Some(Database::start().await?),
        false => None,
    };
    let url = database.as_ref().map_or("", |database| database.url.as_str());
    println!("load average {} at the start", machine::load_average()?);
    let shapes: Vec<Shape> = places.iter().map(|(_, shape)| *shape).collect();
    let commands = places.iter().enumerate();
    let commands = commands.map(|(number, (program, _))| command(options, *program, number, dir, url));
    let mut commands = commands.collect::<anyhow::Result<Vec<_>>>()?;
    let server = Server::start(&shapes, LIMIT, window).await?;
    for (number, command) in commands.iter_mut().enumerate() {
        let arena = format!("{}{number}", server.url);
        match places[number].0 {
            Program::Airbyte | Program::Bottleneck => command.env("PEER_URL", arena),
            _ => command.args(["--url", &arena]),
        };
    }
    let mut all = Vec::new();
    for ((program, shape), command) in places.into_iter().zip(commands) {
        let mut child = start(program, &command, dir)?;
        let begun: Begun = child.answer().await.with_context(|| program.name())?;
        all.push(Running { program, shape, command, child, pace: begun.pace });
    }
    let mut phases = Phases::new(window);
    phases.quiet_at = server.begun.elapsed() + window.mul_f64(1.5);
    pause(&server, phases.quiet_at).await;
    phases.killed_at = phases.quiet_at + window * 3;
    pause(&server, phases.killed_at).await;
    println!("load average {} when the programs are killed", machine::load_average()?);
    for running in &mut all {
        running.child.process.kill()?;
    }
    for running in &mut all {
        running.child = start(running.program, &running.command, dir)?;
        running.child.answer::<Begun>().await.with_context(|| running.program.name())?;
    }
    phases.stranger_at = phases.killed_at + window * 2;
    pause(&server, phases.stranger_at).await;
    let arenas = 0..all.len();
    let arenas: Vec<_> = arenas.filter_map(|number| server.arena(number)).collect();
    let strangers: Vec<_> =
        arenas.iter().map(|arena| tokio::spawn(arena.clone().stranger(STRANGERS, window))).collect();
    phases.end = phases.stranger_at + window * 5;
    pause(&server, phases.end).await;
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    println!("load average {} at the end", machine::load_average()?);
    let mut report = Report::new(LIMIT, phases);
    for (running, arena) in all.iter().zip(&arenas) {
        report.add(running.program.name(), running.shape.name(), running.pace, &arena.events());
    }
    report.print();
    Ok(())
}

async fn pause(server: &Server, until: Duration) {
    tokio::time::sleep(until.saturating_sub(server.begun.elapsed())).await;
}

fn start(program: Program, command: &Command, dir: &Path) -> anyhow::Result<Lines> {
    Lines::start(program.name(), command, &dir.join(format!("{program}.log")))
}

/// A database for the shared budgets; the server ends when dropped.
struct Database {
    url: String,
    _server: Postgres,
}

impl Database {
    async fn start() -> anyhow::Result<Self> {
        let server = Postgres::start().await;
        let url = server.database().await;
        let options = stages::clients::postgres::DatabaseOptions {
            url: secrecy::SecretString::from(url.as_str()),
            connections: 2,
            service: "bench",
        };
        stages::clients::postgres::schema::migrate(&stages::clients::postgres::Database::new(options)?).await?;
        Ok(Self { url, _server: server })
    }
}

/// How a program is started; where its requests go is added later.
fn command(options: &Options, program: Program, number: usize, dir: &Path, url: &str) -> anyhow::Result<Command> {
    let settings = [
        ("limit", LIMIT.to_string()),
        ("window", options.window.to_string()),
        ("workers", WORKERS.to_string()),
        ("live", options.live.to_string()),
        ("reconciliation", options.reconciliation.to_string()),
    ];
    let peer = |mut command: Command, script: PathBuf| {
        command.arg(script);
        command.envs(settings.iter().map(|(name, value)| (format!("PEER_{}", name.to_uppercase()), value)));
        command
    };
    Ok(match program {
        Program::Airbyte => {
            let python = install::python(&options.peers_dir, "quota-airbyte")?;
            peer(Command::new(python), Path::new(install::PEERS).join("quota-airbyte/peer.py"))
        }
        Program::Bottleneck => peer(Command::new("node"), install::node(&options.peers_dir, "quota-bottleneck")?),
        Program::Local | Program::LocalReserve | Program::Shared | Program::Backoff | Program::Sleep => {
            let (means, reserve) = match program {
                Program::LocalReserve => ("local", "0.5"),
                Program::Shared => ("shared", "0"),
                Program::Backoff => ("backoff", "0"),
                Program::Sleep => ("sleep", "0"),
                _ => ("local", "0"),
            };
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["quota-worker", "--means", means, "--reserve", reserve, "--postgres", url]);
            command.args(["--tenant", &format!("tenant-{number}"), "--dir"]).arg(dir.join(number.to_string()));
            for (name, value) in &settings {
                command.args([&format!("--{name}"), value]);
            }
            command
        }
    })
}
