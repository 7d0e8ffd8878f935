//! The simulator's clock: real time, counted from its start on a monotonic clock, in milliseconds of UTC; or the time
//! of whoever holds the simulation in memory.
//!
//! A test may move it ahead ([`Clock::advance`]) instead of waiting. Instants go out the way NICE writes them and come
//! in the ways it accepts; nothing else is understood, so that a client cannot grow used to leniency.

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use jiff::{Timestamp, civil, tz::TimeZone};

/// Milliseconds since the Unix epoch.
pub(crate) type Millis = i64;

/// The present, as the simulated service sees it.
#[derive(Debug)]
pub(crate) struct Clock {
    source: Source,
    started_at: Millis,
    ahead: AtomicI64,
}

/// Tells the time to a simulation in memory.
pub(crate) type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// Where the time comes from.
enum Source {
    /// The machine's monotonic clock, since the start.
    Real(Instant),
    Given(Now),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real(_) => "Real",
            Self::Given(_) => "Given",
        })
    }
}

impl Clock {
    /// A clock that shows the real time.
    pub(crate) fn new() -> Self {
        let source = Source::Real(Instant::now());
        Self { source, started_at: Timestamp::now().as_millisecond(), ahead: AtomicI64::new(0) }
    }

    /// A clock that shows what `now` says.
    pub(crate) fn given(now: Now) -> Self {
        let started_at = now().as_millisecond();
        Self { source: Source::Given(now), started_at, ahead: AtomicI64::new(0) }
    }

    /// Whether the time is somebody else's, and costs nothing to wait for.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.source, Source::Given(_))
    }

    /// The instant at which the simulation began.
    pub(crate) fn started_at(&self) -> Millis {
        self.started_at
    }

    /// The present instant.
    pub(crate) fn now(&self) -> Millis {
        let now = match &self.source {
            Source::Real(started) => self.started_at + millis(started.elapsed()),
            Source::Given(now) => now().as_millisecond(),
        };
        now + self.ahead.load(Ordering::Relaxed)
    }

    /// Moves the present ahead.
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(millis(by), Ordering::Relaxed);
    }
}

/// A duration in milliseconds, cut at the largest number there is.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// The instant as a `jiff` timestamp.
pub(crate) fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The instant as NICE writes it: UTC, up to three fractional digits, none when they are zero.
pub(crate) fn write(at: Millis) -> String {
    let text = timestamp(at).strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    format!("{}Z", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The instant with whole seconds and three zeros, as the recording platform writes it.
pub(crate) fn write_whole_seconds(at: Millis) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Reads a query's instant: ISO 8601 with a literal `Z`, a date, or a date with hours and minutes.
pub(crate) fn read(text: &str) -> Option<Millis> {
    if let Some(instant) = text.strip_suffix('Z') {
        let at: civil::DateTime = instant.parse().ok()?;
        return instant.contains('T').then(|| to_millis(at)).flatten();
    }
    if text.contains(['T', '+', 'z']) {
        return None;
    }
    match text.len() {
        10 => to_millis(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0)),
        16 => to_millis(civil::DateTime::strptime("%Y-%m-%d %H:%M", text).ok()?),
        _ => None,
    }
}

fn to_millis(at: civil::DateTime) -> Option<Millis> {
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_with_as_many_digits_as_they_have() {
        assert_eq!(write(1_775_060_971_443), "2026-04-01T16:29:31.443Z");
        assert_eq!(write(1_775_060_971_400), "2026-04-01T16:29:31.4Z");
        assert_eq!(write(1_775_060_971_000), "2026-04-01T16:29:31Z");
        assert_eq!(write(1_775_060_970_000), "2026-04-01T16:29:30Z");
        assert_eq!(write(1_775_060_940_000), "2026-04-01T16:29:00Z");
    }

    #[test]
    fn only_the_forms_nice_accepts_are_read() {
        assert_eq!(read("2026-04-01T16:29:31.443Z"), Some(1_775_060_971_443));
        assert_eq!(read("2026-04-01"), Some(1_775_001_600_000));
        assert_eq!(read("2026-04-01 16:29"), Some(1_775_060_940_000));
        for refused in
            ["", "yesterday", "2026-04-01T16:29:31+00:00", "2026-04-01T16:29:31 00:00", "2026-04-01T16:29:31"]
        {
            assert_eq!(read(refused), None, "{refused}");
        }
    }
}
