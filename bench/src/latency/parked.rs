//! What waiting conversations cost the daemon: resident memory idle, warm, and with thousands of calls not ready.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bed::{Bed, Common};
use crate::program::{Plan, Program, Running};

/// Before memory is read.
const CALM: Duration = Duration::from_secs(5);

/// Until all are parked.
const PATIENCE: Duration = Duration::from_secs(600);

/// Calls that go through first, so that what is allocated once is.
const WARM: usize = 1_000;

/// Prints the figures.
pub(super) async fn measure(bed: &Bed, common: &Common, parked: usize) -> anyhow::Result<()> {
    let plan = Plan { processes: 1, in_flight: common.in_flight, confirmed: None };
    let mut running = Running::start(bed, Program::Ours, common, &plan).await?;
    tokio::time::sleep(CALM).await;
    let idle = running.resident()?;
    let described = &bed.source.described;
    let warm: Vec<Vec<u8>> = described.calls.iter().take(WARM).map(|call| running.body(call)).collect();
    bed.broker.fill(&running.queue, &warm).await?;
    let begun = Instant::now();
    while running.done(bed).await? < warm.len() {
        running.check()?;
        ensure!(begun.elapsed() < PATIENCE, "the first conversations were not done");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(CALM).await;
    let before = running.resident()?;

    let bodies: Vec<Vec<u8>> = described.parked.iter().map(|call| running.body(call)).collect();
    bed.broker.fill(&running.queue, &bodies).await?;
    let prefix = running.queue.trim_end_matches("live").to_owned();
    let begun = Instant::now();
    while waiting(bed, &prefix).await < parked {
        running.check()?;
        ensure!(begun.elapsed() < PATIENCE, "not all conversations were parked");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(CALM).await;
    let after = running.resident()?;
    println!("consumer, resident: idle {:.1} MiB, after {WARM} conversations {:.1} MiB", mib(idle), mib(before));
    println!(
        "{parked} conversations parked as not ready within {seconds:.0} s: {:.1} MiB resident, {:.0} bytes for each",
        mib(after),
        (after - before) / parked as f64
    );
    running.stop().await?;

    let running = Running::start(bed, Program::OursWebhook, common, &plan).await?;
    tokio::time::sleep(CALM).await;
    let producer = running.processes.first().map_or(Ok(0.0), |process| process.resident())?;
    println!("producer, resident: idle {:.1} MiB", mib(producer));
    running.stop().await
}

/// Messages in the delay steps.
async fn waiting(bed: &Bed, prefix: &str) -> usize {
    let listed = bed.rabbitmq.ctl(&["list_queues", "--silent", "name", "messages"]).await;
    let steps = format!("{prefix}retry");
    let rows = listed.lines().filter_map(|line| line.split_once('\t'));
    rows.filter(|(name, _)| name.starts_with(&steps)).filter_map(|(_, count)| count.trim().parse::<usize>().ok()).sum()
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
