//! Moves what waits on one queue to another: what a site does that changes its queue.
//!
//! Each message is published as it is, on the lane of its event, and acknowledged once the other queue has confirmed
//! it. What cannot be read, or has come back too often, is moved like the rest: a consumer of the other queue sees to it.
//!
//! # After a crash
//! What was not acknowledged comes again, and the next run goes on. A message that was confirmed and not acknowledged
//! is on both queues, and is published twice: for the consumers it is a copy, which has no effect of its own.
//!
//! # The end
//! Messages in a delay step are moved when they are due; the longest step is an hour. The move is done when the queue
//! is empty, and stays so for some looks: a message that goes from its step to its lane may be in neither for a moment.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use model::{ContactEvent, Lane};
use queue::{Backlog, Queue, QueueDelivery, QueueError};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Messages in hand at a time: enough to fill the batches of either queue, and some hundred KiB of memory.
const AT_ONCE: usize = 64;

/// Time between two looks at how much is left.
const LOOK: Duration = Duration::from_secs(1);

/// Looks in a row that must find nothing.
const QUIET_LOOKS: u32 = 5;

/// How long one answer of a queue may take. RabbitMQ that is short of memory says nothing until it has some.
const ANSWER: Duration = Duration::from_secs(30);

/// The pause before a message that was not taken is offered again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a queue may fail before the move gives up. A broker that restarts is back by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the end of a move waits for the messages in hand.
const GRACE: Duration = Duration::from_secs(10);

/// How far a move has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MoveProgress {
    /// Messages that the other queue has confirmed on its lane for fresh calls.
    pub live: u64,
    /// The same on the lane `backfill`.
    pub backfill: u64,
    /// Those of `live` that could not be read; there they become dead letters.
    pub unreadable: u64,
    /// Messages of both that were not acknowledged: they come again, and are published twice.
    pub repeated: u64,
    /// What is left, as it was last counted.
    pub left: Backlog,
    /// Whether nothing is left.
    pub is_done: bool,
}

impl MoveProgress {
    /// Messages that the other queue has confirmed.
    pub fn moved(&self) -> u64 {
        self.live + self.backfill
    }
}

/// The move did not come to its end; the next one goes on.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct MoveFailure {
    /// How far it came.
    pub progress: MoveProgress,
    reason: String,
}

/// What became of a message.
enum Carried {
    /// The other queue has it.
    Over { lane: Lane, is_readable: bool, is_settled: bool },
    /// The other queue did not take it; it is still in hand.
    Refused { delivery: QueueDelivery, error: QueueError },
    /// The queue has taken it back.
    Lost,
}

/// Moves everything from `from` to `to`, until nothing is left or `stopping` is set; `is_done` tells which. `tell` is
/// called about once in a second. Nobody else may publish to `from`, and whoever else takes from it must have ended:
/// what they hold comes back then, and is moved too.
pub async fn move_messages(
    from: Arc<dyn Queue>,
    to: Arc<dyn Queue>,
    stopping: &CancellationToken,
    tell: impl FnMut(&MoveProgress),
) -> Result<MoveProgress, MoveFailure> {
    move_at(Pace { look: LOOK, pause: PAUSE, patience: PATIENCE }, from, to, stopping, tell).await
}

/// How long a move waits for what.
#[derive(Debug, Clone, Copy)]
struct Pace {
    look: Duration,
    pause: Duration,
    patience: Duration,
}

