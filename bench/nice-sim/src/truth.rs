//! What an importer must end with: the oracle's side of the story.

use std::{collections::HashMap, ops::Range};

use jiff::Timestamp;

use crate::{
    call::{Call, Kind, Leg},
    clock::{Millis, timestamp},
    config::NotReady,
    fate::{RecordingFate, version_of},
    memory::media::Hashes,
    recording::Recording,
    service::Service,
    world::{SECOND_PART, second_part_of},
};

/// One leg of a call that an agent took.
///
/// What lasts of the faults ([`Faults`](crate::Faults)) is in it; for a leg that has not ended yet it is told by the faults in force now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthLeg {
    /// The leg's own id.
    pub contact_id: i64,
    /// The id that all legs of the call share.
    pub master_contact_id: i64,
    /// Who took it.
    pub agent_id: i64,
    /// The team of the agent when the leg hung up.
    pub team_id: i64,
    /// Whether the agent was an active member of the wanted group when the leg hung up.
    pub in_group: bool,
    /// The same when the leg began.
    pub in_group_at_start: bool,
    /// The same at the reported end. Told by the membership so far where that lies ahead.
    pub in_group_at_end: bool,
    /// When that last changed before the reported end, if it ever did.
    pub last_membership_change: Option<Timestamp>,
    /// When it changed next, if it did.
    pub next_membership_change: Option<Timestamp>,
    /// Start of the contact.
    pub started_at: Timestamp,
    /// The reported end: start and total duration, after-call work included.
    pub ended_at: Timestamp,
    /// When this leg hung up (in the schedule's time: it may lie ahead).
    pub hung_up_at: Timestamp,
    /// When its row is listed among the completed contacts.
    pub listed_at: Timestamp,
    /// When the recording is there, were it recorded.
    pub recording_at: Timestamp,
    /// Who placed the call.
    pub direction: Direction,
    /// The customer's number as NICE writes it.
    pub customer_number: String,
    /// How many legs the call has.
    pub legs: usize,
    /// What an importer of legs ends with; empty where nothing was ever recorded. Of a medium that changed these are the
    /// bytes that were last handed out to the end, and those there are now where none were.
    pub recordings: Vec<TruthRecording>,
    /// The history of each of those, in the same order.
    pub media: Vec<TruthMedium>,
    /// Media playback names a recording of the call for good, and never gives it.
    pub named_in_vain: bool,
}

/// Who placed a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The customer.
    Inbound,
    /// The agent.
    Outbound,
}

/// One medium, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthRecording {
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What became of a medium so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthMedium {
    /// When its link is first given.
    pub available_at: Timestamp,
    /// Nothing tells of it before: media playback does not name it without a link.
    pub unlisted_before: bool,
    /// Every version there was so far, in order; at least one.
    pub versions: Vec<TruthRecording>,
    /// When the second version took the place of the first, if it has.
    pub changed_at: Option<Timestamp>,
    /// Since when it is gone, if it is.
    pub gone_at: Option<Timestamp>,
    /// Which version was last handed out to its end, as its place among the versions.
    pub served: Option<usize>,
    /// When that answer began.
    pub served_at: Option<Timestamp>,
    /// Every version that was ever handed out to its end, as above: the bytes of no other can have been taken.
    pub handed_out: Vec<usize>,
}

/// A medium whose bytes are still to be hashed.
#[derive(Debug)]
pub(crate) struct Medium {
    recording: Recording,
    served: Vec<(u32, Millis)>,
    at: Millis,
    unlisted_before: bool,
    fate: RecordingFate,
}

