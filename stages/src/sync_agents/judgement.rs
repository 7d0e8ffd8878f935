//! Whether a reading of the group is believed.
//!
//! One reading is no fact: after a change of the service user's role NICE names fewer agents, or none, with status 200.
//! Pure: the agents before, the reading, what stands of earlier ones, and the time go in; what to do comes out.

use std::time::Duration;

use catalog::{GroupStanding, HeldReading};
use jiff::Timestamp;
use model::Agent;
use nice::GroupReading;

/// `[agents] hold_count`, `hold_share` and `hold_for`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HoldRules {
    /// A reading that loses more agents than this, and more than the share, is held.
    pub count: u32,
    /// The share of the active agents that a reading may lose.
    pub share: f64,
    /// Held for so long, it is taken.
    pub hold_for: Duration,
    /// `[agents] sync_interval`: the time between two readings.
    pub interval: Duration,
}

/// Readings are as good as without a gap up to this, or up to [`GAP`] of their intervals.
const SHORT_GAP: Duration = Duration::from_secs(3600);

/// See [`SHORT_GAP`].
const GAP: u32 = 6;

impl HoldRules {
    /// How long nothing may be read until a hold begins anew: what nobody looked at did not stay the same.
    fn longest_gap(&self) -> Duration {
        self.interval.saturating_mul(GAP).max(SHORT_GAP)
    }
}

impl Default for HoldRules {
    fn default() -> Self {
        Self { count: 5, share: 0.2, hold_for: Duration::from_secs(86_400), interval: Duration::from_secs(600) }
    }
}

/// What there is to do with a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The agents follow it.
    Believed,
    /// The agents stay as they are.
    Held(HeldReading),
}

/// A reading beside the agents as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadingComparison {
    pub(super) active: u64,
    pub(super) lost: u64,
    pub(super) hidden: u64,
    /// NICE counts more agents than it names. Its count is a hint: it speaks against a reading that loses somebody.
    pub(super) missing: bool,
    pub(super) no_content: bool,
    pub(super) is_empty: bool,
}

impl ReadingComparison {
    /// Counts who would leave.
    pub(super) fn of(before: &[Agent], reading: &GroupReading) -> Self {
        let named: std::collections::HashSet<_> =
            reading.agents.iter().filter(|member| member.is_active).map(|member| member.agent_id).collect();
        let active = before.iter().filter(|agent| agent.is_active());
        Self {
            active: active.clone().count() as u64,
            lost: active.filter(|agent| !named.contains(&agent.external_id)).count() as u64,
            hidden: reading.hidden,
            missing: reading.missing > 0,
            no_content: reading.no_content,
            is_empty: reading.agents.is_empty(),
        }
    }

    /// Whether it is read a second time before anything is made of it.
    pub(super) fn wants_a_second(&self, standing: &GroupStanding, rules: &HoldRules) -> bool {
        self.is_doubtful(standing, rules) || (self.is_empty && self.active > 0)
    }

    fn is_doubtful(&self, standing: &GroupStanding, rules: &HoldRules) -> bool {
        let loses_many = self.lost > u64::from(rules.count) && self.lost as f64 > rules.share * self.active as f64;
        let is_short = self.missing && self.lost > 0;
        loses_many || is_short || self.hidden > standing.accepted_hidden || (self.no_content && self.active > 0)
    }
}

