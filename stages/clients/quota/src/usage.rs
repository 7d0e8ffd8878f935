//! How a budget stands, in numbers and in words.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use model::QuotaClass;

/// How a budget stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// The most requests in a window, by the settings.
    pub limit: u32,
    /// The most that NICE lets us have at present, as far as its refusals tell.
    pub limit_now: u32,
    /// Requests that count at present, of each class that has any.
    pub by_class: Vec<(QuotaClass, u32)>,
    /// Why the limit is where it is; none at full pace.
    pub refused: Option<Refused>,
}

/// What NICE's refusals have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Refusals since all was well.
    pub count: u32,
    /// Since the last one that told something new.
    pub ago: Duration,
    /// For so long nothing is sent, if at all.
    pub closed_for: Option<Duration>,
    /// Until the limit is that of the settings again, if nothing more is refused.
    pub full_pace_in: Duration,
}

impl Usage {
    /// Requests that count at present.
    pub fn used(&self) -> u32 {
        self.by_class.iter().map(|(_, used)| used).sum()
    }

    /// How many requests may leave at this moment.
    pub fn available(&self) -> u32 {
        match self.refused.and_then(|refused| refused.closed_for) {
            Some(_) => 0,
            None => self.limit_now.saturating_sub(self.used()),
        }
    }

    /// One word for metrics: `full_pace`, `paused` or `recovering`.
    pub fn pace(&self) -> &'static str {
        match self.refused {
            None => "full_pace",
            Some(Refused { closed_for: Some(_), .. }) => "paused",
            Some(_) => "recovering",
        }
    }

    /// Every word that [`Usage::pace`] may say.
    pub const PACES: [&'static str; 3] = ["full_pace", "paused", "recovering"];

    /// Why the limit is where it is; times are UTC.
    pub fn in_words(&self, now: Timestamp) -> String {
        let Some(Refused { count, ago, closed_for, full_pace_in }) = self.refused else {
            return "full pace".to_owned();
        };
        let at = now.checked_sub(ago).unwrap_or(now).to_zoned(TimeZone::UTC);
        let requests = if count == 1 { "a request".to_owned() } else { format!("{count} requests") };
        let paused = closed_for.map(|left| format!(", nothing is sent for {}", span(left))).unwrap_or_default();
        format!(
            "NICE refused {requests} at {}{paused}, back at full pace in {}",
            at.strftime("%H:%M"),
            span(full_pace_in)
        )
    }
}

/// A span as a person says it, rounded up.
fn span(span: Duration) -> String {
    match span.as_secs() + u64::from(span.subsec_nanos() > 0) {
        seconds @ 0..=90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
