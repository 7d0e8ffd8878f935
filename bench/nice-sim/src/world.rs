//! All there is: the directory and the calls, with the indexes by which they are asked for.

use std::collections::{BTreeSet, HashMap};

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

/// The state of the simulated tenant.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) calls: Vec<Call>,
    by_contact: HashMap<i64, (usize, usize)>,
    by_segment: HashMap<String, (usize, usize)>,
    by_playback_id: HashMap<String, usize>,
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

    /// Takes the contact ids of the legs whose after-call work is over and whose end was not pushed yet.
    pub(crate) fn take_unannounced(&mut self, now: Millis) -> Vec<i64> {
        let later = self.unannounced.split_off(&(now + 1, i64::MIN));
        std::mem::replace(&mut self.unannounced, later).into_iter().map(|(_, contact_id)| contact_id).collect()
    }
}
