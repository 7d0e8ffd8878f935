//! What became of each call that NICE lists: the catalog, the timeline and the dedupe's memory are asked.
//!
//! In: events of a listing. Out: for each a [`CallStatus`]. What stands in the catalog is the truth; of what does not,
//! the timeline says whether it is on its way still. Nothing is changed here.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Fate};
use flow::StageError;
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, ConversationKey, ConversationState, Hop};
use queue::{Backlog, Queue};
use runtime::Clock;
use state::ProcessedLog;

use crate::tenants::Tenants;

/// Calls that one question to the catalog names: a page of NICE's, mostly at once.
const BATCH: usize = 10_000;

/// Calls that one question to the timeline names.
const OPEN_BATCH: usize = 1_000;

/// A call that waits for its turn, or until its recording is likely there, is silent for so long at most: the longest
/// step of a queue, and the time between two words of the timeline on such waits.
const LONGEST_WAIT: Duration = Duration::from_secs(3600 + 600);

/// A call that was put on the queue so long ago is not waiting there any more.
const LONGEST_BACKLOG: Duration = Duration::from_secs(86_400);

/// What a poll that works has come to. A call that is older and was never found is missing.
const POLLED_WITHIN: Duration = Duration::from_secs(2 * 3600);

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStatus {
    /// Its row is ready for analysis.
    Ready,
    /// The same, and it lacks so many recordings that NICE names.
    Incomplete(u32),
    /// NICE did not record it.
    NoRecording,
    /// It was set aside, with this reason.
    Dead(String),
    /// It is not to be imported, for this reason.
    Excluded(String),
    /// It is on its way.
    InFlight {
        /// The last that is known of it.
        last: String,
        /// When it was put on the queue, if nothing came after that.
        enqueued_at: Option<Timestamp>,
    },
    /// It is not in the catalog, and not on its way.
    Missing {
        /// Whether the dedupe remembers it.
        marked: bool,
        /// The last that is known of it.
        last: String,
    },
    /// It is not in the catalog, and the poll has not come to it yet.
    NotLookedFor,
}

impl CallStatus {
    /// Whether nobody has the call in hand.
    pub fn needs_a_message(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NotLookedFor)
    }
}

/// Compares events of one tenant with what is known.
#[derive(Clone)]
pub struct Compare {
    /// How long the tenant's conversations are kept.
    pub tenants: Arc<Tenants>,
    /// The truth, and the timeline.
    pub catalog: Arc<dyn Catalog>,
    /// What this producer's dedupe remembers; none where it is not at hand.
    pub processed: Option<ProcessedLog>,
    /// Whether a poll finds what ended lately.
    pub polls: bool,
    /// Where calls wait.
    pub queue: Arc<dyn Queue>,
    /// Longer than the flow leaves a call without a word.
    pub settle: Duration,
    /// Longer than a call waits in a delay step.
    pub longest_delay: Duration,
    /// The time.
    pub clock: Clock,
}

impl Compare {
    /// One status for each event.
    pub async fn compare(&self, events: &[ContactEvent]) -> Result<Vec<CallStatus>, StageError> {
        let mut statuses = Vec::with_capacity(events.len());
        for batch in events.chunks(BATCH) {
            self.compare_batch(batch, &mut statuses).await?;
        }
        Ok(statuses)
    }

    async fn compare_batch(&self, events: &[ContactEvent], statuses: &mut Vec<CallStatus>) -> Result<(), StageError> {
        let Some(first) = events.first() else { return Ok(()) };
        let retention = self.tenants.get(&first.tenant).await?.retention;
        let now = self.clock.now();
        let keys: Vec<ConversationKey> = events.iter().map(ContactEvent::key).collect();
        let fates = self.catalog.fates(&keys).await?;
        let is_open = |fate: &Fate| matches!(fate, Fate::Unknown | Fate::Row(ConversationState::MetadataSaved));
        let open: Vec<ConversationKey> =
            keys.iter().zip(&fates).filter(|(_, fate)| is_open(fate)).map(|(key, _)| key.clone()).collect();
        // Before the timeline is read: what is marked by now has its hop there.
        let marked: Vec<bool> = open.iter().map(|key| self.is_marked(key)).collect();
        let mut marked = marked.into_iter();
        let (mut hops, mut backlog, mut polled) = (Vec::with_capacity(open.len()), None, None);
        for open in open.chunks(OPEN_BATCH) {
            hops.extend(self.catalog.last_hops(open).await?);
        }
        let mut hops = hops.into_iter();
        if !open.is_empty() {
            backlog = Some(self.queue.backlog().await?);
            if self.polls {
                // No stored time is believed beyond now.
                polled = self.catalog.producer_memory(&first.tenant).await?.poll_watermark.filter(|at| *at <= now);
            }
        }
        for (event, fate) in events.iter().zip(fates) {
            statuses.push(match fate {
                Fate::Row(ConversationState::Ready) => CallStatus::Ready,
                Fate::Incomplete(missing) => CallStatus::Incomplete(missing),
                Fate::Row(ConversationState::NoRecording) => CallStatus::NoRecording,
                Fate::DeadLetter(reason) => CallStatus::Dead(reason),
                Fate::Erased => CallStatus::Excluded("erased".to_owned()),
                Fate::Unknown | Fate::Row(ConversationState::MetadataSaved) => {
                    let (hop, marked) = (hops.next().flatten(), marked.next().unwrap_or_default());
                    let backlog = backlog.unwrap_or_default();
                    match event.ended_at.is_none_or(|ended_at| retention.reaches(ended_at, now)) {
                        true => self.of_open(event, marked, hop, backlog, polled),
                        false => CallStatus::Excluded("beyond_retention".to_owned()),
                    }
                }
            });
        }
        Ok(())
    }

