//! When an agent was in the group: periods of time, of which only the last may be open.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many periods are kept; an agent who comes and goes more often loses the oldest.
const MOST: usize = 100;

/// One period: `since` belongs to it, `until` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// The first moment.
    pub since: Timestamp,
    /// The moment after its end; none while it lasts.
    pub until: Option<Timestamp>,
}

impl Membership {
    fn is_empty(&self) -> bool {
        self.until.is_some_and(|until| until <= self.since)
    }

    fn ends_after(&self, time: Timestamp) -> bool {
        self.until.is_none_or(|until| until > time)
    }
}

/// An agent's periods in the group, in the order of time. They do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(from = "Vec<Membership>", into = "Vec<Membership>")]
pub struct Memberships(Vec<Membership>);

impl Memberships {
    /// One period that still lasts.
    pub fn since(since: Timestamp) -> Self {
        Self(vec![Membership { since, until: None }])
    }

    /// For an agent of whom only the end of the membership is known, or that there is none: it began long ago.
    pub fn unknown_since(is_active: bool, until: Option<Timestamp>) -> Self {
        match (is_active, until) {
            (true, _) => Self::since(Timestamp::UNIX_EPOCH),
            (false, Some(until)) => vec![Membership { since: Timestamp::UNIX_EPOCH, until: Some(until) }].into(),
            (false, None) => Self::default(),
        }
    }

    /// Brought in line with a row of an earlier version, which changes `is_active` and `member_until` and does not know
    /// periods.
    pub fn agreeing_with(self, is_active: bool, until: Option<Timestamp>) -> Self {
        let mut agreeing = self;
        match (is_active, until) {
            _ if agreeing.is_empty() => return Self::unknown_since(is_active, until),
            _ if agreeing.is_open() == is_active => return agreeing,
            // Back at an unknown moment after it had left.
            (true, _) => agreeing.join(agreeing.until().unwrap_or(Timestamp::UNIX_EPOCH)),
            (false, Some(until)) => agreeing.leave(until),
            (false, None) => return Self::default(),
        }
        agreeing
    }

    /// Notes that the agent is in the group, from `since` on.
    pub fn join(&mut self, since: Timestamp) {
        match self.0.last_mut() {
            Some(last) if last.ends_after(since) || last.until == Some(since) => last.until = None,
            _ => self.0.push(Membership { since, until: None }),
        }
        self.forget_the_oldest();
    }

    /// Notes that the agent left the group.
    pub fn leave(&mut self, at: Timestamp) {
        if let Some(last) = self.0.last_mut().filter(|last| last.until.is_none()) {
            last.until = Some(at);
        }
        self.0.retain(|stretch| !stretch.is_empty());
    }

    /// Repairs what a clock wrote that ran ahead: a period that begins after `now` begins at `unknown`, one that ends
    /// after `now` ends now.
    pub fn not_beyond(self, now: Timestamp, unknown: Timestamp) -> Self {
        let believed = |Membership { since, until }| Membership {
            since: if since > now { unknown.min(now) } else { since },
            until: until.map(|until| until.min(now)),
        };
        self.0.into_iter().map(believed).collect::<Vec<_>>().into()
    }

    /// Whether the agent was in the group at a moment.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.0.iter().any(|stretch| stretch.since <= time && stretch.ends_after(time))
    }

    /// Whether the agent was in the group at some moment from `from` to `to`.
    pub fn meets(&self, from: Timestamp, to: Timestamp) -> bool {
        self.0.iter().any(|stretch| stretch.since <= to && stretch.ends_after(from))
    }

    /// Whether the agent was never in the group.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the agent is in the group.
    pub fn is_open(&self) -> bool {
        self.0.last().is_some_and(|last| last.until.is_none())
    }

    /// When the last period began.
    pub fn last_since(&self) -> Option<Timestamp> {
        self.0.last().map(|last| last.since)
    }

    /// When the last period ended; none while it lasts.
    pub fn until(&self) -> Option<Timestamp> {
        self.0.last().and_then(|last| last.until)
    }

    fn forget_the_oldest(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(MOST));
    }
}

