//! One slice of the listing: what is missing of it is sent, what only the catalog knows is marked.
//!
//! In: the calls of a slice, each with what became of it. Out: how many there were of each kind, once everything that
//! was sent is on the queue. A crash in between repeats the slice.

use catalog::{ReplayRun, RunState, Tallied};
use jiff::{SignedDuration, Timestamp};
use model::{ContactEvent, Key};
use runtime::task;

use super::{ReplayWorker, progress::ReplayProgress, stop::Stop};
use crate::source::{FoundEvent, compare::CallStatus, found::ReceiptTally, listing::Slice};

/// The work on one slice.
struct SliceWork<'a> {
    replay: &'a ReplayWorker,
    run: &'a ReplayRun,
    progress: &'a mut ReplayProgress,
    tallied: Tallied,
    /// The earliest end of a call that is not yet stored.
    open_since: Option<Timestamp>,
    /// What was sent since the last look at the queue, and how much more may be.
    tally: ReceiptTally,
    lead: u64,
    /// What the catalog has and the dedupe does not know.
    known: Vec<Key>,
}

impl ReplayWorker {
    /// Compares one slice, sends what is missing, and returns when it is on the queue. Says too since when calls of it
    /// are open.
    pub(super) async fn work_through(
        &self,
        run: &ReplayRun,
        slice: &Slice,
        progress: &mut ReplayProgress,
    ) -> Result<(Tallied, Option<Timestamp>), Stop> {
        let (events, expired) = self.events(run, slice).await?;
        let statuses = self.compare.compare(&events).await?;
        let tallied = Tallied {
            listed: events.len() as u64 + expired,
            excluded: expired,
            requests: slice.requests,
            ..Tallied::default()
        };
        let (tally, known) = (ReceiptTally::new(), Vec::new());
        let mut work = SliceWork { replay: self, run, progress, tallied, open_since: None, tally, lead: 0, known };
        for (event, status) in events.into_iter().zip(statuses) {
            work.take(event, status).await?;
        }
        work.finish().await
    }

    /// Whether another source may still tell of it: an older one would only take up room.
    fn is_markable(&self, event: &ContactEvent) -> bool {
        let retention = SignedDuration::try_from(self.retention).unwrap_or(SignedDuration::MAX);
        event.ended_at.is_some_and(|ended_at| self.context.flow.clock.now().duration_since(ended_at) < retention)
    }
}

impl SliceWork<'_> {
    fn publishes(&self) -> bool {
        self.run.state == RunState::Running
    }

    async fn take(&mut self, event: ContactEvent, status: CallStatus) -> Result<(), Stop> {
        if status.needs_a_message() || matches!(status, CallStatus::InFlight { .. }) {
            self.open_since = [self.open_since, event.ended_at].into_iter().flatten().min();
        }
        match status {
            CallStatus::Ready | CallStatus::Incomplete(_) => self.tallied.ready += 1,
            CallStatus::NoRecording => self.tallied.no_recording += 1,
            CallStatus::Dead(_) => self.tallied.dead += 1,
            CallStatus::Excluded(_) => self.tallied.excluded += 1,
            CallStatus::InFlight { enqueued_at, .. } if self.was_missing(&event, enqueued_at) => {
                self.tallied.missing += 1;
                self.tallied.replayed += 1;
            }
            CallStatus::InFlight { .. } => self.tallied.in_flight += 1,
            CallStatus::Missing { marked, .. } => return self.send(event, true, marked).await,
            CallStatus::NotLookedFor => return self.send(event, false, false).await,
        }
        let digest = event.key().digest();
        if self.publishes() && self.replay.is_markable(&event) && !self.replay.processed.contains(&digest) {
            self.known.push(digest);
        }
        Ok(())
    }

    fn was_missing(&self, event: &ContactEvent, enqueued_at: Option<Timestamp>) -> bool {
        let published_since = self.run.planned_at.unwrap_or(self.run.started_at);
        self.progress.was_missing(event, enqueued_at.filter(|_| self.publishes()), published_since)
    }

    /// Sends a call that nobody has in hand, if the run publishes.
    async fn send(&mut self, event: ContactEvent, is_missing: bool, heals: bool) -> Result<(), Stop> {
        // Whose call a row is that cannot be read is not known.
        let is_missing = is_missing && event.agent.is_some();
        match is_missing {
            true => self.tallied.missing += 1,
            false => self.tallied.in_flight += 1,
        }
        if !self.publishes() {
            return Ok(());
        }
        if self.lead == 0 {
            // What is on its way to the queue does not count there yet.
            settled(std::mem::replace(&mut self.tally, ReceiptTally::new())).await?;
            self.lead = self.replay.lead(self.run, self.progress).await?;
        }
        self.lead -= 1;
        self.progress.sending(self.run.kind, &event, is_missing);
        let found = FoundEvent { event, receipt: self.tally.receipt(), heals };
        self.replay.found.send(found).await.map_err(|_closed| Stop::Ended)?;
        self.tallied.replayed += u64::from(is_missing);
        Ok(())
    }

    async fn finish(mut self) -> Result<(Tallied, Option<Timestamp>), Stop> {
        if !self.known.is_empty() {
            let (processed, known) = (self.replay.processed.clone(), self.known);
            self.tallied.marked = task::blocking(move || processed.seed(known)).await??;
        }
        settled(self.tally).await?;
        Ok((self.tallied, self.open_since))
    }
}

/// Waits until everything sent is on the queue.
async fn settled(tally: ReceiptTally) -> Result<(), Stop> {
    match tally.all_settled().await {
        true => Ok(()),
        false => Err(Stop::troubled("a call could not be put on the queue")),
    }
}