async fn move_at(
    pace: Pace,
    from: Arc<dyn Queue>,
    to: Arc<dyn Queue>,
    stopping: &CancellationToken,
    mut tell: impl FnMut(&MoveProgress),
) -> Result<MoveProgress, MoveFailure> {
    let mut progress = MoveProgress::default();
    let mut deliveries = from.deliveries(AT_ONCE);
    let mut looks = looks(from, pace.look);
    let mut in_hand = FuturesUnordered::new();
    // Looks in a row that found nothing, while nothing came.
    let mut quiet_looks = 0;
    let (mut last_over, mut last_look) = (Instant::now(), Instant::now());
    let ended = loop {
        tokio::select! {
            () = stopping.cancelled() => break Ok(()),
            next = deliveries.next(), if in_hand.len() < AT_ONCE => {
                if in_hand.is_empty() {
                    last_over = Instant::now();
                }
                quiet_looks = 0;
                match next {
                    Some(Ok(delivery)) => in_hand.push(carry(to.clone(), delivery, Duration::ZERO)),
                    Some(Err(error)) => break Err(format!("nothing more can be taken: {error}")),
                    None => break Err("nothing more can be taken: the queue was closed".to_owned()),
                }
            }
            Some(carried) = in_hand.next() => match carried {
                Carried::Refused { error, .. } if last_over.elapsed() > pace.patience => {
                    break Err(format!("the other queue takes nothing: {error}"));
                }
                Carried::Refused { delivery, error } => {
                    warn!(%error, delay_secs = pace.pause.as_secs(), "message not moved, will retry");
                    in_hand.push(carry(to.clone(), delivery, pace.pause));
                }
                carried => {
                    last_over = Instant::now();
                    note(&mut progress, &carried);
                }
            },
            Some(look) = looks.next() => match look {
                Ok(left) => {
                    (last_look, progress.left) = (Instant::now(), left);
                    let is_quiet = in_hand.is_empty() && left == Backlog::default();
                    quiet_looks = if is_quiet { quiet_looks + 1 } else { 0 };
                    progress.is_done = quiet_looks >= QUIET_LOOKS;
                    tell(&progress);
                    if progress.is_done {
                        break Ok(());
                    }
                }
                Err(error) if last_look.elapsed() > pace.patience => {
                    break Err(format!("what is left cannot be counted: {error}"));
                }
                Err(error) => warn!(%error, "what is left is not counted, will ask again"),
            },
        }
    };
    // What is not done by then is handed back when it is dropped.
    let finish = async {
        while let Some(carried) = in_hand.next().await {
            note(&mut progress, &carried);
        }
    };
    drop(timeout(GRACE, finish).await);
    ended.map(|()| progress).map_err(|reason| MoveFailure { progress, reason })
}

/// Counts what is left, again and again.
fn looks(from: Arc<dyn Queue>, pause: Duration) -> BoxStream<'static, Result<Backlog, QueueError>> {
    let look = move |from: Arc<dyn Queue>| async move {
        sleep(pause).await;
        Some((in_time(from.backlog()).await, from))
    };
    stream::unfold(from, look).boxed()
}

/// Brings one message over, after a pause.
async fn carry(to: Arc<dyn Queue>, delivery: QueueDelivery, pause: Duration) -> Carried {
    if delivery.lost.run_until_cancelled(sleep(pause)).await.is_none() {
        return Carried::Lost;
    }
    let event = ContactEvent::decode(&delivery.body);
    let lane = event.as_ref().map_or(Lane::Live, Lane::of);
    if let Err(error) = in_time(to.publish(lane, delivery.body.clone())).await {
        return Carried::Refused { delivery, error };
    }
    let acknowledged = timeout(ANSWER, delivery.settle.ack()).await;
    if let Ok(Err(error)) = &acknowledged {
        warn!(%error, "moved message not acknowledged, it comes again");
    }
    Carried::Over { lane, is_readable: event.is_ok(), is_settled: matches!(acknowledged, Ok(Ok(()))) }
}

/// What a queue answers, if it does.
async fn in_time<T>(answer: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    let late = |_| QueueError(format!("no answer within {} s", ANSWER.as_secs()));
    timeout(ANSWER, answer).await.map_err(late)?
}

fn note(progress: &mut MoveProgress, carried: &Carried) {
    let Carried::Over { lane, is_readable, is_settled } = carried else { return };
    match lane {
        Lane::Live => progress.live += 1,
        Lane::Backfill => progress.backfill += 1,
    }
    progress.unreadable += u64::from(!is_readable);
    progress.repeated += u64::from(!is_settled);
}

#[cfg(test)]
mod tests;
