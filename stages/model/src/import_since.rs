//! How far back an installation reaches by itself.

use std::time::Duration;

use jiff::Timestamp;

/// From when on calls are imported by themselves; what ended before comes by a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportSince {
    /// Since this moment.
    At(Timestamp),
    /// This long before the installation.
    Before(Duration),
}

impl ImportSince {
    /// The moment, for an installation that begins at `installed_at`; never a later one.
    pub fn of(self, installed_at: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time.min(installed_at),
            Self::Before(span) => installed_at.checked_sub(span).unwrap_or(Timestamp::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_moment_or_a_span_before_the_installation() {
        let installed_at: Timestamp = "2026-04-01T12:00:00Z".parse().unwrap();
        let before = ImportSince::Before(Duration::from_secs(3600));
        assert_eq!(before.of(installed_at).to_string(), "2026-04-01T11:00:00Z");
        let at = |text: &str| ImportSince::At(text.parse().unwrap()).of(installed_at).to_string();
        assert_eq!(at("2026-03-01T00:00:00+03:00"), "2026-02-28T21:00:00Z");
        assert_eq!(
            at("2027-01-01T00:00:00Z"),
            "2026-04-01T12:00:00Z",
            "nothing is left out for a date that is to come"
        );
    }
}
