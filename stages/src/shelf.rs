//! The shelf of dead letters: what was set aside for a system's failures goes back to the queue by itself.
//!
//! In: the letters of passing causes whose time has come. Out: their messages, on the lane of replays, as if they were
//! new. A letter whose system still fails stays; one that comes back waits longer each time, a day at most. What is
//! older than the settings allow is dropped, and counted.
//!
//! # After a crash
//! A message is on the queue before its letter is gone: both may be there, and the second one finds the call finished.

use std::sync::Arc;
use std::time::Duration;

use catalog::{CatalogError, DeadLetters, Timelines};
use flow::{Blame, Outside};
use jiff::Timestamp;
use model::{ContactEvent, DeadLetter, Hop, Lane, MessageError, System, Troubles};
use queue::{Queue, QueueError};
use runtime::{Clock, chance};
use tracing::{info, warn};

use crate::metrics::Metrics;

/// Time between two looks at the shelf.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Letters that go back at one look.
const MOST_AT_ONCE: usize = 100;

/// Pages of letters that are looked through at one look.
const MOST_PAGES: usize = 100;

/// Looks between two that drop what is too old: an hour.
const LOOKS_PER_CLEARING: u32 = 60;

/// Why a letter does not go back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its message cannot be read.
    #[error("dead letter {0} cannot be replayed: {1}; drop it")]
    Unreadable(u64, MessageError),
    /// The queue did not take it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It is on the queue, and stands on the shelf still.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Who asks for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// An operator: whatever kept the call from its way is mended.
    Operator,
    /// Nobody: it was time.
    Itself,
}

/// Puts a dead letter's message back on the queue, behind fresh calls, as if it were new; then takes it off the shelf.
/// False if it stays there, because the conversation has failed again already.
pub async fn replay(
    letter: &DeadLetter,
    asked_by: AskedBy,
    letters: &dyn DeadLetters,
    timelines: &dyn Timelines,
    queue: &dyn Queue,
    now: Timestamp,
) -> Result<bool, ReplayError> {
    let event = ContactEvent::decode(letter.message.to_string().as_bytes());
    let mut event = event.map_err(|error| ReplayError::Unreadable(letter.id, error))?;
    (event.attempt, event.deferrals) = (0, 0);
    event.not_ready = 0;
    event.unknown = 0;
    event.troubles = Troubles::default();
    event.awaited_millis = 0;
    event.replays = match asked_by {
        AskedBy::Operator => 0,
        AskedBy::Itself => event.replays.saturating_add(1),
    };
    event.late = true;
    event.first_queued_at = event.first_queued_at.or(event.queued_at);
    event.queued_at = Some(now);
    queue.publish(Lane::of(&event), event.encode().into()).await?;
    // Until a stage says more, the timeline's last word would be that it was set aside.
    let (stage, outcome) = ("enqueue".to_owned(), "ok".to_owned());
    let detail = Some("dead letter replayed".to_owned());
    timelines.record_hop(&event.key(), Hop { at: now, stage, outcome, attempt: 0, took_millis: 0, detail }).await;
    let removed = letters.remove_dead_letter(letter).await?;
    info!(dead_letter = letter.id, conversation.id = %event.conversation, "dead letter replayed");
    Ok(removed)
}

/// Looks after the shelf.
pub struct DeadLetterReplayer {
    /// What stands on it.
    pub letters: Arc<dyn DeadLetters>,
    /// Where it is told that a letter went back.
    pub timelines: Arc<dyn Timelines>,
    /// Where the messages go.
    pub queue: Arc<dyn Queue>,
    /// Whether a system is away.
    pub outside: Outside,
    /// Whether it fails for a tenant.
    pub blame: Blame,
    /// How long a letter may stand.
    pub longest: Duration,
    /// The time.
    pub clock: Clock,
    /// Counts what went back and what was dropped.
    pub metrics: Metrics,
}

impl DeadLetterReplayer {
    /// Looks again and again, until it is dropped.
    pub async fn run(self) {
        for looks in 0_u32.. {
            tokio::time::sleep(LOOK_EVERY.mul_f64(chance::range(0.8..1.2))).await;
            if let Err(error) = self.look().await {
                warn!(%error, "dead letters not looked through, the next look follows");
            }
            if looks.is_multiple_of(LOOKS_PER_CLEARING)
                && let Err(error) = self.clear().await
            {
                warn!(%error, "old dead letters not dropped, will retry");
            }
        }
    }

    /// Sends back what is due, and counts it.
    pub async fn look(&self) -> Result<usize, ReplayError> {
        let now = self.clock.now();
        let mut replayed = 0;
        let mut after = None;
        // Those that stay, since their system fails, do not stand in the way of the others.
        for _ in 0..MOST_PAGES {
            let page = self.letters.due_dead_letters(now, after, MOST_AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            after = last.replay_at.map(|at| (at, last.id));
            for letter in page.iter().filter(|letter| !self.fails_still(letter, now)) {
                let (letters, timelines) = (&*self.letters, &*self.timelines);
                match replay(letter, AskedBy::Itself, letters, timelines, &*self.queue, now).await {
                    Ok(_) => {
                        replayed += 1;
                        self.metrics.dead_letters_replayed.inc();
                    }
                    // One that cannot be read is a person's.
                    Err(error @ ReplayError::Unreadable(..)) => warn!(%error, "dead letter stays"),
                    Err(error) => return Err(error),
                }
            }
            if replayed >= MOST_AT_ONCE {
                break;
            }
        }
        Ok(replayed)
    }

    fn fails_still(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        match letter.cause {
            Some(system) if system.is_shared() => self.outside.is_down(system),
            Some(System::Nice | System::MediaHost | System::Call) => {
                letter.key().is_some_and(|key| self.blame.fails(&letter.stage, &key.tenant, now))
            }
            _ => true,
        }
    }

    /// Drops what stands for too long, and counts it.
    pub async fn clear(&self) -> Result<u64, CatalogError> {
        let Ok(before) = self.clock.now().checked_sub(self.longest) else { return Ok(0) };
        let dropped = self.letters.drop_dead_letters(before).await?;
        if dropped > 0 {
            warn!(count = dropped, "dead letters dropped that stood for longer than [retry] dead_letter_age");
            self.metrics.dead_letters_dropped.inc_by(dropped);
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests;
