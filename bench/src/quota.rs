//! B6, quota: a limit that a client does not know the shape of, that others share, and that a crash must not spend twice.
//!
//! A server counts 150 requests in a window in one of three ways. Against each of them every program does the same
//! work at the same time, in an arena of its own: a backfill that takes what it gets, live calls, the nightly
//! comparison. Later it tries calls once more as well, so that it wants all of the limit. What is counted is what the
//! server saw.

mod asker;
mod limiter;
mod ours;
mod report;
mod server;
mod worker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde::de::IgnoredAny;
use test_servers::Postgres;

pub(crate) use worker::{WorkerOptions, run as worker};

use self::limiter::Shape;
use self::report::{Phases, Report};
use self::server::Server;
use self::worker::RETRIES_ON;
use crate::lines::Lines;
use crate::machine;

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
    /// Workers that try calls once more when all of the limit is wanted
    #[arg(long, default_value_t = WORKERS)]
    retries: usize,
    /// The part that a backfill may not take
    #[arg(long, default_value_t = 0.5)]
    reserve: f64,
    /// The programs
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Program::ALL)]
    programs: Vec<Program>,
    /// Where states and logs go
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// The budget in the local state.
    Local,
    /// The budget in PostgreSQL.
    Shared,
    /// The same, with three processes that share it and the work.
    Shared3,
}

impl Program {
    const ALL: [Self; 3] = [Self::Local, Self::Shared, Self::Shared3];

    /// The name in tables.
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Shared => "PostgreSQL",
            Self::Shared3 => "PostgreSQL, 3 processes",
        }
    }

    fn processes(self) -> usize {
        if self == Self::Shared3 { 3 } else { 1 }
    }

    /// Whether its budget is in the database.
    fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::Shared3)
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// What a process says when it works.
#[derive(Debug, Deserialize)]
struct Begun {
    /// Requests a second that a backfill is promised.
    pace: f64,
}

/// A program in its arena: one process, or several that share the work.
struct Running {
    program: Program,
    shape: Shape,
    command: Command,
    processes: Vec<Lines>,
    pace: f64,
}

impl Running {
    fn start(&mut self, dir: &Path) -> anyhow::Result<()> {
        let (name, log) = (self.program.name(), dir.join(format!("{}.log", self.program)));
        let processes = (0..self.program.processes()).map(|_| Lines::start(name, &self.command, &log));
        self.processes = processes.collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    /// Returns when all its processes work.
    async fn begun(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            let begun: Begun = process.answer().await.with_context(|| self.program.name())?;
            self.pace = begun.pace;
        }
        Ok(())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(|process| process.process.kill())
    }

    /// From now on it wants all of the limit.
    async fn want_all(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.order(RETRIES_ON)?;
            process.answer::<IgnoredAny>().await.with_context(|| self.program.name())?;
        }
        Ok(())
    }
}

/// Runs all programs against all shapes at once, and prints the tables.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("bench-quota-").tempdir_in(&options.dir)?;
    let (dir, window) = (temporary.path(), Duration::from_secs_f64(options.window));
    let places: Vec<(Program, Shape)> =
        options.programs.iter().flat_map(|program| Shape::ALL.map(|shape| (*program, shape))).collect();
    let database = match options.programs.iter().any(|program| program.is_shared()) {
        true => Some(Database::start().await?),
        false => None,
    };
    println!("load average {} at the start", machine::load_average()?);
    let shapes: Vec<Shape> = places.iter().map(|(_, shape)| *shape).collect();
    let server = Server::start(&shapes, LIMIT, window).await?;
    let mut all = Vec::new();
    for (number, (program, shape)) in places.into_iter().enumerate() {
        let place = Place { number, url: format!("{}{number}", server.url), dir, database: database.as_ref() };
        let command = command(options, program, &place)?;
        all.push(Running { program, shape, command, processes: Vec::new(), pace: 0.0 });
    }
    let phases = measure(&server, &mut all, dir, window).await?;
    println!("load average {} at the end", machine::load_average()?);
    let mut report = Report::new(LIMIT, phases);
    for (number, running) in all.iter().enumerate() {
        let arena = server.arena(number).context("no arena")?;
        report.add(running.program.name(), running.shape.name(), running.pace, &arena.events());
    }
    report.print();
    Ok(())
}

/// Goes through all phases; when each of them began.
async fn measure(server: &Server, all: &mut [Running], dir: &Path, window: Duration) -> anyhow::Result<Phases> {
    let mut phases = Phases { window, ..Phases::default() };
    start(all, dir).await?;
    phases.quiet_at = pause(server, window).await;
    phases.full_at = pause(server, window * 3).await;
    want_all(all).await?;
    phases.settled_at = pause(server, window / 2).await;
    phases.killed_at = pause(server, window * 2).await;
    println!("load average {} when the programs are killed", machine::load_average()?);
    all.iter_mut().try_for_each(Running::kill)?;
    start(all, dir).await?;
    want_all(all).await?;
    phases.again_at = server.begun.elapsed();
    phases.stranger_at = pause(server, window * 2).await;
    let arenas = (0..all.len()).filter_map(|number| server.arena(number));
    let strangers: Vec<_> = arenas.map(|arena| tokio::spawn(arena.stranger(STRANGERS, window))).collect();
    phases.left_at = pause(server, window * 3).await;
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    phases.end = pause(server, window * 4).await;
    Ok(phases)
}

/// Starts all at once.
async fn start(all: &mut [Running], dir: &Path) -> anyhow::Result<()> {
    all.iter_mut().try_for_each(|running| running.start(dir))?;
    for running in all {
        running.begun().await?;
    }
    Ok(())
}

async fn want_all(all: &mut [Running]) -> anyhow::Result<()> {
    for running in all {
        running.want_all().await?;
    }
    Ok(())
}

/// Waits; what time it is then.
async fn pause(server: &Server, span: Duration) -> Duration {
    tokio::time::sleep(span).await;
    server.begun.elapsed()
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
        let options = database::DatabaseOptions {
            url: secrecy::SecretString::from(url.as_str()),
            connections: 2,
            service: "bench",
        };
        database::schema::migrate(&database::Database::new(options)?).await?;
        Ok(Self { url, _server: server })
    }
}

/// Where a program works.
struct Place<'a> {
    number: usize,
    /// Of its arena.
    url: String,
    /// Of the run.
    dir: &'a Path,
    database: Option<&'a Database>,
}

/// How each process of a program is started.
fn command(options: &Options, program: Program, place: &Place<'_>) -> anyhow::Result<Command> {
    let processes = program.processes();
    let part = |a_window: f64| (a_window / processes as f64).to_string();
    let settings = [
        ("--url", place.url.clone()),
        ("--limit", LIMIT.to_string()),
        ("--window", options.window.to_string()),
        ("--reserve", options.reserve.to_string()),
        ("--tenant", format!("tenant-{}", place.number)),
        ("--workers", WORKERS.div_ceil(processes).to_string()),
        ("--retries", options.retries.div_ceil(processes).to_string()),
        ("--live", part(options.live)),
        ("--reconciliation", part(options.reconciliation)),
    ];
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("quota-worker").arg("--dir").arg(place.dir.join(place.number.to_string()));
    command.args(settings.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    if let Some(database) = place.database.filter(|_| program.is_shared()) {
        command.args(["--postgres", &database.url]);
    }
    Ok(command)
}
