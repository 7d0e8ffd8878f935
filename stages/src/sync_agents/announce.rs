//! What a sync tells the sources and the metrics.

use std::sync::atomic::Ordering;

use catalog::HeldReading;
use jiff::Timestamp;
use model::Agent;
use tracing::warn;

use super::SyncAgents;
use crate::source::roster::Roster;

impl SyncAgents {
    /// Whether somebody is a member of whom the sources do not know: a sync before this one may have failed half way.
    pub(super) fn is_news(&self, agents: &[Agent]) -> bool {
        let roster = self.roster.borrow();
        roster.is_known() && agents.iter().any(|agent| agent.is_active() && !roster.is_active(agent.external_id))
    }

    /// NICE's count is a hint; that it is not met is told when it begins.
    pub(super) fn count_missing(&self, missing: u64) {
        if self.missing.swap(missing, Ordering::Relaxed) == 0 && missing > 0 {
            warn!(missing, "NICE counts more agents in the group than it names; the names are believed");
        }
    }

    pub(super) fn show_hold(&self, held: Option<&HeldReading>) {
        let agents = held.map_or(0, HeldReading::agents);
        self.metrics.agents_held.set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    pub(super) fn show_reading(&self, at: Timestamp) {
        self.metrics.agents_last_sync.set(at.as_millisecond() as f64 / 1e3);
    }

    pub(super) fn announce(&self, agents: &[Agent]) {
        let active = agents.iter().filter(|agent| agent.is_active()).count();
        let gauge = |state: &str, count: usize| {
            self.metrics.agents.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        gauge("active", active);
        gauge("inactive", agents.len() - active);
        Roster::replace(&self.roster, agents);
    }
}