impl From<Vec<Membership>> for Memberships {
    /// Puts them in order, joins those that touch, and removes empty ones.
    fn from(mut stretches: Vec<Membership>) -> Self {
        stretches.retain(|stretch| !stretch.is_empty());
        stretches.sort_by_key(|stretch| stretch.since);
        let mut ordered: Vec<Membership> = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            match ordered.last_mut() {
                Some(last) if last.until.is_none_or(|until| until >= stretch.since) => {
                    last.until = last.until.zip(stretch.until).map(|(one, other)| one.max(other));
                }
                _ => ordered.push(stretch),
            }
        }
        let mut all = Self(ordered);
        all.forget_the_oldest();
        all
    }
}

impl From<Memberships> for Vec<Membership> {
    fn from(memberships: Memberships) -> Self {
        memberships.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn stretch(since: i64, until: impl Into<Option<i64>>) -> Membership {
        Membership { since: at(since), until: until.into().map(at) }
    }

    #[test]
    fn a_re_joiners_gap_is_not_membership() {
        let mut memberships = Memberships::since(at(10));
        memberships.leave(at(20));
        memberships.join(at(30));
        for (time, is_in) in [(9, false), (10, true), (19, true), (20, false), (29, false), (30, true), (99, true)] {
            assert_eq!(memberships.contains(at(time)), is_in, "{time}");
        }
        assert_eq!((memberships.last_since(), memberships.until()), (Some(at(30)), None));
        assert!(memberships.meets(at(15), at(25)) && !memberships.meets(at(21), at(29)));
    }

    #[test]
    fn who_is_back_at_the_next_reading_was_never_away() {
        let mut memberships = Memberships::since(at(10));
        memberships.leave(at(20));
        memberships.join(at(20));
        assert_eq!(memberships, Memberships::since(at(10)));
        memberships.join(at(50));
        assert_eq!(memberships, Memberships::since(at(10)), "who is in it joins no more");
    }

    #[test]
    fn a_clock_that_ran_ahead_is_not_believed() {
        let mut ahead = Memberships::since(at(10));
        ahead.leave(at(5_000));
        ahead.join(at(6_000));
        assert_eq!(ahead.not_beyond(at(100), at(90)), Memberships::since(at(10)));
        assert_eq!(Memberships::since(at(6_000)).not_beyond(at(100), at(90)), Memberships::since(at(90)));
    }

    #[test]
    fn rows_of_a_program_that_knows_no_stretches_are_read() {
        let joined = Memberships::default().agreeing_with(true, None);
        assert_eq!(joined, Memberships::unknown_since(true, None));
        let left = joined.agreeing_with(false, Some(at(50)));
        assert_eq!(left, Memberships::unknown_since(false, Some(at(50))));
        assert!(left.contains(at(49)) && !left.contains(at(50)));
        assert!(left.clone().agreeing_with(true, None).is_open());
        assert_eq!(left.clone().agreeing_with(false, Some(at(50))), left);
        assert!(Memberships::unknown_since(false, None).is_empty());
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut memberships = Memberships::default();
        for round in 0..1_000 {
            memberships.join(at(10 * round));
            memberships.leave(at(10 * round + 5));
        }
        assert_eq!(memberships.0.len(), MOST);
        assert!(memberships.contains(at(9_990)) && !memberships.contains(at(0)));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_in_order_and_apart(pairs in proptest::collection::vec((0_i64..500, 0_i64..60), 0..20)) {
            let read: Vec<_> = pairs
                .iter()
                .map(|(since, length)| stretch(*since, (*length < 50).then_some(since + length)))
                .collect();
            let memberships = Memberships::from(read.clone());
            for pair in memberships.0.windows(2) {
                prop_assert!(pair[0].until.is_some_and(|until| until < pair[1].since), "{:?}", memberships);
            }
            for time in 0..560 {
                let any = read.iter().any(|one| one.since <= at(time) && one.ends_after(at(time)));
                prop_assert_eq!(memberships.contains(at(time)), any);
            }
            let text = serde_json::to_string(&memberships).unwrap();
            prop_assert_eq!(serde_json::from_str::<Memberships>(&text).unwrap(), memberships);
        }
    }
}
