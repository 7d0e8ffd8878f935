//! What is known of a tenant's group beside its agents: a reading that is held, and what was accepted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How the tenant's group stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStanding {
    /// So many hidden agents NICE told of in the last reading that was believed.
    pub accepted_hidden: u64,
    /// The reading that is held, if one is.
    pub held: Option<HeldReading>,
}

/// A reading of the group that is not believed: the agents stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReading {
    /// Since when every reading was like it.
    pub since: Timestamp,
    /// When the group was last read so.
    pub at: Timestamp,
    /// Active agents that it does not name, or names as deactivated.
    pub lost: u64,
    /// Of so many active ones.
    pub active: u64,
    /// Agents that NICE tells of without naming them, and that were not accepted before.
    pub hidden: u64,
}

impl HeldReading {
    /// How many agents it would take from the group: hidden ones may be among the lost.
    pub fn agents(&self) -> u64 {
        self.lost.max(self.hidden).max(1)
    }
}
