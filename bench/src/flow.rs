//! B1, flow: from events to the analysis queue on real servers, our daemon and its peers in turn.
//!
//! Work waits in the queue while the program stands frozen before it; then it is let go, and timed until the last
//! conversation is in the analysis queue. So starts and the filling of queues are in nobody's figures. With
//! `ours-webhook` there is no gate: events go in through the producer while conversations come out.

mod measure;
mod report;

use std::path::Path;

use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

pub(crate) use measure::{Outcome, Work, measure};

use crate::bed::{Bed, Common};
use crate::machine;
use crate::program::{Plan, Program, QueueServer};
use crate::source;
use report::Report;

/// The share of events that tell of a call a second time, in percent.
const DUPLICATES_PERCENT: usize = 30;

/// What `bench flow` may be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Events; 30 % of them are repeats, which only our daemon is given
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// How often each program runs, in turn with the others
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How our daemon runs: ours, ours-webhook
    #[arg(long, num_args = 0.., value_delimiter = ',', default_value = "ours,ours-webhook")]
    ours: Vec<Program>,
    /// The queues of our daemon, in turn: rabbitmq, fluvio; the peers use RabbitMQ
    #[arg(long, value_delimiter = ',', default_value = "rabbitmq")]
    queue: Vec<QueueServer>,
    /// The peers: faststream, node, naive
    #[arg(long, num_args = 0.., value_delimiter = ',', default_value = "faststream,node,naive")]
    peers: Vec<Program>,
    /// Consumer processes of each program
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    processes: Vec<usize>,
    /// Milliseconds that each answer of NICE takes at least; each value is a table of its own
    #[arg(long, value_delimiter = ',', default_value = "0,50")]
    latencies: Vec<u64>,
    /// Events of the pass under strace that counts syncs; 0 leaves it out
    #[arg(long, default_value_t = 2_000)]
    sync_calls: usize,
    /// The seed of the repeats
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures and prints a table for each latency.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = options.common.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let ours = options.queue.iter().flat_map(|queue| options.ours.iter().map(|program| program.on(*queue)));
    let programs: Vec<Program> = ours.chain(options.peers.iter().copied()).collect();
    for program in &programs {
        program.prepare(&options.common)?;
    }
    for &latency in &options.latencies {
        let bed = match options.queue.contains(&QueueServer::Fluvio) {
            true => Bed::start_with_fluvio(&dir, of_nice(options, latency)).await?,
            false => Bed::start(&dir, of_nice(options, latency)).await?,
        };
        let report = rounds(options, &programs, bed, &dir, latency).await?;
        report.print();
    }
    Ok(())
}

fn of_nice(options: &Options, latency: u64) -> source::Options {
    source::Options { calls: unique(options.calls), parked: 0, bytes: options.common.bytes, latency }
}

async fn rounds(
    options: &Options,
    programs: &[Program],
    mut bed: Bed,
    dir: &Path,
    latency: u64,
) -> anyhow::Result<Report> {
    let work = Work::new(&bed, options.calls, options.seed);
    let mut report = Report::new(work.unique.len(), work.events.len(), options.common.bytes, latency);
    for &processes in &options.processes {
        let plan = Plan { processes, in_flight: options.common.in_flight, confirmed: None };
        for round in 0..options.rounds {
            bed.renew_store().await;
            report.machine(machine::load_average()?, machine::syncs_per_second(dir)?);
            for program in in_turn(programs, round) {
                let outcome = measure(&bed, program, &options.common, &plan, &work, false).await?;
                report.ran(program, processes, outcome);
            }
        }
    }
    if options.sync_calls > 0 {
        let work = Work::new(&bed, options.sync_calls.min(options.calls), options.seed);
        let plan = Plan { processes: 1, in_flight: options.common.in_flight, confirmed: None };
        for &program in programs {
            let outcome = measure(&bed, program, &options.common, &plan, &work, true).await?;
            report.counted(program, outcome);
        }
    }
    Ok(report)
}

/// A B C, then B C A: nobody always runs first.
fn in_turn(programs: &[Program], round: usize) -> Vec<Program> {
    let mut programs = programs.to_vec();
    let places = programs.len().max(1);
    programs.rotate_left(round % places);
    programs
}

/// How many calls so many events tell of.
fn unique(events: usize) -> usize {
    events - events * DUPLICATES_PERCENT / 100
}

impl Work {
    /// The first calls of the source; our daemon hears of some of them twice, in any order.
    pub(crate) fn new(bed: &Bed, events: usize, seed: u64) -> Self {
        let unique = bed.source.described.calls.iter().take(unique(events)).cloned().collect::<Vec<_>>();
        let mut chance = StdRng::seed_from_u64(seed);
        let again = (unique.len()..events).filter_map(|_| unique.choose(&mut chance).cloned());
        let mut events: Vec<_> = unique.iter().cloned().chain(again.collect::<Vec<_>>()).collect();
        events.shuffle(&mut chance);
        Self { unique, events }
    }
}
