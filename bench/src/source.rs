//! NICE as the benchmarks need it: calls that are over, each with one leg and one recording, in a process of its own.
//!
//! `bench source` prints one line of JSON and serves until its stdin ends. Its processor time counts as a server's.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::SignedDuration;
use nice_sim::{CallSpec, RecordingSize, Sim, SimConfig};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Longer than any run.
const HOURS: Duration = Duration::from_secs(12 * 3600);

/// What `bench source` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Calls whose recording is there
    #[arg(long)]
    pub(crate) calls: usize,
    /// Calls whose recording does not come
    #[arg(long)]
    pub(crate) parked: usize,
    /// Bytes of each recording
    #[arg(long)]
    pub(crate) bytes: u64,
    /// Milliseconds that each answer takes at least
    #[arg(long)]
    pub(crate) latency: u64,
}

/// What a client has to know.
#[derive(Serialize, Deserialize)]
pub(crate) struct Described {
    /// Its root.
    pub(crate) url: String,
    /// The access key.
    pub(crate) key_id: String,
    /// Its secret.
    pub(crate) key_secret: String,
    /// The daemon's `[nice]` settings as TOML.
    pub(crate) settings: String,
    /// The calls that can be fetched.
    pub(crate) calls: Vec<EndedCall>,
    /// The calls that are not ready.
    pub(crate) parked: Vec<EndedCall>,
}

/// A call that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndedCall {
    /// NICE's contact id.
    pub(crate) id: i64,
    /// Who took it.
    pub(crate) agent: i64,
}

/// Serves until stdin ends.
pub(crate) async fn serve(options: &Options) -> anyhow::Result<()> {
    let mut config = SimConfig::default();
    config.day.recording_size = RecordingSize::Fixed(options.bytes);
    config.latency = Duration::from_millis(options.latency);
    config.playback.limit = u32::MAX;
    config.playback.window = Duration::from_secs(1);
    config.playback.media_link_ttl = HOURS;
    config.tenant.token_ttl = HOURS;
    let sim = Sim::start(config).await?;
    let tenant = sim.config().tenant.clone();
    let described = Described {
        url: sim.base_url().to_owned(),
        key_id: tenant.access_key_id,
        key_secret: tenant.access_key_secret,
        settings: settings(&sim),
        calls: place(&sim, options.calls, Duration::ZERO),
        parked: place(&sim, options.parked, HOURS),
    };
    println!("{}", serde_json::to_string(&described)?);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// Calls that ended an hour ago, one after the other's id.
fn place(sim: &Sim, count: usize, recording_delay: Duration) -> Vec<EndedCall> {
    let agents = sim.group(sim.config().directory.wanted_group);
    let placed = agents.iter().cycle().take(count).map(|&agent| {
        let spec = CallSpec { recording_delay: Some(recording_delay), ..CallSpec::new(agent) };
        let spec = spec.hang_up_in(SignedDuration::from_hours(-1));
        EndedCall { id: sim.add_call(spec).master_contact_id, agent }
    });
    placed.collect()
}

fn settings(sim: &Sim) -> String {
    let line = |(key, value): (&str, String)| match key {
        "media_hosts" => format!("{key} = [\"{value}\"]\n"),
        _ => format!("{key} = \"{value}\"\n"),
    };
    sim.settings().into_iter().map(line).fold("[nice]\n".to_owned(), |page, line| page + &line)
}

/// The source as seen from the benchmark.
pub(crate) struct Source {
    /// What clients are told.
    pub(crate) described: Described,
    /// Its process.
    pub(crate) process: Process,
}

impl Source {
    /// Starts it and waits until it serves.
    pub(crate) async fn start(options: Options, dir: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("source");
        for (name, value) in [
            ("--calls", options.calls as u64),
            ("--parked", options.parked as u64),
            ("--bytes", options.bytes),
            ("--latency", options.latency),
        ] {
            command.args([name, &value.to_string()]);
        }
        let mut process = Process::start("source", &command, &dir.join("source.log"), true)?;
        let stdout = process.stdout()?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let described = serde_json::from_str(&line.await??).context("the source did not describe itself")?;
        Ok(Self { described, process })
    }
}