/// Whether the agents follow a reading. What has been the same at every reading for long enough is believed in the end;
/// one that tells of much more than the one before begins anew, and so does one after a time without readings. A time
/// beyond `now` that stands in the catalog is not believed.
pub(super) fn judge(
    look: &ReadingComparison,
    standing: &GroupStanding,
    rules: &HoldRules,
    now: Timestamp,
) -> Judgement {
    if !look.is_doubtful(standing, rules) {
        return Judgement::Believed;
    }
    let hidden = look.hidden.saturating_sub(standing.accepted_hidden);
    let room = u64::from(rules.count);
    let like_it = standing
        .held
        .filter(|held| look.lost <= held.lost.saturating_add(room) && hidden <= held.hidden.saturating_add(room))
        // A clock that ran ahead when it was read says nothing of a gap.
        .filter(|held| Duration::try_from(now.duration_since(held.at)).unwrap_or_default() <= rules.longest_gap());
    let since = like_it.map_or(now, |held| held.since.min(now));
    let is_over = Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= rules.hold_for);
    match is_over {
        true => Judgement::Believed,
        false => Judgement::Held(HeldReading { since, at: now, lost: look.lost, active: look.active, hidden }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NONE: GroupStanding = GroupStanding { accepted_hidden: 0, held: None };

    fn look(active: u64, lost: u64) -> ReadingComparison {
        ReadingComparison { active, lost, hidden: 0, missing: false, no_content: false, is_empty: active == lost }
    }

    fn now() -> Timestamp {
        "2026-04-01T12:00:00Z".parse().unwrap()
    }

    fn is_held(look: ReadingComparison, standing: GroupStanding) -> bool {
        matches!(judge(&look, &standing, &HoldRules::default(), now()), Judgement::Held(_))
    }

    #[test]
    fn a_reading_that_loses_many_and_a_large_part_at_once_is_held() {
        for (active, lost, held) in [
            (3, 1, false),
            (5, 5, false),
            (6, 6, true),
            (20, 5, false),
            (20, 6, true),
            (100, 20, false),
            (100, 21, true),
            (0, 0, false),
        ] {
            assert_eq!(is_held(look(active, lost), NONE), held, "{lost} of {active}");
        }
    }

    #[test]
    fn hidden_agents_are_held_until_as_many_were_accepted() {
        let hiding = |hidden| ReadingComparison { hidden, ..look(20, 0) };
        assert!(is_held(hiding(1), NONE));
        let accepted = GroupStanding { accepted_hidden: 5, ..NONE };
        assert!(!is_held(hiding(5), accepted) && !is_held(hiding(2), accepted));
        assert!(is_held(hiding(6), accepted));
        let Judgement::Held(held) = judge(&hiding(8), &accepted, &HoldRules::default(), now()) else { panic!() };
        assert_eq!((held.hidden, held.agents()), (3, 3));
    }

    #[test]
    fn an_answer_without_a_body_is_held_where_there_were_agents() {
        let nothing = |active| ReadingComparison { no_content: true, ..look(active, active) };
        assert!(is_held(nothing(1), NONE));
        assert!(!is_held(nothing(0), NONE));
        assert!(!is_held(look(3, 3), NONE), "an empty list of a small group");
        assert!(look(3, 3).wants_a_second(&NONE, &HoldRules::default()));
        assert!(!look(3, 1).wants_a_second(&NONE, &HoldRules::default()));
    }

    #[test]
    fn a_count_above_the_rows_speaks_against_a_reading_that_loses_somebody() {
        let short = |lost| ReadingComparison { missing: true, ..look(20, lost) };
        assert!(is_held(short(1), NONE));
        assert!(!is_held(short(0), NONE), "a count is a hint");
    }

    #[test]
    fn a_hold_begins_anew_after_a_time_without_readings() {
        let held_at = |minutes: i64| {
            let (since, at) = (now() - SignedDuration::from_hours(30), now() - SignedDuration::from_mins(minutes));
            GroupStanding { held: Some(HeldReading { since, at, lost: 12, active: 20, hidden: 0 }), ..NONE }
        };
        assert!(!is_held(look(20, 12), held_at(60)));
        let Judgement::Held(held) = judge(&look(20, 12), &held_at(61), &HoldRules::default(), now()) else { panic!() };
        assert_eq!(held.since, now());
        let slow = HoldRules { interval: Duration::from_secs(3600), ..HoldRules::default() };
        assert_eq!(judge(&look(20, 12), &held_at(360), &slow, now()), Judgement::Believed);
    }

    #[test]
    fn what_is_the_same_for_long_enough_is_believed() {
        let held_since = |hours: i64, lost| {
            let since = now() - SignedDuration::from_hours(hours);
            let held = HeldReading { since, at: now(), lost, active: 20, hidden: 0 };
            GroupStanding { held: Some(held), ..NONE }
        };
        assert!(is_held(look(20, 12), held_since(23, 12)));
        assert!(!is_held(look(20, 12), held_since(24, 12)));
        assert!(!is_held(look(20, 14), held_since(24, 12)), "another one left meanwhile");
        assert!(is_held(look(20, 20), held_since(24, 12)), "it tells of something else now");
        let ahead = held_since(-100, 12);
        let Judgement::Held(held) = judge(&look(20, 12), &ahead, &HoldRules::default(), now()) else { panic!() };
        assert_eq!(held.since, now(), "a clock that ran ahead holds nothing for longer");
    }
}
