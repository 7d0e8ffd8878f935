//! What is said of something that fails again and again: one line when it begins, one a minute, one when it is over.

use jiff::{SignedDuration, Timestamp};

/// Time between two lines while it goes on.
const SAID_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// What to say of one more failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It is the first one.
    Begins,
    /// It goes on; so many failures since the last line.
    GoesOn {
        /// This one included.
        count: u64,
    },
    /// Nothing: it was said a moment ago.
    Nothing,
}

/// What is said when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// When it began.
    pub since: Timestamp,
    /// The failures of the whole time.
    pub count: u64,
}

/// Something that fails again and again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outage {
    going_on: Option<GoingOn>,
}

#[derive(Debug, Clone, Copy)]
struct GoingOn {
    since: Timestamp,
    said_at: Timestamp,
    failed_at: Timestamp,
    count: u64,
    unsaid: u64,
}

impl Outage {
    /// Notes a failure.
    pub fn failed(&mut self, now: Timestamp) -> Say {
        let Some(going_on) = &mut self.going_on else {
            self.going_on = Some(GoingOn { since: now, said_at: now, failed_at: now, count: 1, unsaid: 0 });
            return Say::Begins;
        };
        going_on.count += 1;
        going_on.unsaid += 1;
        going_on.failed_at = now;
        let quiet = now.duration_since(going_on.said_at);
        // A clock that was set back does not silence it.
        if quiet < SAID_EVERY && !quiet.is_negative() {
            return Say::Nothing;
        }
        going_on.said_at = now;
        Say::GoesOn { count: std::mem::take(&mut going_on.unsaid) }
    }

    /// It works again; none where it did not fail.
    pub fn over(&mut self) -> Option<Over> {
        self.going_on.take().map(|GoingOn { since, count, .. }| Over { since, count })
    }

    /// The same, where the last failure is a minute ago.
    pub fn over_if_quiet(&mut self, now: Timestamp) -> Option<Over> {
        let is_quiet = self.going_on.is_some_and(|going_on| now.duration_since(going_on.failed_at) >= SAID_EVERY);
        is_quiet.then(|| self.over()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn it_is_said_at_the_beginning_once_a_minute_and_at_the_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.over(), None);
        assert_eq!(outage.failed(at(0)), Say::Begins);
        assert!((1..60).all(|second| outage.failed(at(second)) == Say::Nothing));
        assert_eq!(outage.failed(at(60)), Say::GoesOn { count: 60 });
        assert_eq!(outage.failed(at(61)), Say::Nothing);
        assert_eq!(outage.failed(at(125)), Say::GoesOn { count: 2 });
        assert_eq!(outage.failed(at(-100)), Say::GoesOn { count: 1 }, "the clock was set back");
        assert_eq!(outage.over_if_quiet(at(-50)), None);
        assert_eq!(outage.over_if_quiet(at(0)), Some(Over { since: at(0), count: 64 }));
        assert_eq!(outage.failed(at(300)), Say::Begins);
    }
}