    /// Whether the dedupe remembers it.
    fn is_marked(&self, key: &ConversationKey) -> bool {
        self.processed.as_ref().is_some_and(|processed| processed.contains(&key.digest()))
    }

    /// Of a call that has no final row and no dead letter.
    fn of_open(
        &self,
        event: &ContactEvent,
        marked: bool,
        hop: Option<Hop>,
        backlog: Backlog,
        polled: Option<Timestamp>,
    ) -> CallStatus {
        let now = self.clock.now();
        let Some(hop) = hop else {
            // Marked a moment ago, its first hop may not be written yet.
            let is_young = event.ended_at.is_none_or(|ended_at| !is_older(ended_at, self.settle, now));
            let last = if marked { "found" } else { "never found" }.to_owned();
            // It changed since the watermark, so the poll's next listing has it; unless there is none for hours.
            let is_to_come = |at, ended_at| ended_at >= at && !is_older(ended_at, POLLED_WITHIN, now);
            if !marked && polled.zip(event.ended_at).is_some_and(|(at, ended_at)| is_to_come(at, ended_at)) {
                return CallStatus::NotLookedFor;
            }
            return match marked && is_young {
                true => CallStatus::InFlight { last, enqueued_at: None },
                false => CallStatus::Missing { marked, last },
            };
        };
        if let Some(reason) = excluded(&hop, event) {
            return CallStatus::Excluded(reason);
        }
        let enqueued_at = (hop.stage == "enqueue").then_some(hop.at);
        // Which of the calls on the queue wait there nobody can tell; so a lost one is known a day later at the latest.
        let may_wait = backlog.live + backlog.backfill > 0 && !is_older(hop.at, LONGEST_BACKLOG, now);
        let waits = may_wait && enqueued_at.is_some();
        let quiet = match (hop.stage.as_str(), hop.outcome.as_str()) {
            ("await_recording", "not_ready") | (_, "busy") => self.longest_delay.max(LONGEST_WAIT) + self.settle,
            (_, "not_ready" | "retry") => self.longest_delay + self.settle,
            _ => self.settle,
        };
        let last = match &hop.detail {
            Some(detail) => format!("{} {}: {detail}", hop.stage, hop.outcome),
            None => format!("{} {}", hop.stage, hop.outcome),
        };
        match waits || !is_older(hop.at, quiet, now) {
            true => CallStatus::InFlight { last, enqueued_at },
            false => CallStatus::Missing { marked, last },
        }
    }
}

/// Whether a conversation's last hop says that it is not to be imported. Who was not in the group then may be in it
/// now, and what NICE did not call an answered phone call it now lists as one.
fn excluded(hop: &Hop, event: &ContactEvent) -> Option<String> {
    match (hop.outcome.as_str(), hop.detail.as_deref()) {
        // Of a row that could not be read nothing is known but what NICE said of the contact itself.
        ("done", Some(reason)) if event.agent.is_none() => Some(reason.to_owned()),
        ("done", Some(reason @ ("erased" | "beyond_retention"))) => Some(reason.to_owned()),
        // The letter is gone, and it was not replayed.
        ("dead_letter", reason) => Some(format!("dropped by an operator: {}", reason.unwrap_or("no reason"))),
        _ => None,
    }
}

fn is_older(time: Timestamp, than: Duration, now: Timestamp) -> bool {
    now.duration_since(time) >= SignedDuration::try_from(than).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
