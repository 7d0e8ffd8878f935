//! The test bench: each subcommand measures one thing, next to its peers and to what the machine could do then.

mod bed;
mod broker;
mod callers;
mod dedupe;
mod flow;
mod latency;
mod lines;
mod machine;
mod naive;
mod peers;
mod process;
mod program;
mod quota;
mod reconcile;
mod recording;
mod source;
mod stats;
mod watcher;

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
    /// B1: conversations from the queue to ready on real servers, against FastStream, Node and naive Rust.
    Flow(flow::Options),
    /// B2: how long one takes below saturation, and what waiting ones cost.
    Latency(latency::Options),
    /// B3: durable claims, against a bare append + fdatasync.
    Dedupe(dedupe::Options),
    /// B4: recordings of a gibibyte, through the running daemon.
    Recording(recording::Options),
    /// B5: a million listed ids against a store of ten million, killed on the way.
    Reconcile(reconcile::Options),
    /// B6: a quota that others share and whose shape is not told.
    Quota(quota::Options),
    /// Days of a misbehaving world in simulated time.
    Simulate(simulation::seeds::Options),
    /// One engine of `dedupe`, driven over stdin; started by it, useful by hand under `strace -c -f`.
    #[command(hide = true)]
    DedupeEngine(dedupe::EngineOptions),
    /// The store of `reconcile`; started by it.
    #[command(hide = true)]
    ReconcileWorker(reconcile::WorkerOptions),
    /// One program of `quota`; started by it.
    #[command(hide = true)]
    QuotaWorker(quota::WorkerOptions),
    /// NICE for `flow` and `latency`; started by them.
    #[command(hide = true)]
    Source(source::Options),
    /// The naive peer of `flow` and `latency`; started by them.
    #[command(hide = true)]
    Naive,
}

fn main() -> anyhow::Result<()> {
    // Every HTTP client asks for it.
    drop(rustls::crypto::ring::default_provider().install_default());
    match Arguments::parse().benchmark {
        Benchmark::Flow(options) => runtime()?.block_on(flow::run(&options)),
        Benchmark::Latency(options) => runtime()?.block_on(latency::run(&options)),
        Benchmark::Dedupe(options) => dedupe::run(&options),
        Benchmark::Recording(options) => recording::run(&options),
        Benchmark::Reconcile(options) => runtime()?.block_on(reconcile::run(&options)),
        Benchmark::Quota(options) => runtime()?.block_on(quota::run(&options)),
        Benchmark::Simulate(options) => simulation::seeds::simulate(&options),
        Benchmark::ReconcileWorker(options) => runtime()?.block_on(reconcile::worker(&options)),
        Benchmark::QuotaWorker(options) => runtime()?.block_on(quota::worker(&options)),
        Benchmark::DedupeEngine(options) => dedupe::engine(&options),
        Benchmark::Source(options) => runtime()?.block_on(source::serve(&options)),
        Benchmark::Naive => runtime()?.block_on(naive::run()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new()
}
