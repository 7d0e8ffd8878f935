//! B3, dedupe: durable claims a second against a bare append + `fdatasync`.
//!
//! Each engine lives in a process of its own, so that its memory can be told from the others', and keeps its ids
//! throughout. The runs are short and interleaved, each round in an order of its own, so that all of them meet the same weather; what is
//! printed are medians, and the ratio to the bare append of the same run.

mod engine;
mod report;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

pub(crate) use engine::{EngineOptions, run as engine};

use crate::callers::Outcome;
use crate::machine;
use report::Report;

/// What `bench dedupe` may be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many ids every engine knows before the first run.
    #[arg(long, default_value_t = 10_000_000)]
    loaded: u64,
    /// How many callers wait for their own id at a time.
    #[arg(long, value_delimiter = ',', default_value = "64,256,1024")]
    callers: Vec<u64>,
    /// How long a run takes, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// The seed of the orders of the rounds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs of each engine and number of callers.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// The engines: ours, raw, raw-recycled. The raw ones are the denominators.
    #[arg(long, value_delimiter = ',', default_value = "ours,raw,raw-recycled")]
    engines: Vec<String>,
    /// Where the files go: a directory on the disk that is meant.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// An engine in a process of its own.
struct Running {
    name: String,
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Loads every engine, runs them in turn, prints the table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("bench-dedupe-").tempdir_in(&options.dir)?;
    let mut report = Report::new(options.loaded, options.millis);
    println!("load average {} at the start", machine::load_average()?);
    let mut chance = StdRng::seed_from_u64(options.seed);
    let mut engines = Vec::new();
    for name in &options.engines {
        let mut engine = Running::start(name, dir.path(), options.loaded)?;
        report.loaded(name, &engine.answer()?)?;
        engines.push(engine);
    }
    for &callers in &options.callers {
        for _ in 0..options.rounds {
            report.machine(machine::load_average()?, machine::syncs_per_second(dir.path())?);
            // A disk tires and recovers: nobody always runs first, or after the same one.
            engines.shuffle(&mut chance);
            for engine in &mut engines {
                let outcome = engine.run(callers, options.millis)?;
                report.ran(callers, &engine.name, outcome);
            }
        }
    }
    report.print();
    for engine in engines {
        engine.stop()?;
    }
    Ok(())
}

impl Running {
    fn start(name: &str, dir: &Path, loaded: u64) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["dedupe-engine", "--engine", name, "--loaded", &loaded.to_string(), "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the engine {name}"))?;
        let orders = process.stdin.take().context("the engine has no stdin")?;
        let answers = BufReader::new(process.stdout.take().context("the engine has no stdout")?);
        Ok(Self { name: name.to_owned(), process, orders, answers })
    }

    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "the engine {} ended", self.name);
        line.split_whitespace().map(|figure| figure.parse().with_context(|| format!("figure {figure:?}"))).collect()
    }

    fn run(&mut self, callers: u64, millis: u64) -> anyhow::Result<Outcome> {
        writeln!(self.orders, "{callers} {millis}")?;
        let [claims, commits, syncs, p50, p99] = self.answer()?[..] else {
            anyhow::bail!("the engine {} answered with another number of figures", self.name);
        };
        Ok(Outcome { claims, commits, syncs, p50: p50 as u32, p99: p99 as u32 })
    }

    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.orders);
        let status = self.process.wait()?;
        anyhow::ensure!(status.success(), "the engine {} ended with {status}", self.name);
        Ok(())
    }
}
