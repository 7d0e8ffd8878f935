//! All there is: the directory and the calls, with the indexes by which they are asked for.

use std::{
    collections::{BTreeSet, HashMap},
    ops::{Range, RangeInclusive},
};

use crate::{
    call::{Call, CallSpec, Kind, Leg, PlacedCall},
    clock::Millis,
    config::SimConfig,
    day::{self, Planned},
    directory::Directory,
    recording::Recording,
};

/// What the name of a call's second recording ends with.
pub(crate) const SECOND_PART: &str = "-second";

/// The second recording of a call, by its first one.
pub(crate) fn second_part_of(Recording { seed, size }: Recording) -> Recording {
    Recording { seed: seed.wrapping_add(1), size }
}

/// The place of a call, and of a leg in it.
type Position = (usize, usize);

/// The state of the simulated tenant.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) calls: Vec<Call>,
    by_contact: HashMap<i64, (usize, usize)>,
    by_segment: HashMap<String, (usize, usize)>,
    by_playback_id: HashMap<String, usize>,
    by_start: BTreeSet<(Millis, Position)>,
    /// Each instant at which a leg's row changes or may change.
    by_update: BTreeSet<(Millis, Position)>,
    /// The longest time from the start of a leg to the end of its after-call work.
    longest: Millis,
    /// Legs whose end has not been pushed yet, by the end of their after-call work.
    unannounced: BTreeSet<(Millis, i64)>,
}

impl World {
    /// The world of a configuration whose schedule begins at `started_at`.
    pub(crate) fn new(config: &SimConfig, started_at: Millis) -> Self {
        let directory = Directory::new(&config.directory, config.seed);
        let plan = day::plan(config, &directory);
        let mut world = Self {
            directory,
            calls: Vec::with_capacity(plan.len()),
            by_contact: HashMap::new(),
            by_segment: HashMap::new(),
            by_playback_id: HashMap::new(),
            by_start: BTreeSet::new(),
            by_update: BTreeSet::new(),
            longest: 0,
            unannounced: BTreeSet::new(),
        };
        for planned in &plan {
            world.place(config, planned, started_at);
        }
        world
    }

    /// Places a call whose hang-up counts from `now`.
    pub(crate) fn add_call(&mut self, config: &SimConfig, spec: CallSpec, now: Millis) -> PlacedCall {
        self.place(config, &Planned { kind: Kind::Voice, spec }, now)
    }

    fn place(&mut self, config: &SimConfig, planned: &Planned, now: Millis) -> PlacedCall {
        let index = self.calls.len();
        let call = day::place(config, planned, index as u64, now);
        for (position, leg) in call.legs.iter().enumerate() {
            self.by_contact.insert(leg.contact_id, (index, position));
            self.by_segment.insert(leg.segment_id.clone(), (index, position));
            self.by_start.insert((leg.started_at, (index, position)));
            for at in [leg.acw_ended_at(), leg.second_update_at, leg.third_update_at] {
                self.by_update.insert((at, (index, position)));
            }
            self.longest = self.longest.max(leg.acw_ended_at() - leg.started_at);
            if call.kind == Kind::Voice && leg.acw_ended_at() >= now {
                self.unannounced.insert((leg.acw_ended_at(), leg.contact_id));
            }
        }
        self.by_playback_id.insert(call.playback_id.clone(), index);
        let placed = PlacedCall {
            master_contact_id: call.master,
            contact_ids: call.legs.iter().map(|leg| leg.contact_id).collect(),
        };
        self.calls.push(call);
        placed
    }

    /// The leg with a contact id, and its call.
    pub(crate) fn leg(&self, contact_id: i64) -> Option<(&Call, &Leg)> {
        let &(call, leg) = self.by_contact.get(&contact_id)?;
        Some((&self.calls[call], &self.calls[call].legs[leg]))
    }

    /// The leg with a segment id, and its call.
    pub(crate) fn segment(&self, segment_id: &str) -> Option<(&Call, &Leg)> {
        let &(call, leg) = self.by_segment.get(segment_id)?;
        Some((&self.calls[call], &self.calls[call].legs[leg]))
    }

