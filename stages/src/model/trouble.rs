//! What an event has met at one stage again and again: it travels with the message.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flow::System;

/// The failures of one system at one stage since the call last got further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// The stage.
    pub stage: String,
    /// The system.
    pub system: System,
    /// When it failed first.
    pub since: Timestamp,
    /// When it failed last.
    pub at: Timestamp,
    /// How often it failed.
    pub times: u32,
    /// For how long the message waits now, in milliseconds.
    pub delay_millis: u64,
    /// How much of its waits counts against the call, in milliseconds.
    pub charged_millis: u64,
}

impl Trouble {
    /// The first failure.
    pub fn first(stage: &str, system: System, now: Timestamp) -> Self {
        Self { stage: stage.to_owned(), system, since: now, at: now, times: 1, delay_millis: 0, charged_millis: 0 }
    }

    /// Whether a failure at `stage` of `system` is one more of these.
    pub fn is_of(&self, stage: &str, system: System) -> bool {
        self.stage == stage && self.system == system
    }

    /// One more failure. Where it counts against the call, so does the wait before it: as long as was meant, however long
    /// the message lay there.
    #[must_use]
    pub fn again(&self, is_charged: bool, now: Timestamp) -> Self {
        let charged = if is_charged { self.delay_millis } else { 0 };
        Self {
            at: now,
            times: self.times.saturating_add(1),
            delay_millis: 0,
            charged_millis: self.charged_millis.saturating_add(charged),
            ..self.clone()
        }
    }

    /// The same before a wait.
    #[must_use]
    pub fn waiting(self, delay: Duration) -> Self {
        Self { delay_millis: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), ..self }
    }

    /// How much of its waits counts against the call.
    pub fn charged(&self) -> Duration {
        Duration::from_millis(self.charged_millis)
    }
}
