//! Copies of one message: only one of them goes on.
//!
//! A deferral publishes the message again and then acknowledges the old one. If the broker has published it and its
//! confirm is lost, the old message comes again, and there are two. Each of them may be doubled again at its next
//! deferral. Each message counts its deferrals, so a copy can be recognised: a later message of the same line was
//! confirmed.
//!
//! # Contract
//! This process works on one message of a line at a time. A second one waits for some seconds, then goes back to the
//! queue for a while. A message whose successor was confirmed is a copy: it is acknowledged without work, for its
//! successor is on the queue. So each process lets one copy go on at each deferral, however many there are. Nothing is
//! dropped on suspicion: a copy that this process does not remember is worked on, and a finished call needs no work
//! twice.
//!
//! # After a crash
//! Nothing is kept, and the next deferral of each line is the first that is remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{ContactEvent, Key};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::delivery::{Hold, PutOff};

/// Lines whose last deferral is remembered, some 100 bytes each. Copies come within the delay of a deferral; more
/// waiting calls than this only means that a copy may be worked on.
const REMEMBERED: usize = 30_000;

/// How long a message waits for another one of its line: most calls are done by then. It holds up others that came off
/// the queue with it, so it does not wait longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lines of messages that this process has in hand or has deferred; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    inner: Arc<Mutex<LineTable>>,
}

/// All messages that one event became, at its enqueueing or at the replay of its dead letter, share a line.
type Line = Key;

#[derive(Debug, Default)]
struct LineTable {
    /// A permit each, for the one message that is worked on.
    in_hand: HashMap<Line, Arc<Semaphore>>,
    /// How often the last message that was confirmed has been deferred.
    confirmed: HashMap<Line, u32>,
    /// The lines of `confirmed`, in the order in which they were first deferred.
    order: VecDeque<Line>,
}

/// What becomes of a message that came off the queue.
#[derive(Debug)]
pub enum CopyCheck {
    /// It is worked on, and no other of its line until this is dropped.
    First(LineInHand),
    /// Another one of its line is worked on.
    Waits(LineInHand),
    /// Its successor is on the queue: the queue may forget it.
    Copy,
}

impl Copies {
    /// Waits for a moment until no other message of its line is in hand.
    pub async fn admit(&self, event: &ContactEvent) -> CopyCheck {
        let line = line(event);
        let turn = self.lock().in_hand.entry(line).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        let mut in_hand = LineInHand { copies: self.clone(), line, turn: Some(turn.clone()), permit: None };
        in_hand.permit = timeout(PATIENCE, turn.acquire_owned()).await.ok().and_then(Result::ok);
        let is_copy = self.lock().confirmed.get(&line).is_some_and(|confirmed| event.deferrals < *confirmed);
        match (is_copy, in_hand.permit.is_some()) {
            (true, _) => CopyCheck::Copy,
            (false, true) => CopyCheck::First(in_hand),
            (false, false) => CopyCheck::Waits(in_hand),
        }
    }

    fn confirm(&self, line: Line, deferrals: u32) {
        let mut state = self.lock();
        let is_new = match state.confirmed.get_mut(&line) {
            Some(confirmed) => {
                *confirmed = deferrals.max(*confirmed);
                false
            }
            None => state.confirmed.insert(line, deferrals).is_none(),
        };
        if is_new {
            state.order.push_back(line);
        }
        if state.order.len() > REMEMBERED
            && let Some(oldest) = state.order.pop_front()
        {
            state.confirmed.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LineTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that was put on the queue by itself has a line of its own, though others tell of the same call: a poll
/// knows more than the webhook before it.
fn line(event: &ContactEvent) -> Line {
    let queued_at = event.queued_at.map(|at| at.to_string()).unwrap_or_default();
    let traceparent = event.traceparent.as_deref().unwrap_or_default();
    let recheck = if event.recheck { "recheck" } else { "" };
    Line::of(&[&event.key().to_string(), traceparent, &queued_at, recheck])
}

/// A message that is no copy as far as this process knows.
#[derive(Debug)]
pub struct LineInHand {
    copies: Copies,
    line: Line,
    /// None while the last one is dropped.
    turn: Option<Arc<Semaphore>>,
    /// None for one that waits for another.
    permit: Option<OwnedSemaphorePermit>,
}

impl Hold for LineInHand {
    fn deferred(&self, item: &PutOff<'_>) {
        self.copies.confirm(self.line, item.event.deferrals);
    }
}

impl Drop for LineInHand {
    fn drop(&mut self) {
        let mut state = self.copies.lock();
        (self.permit, self.turn) = (None, None);
        // Those who wait hold it, too.
        if state.in_hand.get(&self.line).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            state.in_hand.remove(&self.line);
        }
    }
}

#[cfg(test)]
mod tests;
