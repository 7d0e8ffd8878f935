//! Writes down what became of an item: in its timeline, on the shelf, in the log and in the counters.

use std::time::Duration;

use model::{ContactEvent, DeadLetter, Hop, Settle, TenantId};
use tracing::{error, warn};

use super::{FlowContext, JournalError};

/// What a stage made of an item, as its timeline tells it.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// The stage.
    pub stage: &'static str,
    /// One of [`super::metrics::OUTCOMES`].
    pub outcome: &'static str,
    /// Why, where the outcome asks for it.
    pub detail: Option<&'a str>,
    /// How long the stage worked on it.
    pub took: Duration,
}

/// How a recheck ends that failed for good: the row is final and stays as it is.
pub const RECHECK_GIVEN_UP: &str = "recheck_given_up";

impl FlowContext {
    /// Adds a line to the timeline of an item, and counts it.
    pub async fn tell(&self, event: &ContactEvent, ending: Ending<'_>) {
        let Ending { stage, outcome, detail, took } = ending;
        let hop = Hop {
            at: self.clock.now(),
            stage: stage.to_owned(),
            outcome: outcome.to_owned(),
            attempt: event.attempt,
            took_millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            detail: detail.map(str::to_owned),
        };
        self.journal.record_hop(&event.key(), hop).await;
        self.metrics.stage_finished(stage, outcome, took);
    }

    /// The same for an item that waits for its turn: only some of its waits are added to the timeline.
    pub async fn tell_of_waiting(
        &self,
        event: &ContactEvent,
        stage: &'static str,
        reason: &str,
        wait: Duration,
        took: Duration,
    ) {
        match is_told(event.busy_secs, wait) {
            true => self.tell(event, Ending { stage, outcome: "busy", detail: Some(reason), took }).await,
            false => self.metrics.stage_finished(stage, "busy", took),
        }
    }

    /// Puts a letter on the shelf and logs it. Once this returns without an error, the message may be acknowledged:
    /// after a crash in between the same letter is written again.
    pub async fn shelve(&self, stage: &'static str, letter: DeadLetter) -> Result<(), JournalError> {
        let (reason, tenant) = (letter.reason.clone(), letter.tenant_id.clone());
        if self.journal.add_dead_letter(letter).await? {
            error!(reason, stage, "dead letter");
            self.metrics.dead_letters.with_label_values(&[stage]).inc();
            // What a message that cannot be read calls its tenant is anybody's word.
            if let Some(tenant) = tenant.and_then(|tenant| tenant.parse::<TenantId>().ok()) {
                self.metrics.call_finished(tenant.as_str(), "dead");
            }
        }
        Ok(())
    }

    /// Notes that a recheck failed for good. It leaves no dead letter, because the row stays.
    pub async fn give_recheck_up(&self, event: &ContactEvent, stage: &'static str, reason: &str, took: Duration) {
        warn!(reason, stage, "recheck given up, the call stays as it is");
        let detail = format!("{RECHECK_GIVEN_UP}: {reason}");
        self.tell(event, Ending { stage, outcome: "done", detail: Some(&detail), took }).await;
        self.metrics.conversations_done.with_label_values(&[RECHECK_GIVEN_UP]).inc();
    }

    /// Repeats `work` with growing delays until it succeeds; none when the service drains first. `failed` says in the
    /// log what does not work.
    pub async fn insist<T, E: std::fmt::Display, Working: Future<Output = Result<T, E>>>(
        &self,
        failed: &'static str,
        mut work: impl FnMut() -> Working,
    ) -> Option<T> {
        let mut intervals = self.retry.intervals();
        loop {
            match work().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    let delay = self.retry.next(&mut intervals);
                    warn!(%error, delay_secs = delay.as_secs_f64(), "{failed}, will retry");
                    self.stopping.run_until_cancelled(tokio::time::sleep(delay)).await?;
                }
            }
        }
    }
}

/// How often the timeline tells of a call that waits for its turn, which may be for hours and in many short waits.
const TOLD_EVERY_SECS: u64 = 600;

/// Whether a wait is told of: the first one, and then one in ten minutes.
fn is_told(waited_secs: u64, wait: Duration) -> bool {
    let after = waited_secs.saturating_add(wait.as_secs().max(1));
    waited_secs == 0 || waited_secs / TOLD_EVERY_SECS != after / TOLD_EVERY_SECS
}

/// Acknowledges a message; if that fails, it will come again.
pub async fn acknowledge(settle: Box<dyn Settle>) {
    if let Err(error) = settle.ack().await {
        warn!(%error, "acknowledgement failed, the message will come again");
    }
}
