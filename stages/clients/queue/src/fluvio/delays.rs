//! What is not due yet: the records of a delay step, each held until its time, with one timer for all.
//!
//! A record says when it is due by the clock of whoever published it. Here it waits at most as long as its step, from
//! when it was read: so a clock that runs ahead holds nothing up for longer. What is due does not wait behind what is
//! not, as far as both are in memory; of a step of which more waits than that, the later ones are read as the first are
//! due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backoff::backoff::Backoff;
use futures::future::join_all;
use runtime::Clock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::context::QueueContext;
use super::log::TopicRecord;
use super::partition::OwnedPartition;
use super::publisher::DelayKey;
use crate::retry::{LongFailure, intervals, pause};

/// Records that go to their lanes together.
const MOST_AT_ONCE: usize = 256;

/// The records of a step that were read and are not due.
#[derive(Default)]
pub(super) struct HeldRecords {
    held: Mutex<BTreeMap<(Instant, i64), TopicRecord>>,
    changed: Notify,
}

impl HeldRecords {
    fn held(&self) -> MutexGuard<'_, BTreeMap<(Instant, i64), TopicRecord>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a record until it is due.
    pub(super) fn hold(&self, record: TopicRecord, step: Duration, clock: &Clock) {
        // One that was put here by somebody else is due at once.
        let wait = DelayKey::decode(&record.key)
            .map_or(Duration::ZERO, |key| Duration::try_from(key.due.duration_since(clock.now())).unwrap_or_default());
        self.held().insert((Instant::now() + wait.min(step), record.offset), record);
        self.changed.notify_waiters();
    }

    /// Waits until something is due, and takes it out.
    async fn due(&self) -> Vec<TopicRecord> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let (now, mut due) = (Instant::now(), Vec::new());
            let next = {
                let mut held = self.held();
                loop {
                    match held.first_entry() {
                        Some(first) if first.key().0 > now || due.len() == MOST_AT_ONCE => break Some(first.key().0),
                        Some(first) => due.push(first.remove()),
                        None => break None,
                    }
                }
            };
            if !due.is_empty() {
                return due;
            }
            match next {
                Some(next) => tokio::select! { () = sleep_until(next) => {} () = changed => {} },
                None => changed.await,
            }
        }
    }
}

/// Sends what is due to its lane, and settles it then: a crash in between leaves both, never none.
pub(super) async fn release(context: Arc<QueueContext>, owned: Arc<OwnedPartition>, held: Arc<HeldRecords>) {
    let (mut intervals, mut trouble) = (intervals(), LongFailure::default());
    loop {
        let mut due = held.due().await;
        while !due.is_empty() {
            let sent = join_all(due.iter().map(|record| context.publisher.release(record))).await;
            let mut failed = None;
            let mut left = Vec::new();
            for (record, sent) in due.into_iter().zip(sent) {
                match sent {
                    // One that is lost is the next owner's.
                    Ok(()) => drop(owned.settle(record.offset)),
                    Err(error) => {
                        failed = Some(error);
                        left.push(record);
                    }
                }
            }
            due = left;
            match failed {
                None => {
                    Backoff::reset(&mut intervals);
                    trouble.is_over();
                }
                Some(error) => {
                    let (topic, count) = (&*owned.partition.topic, due.len());
                    match trouble.failed() {
                        true => warn!(topic, count, %error, "messages that are due are not on their lane, trying on"),
                        false => debug!(topic, count, %error, "messages that are due are not on their lane, trying on"),
                    }
                    pause(&mut intervals).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    fn record(offset: i64, due: Timestamp) -> TopicRecord {
        let key = format!("live {}", due.as_millisecond());
        TopicRecord { offset, key: Bytes::from(key), body: Bytes::new() }
    }

    /// Which records are due at which second.
    async fn order(held: &HeldRecords, records: usize) -> Vec<(i64, u64)> {
        let (since, mut order) = (Instant::now(), Vec::new());
        while order.len() < records {
            let due = held.due().await;
            order.extend(due.iter().map(|record| (record.offset, since.elapsed().as_secs())));
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_runs_ahead_holds_nothing_up_and_its_own_messages_no_longer_than_their_step() {
        let begin: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let (clock, step) = (Clock::fixed(begin), Duration::from_secs(30));
        let held = HeldRecords::default();
        for (offset, due) in [(0, 3600), (1, 10), (2, 30), (3, -5)] {
            held.hold(record(offset, begin + jiff::SignedDuration::from_secs(due)), step, &clock);
        }
        held.hold(TopicRecord { offset: 4, key: Bytes::from("foreign"), body: Bytes::new() }, step, &clock);
        assert_eq!(order(&held, 5).await, [(3, 0), (4, 0), (1, 10), (0, 30), (2, 30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn much_that_is_due_at_once_comes_in_parts() {
        let begin: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let held = HeldRecords::default();
        for offset in 0..600 {
            held.hold(record(offset, begin), Duration::from_secs(1), &Clock::fixed(begin));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let parts = [held.due().await.len(), held.due().await.len(), held.due().await.len()];
        assert_eq!(parts, [256, 256, 88]);
    }
}
