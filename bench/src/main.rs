//! The test bench: each subcommand measures one thing, next to its peers and to what the machine could do then.

mod callers;
mod dedupe;
mod machine;
mod peers;
mod recording;
mod stats;

use clap::{Parser, Subcommand};

/// Measurements of nice-knovvu; run with `--release`.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum Benchmark {
    /// B3: durable claims, against redb, fjall and a bare append + fdatasync.
    Dedupe(dedupe::Options),
    /// B4: recordings of a gibibyte, through the running daemon.
    Recording(recording::Options),
    /// One engine of `dedupe`, driven over stdin; started by it, useful by hand under `strace -c -f`.
    #[command(hide = true)]
    DedupeEngine(dedupe::EngineOptions),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Dedupe(options) => dedupe::run(&options),
        Benchmark::Recording(options) => recording::run(&options),
        Benchmark::DedupeEngine(options) => dedupe::engine(&options),
    }
}
