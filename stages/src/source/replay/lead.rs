//! How far a backfill runs ahead of the consumers: the queue stays short, and a pause takes effect soon.

use std::time::Duration;

use catalog::{ReplayRun, RunKind};

use super::{LEAD, ReplayWorker, progress::ReplayProgress, stop::Stop};

/// How often a backfill that waits for the consumers looks again at the queue, which is cheap.
const LOOK: Duration = Duration::from_secs(1);

/// And at what became of the calls that it published last.
const LOOKS_PER_COMPARISON: u32 = 5;

impl ReplayWorker {
    /// How many calls may be published now; waits until it is at least one.
    pub(super) async fn lead(&self, run: &ReplayRun, progress: &mut ReplayProgress) -> Result<u64, Stop> {
        if run.kind != RunKind::Backfill || !self.has_consumers {
            return Ok(LEAD);
        }
        for look in 0_u32.. {
            let backlog = self.queue.backlog().await?;
            // A call that finds no room in the quota waits in a delay step, among other calls.
            let mut ahead = backlog.backfill + backlog.delayed + backlog.in_flight;
            if ahead >= LEAD && look.is_multiple_of(LOOKS_PER_COMPARISON) {
                ahead = progress.on_their_way(&self.compare).await?;
            }
            if ahead < LEAD {
                return Ok(LEAD - ahead);
            }
            // Operators see how far it is, and it ends here if one of them has changed the run.
            let told = ReplayRun { sending: progress.sent(), ..run.clone() };
            self.save(&told, run.state).await?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(LEAD)
    }
}
