//! Repeated failures of an event at one stage. They travel with the message.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::System;

/// How many troubles a message carries; the oldest one gives way.
const MOST_CARRIED: usize = 4;

/// A failure this long after the last one, and after the wait that was meant, begins a new trouble.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// The repeated failures of a call, by stage and system: a short failure of one system does not hide those of another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Troubles(Vec<Trouble>);

impl Troubles {
    /// The failures of `system` at `stage` before `now`, if they are of the same trouble.
    pub fn of(&self, stage: &str, system: System, now: Timestamp) -> Option<&Trouble> {
        self.0.iter().find(|trouble| trouble.is_of(stage, system) && !trouble.is_forgotten(now))
    }

    /// Notes the latest failure.
    pub fn note(&mut self, trouble: Trouble) {
        self.0.retain(|known| !known.is_of(&trouble.stage, trouble.system));
        self.0.push(trouble);
        if self.0.len() > MOST_CARRIED {
            self.0.remove(0);
        }
    }

    /// NICE has given a proper answer: its own failures are over.
    pub fn nice_answered(&mut self) {
        self.0.retain(|trouble| trouble.system != System::Nice);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a later version writes otherwise is passed over: it is no reason to set a message aside.
impl<'de> Deserialize<'de> for Troubles {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = serde_json::Value::deserialize(deserializer)?;
        let each = written.as_array().into_iter().flatten();
        Ok(Self(each.filter_map(|one| serde_json::from_value(one.clone()).ok()).take(MOST_CARRIED).collect()))
    }
}

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

    fn is_forgotten(&self, now: Timestamp) -> bool {
        let meant = SignedDuration::from_millis(i64::try_from(self.delay_millis).unwrap_or(i64::MAX));
        now.duration_since(self.at) > meant.saturating_add(FORGOTTEN_AFTER)
    }

    /// Whether a failure at `stage` of `system` is one more of these.
    fn is_of(&self, stage: &str, system: System) -> bool {
        self.stage == stage && self.system == system
    }

    /// One more failure. Where it counts against the call, the wait before it counts too: the time that was meant, even
    /// if the message waited longer.
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
