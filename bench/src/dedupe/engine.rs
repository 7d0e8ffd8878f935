//! One engine in a process of its own: opens, loads, and runs as often as it is told on stdin.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::callers::drive;
use crate::machine;
use crate::peers::{Grouped, Ours, Raw, Target};

/// What one engine is told.
#[derive(Debug, Args)]
pub(crate) struct EngineOptions {
    /// ours, raw or raw-recycled.
    #[arg(long)]
    engine: String,
    /// How many ids it loads first.
    #[arg(long, default_value_t = 0)]
    loaded: u64,
    /// Where its files go.
    #[arg(long)]
    dir: PathBuf,
}

/// Prints seconds to load, resident bytes an id, bytes on disk an id; then a line of figures for each line of orders
/// (`callers milliseconds`).
pub(crate) fn run(options: &EngineOptions) -> anyhow::Result<()> {
    let dir = options.dir.join(&options.engine);
    std::fs::create_dir_all(&dir)?;
    let (begin, resident) = (Instant::now(), machine::resident_bytes()?);
    let is_ring = match options.engine.as_str() {
        "ours" => {
            let ours = Ours::open(&dir)?;
            ours.load(options.loaded)?;
            return serve(ours, options, begin, resident);
        }
        "raw" => false,
        "raw-recycled" => true,
        other => bail!("no engine is called {other}"),
    };
    let raw = Raw::open(&dir, is_ring)?;
    raw.load(options.loaded);
    serve(Grouped::new(raw)?, options, begin, resident)
}

fn serve<T: Target>(target: T, options: &EngineOptions, begin: Instant, resident: u64) -> anyhow::Result<()> {
    let ids = options.loaded.max(1) as f64;
    let grown = machine::resident_bytes()?.saturating_sub(resident) as f64 / ids;
    let disk = machine::disk_bytes(&options.dir.join(&options.engine))? as f64 / ids;
    println!("{:.1} {grown:.1} {disk:.1}", begin.elapsed().as_secs_f64());

    let fresh = Arc::new(AtomicU64::new(options.loaded));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (callers, millis) = line.split_once(' ').context("an order is: callers milliseconds")?;
        let span = Duration::from_millis(millis.parse()?);
        let run = drive(target.clone(), callers.parse()?, span, options.loaded, Arc::clone(&fresh));
        let outcome = runtime.block_on(run)?;
        println!("{} {} {} {} {}", outcome.claims, outcome.commits, outcome.syncs, outcome.p50, outcome.p99);
    }
    Ok(())
}
