//! Many callers at once, each of which waits for its own id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::peers::{Target, id};
use crate::stats::percentile;

/// The share of ids that were seen before, in percent.
const SEEN_PERCENT: u64 = 30;

/// One run of one engine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Claims answered in a second, seen or durable.
    pub(crate) claims: f64,
    /// New ids made durable in a second.
    pub(crate) commits: f64,
    /// Syncs in a second.
    pub(crate) syncs: f64,
    /// Microseconds within which half of the commits were done.
    pub(crate) p50: u32,
    /// Microseconds within which 99 of 100 commits were done.
    pub(crate) p99: u32,
}

/// Lets `callers` tasks claim ids for `span`, 30 % of them out of the `loaded` first ones.
pub(crate) async fn drive<T: Target>(
    target: T,
    callers: u64,
    span: Duration,
    loaded: u64,
    fresh: Arc<AtomicU64>,
) -> anyhow::Result<Outcome> {
    let (begin, syncs_before) = (Instant::now(), target.syncs());
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (target, fresh) = (target.clone(), Arc::clone(&fresh));
        tasks.spawn(async move {
            let mut chance = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let (mut seen, mut latencies) = (0u64, Vec::new());
            while begin.elapsed() < span {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                let known = chance % 100 < SEEN_PERCENT && loaded > 0;
                let number = if known { (chance >> 8) % loaded } else { fresh.fetch_add(1, Ordering::Relaxed) };
                let asked = Instant::now();
                if target.claim(id(number)).await? {
                    seen += 1;
                    anyhow::ensure!(known, "id {number} was new and is said to be seen");
                } else {
                    anyhow::ensure!(!known, "id {number} was seen and is said to be new");
                    latencies.push(asked.elapsed().as_micros() as u32);
                }
            }
            Ok::<_, anyhow::Error>((seen, latencies))
        });
    }
    let (mut seen, mut latencies) = (0, Vec::new());
    while let Some(task) = tasks.join_next().await {
        let (of_task, mut own) = task.context("a caller panicked")??;
        seen += of_task;
        latencies.append(&mut own);
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Outcome {
        claims: (seen as f64 + latencies.len() as f64) / seconds,
        commits: latencies.len() as f64 / seconds,
        syncs: (target.syncs() - syncs_before) as f64 / seconds,
        p50: percentile(&mut latencies, 0.5),
        p99: percentile(&mut latencies, 0.99),
    })
}
