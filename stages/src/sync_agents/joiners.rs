//! From when on the calls of joiners count, and how far back the poll goes for them.
//!
//! In: the group as it was known. Out: a time. A crash before the joiner is written repeats both.

use catalog::{CatalogError, ProducerTurns};
use jiff::{SignedDuration, Timestamp};

use super::{KnownGroup, SyncAgents};
use crate::watermark::{HeldBack, Watermark, back, is_beyond};

/// How much further back the poll goes for joiners: our clock and NICE's may differ by so much.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

impl SyncAgents {
    /// From when on the calls of joiners count: since the last reading. Where its time cannot be true, since the one
    /// before this, by the interval.
    pub(super) async fn joiners_since(
        &self,
        turns: &(impl ProducerTurns + ?Sized),
        before: &KnownGroup,
        begun: Timestamp,
    ) -> Result<Timestamp, CatalogError> {
        let read_at = before.read_at;
        let first_held = before.standing.held.map(|held| held.since.min(begun));
        if !before.agents.is_empty() {
            let believed = read_at.filter(|last| !is_beyond(*last, begun)).map(|last| last.min(begun));
            let by_interval = || back(begun, self.rules.interval);
            return Ok(believed.unwrap_or_else(|| by_interval().min(first_held.unwrap_or(begun))));
        }
        // No agent was ever read: the installation's rule holds, however long nothing could be read.
        let known = turns.producer_memory(&self.tenant).await?;
        let seen = [known.worked_since, read_at, first_held].into_iter().flatten().min();
        let mut installed_at = seen.unwrap_or(begun).min(begun);
        if read_at.is_some() {
            // The group was read, and was empty: for as long as a hold lasts that may have been a mistake, before then
            // not.
            installed_at = installed_at.max(back(begun, self.rules.hold_for));
        }
        let since = self.import_since.of(installed_at);
        // After a lost state the poll goes back further, and what it finds is not to be filtered out.
        Ok(known.poll_watermark.map_or(since, |poll| poll.min(since)))
    }
}

/// Sends the poll back to the last reading, for agents have joined since.
pub(super) async fn hold_back(poll: &Watermark, last: Timestamp) -> Result<HeldBack, CatalogError> {
    poll.hold_back(back(last, CLOCK_MARGIN)).await
}
