//! B2, latency: how long a conversation takes when the machine is not full, and what waiting ones cost.
//!
//! Open loop: events come as a Poisson process, whether or not the program keeps up, and the clock of each runs from
//! the moment it was meant to be sent. It stops at the analysis entry: for our daemon when PostgreSQL announces the
//! committed row, for a peer when its publish is confirmed. The floor is the naive peer with one conversation at a
//! time and nothing else on the machine: the sum of the same round trips and syncs, bare.

mod open_loop;
mod parked;

use clap::Args;

use crate::bed::{Bed, Common};
use crate::flow::{self, Work};
use crate::machine;
use crate::program::{Plan, Program};
use crate::source;
use crate::stats::percentile;
use open_loop::{Latencies, one_by_one, open_loop};

/// A saturation beyond this must be named, since the calls are placed before it is measured.
const MOST_A_SECOND: f64 = 3_000.0;

/// What `bench latency` may be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How our daemon runs: ours, ours-webhook
    #[arg(long, default_value = "ours")]
    ours: Program,
    /// The peers, at the same rates: faststream, node, naive
    #[arg(long, num_args = 0.., value_delimiter = ',', default_value = "faststream,node,naive")]
    peers: Vec<Program>,
    /// Conversations a second that our daemon reaches at most; measured unless named
    #[arg(long)]
    saturation: Option<f64>,
    /// Events of that measurement
    #[arg(long, default_value_t = 6_000)]
    saturation_calls: usize,
    /// Shares of it, in percent
    #[arg(long, value_delimiter = ',', default_value = "10,30,50")]
    shares: Vec<u32>,
    /// Seconds at each share
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Milliseconds that each answer of NICE takes at least; each value is a table of its own
    #[arg(long, value_delimiter = ',', default_value = "0,50")]
    latencies: Vec<u64>,
    /// Conversations of the floor
    #[arg(long, default_value_t = 300)]
    floor_calls: usize,
    /// Conversations parked as not ready; 0 leaves it out
    #[arg(long, default_value_t = 10_000)]
    parked: usize,
    /// The seed of the arrivals
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures and prints a table for each latency of NICE, then the memory of waiting conversations.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = options.common.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let programs: Vec<Program> = [options.ours].iter().chain(&options.peers).copied().collect();
    for program in &programs {
        program.prepare(&options.common)?;
    }
    for (index, &latency) in options.latencies.iter().enumerate() {
        let most =
            options.saturation.unwrap_or(MOST_A_SECOND) * f64::from(options.shares.iter().copied().max().unwrap_or(0));
        let calls = (most / 100.0 * options.seconds as f64 * 1.2) as usize + options.floor_calls;
        let calls = calls.max(options.saturation_calls);
        let parked = if index == 0 { options.parked } else { 0 };
        let mut bed = Bed::start(&dir, source::Options { calls, parked, bytes: options.common.bytes, latency }).await?;
        println!();
        println!(
            "{} bytes a recording; NICE answers after {latency} ms; load average {}; bare page + fdatasync {:.0}/s",
            options.common.bytes,
            machine::load_average()?,
            machine::syncs_per_second(&dir)?
        );
        if parked > 0 {
            parked::measure(&bed, &options.common, parked).await?;
        }
        table(options, &programs, &mut bed).await?;
    }
    Ok(())
}

async fn table(options: &Options, programs: &[Program], bed: &mut Bed) -> anyhow::Result<()> {
    let common = &options.common;
    let saturation = match options.saturation {
        Some(saturation) => saturation,
        None => {
            let plan = Plan { processes: 1, in_flight: common.in_flight, confirmed: None };
            let work = Work::new(bed, options.saturation_calls, options.seed);
            flow::measure(bed, options.ours, common, &plan, &work, false).await?.rate.min(MOST_A_SECOND)
        }
    };
    let mut floor = one_by_one(bed, common, options.floor_calls).await?;
    let floor_p50 = f64::from(percentile(&mut floor, 0.5));
    println!("our daemon's saturation: {saturation:.0} conversations/s");
    println!("floor, one by one and bare: p50 {:.1} ms, p99 {:.1} ms", floor_p50 / 1000.0, millis(&mut floor, 0.99));
    println!();
    println!("| share | rate/s | program | p50 ms | p99 ms | p99.9 ms | p50 of floor | p99 of floor | not done |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for &share in &options.shares {
        let rate = saturation * f64::from(share) / 100.0;
        for &program in programs {
            let Latencies { mut micros, missing } =
                open_loop(bed, program, common, rate, options.seconds, options.seed).await?;
            let of_floor = |value: u32| f64::from(value) / floor_p50.max(1.0);
            println!(
                "| {share} % | {rate:.0} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {missing} |",
                program.name(),
                millis(&mut micros, 0.5),
                millis(&mut micros, 0.99),
                millis(&mut micros, 0.999),
                of_floor(percentile(&mut micros, 0.5)),
                of_floor(percentile(&mut micros, 0.99)),
            );
        }
        bed.renew_store().await;
    }
    println!();
    println!("Not done: conversations without an analysis entry 30 s after the last event; where there are any, the");
    println!("program does not keep up with this rate, and its percentiles only tell when the run was over.");
    Ok(())
}

fn millis(micros: &mut [u32], share: f64) -> f64 {
    f64::from(percentile(micros, share)) / 1000.0
}
