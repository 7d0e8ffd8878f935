//! Many callers at once, and the group commit that the bare file gets.
//!
//! The bench is fair if both see the same batches: each caller waits for its own id, and whatever waits while a
//! commit is under way goes into the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::peers::{Id, Raw};
use crate::stats::percentile;

/// As many as a caller may find in line; as in the store itself.
pub(crate) const BATCH_LIMIT: usize = 8192;

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

/// Something that ids can be claimed from, by any number of callers at once.
pub(crate) trait Target: Clone + Send + Sync + 'static {
    /// Whether the id was seen before; if not, makes it durable first. Measures nothing itself.
    fn claim(&self, id: Id) -> impl Future<Output = anyhow::Result<bool>> + Send;

    /// How many syncs there were so far.
    fn syncs(&self) -> u64;
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
                if target.claim(crate::peers::id(number)).await? {
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

/// A file behind a group commit.
#[derive(Clone)]
pub(crate) struct Grouped {
    file: Arc<Raw>,
    line: mpsc::Sender<(Id, oneshot::Sender<()>)>,
}

impl Grouped {
    pub(crate) fn new(file: Raw) -> anyhow::Result<Self> {
        let (line, mut waiting) = mpsc::channel::<(Id, oneshot::Sender<()>)>(4096);
        let file = Arc::new(file);
        let committing = Arc::clone(&file);
        std::thread::Builder::new().name("group-commit".to_owned()).spawn(move || {
            let (mut ids, mut replies) = (Vec::new(), Vec::new());
            while let Some((id, reply)) = waiting.blocking_recv() {
                ids.push(id);
                replies.push(reply);
                while ids.len() < BATCH_LIMIT
                    && let Ok((id, reply)) = waiting.try_recv()
                {
                    ids.push(id);
                    replies.push(reply);
                }
                if let Err(error) = committing.commit(&ids) {
                    eprintln!("the commit failed: {error:#}");
                    return;
                }
                ids.clear();
                for reply in replies.drain(..) {
                    reply.send(()).ok();
                }
            }
        })?;
        Ok(Self { file, line })
    }
}

impl Target for Grouped {
    async fn claim(&self, id: Id) -> anyhow::Result<bool> {
        if self.file.contains(&id) {
            return Ok(true);
        }
        let (reply, done) = oneshot::channel();
        self.line.send((id, reply)).await.context("the committer ended")?;
        done.await.context("the commit failed")?;
        Ok(false)
    }

    fn syncs(&self) -> u64 {
        self.file.syncs()
    }
}