/// The voice legs of the world that began in a range, or all, in the order of their calls, with the media they must end with
/// still to be hashed.
pub(crate) fn legs(service: &Service, begun: Option<Range<Millis>>, now: Millis) -> Vec<(TruthLeg, Vec<Medium>)> {
    let world = service.world();
    let fates = service.fates();
    let mut changes: HashMap<i64, Vec<Millis>> = HashMap::new();
    let legs = begun.map_or_else(|| world.legs().collect(), |range| world.begun(range));
    (legs.into_iter())
        .filter(|(call, _)| call.kind == Kind::Voice)
        .map(|(call, leg)| {
            let known_at = leg.hung_up_at.min(now);
            let fate = fates.recording(call);
            let ended_at = leg.reported_end();
            let wanted = |at: Millis| world.directory.wanted(leg.agent_id, at);
            let changed = changes.entry(leg.agent_id).or_insert_with(|| world.directory.wanted_changes(leg.agent_id));
            let later = changed.partition_point(|at| *at <= ended_at);
            let truth = TruthLeg {
                contact_id: leg.contact_id,
                master_contact_id: call.master,
                agent_id: leg.agent_id,
                team_id: world.directory.agent(leg.agent_id).map_or(0, |agent| agent.at(known_at).team),
                in_group: wanted(known_at),
                in_group_at_start: wanted(leg.started_at.min(now)),
                in_group_at_end: wanted(ended_at.min(now)),
                last_membership_change: changed[..later].last().copied().map(timestamp),
                next_membership_change: changed.get(later).copied().map(timestamp),
                started_at: timestamp(leg.started_at),
                ended_at: timestamp(ended_at),
                hung_up_at: timestamp(leg.hung_up_at),
                listed_at: timestamp(fates.row(leg).listed_at),
                recording_at: timestamp(fate.at),
                direction: if call.outbound { Direction::Outbound } else { Direction::Inbound },
                customer_number: call.customer.clone(),
                legs: call.legs.len(),
                recordings: Vec::new(),
                media: Vec::new(),
                named_in_vain: call.recorded && !fate.recorded && call.not_ready == NotReady::NoLink,
            };
            (truth, media(service, call, leg, fate))
        })
        .collect()
}

/// The media of a leg: the call's own file and its second part, or the segments of the leg's agent that overlap it.
fn media(service: &Service, call: &Call, leg: &Leg, fate: RecordingFate) -> Vec<Medium> {
    let medium = |recording: Recording, name: &str| Medium {
        recording,
        served: service.media_served.of(name),
        at: fate.at,
        unlisted_before: false,
        fate,
    };
    if !fate.recorded {
        return Vec::new();
    }
    if call.transferred() {
        return (call.legs.iter())
            .filter(|other| other.agent_id == leg.agent_id)
            .filter(|other| other.answered_at() < leg.reported_end() && leg.started_at < other.hung_up_at)
            .map(|other| medium(other.recording, &other.segment_id))
            .collect();
    }
    let second = fate.second.map(|second| Medium {
        at: second.at,
        unlisted_before: second.unlisted_before,
        ..medium(second_part_of(call.recording), &format!("{}{SECOND_PART}", call.playback_id))
    });
    std::iter::once(medium(call.recording, &call.playback_id)).chain(second).collect()
}

/// Generates and hashes the media of each leg.
pub(crate) fn hashed(legs: Vec<(TruthLeg, Vec<Medium>)>, hashes: &Hashes, now: Millis) -> Vec<TruthLeg> {
    let tell = |medium: Medium| {
        let Medium { recording, served, at, unlisted_before, fate } = medium;
        let versions = (0..=fate.version(now)).map(|version| {
            let recording = version_of(recording, version);
            TruthRecording { size: recording.size, sha256: hashes.sha256(recording) }
        });
        TruthMedium {
            available_at: timestamp(at),
            unlisted_before,
            versions: versions.collect(),
            changed_at: fate.changed_at.filter(|at| *at <= now).map(timestamp),
            gone_at: fate.gone_at.filter(|at| *at <= now).map(timestamp),
            served: served.last().map(|(version, _)| *version as usize),
            served_at: served.last().map(|(_, at)| timestamp(*at)),
            handed_out: served.iter().map(|(version, _)| *version as usize).collect(),
        }
    };
    (legs.into_iter())
        .map(|(leg, media)| {
            let media: Vec<TruthMedium> = media.into_iter().map(tell).collect();
            let recordings = media.iter().filter_map(TruthMedium::last_served_or_current).cloned().collect();
            TruthLeg { recordings, media, ..leg }
        })
        .collect()
}

impl TruthMedium {
    /// The bytes that were last handed out to the end, and those there are now where none were.
    fn last_served_or_current(&self) -> Option<&TruthRecording> {
        self.served.and_then(|version| self.versions.get(version)).or(self.versions.last())
    }
}