    /// The medium that a signed link names: a segment's or a whole call's.
    pub(crate) fn medium(&self, name: &str) -> Option<(&Call, Recording)> {
        if let Some((call, leg)) = self.segment(name) {
            return Some((call, leg.recording));
        }
        let (name, is_second) = name.strip_suffix(SECOND_PART).map_or((name, false), |name| (name, true));
        let call = &self.calls[*self.by_playback_id.get(name)?];
        Some((call, if is_second { second_part_of(call.recording) } else { call.recording }))
    }

    /// All legs with their calls.
    pub(crate) fn legs(&self) -> impl Iterator<Item = (&Call, &Leg)> {
        self.calls.iter().flat_map(|call| call.legs.iter().map(move |leg| (call, leg)))
    }

    /// The legs that began in a range, in the order of [`legs`](Self::legs).
    pub(crate) fn begun(&self, range: Range<Millis>) -> Vec<(&Call, &Leg)> {
        self.found(begun_in(&self.by_start, range))
    }

    /// The legs that any instant of a range may find between their start and the end of their after-call work, and some more.
    pub(crate) fn running(&self, range: RangeInclusive<Millis>) -> Vec<(&Call, &Leg)> {
        self.begun(range.start().saturating_sub(self.longest)..range.end().saturating_add(1))
    }

    /// The legs whose rows may have changed in a range.
    pub(crate) fn changed(&self, range: RangeInclusive<Millis>) -> Vec<(&Call, &Leg)> {
        self.found(begun_in(&self.by_update, *range.start()..range.end().saturating_add(1)))
    }

    fn found(&self, positions: impl Iterator<Item = Position>) -> Vec<(&Call, &Leg)> {
        let mut positions: Vec<Position> = positions.collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|(call, leg)| (&self.calls[call], &self.calls[call].legs[leg])).collect()
    }

    /// Takes the contact ids of the legs whose after-call work is over and whose end was not pushed yet.
    pub(crate) fn take_unannounced(&mut self, now: Millis) -> Vec<i64> {
        let later = self.unannounced.split_off(&(now + 1, i64::MIN));
        std::mem::replace(&mut self.unannounced, later).into_iter().map(|(_, contact_id)| contact_id).collect()
    }
}

/// The positions of an index under the instants of a range.
fn begun_in(index: &BTreeSet<(Millis, Position)>, range: Range<Millis>) -> impl Iterator<Item = Position> {
    let Range { start, end } = range;
    index.range((start, (0, 0))..(end.max(start), (0, 0))).map(|(_, position)| *position)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Millis = 3_600_000;
    const DAY: Millis = 24 * HOUR;

    fn month() -> World {
        let mut config = SimConfig::default();
        config.day.calls = 6000;
        config.day.over = Duration::from_secs(30 * 24 * 3600);
        World::new(&config, 0)
    }

    #[test]
    fn an_index_finds_what_a_look_at_everything_finds() {
        let world = month();
        let ids = |legs: Vec<(&Call, &Leg)>| legs.iter().map(|(_, leg)| leg.contact_id).collect::<Vec<_>>();
        let all = |wanted: &dyn Fn(&Leg) -> bool| ids(world.legs().filter(|(_, leg)| wanted(leg)).collect());
        for at in [0, DAY, 10 * DAY + HOUR, 31 * DAY] {
            assert_eq!(ids(world.begun(at..at + HOUR)), all(&|leg| (at..at + HOUR).contains(&leg.started_at)));
            let changed = |leg: &Leg| {
                [leg.acw_ended_at(), leg.second_update_at, leg.third_update_at]
                    .iter()
                    .any(|one| (at..=at + HOUR).contains(one))
            };
            assert_eq!(ids(world.changed(at..=at + HOUR)), all(&changed));
            let running = ids(world.running(at..=at));
            let missed = all(&|leg| (leg.started_at..leg.acw_ended_at()).contains(&at));
            assert!(missed.iter().all(|id| running.contains(id)));
        }
        assert_eq!(
            ids(world.begun(Range { start: HOUR, end: 0 })),
            Vec::<i64>::new(),
            "a range the wrong way round is empty"
        );
    }

    #[test]
    fn a_poll_of_the_last_hours_looks_at_no_other_day() {
        let world = month();
        assert!(world.legs().count() > 6000);
        let looked_at = world.changed(15 * DAY..=15 * DAY + 2 * HOUR).len();
        assert!((10..200).contains(&looked_at), "{looked_at}"); // three changes a leg, some 19 legs in two hours
        assert!(world.running(15 * DAY..=15 * DAY).len() < 30);
    }
}
